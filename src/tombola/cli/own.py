"""Experiments of the user's own on the command line: planned, run and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from tombola.cli.arguments import Numbers
from tombola.cli.console import (
    InertConsole,
    check_writable,
    progress_console,
    say,
    table_console,
    write_json,
)
from tombola.cli.scales import existing_store
from tombola.cli.stop import raise_left
from tombola.cli.track import begin_tracking
from tombola.errors import ExperimentError
from tombola.untrusted import printable

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.experiments.from_file import ExperimentFile
    from tombola.lab.deadline import Stop
    from tombola.lab.driver import Outcome
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.tracker import Tracker


class Runners(TypedDict, total=False):
    """Who runs the jobs: processes of this machine, or the workers of a scheduler."""

    workers: int
    scheduler: str | None
    scheduler_file: Path | None


def is_own(name: str) -> bool:
    """Whether a name on the command line is a file of the user's own."""
    from tombola.experiments.paper.studies import STUDIES

    if name.endswith((".py", ".toml")):
        return True
    return Path(name).is_file() and all(name != study.name for study in STUDIES)


def own_paths(
    names: Sequence[str], everything: bool = False, scale: str | None = None, numbers: Numbers | None = None
) -> list[Path]:
    """The files of the user's own among the names; none if all are studies of the paper.

    Raises :class:`~tombola.errors.ExperimentError` where both are named, or a scale, which such files have
    not.
    """
    own = [name for name in names if is_own(name)]
    if not own:
        return []
    if everything or len(own) < len(names):
        raise ExperimentError(
            f"{own[0]!r} is a file of your own; name it by itself, without studies of the paper"
        )
    if scale or (numbers and numbers.given()):
        raise ExperimentError(f"scales are of the paper's studies; write such numbers into {own[0]}")
    return [Path(name) for name in own]


def read_files(paths: Sequence[Path], store: StoreFolder | None) -> tuple[list[ExperimentFile], list[Bound]]:
    """The files of the user's own, and their experiments with everything that they measure.

    store: in which a teacher that is named is found; None where there is none yet.
    """
    from tombola.experiments.from_file import read_all_experiments

    files = read_all_experiments(paths)
    return files, [experiment.at(store) for file in files for experiment in file.experiments]


def run_own(
    paths: Sequence[Path],
    store: Path | None,
    runners: Runners,
    settings: Settings,
    stop: Stop,
    recompute: Sequence[str] = (),
    keep: Literal["all", "needed"] = "all",
    trackers: Mapping[str, Tracker] | None = None,
    as_json: bool = False,
) -> None:
    """Compute what is missing, and print the tables.

    stop: when work ends. recompute: names of functions and networks whose results, and all made from them,
    are removed first. keep: weights to keep while it goes. trackers: by name, what finished jobs are entered
    into.
    """
    from tombola.cli.estimate import say_estimate
    from tombola.experiments.compute import run_experiments
    from tombola.lab.lab import Lab
    from tombola.lab.progress import Bar
    from tombola.lab.user_code import put_file

    files, experiments = read_files(paths, existing_store(store))
    lab = Lab(store, settings=settings, **runners)
    code = tuple(put_file(lab.store, path) for file in files for path in file.code)
    lab.settings = replace(settings, files=code)
    console = progress_console(as_json)
    named = " ".join(map(str, paths))
    say(console, f"{', '.join(experiment.name for experiment in experiments)}, store {lab.store.root}")
    estimate = say_estimate(console, lab, experiments)
    with begin_tracking(lab.store, trackers or {}, console, stop) as tracking:
        with Bar(console, lab.store, estimate) as bar:
            ran = run_experiments(
                lab, experiments, progress=tracking.progress(bar), stop=stop, recompute=recompute, keep=keep
            )
        tracking.add(ran.outcome.finished_before)
    if as_json:
        write_json(run_json(lab, ran.outcome, experiments))
    else:
        print_tables(lab, experiments, f"in tombola report {named}, and as numbers in tombola table {named}")
    raise_left(lab.store, stop, ran.outcome)
    ran.outcome.raise_failures()
    say(console, f"tombola report {named} makes a page of its tables and figures")


def report_own(
    paths: Sequence[Path], out: Path, lab: Lab, *, page_only: bool = False, as_json: bool = False
) -> None:
    """Write the page of what there is with its tables and figures, and print the tables."""
    from tombola.experiments.bound import jobs_behind
    from tombola.lab.staleness import warn_stale

    _, experiments = read_files(paths, lab.store)
    warn_stale(lab.store, jobs_behind(experiments), {})
    check_writable(out)
    # The page first: what reads the tables may close them before their end.
    written = write_page(lab, experiments, out, files=not page_only)
    if as_json:
        results = lab.results()
        entries = [e for experiment in experiments for x in experiment.exhibits(results) for e in x.entries]
        computed = sum(entry.cell is not None for entry in entries)
        write_json(report_json(lab, out, written, computed, len(entries)))
        return
    named = " ".join(map(str, paths))
    print_tables(lab, experiments, f"on the page of the report, and as numbers in tombola table {named}")
    say(InertConsole(), f"report: {(out / 'report.html').absolute()}")


def report_json(lab: Lab, out: Path, written: Sequence[Path], computed: int, cells: int) -> dict[str, Any]:
    """What a report is told as JSON: its files, and how many of its numbers are computed."""
    return {
        "store": str(lab.store.root),
        "report": str((out / "report.html").absolute()),
        "files": [str(path.absolute()) for path in written],
        "numbers": cells,
        "computed": computed,
    }


def run_json(lab: Lab, outcome: Outcome, experiments: Sequence[Bound]) -> dict[str, Any]:
    """What a run is told as JSON: what became of its jobs, how far each experiment is, and all numbers."""
    from tombola.experiments.compute import collect, done

    return {
        "store": str(lab.store.root),
        "computed": outcome.computed,
        "finished_before": outcome.finished_before,
        "failed": outcome.failed,
        "left": outcome.left,
        "stopped": outcome.stopped,
        "experiments": [done(experiment, lab).to_json() for experiment in experiments],
        "numbers": collect(lab, experiments).records(),
    }


def write_page(
    lab: Lab,
    experiments: Sequence[Bound],
    out: Path,
    *,
    files: bool = True,
    provenance: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the report of some experiments of chains to a folder, and return the paths of its files.

    files: whether to write its tables and figures as files of their own, too.
    provenance: what else is to be said of where the numbers come from.
    """
    from tombola.cores import available_cores
    from tombola.report.gather import gather_chains
    from tombola.report.write import write_report

    report = gather_chains(lab, experiments, provenance or {})
    return write_report(report, out, files=files, processes=available_cores())


def print_tables(lab: Lab, experiments: Sequence[Bound], elsewhere: str) -> None:
    """The numbers of each experiment, a table a metric; on a terminal the first, and what else there is.

    Accuracy comes first. Where standard output is no terminal, all tables are written to it.

    elsewhere: where the other tables are, in words.
    """
    from rich.text import Text

    from tombola.report.terminal import first_exhibits, grid_table
    from tombola.table.number import many

    console = table_console()
    results = lab.results()
    for experiment in experiments:
        exhibits = experiment.exhibits(results)
        shown = first_exhibits(exhibits) if console.is_terminal else list(exhibits)
        for exhibit in shown:
            console.print(grid_table(exhibit, console))
        if others := [exhibit.full_title for exhibit in exhibits[len(shown) :]]:
            whose = f"{experiment.name}: " if len(experiments) > 1 else ""
            more = many(len(others), "more table")
            console.print(Text(printable(f"{whose}{more} {elsewhere}: {'; '.join(others)}")))
