"""``tombola track``, and ``--track`` of commands that train: finished jobs in TensorBoard, W&B or MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.arguments import Imports, Store, Track, TrackDir
from tombola.cli.console import InertConsole, say, say_error
from tombola.cli.imports import import_files
from tombola.errors import JobError, StoreError, TrackerError, reason
from tombola.lab.tracker import check_trackers as check_trackers
from tombola.lab.tracker import open_trackers, tracker_names

if TYPE_CHECKING:
    from rich.console import Console

    from tombola.lab.deadline import Stop
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.tracking import Tracking

_ALL = "all"


def track(
    jobs: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(
            metavar="JOB [JOB ...]|all",
            help="Finished runs and measures, by name or the beginning of it; or all of the store.",
        ),
    ],
    to: Annotated[Track, tyro.conf.arg(help="The tracker; may be given several times.")] = (),
    track_dir: TrackDir = None,
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Enter finished runs and measures into a tracker; those that it has are left alone."""
    check_trackers(to)
    if not to:
        raise TrackerError(f"no tracker was named; say --to with one of {', '.join(tracker_names())}")
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.tracking import enter_jobs, tracked_line

    import_files(import_)
    folder = StoreFolder(store, create=False)
    names = _chosen(folder, jobs)
    console = InertConsole()
    for name, tracker in open_trackers(to, track_dir, folder.root).items():
        entered: list[str] = []
        damaged: list[StoreError] = []
        try:
            enter_jobs(folder, tracker, names, entered.append, damaged.append)
            line = tracked_line(name, tracker, len(entered), damaged)
        except Exception as error:  # of another library, which may raise anything
            raise TrackerError(
                f"{name} failed after {len(entered)} jobs ({reason(error)}); the same command continues"
            ) from error
        say(console, line)


def begin_tracking(
    store: StoreFolder, names: Sequence[str], track_dir: Path | None, console: Console, stop: Stop
) -> Tracking:
    """The tracking of a command that trains, by trackers of some names; a context manager around its jobs.

    Raises :class:`~tombola.errors.TrackerError` for a tracker that is not set up.
    """
    from tombola.lab.tracking import Tracking

    return Tracking(
        store,
        open_trackers(names, track_dir, store.root) if names else {},
        lambda line: say(console, line),
        lambda line: say_error(f"note: {line}"),
        stop,
    )


def _chosen(store: StoreFolder, jobs: Sequence[str]) -> list[str]:
    """The full names of the jobs that were named, or of all runs and measures.

    Raises :class:`~tombola.errors.JobError` for one that is neither.
    """
    from tombola.lab.lineage_reader import kind_of
    from tombola.lab.listing import finished_names

    if _ALL in jobs:
        if len(jobs) > 1:
            raise JobError(f"{_ALL} is every job; name no others beside it")
        return finished_names(store)[0]
    names = [store.find(job) for job in jobs]
    for name in names:
        kind = kind_of(store.description(name))
        if kind not in ("run", "measure"):
            what = kind if kind == "data" else f"a {kind}"
            raise JobError(f"job {name[:12]} is {what}; trackers take runs and measures")
    return names
