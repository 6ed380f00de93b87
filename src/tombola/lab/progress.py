"""Progress of a run of jobs: a live bar on a terminal, and now and then a plain line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from types import TracebackType

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from tombola.lab.engine import Progress
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.under_way import under_way

# Seconds between lines where there is no terminal.
_QUIET = 15.0
_MOST = 12
"""Trainings that are shown one by one."""


class _Trainings(RichProgress):
    """The bar, and below it a line for each training under way."""

    store: Store | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.store is None:
            return
        trainings = under_way(self.store)
        for name, each in list(trainings.items())[:_MOST]:
            left = timedelta(seconds=round(each.left))
            yield Text(f"  {each.function} {name[:12]}  epoch {each.epoch} of {each.epochs}, left {left}")
        if len(trainings) > _MOST:
            yield Text(f"  and {len(trainings) - _MOST} more")


class Bar(Progress):
    """Shows how many jobs are done. Use as a context manager around the run.

    store: whose trainings under way are shown one by one, on a terminal.
    """

    def __init__(self, console: Console, store: Store | None = None) -> None:
        self._console = console
        self._missing = self._done = self._failed = 0
        self._said = time.monotonic()
        self._bar = _Trainings(
            TextColumn("[bold]{task.description}"),
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

    def begin(self, found: int, missing: int) -> None:
        # Searches ask for more once they have answers.
        again, self._missing = self._missing > 0, self._done + missing
        self._bar.update(self._task, total=self._missing)
        if again:
            return
        if not missing:
            self._console.print(f"all {found} jobs were there already; nothing to compute")
        elif found:
            self._console.print(f"{found} jobs were there already, {missing} to compute")
        else:
            self._console.print(f"{missing} jobs to compute")

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
            self._failed += 1
            what = f"job {job.name[:12]} ({job.declaration.name}) failed:"
            self._console.print(Text.assemble((what, "red"), " ", failed), soft_wrap=True)
        self._bar.update(self._task, description=job.declaration.name, advance=1)
        if not self._console.is_terminal and time.monotonic() - self._said > _QUIET:
            self._said = time.monotonic()
            self._console.print(f"{self._done} of {self._missing} jobs done")
