"""``tombola track``, and ``--track`` of commands that train: finished jobs in TensorBoard, W&B or MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from tombola.cli.arguments import Imports, Store, Track, TrackDir
from tombola.cli.console import InertConsole, say, say_error
from tombola.cli.imports import import_files
from tombola.errors import JobError, TombolaError, TrackerError, reason
from tombola.lab.tracker import Tracker, open_trackers, tracker_names

if TYPE_CHECKING:
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
            help_behavior_hint="",
        ),
    ],
    to: Annotated[Track, tyro.conf.arg(help="The tracker; may be given several times.")] = (),
    track_dir: TrackDir = None,
    store: Store = None,
    import_: Imports = (),
) -> None:
    """Enter finished runs and measures into a tracker; those that it has are left alone."""
    if not to:
        raise TrackerError(f"no tracker was named; say --to with one of {', '.join(tracker_names())}")
    trackers = trackers_named(to, track_dir, store)
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.tracking import enter_jobs, tracked_line
    from tombola.table.number import many

    import_files(import_)
    folder = StoreFolder(store, create=False)
    names = _chosen(folder, jobs)
    console = InertConsole()
    for name, tracker in trackers.items():
        entered: list[str] = []
        left_out: list[TombolaError] = []
        try:
            enter_jobs(folder, tracker, names, entered.append, left_out.append)
            line = tracked_line(name, tracker, len(entered), left_out)
        except Exception as error:  # of another library, which may raise anything
            raise TrackerError(
                f"{name} failed after {many(len(entered), 'job')} ({reason(error):.200}); "
                "the same command continues"
            ) from error
        say(console, line)


def trackers_named(names: Sequence[str], track_dir: Path | None, store: Path | None) -> dict[str, Tracker]:
    """The trackers of a command, opened before anything is computed.

    track_dir, store: folders as they were given, if they were.

    Raises :class:`~tombola.errors.TrackerError` for one that is not there, not installed or not set up.
    """
    if not names:
        return {}
    from tombola.lab.store import default_place

    return open_trackers(names, track_dir, store or default_place())


def begin_tracking(
    store: StoreFolder, trackers: Mapping[str, Tracker], console: InertConsole, stop: Stop
) -> Tracking:
    """The tracking of a command that trains; a context manager around its jobs."""
    from tombola.lab.tracking import Tracking

    return Tracking(
        store, trackers, lambda line: say(console, line), lambda line: say_error(f"note: {line}"), stop
    )


def _chosen(store: StoreFolder, jobs: Sequence[str]) -> list[str]:
    """The full names of the jobs that were named, or of all runs and measures.

    Raises :class:`~tombola.errors.JobError` for one that is neither.
    """
    from tombola.lab.lineage_reader import kind_of
    from tombola.lab.listing import finished_names

    if not jobs:
        raise JobError(f"no job was named; name some, or say {_ALL}")
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
