"""``tombola ls`` and ``tombola show``: what a store or a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from tombola.cli.arguments import Store


def ls(
    store: Store = None,
    function: Annotated[
        str | None, tyro.conf.arg(help="Only jobs of this function: train, barrier, ...")
    ] = None,
    tickets: Annotated[bool, tyro.conf.arg(help="Also the tickets of rounds.")] = False,
) -> None:
    """What the store holds: one line a job."""
    from tombola.lab.listing import listing
    from tombola.lab.store import Store as StoreFolder

    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file has room
    console.print(listing(StoreFolder(store, create=False), function, tickets=tickets), crop=False)


def show(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(help="A job's name or its beginning, or a ticket or run file."),
    ],
    store: Store = None,
) -> None:
    """A job's description, result and parents; or what a ticket or run file holds."""
    from tombola.lab.listing import show_file, show_job
    from tombola.lab.store import Store as StoreFolder

    if Path(name).is_file():
        Console().print(show_file(Path(name)), crop=False)
    else:
        Console().print(show_job(StoreFolder(store, create=False), name), crop=False)
