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


Contents = Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="[JOB|FILE|STUDY ...]",
        help="Finished jobs by name or its beginning, files of your own, studies of the paper such as "
        "table11; default: all runs and measures in the store.",
        help_behavior_hint="",
    ),
]
CsvFile = Annotated[
    Path | None,
    tyro.conf.arg(metavar="FILE", help="Write it as CSV; - is standard output.", help_behavior_hint=""),
]
AsJson = Annotated[bool, tyro.conf.arg(help="As JSON, with the curves that numbers sum up.")]
AsMarkdown = Annotated[bool, tyro.conf.arg(help="As a Markdown table.")]


def table(
    names: Contents = (),
    csv: CsvFile = None,
    json: AsJson = False,
    markdown: AsMarkdown = False,
    scale: Scale = None,
    numbers: ScaleNumbers = Numbers(),  # noqa: B008 (frozen)
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Every number as a row, gaps included.

    Studies of the paper are shown at the scale of the last run unless one is given. Nothing is run.
    """
    form = form_of(csv, json, markdown)
    import_files(import_)
    shown = named_table(looking_lab(store), names, scale, numbers)
    if not write_form(shown, csv, form):
        from tombola.report.number_lines import number_lines

        write_out("\n".join(number_lines(shown, table_console().width)) + "\n")


def form_of(csv: Path | None, json: bool, markdown: bool) -> str:
    """The one form that was asked for, ``"json"`` or ``"markdown"``; ExperimentError for two of them."""
    forms = [name for name, chosen in (("csv", csv), ("json", json), ("markdown", markdown)) if chosen]
    if len(forms) > 1:
        raise ExperimentError(
            f"--{forms[0]} and --{forms[1]} were given; a table has one form, ask for one of them"
        )
    return "json" if json else "markdown" if markdown else ""


def looking_lab(root: Path | None) -> Lab:
    """A lab on a store that is there already; it computes nothing."""
    from tombola.lab.execute import Settings
    from tombola.lab.lab import Lab
    from tombola.lab.store import Store as StoreFolder

    return Lab(StoreFolder(root, create=False).root, settings=Settings(device="cpu"))


def named_table(lab: Lab, names: Sequence[str], scale: str | None, numbers: Numbers) -> Table:
    """The table of what was named: jobs, files and studies; of a whole store without names."""
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


def write_form(shown: Table, csv: Path | None, form: str) -> bool:
    """Write or print a table in the form that was asked for; False if none was.

    csv: the file, ``-`` for standard output. form: ``"json"``, ``"markdown"`` or empty.
    """
    from tombola.disk import write_whole

    if csv is not None and csv != _STDOUT:
        write_whole(csv, shown.csv().encode())
        say(InertConsole(), f"{csv}: {len(shown):,} number{'s' * (len(shown) != 1)}")
    elif csv is not None:
        write_out(shown.csv())
    elif form:
        write_out(shown.json() if form == "json" else shown.markdown())
    return csv is not None or bool(form)
