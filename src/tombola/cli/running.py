"""``tombola run``: studies of the paper, and the user's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import tyro
from rich.console import Console

from tombola.cli.arguments import (
    CheckpointEvery,
    Device,
    HungAfter,
    Mode,
    Names,
    Numbers,
    Scale,
    ScaleNumbers,
    Store,
    Threads,
    Workers,
)
from tombola.cli.saying import say
from tombola.cli.scales import PAPER, asked_scale, asked_studies
from tombola.errors import StudyError

if TYPE_CHECKING:
    from tombola.lab.execute import Settings
    from tombola.studies.own import OwnStudy, Row
    from tombola.studies.own_file import OwnFile


class Runners(TypedDict, total=False):
    """Who runs the jobs: processes of this machine, or the workers of a scheduler."""

    workers: int
    scheduler: str | None
    scheduler_file: Path | None


def run(
    names: Names = (),
    all: Annotated[
        bool, tyro.conf.arg(help="All 46 of the paper, and the figures for claims that none of them holds.")
    ] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    workers: Workers = None,
    device: Device = "auto",
    mode: Mode = "default",
    slots: Annotated[int | None, tyro.conf.arg(help="Jobs at once on each GPU.")] = None,
    threads: Threads = 1,
    checkpoint_every: CheckpointEvery = 60.0,
    hung_after: HungAfter = 7200.0,
    keep_going: Annotated[bool, tyro.conf.arg(help="Leave out studies whose data cannot be loaded.")] = False,
    scheduler: Annotated[
        str | None, tyro.conf.arg(help="Address of a Dask scheduler whose workers share the store.")
    ] = None,
    scheduler_file: Annotated[
        Path | None, tyro.conf.arg(help="File in which such a scheduler wrote its address.")
    ] = None,
) -> None:
    """Compute whatever is missing of studies; a name may be a file of your own, .py or .toml."""
    from tombola.lab.engine import available_cores
    from tombola.lab.execute import Settings

    # Workers inherit it: a note on every job would bury what is said here.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")
    settings = Settings(
        device=device, mode=mode, slots=slots, threads=threads, checkpoint_every=checkpoint_every,
        hung_after=hung_after,
    )  # fmt: skip
    runners: Runners = {"scheduler": scheduler, "scheduler_file": scheduler_file}
    if scheduler is None and scheduler_file is None:
        runners = {"workers": available_cores() if workers is None else workers}
    elif workers is not None:
        runners["workers"] = workers  # refused, with both names
    own = [name for name in names if is_own(name)]
    if not own:
        _run_paper(names, all, scale, numbers, store, runners, settings, keep_going)
        return
    if all or len(own) < len(names):
        raise StudyError(f"{own[0]!r} is a file of your own; run it by itself, without studies of the paper")
    if scale or numbers.given():
        raise StudyError(f"scales are of the paper's studies; write such numbers into {own[0]}")
    _run_own([Path(name) for name in own], store, runners, settings)


def _run_paper(
    names: tuple[str, ...],
    everything: bool,
    scale: str | None,
    numbers: Numbers,
    store: Path | None,
    runners: Runners,
    settings: Settings,
    keep_going: bool,
) -> None:
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.studies.asked import remember
    from tombola.studies.catalogue import STUDIES
    from tombola.studies.running import done, run_studies
    from tombola.studies.work import Work

    asked = asked_studies(names, everything, STUDIES)
    work = Work(asked_scale(scale, numbers))
    for study in asked:
        study.entries(work)  # refuses what the scale does not fit before a store is made
        study.searched(work)
    lab = Lab(store, settings=settings, **runners)
    console = Console()
    say(console, f"{len(asked)} studies, {work.scale}, store {lab.store.root}")
    with Bar(console, lab.store) as bar:
        ran = run_studies(lab, asked, work, keep_going=keep_going, progress=bar)
    remember(lab.store, scale or PAPER, numbers.given())
    for study in asked:
        skipped = ran.skipped.get(study.name)
        say(console, f"{study.name}: skipped, {skipped}" if skipped else str(done(study, work, lab)))
    ran.outcome.raise_failures()
    say(console, "tombola report makes a page of what the store has, tombola claims judges the paper by it")


def _run_own(paths: Sequence[Path], store: Path | None, runners: Runners, settings: Settings) -> None:
    from tombola.lab.lab import Lab
    from tombola.lab.own_files import put_file
    from tombola.lab.progress import Bar
    from tombola.report.own import own_table
    from tombola.studies.own import own_cells

    files, rows = own_work(paths)
    lab = Lab(store, settings=settings, **runners)
    code = tuple(put_file(lab.store, path) for file in files for path in file.code)
    lab.settings = replace(settings, files=code)
    console = Console()
    say(console, f"{', '.join(study.name for study, _ in rows)}, store {lab.store.root}")
    with Bar(console, lab.store) as bar:
        outcome = lab.run([job for _, some in rows for row in some for job in row.jobs], progress=bar)
    if not console.is_terminal:
        console.width = 200  # a file has room
    for study, some in rows:
        console.print(own_table(study.name, own_cells(lab, some)))
    outcome.raise_failures()


def is_own(name: str) -> bool:
    """Whether a name given for a study is a file of the user's own."""
    return name.endswith((".py", ".toml")) or Path(name).is_file()


def own_work(paths: Sequence[Path]) -> tuple[list[OwnFile], list[tuple[OwnStudy, list[Row]]]]:
    """The files of the user's own, and their studies with everything that they measure."""
    from tombola.studies.own import own_rows
    from tombola.studies.own_file import read_own

    files = [read_own(path) for path in paths]
    return files, [(study, own_rows(study)) for file in files for study in file.studies]
