"""How far each training in progress is, for the progress bars of drivers on any machine.

A training writes a small file to its workplace at the end of an epoch, at most once a second. It is only for
display: errors on writing are ignored, and no result depends on it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tombola import disk
from tombola.errors import StoreError
from tombola.lab.store import Store, read_json, write_json
from tombola.untrusted import OTHER_FORM, printable

_FILE = "under-way.json"
# Seconds between two reports of a training.
_EVERY = 1.0
# Seconds without a report after which a training is not shown any more.
_FORGOTTEN = 600.0


@dataclass(frozen=True)
class TrainingProgress:
    """A training in progress: epochs done, of how many, and the seconds left at its pace."""

    function: str
    epoch: float
    epochs: float
    left: float


class TrainingReport:
    """Writes to a workplace how far its training is; ignores what cannot be written."""

    def __init__(self, workplace: Path, function: str) -> None:
        self._path = workplace / _FILE
        self._function = function
        self._written = time.monotonic()
        self._first: tuple[float, float] | None = None

    def epoch(self, epoch: float, epochs: float) -> None:
        """Reports a finished epoch, unless the last report is less than a second old."""
        now = time.monotonic()
        if self._first is None:
            self._first = epoch, now
        if now - self._written < _EVERY:
            return
        self._written = now
        first, since = self._first
        seconds_an_epoch = (now - since) / max(1, epoch - first)
        progress = TrainingProgress(self._function, epoch, epochs, seconds_an_epoch * (epochs - epoch))
        with suppress(StoreError):
            write_json(self._path, asdict(progress), synced=False)


def _progress(function: str, epoch: Any, epochs: Any, left: Any) -> TrainingProgress:
    """A report of values from a file, each of the type that it is declared with."""
    progress = TrainingProgress(printable(str(function)), float(epoch), float(epochs), float(left))
    timedelta(seconds=progress.left)  # raises for one that cannot be shown
    return progress


def forget_training(workplace: Path) -> None:
    """Removes the report of a training that ended in an orderly way."""
    with suppress(OSError):
        disk.remove(workplace / _FILE, missing_ok=True)


def trainings_in_progress(store: Store) -> dict[str, TrainingProgress]:
    """The trainings that reported within the last ten minutes, by the names of their jobs."""
    trainings = {}
    for path in sorted((store.root / "work").glob(f"*/{_FILE}")):
        try:
            if time.time() - path.lstat().st_mtime < _FORGOTTEN:
                trainings[path.parent.name] = _progress(**read_json(path))
        except (OSError, *OTHER_FORM):
            continue  # finished, or of another form
    return trainings
