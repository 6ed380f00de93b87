"""``tombola table``: every number of jobs, experiments or a whole store, to read or for other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.arguments import Imports, Numbers, Scale, ScaleNumbers, Store
from tombola.cli.console import InertConsole, say, table_console, write_out
from tombola.cli.imports import import_files
from tombola.errors import ExperimentError, unknown

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.lab.lab import Lab
    from tombola.table.table import Table

_JOB = re.compile(r"[0-9a-fA-F]{1,64}")
_STDOUT = Path("-")


def table(
    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="[JOB|FILE|STUDY ...]",
            help="Finished jobs by name or its beginning, files of your own, studies of the paper such as "
            "table11; default: all runs and measures in the store.",
            help_behavior_hint="",
        ),
    ] = (),
    csv: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help="Write it as CSV; - is standard output.", help_behavior_hint=""),
    ] = None,
    json: Annotated[bool, tyro.conf.arg(help="As JSON, with the curves that numbers sum up.")] = False,
    markdown: Annotated[bool, tyro.conf.arg(help="As a Markdown table.")] = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Every number as a row, gaps included.

    Studies of the paper are shown at the scale of the last run unless one is given. Nothing is run.
    """
    forms = [name for name, chosen in (("csv", csv), ("json", json), ("markdown", markdown)) if chosen]
    if len(forms) > 1:
        raise ExperimentError(
            f"--{forms[0]} and --{forms[1]} were given; a table has one form, ask for one of them"
        )
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder

    import_files(import_)
    lab = Lab(StoreFolder(store, create=False).root, settings=Settings(device="cpu"))
    shown = _contents(lab, names, scale, numbers)
    _write(shown, csv, "json" if json else "markdown" if markdown else "")


def _contents(lab: Lab, names: Sequence[str], scale: str | None, numbers: Numbers) -> Table:
    """The table of what was named."""
    from tombola.experiments.paper.studies import STUDIES

    studies = [study.name for study in STUDIES]
    of_paper = [name for name in names if name in studies]
    if (scale or numbers.given()) and not of_paper:
        raise ExperimentError(
            "a scale was given, but no study of the paper; name one, such as table11, or leave it out"
        )
    contents: list[Bound | str] = []
    for name in names:
        if name in studies:
            contents.append(bound_study(lab, name, scale, numbers))
        elif name.endswith((".py", ".toml")) or Path(name).is_file():
            contents += own_experiments(lab, Path(name))
        elif _JOB.fullmatch(name):
            contents.append(name)
        else:
            raise ExperimentError(
                f"{unknown('study', name, studies)} (a job goes by its name, a file ends in .py or .toml)"
            )
    return lab.table(*contents)


def bound_study(lab: Lab, name: str, scale: str | None, numbers: Numbers) -> Bound:
    """A study of the paper at a scale."""
    from tombola.cli.scales import shown_scale
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.studies import studies_named

    [study] = studies_named([name])
    return study.at(PaperJobs(shown_scale(scale, numbers, lab.store)))


def own_experiments(lab: Lab, path: Path) -> list[Bound]:
    """The experiments of a file of the user's own; an edit since their results were made is told."""
    from tombola.cli.own import read_files
    from tombola.experiments.bound import jobs_behind
    from tombola.lab.staleness import warn_stale

    _, experiments = read_files([path], lab.store)
    warn_stale(lab.store, jobs_behind(experiments), {})
    return experiments


def _write(shown: Table, csv: Path | None, form: str) -> None:
    """Write or print a table in the form that was asked for."""
    from tombola.disk import write_whole
    from tombola.report.number_lines import number_lines

    console = InertConsole()
    if csv is not None and csv != _STDOUT:
        write_whole(csv, shown.csv().encode())
        say(console, f"{csv}: {len(shown):,} number{'s' * (len(shown) != 1)}")
        return
    if csv is not None:
        text = shown.csv()
    elif form:
        text = shown.json() if form == "json" else shown.markdown()
    else:
        text = "\n".join(number_lines(shown, table_console().width)) + "\n"
    write_out(text)
