"""The rounds of a pruning chain as a table that grows while the chain runs."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tombola.lab.engine import Progress
from tombola.lab.job import Job
from tombola.training.history import Epoch

_COLUMNS = ("round", "sparsity", "accuracy", "best", "seconds", "job")


class RoundTable(Progress):
    """One row a round; on a terminal also the epochs of the round under way. Use as a context manager."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._round = 0
        self._dense: float | None = None
        self._under_way = ""
        self._table = Table(title_justify="left", caption_justify="left")
        for column in _COLUMNS:
            self._table.add_column(column, justify="left" if column == "job" else "right")
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        if self._live is None:
            console.print("round sparsity accuracy best seconds job")

    def __enter__(self) -> RoundTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._under_way = ""
        self._refresh()
        if self._live is not None:
            self._live.stop()
        if self._dense is not None:
            self._console.print(
                "underlined (+): winning, at least as accurate as dense; *: failed, at chance"
            )

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        self._under_way = (
            f"round {self._round} of {self._rounds}, {job.declaration.name}: epoch {row.epoch} of {epochs}, "
            f"test accuracy {row.test_accuracy:.2f}%, {row.seconds:.1f} s an epoch"
        )
        self._refresh()

    def add(
        self, name: str, numbers: Mapping[str, Any], provenance: Mapping[str, Any], *, computed: bool
    ) -> None:
        """Add a finished round: its job's name, numbers and provenance."""
        accuracy = float(numbers["accuracy"])
        winning = self._dense is not None and accuracy >= self._dense
        if self._dense is None:
            self._dense = accuracy
        star = "*" if numbers["failed"] else ""
        seconds = f"{provenance['seconds']:.1f}" if computed else "stored"
        cells = (
            str(numbers["round"]),
            f"{100 * numbers['sparsity']:.2f}%",
            f"{accuracy:.2f}%{star}",
            f"{numbers['best_accuracy']:.2f}%",
            seconds,
            name[:12],
        )
        if self._live is None:
            mark = "+" if winning else ""
            self._console.print(" ".join((*cells[:2], cells[2] + mark, *cells[3:])), highlight=False)
        marked = Text(cells[2], style="underline" if winning else "")
        self._table.add_row(*cells[:2], marked, *cells[3:])
        self._round += 1
        self._under_way = ""
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(Group(self._table, Text(self._under_way)), refresh=True)
