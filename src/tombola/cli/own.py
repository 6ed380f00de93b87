"""Studies of the user's own on the command line: planned, run and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from rich.console import Console

from tombola.cli.arguments import Numbers
from tombola.cli.console import say
from tombola.cli.stop import raise_left
from tombola.errors import StudyError

if TYPE_CHECKING:
    from tombola.lab.deadline import Stop
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.studies.own import OwnStudy
    from tombola.studies.own_file import OwnFile
    from tombola.studies.own_rows import Row


class Runners(TypedDict, total=False):
    """Who runs the jobs: processes of this machine, or the workers of a scheduler."""

    workers: int
    scheduler: str | None
    scheduler_file: Path | None


def is_own(name: str) -> bool:
    """Whether a name given for a study is a file of the user's own."""
    from tombola.studies.catalogue import STUDIES

    if name.endswith((".py", ".toml")):
        return True
    return Path(name).is_file() and all(name != study.name for study in STUDIES)


def own_paths(
    names: Sequence[str], everything: bool = False, scale: str | None = None, numbers: Numbers | None = None
) -> list[Path]:
    """The files of the user's own among the names; none if all are studies of the paper.

    Raises :class:`~tombola.errors.StudyError` where both are named, or a scale, which own studies have not.
    """
    own = [name for name in names if is_own(name)]
    if not own:
        return []
    if everything or len(own) < len(names):
        raise StudyError(f"{own[0]!r} is a file of your own; name it by itself, without studies of the paper")
    if scale or (numbers and numbers.given()):
        raise StudyError(f"scales are of the paper's studies; write such numbers into {own[0]}")
    return [Path(name) for name in own]


def own_work(paths: Sequence[Path]) -> tuple[list[OwnFile], list[tuple[OwnStudy, list[Row]]]]:
    """The files of the user's own, and their studies with everything that they measure."""
    from tombola.studies.own_file import read_all_own
    from tombola.studies.own_rows import own_rows

    files = read_all_own(paths)
    return files, [(study, own_rows(study)) for file in files for study in file.studies]


def run_own(
    paths: Sequence[Path],
    store: Path | None,
    runners: Runners,
    settings: Settings,
    stop: Stop,
    recompute: Sequence[str] = (),
) -> None:
    """Compute whatever is missing, and print the tables.

    stop: when work ends. recompute: names of functions and networks whose results, and all made from them,
    are removed first.
    """
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.lab.user_code import put_file

    files, rows = own_work(paths)
    lab = Lab(store, settings=settings, **runners)
    code = tuple(put_file(lab.store, path) for file in files for path in file.code)
    lab.settings = replace(settings, files=code)
    console = Console()
    say(console, f"{', '.join(study.name for study, _ in rows)}, store {lab.store.root}")
    jobs = [job for _, some in rows for row in some for job in row.jobs]
    with Bar(console, lab.store) as bar:
        outcome = lab.run(jobs, progress=bar, stop_after=stop, recompute=recompute)
    _print_tables(lab, rows)
    raise_left(lab.store, stop, outcome)
    outcome.raise_failures()


def report_own(paths: Sequence[Path], out: Path, lab: Lab) -> None:
    """Print the tables of what there is, and write their numbers as CSV."""
    from tombola.atomic import write_whole
    from tombola.lab.staleness import warn_stale
    from tombola.report.own import own_csv
    from tombola.studies.own_cells import own_cells

    _, rows = own_work(paths)
    warn_stale(lab.store, [job for _, some in rows for row in some for job in row.jobs], {})
    _print_tables(lab, rows)
    for study, some in rows:
        path = out / f"{study.name}.csv"
        write_whole(path, own_csv(own_cells(lab, some)).encode(), make_folder=True)
        say(Console(), f"numbers: {path.absolute()}")


def _print_tables(lab: Lab, rows: Sequence[tuple[OwnStudy, list[Row]]]) -> None:
    from tombola.report.own import own_table
    from tombola.studies.own_cells import own_cells

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room
    for study, some in rows:
        console.print(own_table(study.name, own_cells(lab, some)))
