"""``tombola ls``, ``show`` and ``diff``: finding jobs again, looking at one, and comparing two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from tombola.cli.arguments import AsJson, Store
from tombola.cli.console import InertConsole, table_console, write_json


def ls(
    store: Store = None,
    function: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="NAME", help="Only jobs of this function: train, barrier, ...", help_behavior_hint=""
        ),
    ] = None,
    where: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(
            metavar="CONDITION",
            help="Only jobs that measured this, such as momentum=0.9 or 'sparsity>80'; may be given several "
            "times. Fields are those of tombola table.",
            help_behavior_hint="",
        ),
    ] = (),
    sort: Annotated[
        Literal["time", "seconds", "function", "name"], tyro.conf.arg(help="The order of the lines.")
    ] = "time",
    last: Annotated[
        int | None,
        tyro.conf.arg(metavar="N", help="Only the last so many in that order.", help_behavior_hint=""),
    ] = None,
    tickets: Annotated[bool, tyro.conf.arg(help="Also the tickets of rounds.")] = False,
    as_json: AsJson = False,
) -> None:
    """What the store holds: one line a job, with those that run, failed or were interrupted."""
    from tombola.lab.listing import listing
    from tombola.lab.store import Store as StoreFolder

    folder = StoreFolder(store, create=False)
    shown = listing(folder, function, tickets=tickets, where=where, sort=sort, last=last)
    if as_json:
        write_json(shown.to_json())
        return
    table_console().print(shown, crop=False)


def show(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="JOB|FILE", help="A job's name or its beginning, or a ticket or run file."),
    ],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """A job's description, learning curve, result and all that it was made from; or what a file holds."""
    from tombola.lab.details import file_json, job_json, show_file, show_job
    from tombola.lab.store import Store as StoreFolder

    if Path(name).is_file():
        if as_json:
            write_json(file_json(Path(name)))
        else:
            InertConsole().print(show_file(Path(name)), crop=False)
        return
    folder = StoreFolder(store, create=False)
    if as_json:
        write_json(job_json(folder, name))
    else:
        InertConsole().print(show_job(folder, name), crop=False)


def diff(
    first: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="JOB", help="A job's name or its beginning.")
    ],
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="JOB", help="Another.")],
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """What two finished jobs differ in: what they measured, their arguments, numbers and provenance."""
    from tombola.lab.details import difference
    from tombola.lab.store import Store as StoreFolder

    shown = difference(StoreFolder(store, create=False), first, second)
    if as_json:
        write_json(shown.to_json())
        return
    table_console().print(shown, crop=False)
