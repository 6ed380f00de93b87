"""``tombola compare``: several trainings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from tombola.cli.arguments import AsJson, Store
from tombola.cli.console import InertConsole, check_writable, say, table_console, write_json


def compare(
    jobs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="JOB JOB [JOB ...]",
            help="Finished trainings, by name or the beginning of it.",
            help_behavior_hint="",
        ),
    ] = (),
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FOLDER",
            help="Also write a page with the learning curves over one another, and the picture, to this "
            "folder.",
            help_behavior_hint="",
        ),
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Several trainings side by side: what tells them apart, their numbers and learning curves."""
    from tombola.lab.comparison import comparison
    from tombola.lab.store import Store as StoreFolder
    from tombola.report.comparison import comparison_table, write_comparison

    compared = comparison(StoreFolder(store, create=False), jobs)
    page = None
    if out is not None:
        check_writable(out)
        page = write_comparison(compared, out).absolute()
    if as_json:
        write_json(compared.to_json())
        return
    table_console().print(comparison_table(compared))
    if page is not None:
        say(InertConsole(), f"page: {page}")
