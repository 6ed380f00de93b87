"""Progress of a run of jobs: a live display on a terminal, and now and then a plain line elsewhere.

:class:`Bar` counts the jobs of a command; :class:`RoundTable` shows the rounds of one chain. Both are passed
to :meth:`Lab.run <tombola.lab.lab.Lab.run>` as its progress. Once a second they look at what the trainings of
the store report of themselves (:mod:`tombola.lab.training_progress`), in whatever process these run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from tombola.errors import TombolaError
from tombola.lab.driver import Progress
from tombola.lab.job import Job
from tombola.lab.store import Store, write_table
from tombola.lab.training_progress import TrainingProgress, trainings_in_progress
from tombola.table.number import many
from tombola.training.run import Epoch
from tombola.untrusted import OTHER_FORM, printable

# Seconds between looks at the trainings of a store.
_LOOK = 1.0
# Seconds between lines where there is no terminal: after a job is done, and where none is.
_QUIET, _QUIET_LONG = 15.0, 300.0
# Trainings that are shown one by one.
_MOST = 12

Trainings = Mapping[str, TrainingProgress]
"""Trainings in progress by the names of their jobs."""


class Estimate(Protocol):
    """Says how long a run will take once its first steps are taken; None before, and where it was said."""

    def from_first_steps(self, trainings: Trainings) -> str | None: ...


class _Looks:
    """Calls a function once a second in a thread of its own, as long as a block lasts."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="tombola-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _look_on(self) -> None:
        while not self._over.wait(_LOOK):
            with suppress(TombolaError, OSError, *OTHER_FORM):  # a display never ends the work
                self._look()


class _Trainings(RichProgress):
    """The bar, and below it a line for each training in progress and each job that is waited for."""

    trainings: Trainings = MappingProxyType({})
    waits: Mapping[str, str] = MappingProxyType({})

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for lines in (
            [f"{training.function} {name[:12]}  {training}" for name, training in self.trainings.items()],
            list(self.waits.values()),
        ):
            yield from (Text(f"  {line}") for line in lines[:_MOST])
            if len(lines) > _MOST:
                yield Text(f"  and {len(lines) - _MOST} more")


def _wait(job: Job, holder: str) -> str:
    """That another process computes a job, in words."""
    return printable(f"waiting for {holder}, which computes job {job.name[:12]} ({job.declaration.name})")


class Bar(Progress):
    """Shows how many jobs are done. Use as a context manager around the run.

    store: its trainings in progress are shown, on a terminal one by one.
    estimate: asked once the first steps are taken, for a line on how long all of it will take.
    """

    def __init__(
        self, console: Console, store: Store | None = None, estimate: Estimate | None = None
    ) -> None:
        self._console, self._store, self._estimate = console, store, estimate
        self._missing = self._done = self._told = 0
        self._printed = time.monotonic()
        # Waits are told from a thread of Dask's, and a look may tell a line, too.
        self._lock = threading.RLock()
        self._waits: dict[str, str] = {}
        self._holders: set[str] = set()
        self._looks = _Looks(self._look)
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
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Bar:
        self._bar.start()
        self._looks.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looks.stop()
        self._bar.trainings, self._bar.waits = {}, {}
        self._bar.stop()
        if self._done > self._told:
            self._tell()

    def _look(self) -> None:
        """Looks at what trainings report, for the bar, the estimate, and a line where no job is done."""
        if self._store is None:
            return
        trainings = trainings_in_progress(self._store)
        self._bar.trainings = trainings
        if self._estimate is not None and (line := self._estimate.from_first_steps(trainings)) is not None:
            self._console.print(Text(line), soft_wrap=True)
        if time.monotonic() - self._printed > _QUIET_LONG:
            self._tell(trainings)

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
        with self._lock:
            self._done += 1
            if failed is not None:
                title = f"job {job.name[:12]} ({job.declaration.name}) failed:"
                self._console.print(Text.assemble((title, "red"), " ", failed), soft_wrap=True)
            self.waiting(job, None)
            self._bar.update(self._task, description=job.declaration.name, advance=1)
            if time.monotonic() - self._printed > _QUIET:
                self._tell()

    def waiting(self, job: Job, holder: str | None) -> None:
        with self._lock:
            waits = {name: line for name, line in self._waits.items() if name != job.name}
            if holder is not None:
                waits[job.name] = _wait(job, holder)
                # One line for all jobs of a process: another driver may have thousands.
                if not self._console.is_terminal and holder not in self._holders:
                    self._console.print(Text(waits[job.name]), soft_wrap=True)
                self._holders.add(holder)
            self._waits = self._bar.waits = waits

    def _tell(self, trainings: Trainings | None = None) -> None:
        """A line with the count so far, where there is no bar."""
        if self._console.is_terminal:
            return
        with self._lock:
            self._printed, self._told = time.monotonic(), self._done
            line = f"{self._done} of {many(self._missing, 'job')} done"
            if trainings:
                name, training = next(iter(trainings.items()))
                more = f" (and {len(trainings) - 1} more)" if len(trainings) > 1 else ""
                line += f"; {training.function} {name[:12]} at {training}{more}"
            self._console.print(Text(line), soft_wrap=True)


# Seconds between lines on a round under way where there is no terminal.
_QUIET_ROUNDS = 30.0
# Provenance that must be equal for rounds of one chain to be comparable to the bit.
_KIND = ("device", "hardware", "precision", "threads", "torch")
_COLUMNS = ("round", "sparsity", "accuracy", "best", "seconds", "job")


class RoundTable(Progress):
    """Shows one row a round; on a terminal also where the current round is. Use as a context manager.

    store, estimate: as for :class:`Bar`.
    """

    def __init__(
        self, console: Console, rounds: int, store: Store | None = None, estimate: Estimate | None = None
    ) -> None:
        self._console, self._store, self._estimate = console, store, estimate
        self._rounds = rounds
        self._job: Job | None = None
        self._current = ""
        self._looks = _Looks(self._look)
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
        self._looks.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looks.stop()
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

    def started(self, job: Job) -> None:
        self._job = job

    def epoch(self, job: Job, row: Epoch, epochs: float) -> None:
        self._show(
            f"{job.declaration.name}: epoch {row.epoch:.6g} of {epochs:.6g}, "
            f"test accuracy {row.test_accuracy:.2f}%, {row.seconds:.1f} s an epoch"
        )

    def waiting(self, job: Job, holder: str | None) -> None:
        if holder is not None:
            self._printed = -_QUIET_ROUNDS  # told at once
            self._show(_wait(job, holder))

    def _look(self) -> None:
        """Shows where the current training is within its epoch, and the estimate once there is one."""
        if self._store is None or self._job is None:
            return
        trainings = trainings_in_progress(self._store)
        if self._estimate is not None and (line := self._estimate.from_first_steps(trainings)) is not None:
            self._console.print(Text(line), soft_wrap=True)
        training = trainings.get(self._job.name)
        if training is not None:
            measured = [point.test_accuracy for point in training.curve]
            accuracy = f", test accuracy {measured[-1]:.2f}%" if measured else ""
            self._show(f"{training.function}: {training}{accuracy}")

    def _show(self, what: str) -> None:
        """Shows what the current round does; without a terminal in a line, now and then."""
        self._current = f"round {len(self._rows)} of {self._rounds}, {what}"
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
