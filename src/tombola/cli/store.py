"""``tombola verify``, ``gc``, ``rm``, ``doctor``, ``export`` and ``import``: looking after a store."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tombola.cli.arguments import AsJson, Imports, Store
from tombola.cli.console import InertConsole, say, write_json, write_out
from tombola.cli.imports import import_files
from tombola.counts import bytes_text
from tombola.errors import JobError, StoreError

# Jobs that a line names one by one.
_MOST_NAMED = 8


def verify(store: Store = None, import_: Imports = (), as_json: AsJson = False) -> None:
    """Read everything in the store, and tell what is damaged.

    Results of networks and measures that are not declared are checked by their checksums alone, and told.
    """
    from tombola.lab import verify as walking
    from tombola.lab.store import Store as StoreFolder
    from tombola.table.number import many

    import_files(import_)
    folder = StoreFolder(store, create=False)
    console = InertConsole()
    damaged = []
    not_rebuilt: Counter[str] = Counter()
    for damage in walking.verify(folder, not_rebuilt):
        damaged.append(damage)
        if not as_json:
            say(console, str(damage))
    if as_json:
        write_json(
            {
                "store": str(folder.root),
                "damaged": [asdict(damage) for damage in damaged],
                "not_rebuilt": [
                    {"what": what, "results": count} for what, count in sorted(not_rebuilt.items())
                ],
            }
        )
    else:
        for what, results in sorted(not_rebuilt.items()):
            say(console, f"not rebuilt: {what} ({many(results, 'result')})")
    if damaged:
        things = "1 thing is" if len(damaged) == 1 else f"{len(damaged)} things are"
        raise StoreError(f"{things} damaged in {folder.root}")
    if as_json:
        return
    if not_rebuilt:
        undeclared = any(not isinstance(what, walking.DeclaredOtherwise) for what in not_rebuilt)
        remedy = ": --import FILE.py declares what is in a file of yours" if undeclared else ""
        say(
            console,
            f"nothing is damaged in {folder.root}; what is not rebuilt has the right checksums{remedy}",
        )
        return
    say(console, f"all is well in {folder.root}")


def gc(
    keep: Annotated[
        Literal["all", "needed", "tickets"],
        tyro.conf.arg(
            help="Weights to keep: all; those of runs that nothing was made from yet, not even a ticket; "
            "none. Numbers, histories, forgetting records and tickets always stay."
        ),
    ] = "all",
    remove: Annotated[bool, tyro.conf.arg(help="Remove it; otherwise it is only listed.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """What nothing needs: left-over workplaces and, by --keep, weights that can be computed again."""
    from tombola.lab import gc as sweeping
    from tombola.lab.store import Store as StoreFolder
    from tombola.table.number import many

    folder = StoreFolder(store, create=False)
    busy = sweeping.work_under_way(folder)
    removals = sweeping.gc(folder, keep, dry_run=not remove, busy=busy)
    if as_json:
        garbage = [asdict(removal) for removal in removals]
        write_json({"store": str(folder.root), "removed": remove, "busy": busy, "garbage": garbage})
        return
    console = InertConsole()
    if busy:
        say(
            console,
            f"{busy}: only what dead processes left is looked at; ask again when it has ended",
        )
    for removal in removals:
        say(console, str(removal))
    total = bytes_text(sum(removal.size for removal in removals))
    end = "removed" if remove else "could go; say --remove"
    say(console, f"{many(len(removals), 'place')}, {total} {end}" if removals else "nothing to remove")


def rm(
    jobs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="JOB [JOB ...]",
            help="Finished jobs, by name or the beginning of it.",
            help_behavior_hint="",
        ),
    ],
    dependents: Annotated[bool, tyro.conf.arg(help="Also everything that was made from them.")] = False,
    remove: Annotated[bool, tyro.conf.arg(help="Remove them; otherwise they are only listed.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Remove jobs from the store; without --remove, what would go and what was made from it."""
    from tombola.lab.removal import check_unneeded, removals, remove_job
    from tombola.lab.store import Store as StoreFolder
    from tombola.table.number import many

    folder = StoreFolder(store, create=False)
    console = InertConsole()
    chosen, orphans = removals(folder, jobs, dependents=dependents)
    check_unneeded(folder, [removal.name for removal in chosen])
    for removal in chosen:
        what = f"{removal.row.function}: {removal.row.result}" if removal.row else "damaged"
        if not as_json:
            say(console, f"{removal.name[:12]} {what} ({bytes_text(removal.size)})")
        if remove:
            remove_job(folder, removal.name)
    if as_json:
        jobs_gone = [
            {
                "name": removal.name,
                "function": removal.row.function if removal.row else None,
                "result": removal.row.result if removal.row else None,
                "size": removal.size,
            }
            for removal in chosen
        ]
        write_json({"store": str(folder.root), "removed": remove, "jobs": jobs_gone, "orphans": orphans})
        return
    if orphans:
        named = ", ".join(name[:12] for name in orphans[:_MOST_NAMED])
        others = f" and {len(orphans) - _MOST_NAMED} more" if len(orphans) > _MOST_NAMED else ""
        origin = "it" if len(chosen) == 1 else "them"
        say(
            console,
            f"{many(len(orphans), 'job')} made from {origin}: {named}{others}; kept, though "
            "verify will miss what was removed; --dependents removes these too",
        )
    end = "removed" if remove else "would go; say --remove"
    size = bytes_text(sum(removal.size for removal in chosen))
    say(console, f"{many(len(chosen), 'job')}, {size} {end}")


def doctor(store: Store = None, as_json: AsJson = False) -> None:
    """Device, versions, store, data and last errors in one text, to paste into a report of a fault."""
    from tombola.lab.doctor import examine, examine_parts

    if as_json:
        write_json({"parts": [asdict(part) for part in examine_parts(store)]})
    else:
        write_out(examine(store))


def export(
    name: Annotated[
        str,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="JOB|all", help="A job's name or its beginning; or all: every job."),
    ],
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE", help="The file to write.")],
    weights: Annotated[
        bool,
        tyro.conf.arg(
            help="Without, runs and tickets are of numbers and histories only: small, and enough for tables "
            "and figures."
        ),
    ] = True,
    tickets: Annotated[
        tuple[str, ...] | None,
        tyro.conf.arg(
            metavar="[all|newest|ROUND ...]",
            help="Tickets instead of weights, with numbers, histories and forgetting records: what going on "
            "elsewhere needs. Of every round (said alone), or the newest of each chain and the rounds named.",
            help_behavior_hint="",
        ),
    ] = None,
    compress: Annotated[
        bool,
        tyro.conf.arg(
            help="Deflate the file: tickets, numbers and records shrink to a third, weights hardly."
        ),
    ] = False,
    store: Store = None,
) -> None:
    """Write finished jobs, and all that they need to be read, to one file."""
    from tombola.lab import export as exporting
    from tombola.lab.store import Store as StoreFolder
    from tombola.table.number import many

    if tickets is not None and not weights:
        raise JobError("--tickets leaves weights out by itself; say it without --no-weights")
    folder = StoreFolder(store, create=False)
    names = None if name == "all" else [name]
    console = InertConsole()
    if tickets is None:
        exporting.export(folder, names, file, weights=weights, compress=compress)
        say(console, f"{file}: {bytes_text(file.stat().st_size)}")
        return
    exported = exporting.export_tickets(folder, names, file, tickets, compress=compress)
    size = bytes_text(file.stat().st_size)
    jobs, carried = many(exported.jobs, "job"), many(exported.tickets, "ticket")
    say(console, f"{file}: {size}, {jobs} without weights, {carried}")
    for start, (bytes_, cause) in exported.carried.items():
        say(console, f"the dense start {start[:12]} goes along whole, {bytes_text(bytes_)} of it: {cause}")


def import_(
    file: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE", help="A file that tombola export wrote."),
    ],
    store: Store = None,
) -> None:
    """Take jobs from another store into this one."""
    from tombola.lab.archive import import_ as import_archive
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.tickets import is_ticket
    from tombola.table.number import many

    folder = StoreFolder(store)
    names = import_archive(folder, file)
    tickets = sum(is_ticket(folder, name) and not folder.is_thin(name) for name in names)
    jobs = sum(not is_ticket(folder, name) for name in names)
    also = f" and {many(tickets, 'ticket')}" if tickets else ""
    say(InertConsole(), f"job {names[0][:12]}" if len(names) == 1 else f"{many(jobs, 'job')}{also}")
