"""``tombola verify``, ``gc``, ``export`` and ``import``: looking after a store."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from tombola.cli.arguments import Store
from tombola.cli.saying import say
from tombola.errors import StoreError


def verify(store: Store = None) -> None:
    """Read everything in the store, and tell what is damaged. --import FILE.py declares networks of your own.

    Results of networks and measures that are not declared are checked by their checksums alone, and told.
    """
    from tombola.lab import verify as walking
    from tombola.lab.store import Store as StoreFolder

    folder = StoreFolder(store, create=False)
    console = Console()
    count = 0
    not_rebuilt: Counter[str] = Counter()
    for damage in walking.verify(folder, not_rebuilt):
        count += 1
        say(console, str(damage))
    for undeclared, results in sorted(not_rebuilt.items()):
        say(console, f"not rebuilt: {undeclared} ({results} result{'s' if results > 1 else ''})")
    if count:
        raise StoreError(f"{count} things are damaged in {folder.root}")
    if not_rebuilt:
        say(
            console,
            f"nothing is damaged in {folder.root}; what is not rebuilt has the right checksums: "
            "--import FILE.py declares what is in a file of yours",
        )
        return
    say(console, f"all is well in {folder.root}")


def gc(
    keep: Annotated[
        Literal["all", "needed", "tickets"],
        tyro.conf.arg(
            help="Weights to keep: all; those that other results are made from; none but tickets. Numbers, "
            "histories and tickets always stay."
        ),
    ] = "all",
    remove: Annotated[bool, tyro.conf.arg(help="Remove it; otherwise it is only listed.")] = False,
    store: Store = None,
) -> None:
    """What nothing needs: left-over workplaces and, by --keep, weights that can be computed again."""
    from tombola.lab import gc as sweeping
    from tombola.lab.store import Store as StoreFolder

    folder = StoreFolder(store, create=False)
    found = sweeping.gc(folder, keep, dry_run=not remove)
    console = Console()
    for removal in found:
        say(console, str(removal))
    total = sum(removal.size for removal in found) / 1e9
    end = "removed" if remove else "could go; say --remove"
    say(console, f"{len(found)} places, {total:.3f} GB {end}" if found else "nothing to remove")


def export(
    name: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(help="A job's name or its beginning; or all: every job.")
    ],
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="The file to write.")],
    weights: Annotated[
        bool,
        tyro.conf.arg(
            help="Without, runs and tickets are of numbers and histories only: small, and enough for tables "
            "and figures."
        ),
    ] = True,
    store: Store = None,
) -> None:
    """Write finished jobs, and all that they need to be read, to one file."""
    from tombola.lab import exchange
    from tombola.lab.store import Store as StoreFolder

    folder = StoreFolder(store, create=False)
    exchange.export(folder, None if name == "all" else [name], file, weights=weights)
    say(Console(), f"{file}: {file.stat().st_size / 1e6:.1f} MB")


def import_(
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="A file that tombola export wrote.")],
    store: Store = None,
) -> None:
    """Take jobs from another store into this one."""
    from tombola.lab import exchange
    from tombola.lab.store import Store as StoreFolder

    names = exchange.import_(StoreFolder(store), file)
    say(Console(), f"job {names[0][:12]}" if len(names) == 1 else f"{len(names)} jobs")
