"""Progress of a run of jobs: a live display on a terminal, and now and then a plain line elsewhere.

:class:`Bar` counts the jobs of a command; :class:`RoundTable` shows the rounds of one chain. Both are passed
to :meth:`Lab.run <tombola.lab.lab.Lab.run>` as its progress.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from tombola.lab.driver import Progress
from tombola.lab.job import Job
from tombola.lab.store import Store, write_table
from tombola.lab.training_progress import trainings_in_progress
from tombola.table.number import many
from tombola.training.run import Epoch

# Seconds between lines where there is no terminal.
_QUIET = 15.0
# Trainings that are shown one by one.
_MOST = 12


class _Trainings(RichProgress):
    """The bar, and below it a line for each training in progress."""

    store: Store | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.store is None:
            return
        trainings = trainings_in_progress(self.store)
        for name, training in list(trainings.items())[:_MOST]:
            left = timedelta(seconds=round(training.left))
            epochs = f"epoch {training.epoch:.6g} of {training.epochs:.6g}"
            yield Text(f"  {training.function} {name[:12]}  {epochs}, left {left}")
        if len(trainings) > _MOST:
            yield Text(f"  and {len(trainings) - _MOST} more")


class Bar(Progress):
    """Shows how many jobs are done. Use as a context manager around the run.

    store: on a terminal its trainings in progress are shown one by one.
    """

    def __init__(self, console: Console, store: Store | None = None) -> None:
        self._console = console
        self._missing = self._done = self._told = 0
        self._printed = time.monotonic()
        self._bar = _Trainings(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs, elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar.store = store
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._done > self._told:
            self._tell()

    def begin(self, found: int, missing: int) -> None:
        # Searches ask for more once they have answers.
        again, self._missing = self._missing > 0, self._done + missing
        self._bar.update(self._task, total=self._missing)
        if again:
            return
        if not missing:
            there = "the job was" if found == 1 else f"all {found} jobs were"
            self._console.print(f"{there} there already; nothing to compute")
        elif found:
            there = "1 job was" if found == 1 else f"{found} jobs were"
            self._console.print(f"{there} there already, {missing} to compute")
        else:
            self._console.print(f"{many(missing, 'job')} to compute")

    def removed(self, results: int, made_with: Sequence[str]) -> None:
        names = " or ".join(made_with)
        if not results:
            self._console.print(f"nothing to remove: no results were made with {names}", soft_wrap=True)
            return
        some = f"{results} result{'s' * (results != 1)}"
        self._console.print(
            f"removed {some}, made with {names} or from such; if this run is interrupted, go on without "
            "--recompute",
            soft_wrap=True,
        )

    def done(self, job: Job, failed: str | None) -> None:
        self._done += 1
        if failed is not None:
            title = f"job {job.name[:12]} ({job.declaration.name}) failed:"
            self._console.print(Text.assemble((title, "red"), " ", failed), soft_wrap=True)
        self._bar.update(self._task, description=job.declaration.name, advance=1)
        if time.monotonic() - self._printed > _QUIET:
            self._tell()

    def _tell(self) -> None:
        """A line with the count so far, where there is no bar."""
        if not self._console.is_terminal:
            self._printed, self._told = time.monotonic(), self._done
            self._console.print(f"{self._done} of {many(self._missing, 'job')} done")


# Seconds between lines on a round under way where there is no terminal.
_QUIET_ROUNDS = 30.0
# Provenance that must be equal for rounds of one chain to be comparable to the bit.
_KIND = ("device", "hardware", "precision", "threads", "torch")
_COLUMNS = ("round", "sparsity", "accuracy", "best", "seconds", "job")


class RoundTable(Progress):
    """Shows one row a round; on a terminal also the epochs of the current round. Use as a context manager."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self._current = ""
        self._printed = time.monotonic()
        self._nonfinite = False
        self._rows: list[dict[str, Any]] = []
        self._ran_on: dict[str, list[int]] = {}
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
        self._current = ""
        self._refresh()
        if self._live is not None:
            self._live.stop()
        if self._rows:
            self._console.print(
                "underlined (+): winning, at least as accurate as dense; *: failed, at chance"
                + ("; !: non-finite weights were pruned first" if self._nonfinite else ""),
                soft_wrap=True,
            )
        if len(self._ran_on) > 1:
            parts = [f"{_ranges(rounds)} on {kind}" for kind, rounds in self._ran_on.items()]
            self._console.print(
                "rounds are of different kinds: " + "; ".join(parts), highlight=False, soft_wrap=True
            )

    def epoch(self, job: Job, row: Epoch, epochs: float) -> None:
        self._current = (
            f"round {len(self._rows)} of {self._rounds}, {job.declaration.name}: "
            f"epoch {row.epoch:.6g} of {epochs:.6g}, test accuracy {row.test_accuracy:.2f}%, "
            f"{row.seconds:.1f} s an epoch"
        )
        self._refresh()
        if self._live is None and time.monotonic() - self._printed > _QUIET_ROUNDS:
            self._printed = time.monotonic()
            self._console.print(self._current, highlight=False)

    def add(
        self, name: str, numbers: Mapping[str, Any], provenance: Mapping[str, Any], *, computed: bool
    ) -> None:
        """Adds a finished round: its job's name, numbers and provenance."""
        accuracy = float(numbers["accuracy"])
        dense = self._rows[0] if self._rows else None
        failed = numbers["failed"] or (dense is not None and dense["failed"])
        winning = dense is not None and not failed and accuracy >= dense["accuracy"]
        marks = ("*" if numbers["failed"] else "") + ("!" if numbers["nonfinite_at_pruning"] else "")
        self._nonfinite |= bool(numbers["nonfinite_at_pruning"])
        kind = ", ".join(str(provenance[key]) for key in _KIND if provenance.get(key) is not None)
        self._ran_on.setdefault(kind, []).append(numbers["round"])
        columns = ("round", "sparsity", "accuracy", "best_accuracy", "failed", "diverged")
        self._rows.append({key: numbers[key] for key in columns} | {"winning": winning, "job": name})
        seconds = f"{provenance['seconds']:.1f}" if computed else "stored"
        cells = (
            str(numbers["round"]),
            f"{100 * numbers['sparsity']:.2f}%",
            f"{accuracy:.2f}%{marks}",
            f"{numbers['best_accuracy']:.2f}%",
            seconds,
            name[:12],
        )
        if self._live is None:
            mark = "+" if winning else ""
            self._console.print(" ".join((*cells[:2], cells[2] + mark, *cells[3:])), highlight=False)
        marked = Text(cells[2], style="underline" if winning else "")
        self._table.add_row(*cells[:2], marked, *cells[3:])
        self._current = ""
        self._refresh()

    @property
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rounds so far, by the columns of their CSV."""
        return self._rows

    def write(self, path: Path) -> None:
        """Writes the rounds so far as CSV."""
        write_table(path, self._rows)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(Group(self._table, Text(self._current)), refresh=True)


def _ranges(rounds: list[int]) -> str:
    """Rounds as text: consecutive ones by the first and the last, others one by one."""
    if len(rounds) > 2 and rounds == list(range(rounds[0], rounds[-1] + 1)):
        return f"{rounds[0]} to {rounds[-1]}"
    return ", ".join(map(str, rounds))
