"""What each job in progress is, and how far a training is: for displays on any machine.

A job writes a small file to its workplace when it begins, and a training again at most once a second, within
an epoch too. It is only for display: errors on writing are ignored, and no result depends on it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tombola import disk
from tombola.errors import StoreError
from tombola.lab.store import Store, read_json, write_json
from tombola.untrusted import OTHER_FORM, printable

if TYPE_CHECKING:  # Listings read this file and must not wait for torch.
    from tombola.training.run import Epoch

_FILE = "under-way.json"
# Seconds between two reports of a training.
_EVERY = 1.0
# Seconds without a report after which a training is not shown any more.
_FORGOTTEN = 600.0
# Points of a learning curve that are reported and read, and characters of a description of arguments.
_MOST_POINTS, _LONGEST_ARGUMENTS = 400, 400


class CurvePoint(NamedTuple):
    """A point of a learning curve; losses in nats, accuracy in percent, NaN where not measured or finite."""

    epoch: float
    train_loss: float
    test_loss: float
    test_accuracy: float

    @classmethod
    def of(cls, row: Epoch) -> CurvePoint:
        """The point of a row of a history."""
        return cls(*(float(getattr(row, name)) for name in cls._fields))


@dataclass(frozen=True)
class TrainingProgress:
    """A training in progress.

    epoch: its place in the schedule, within an epoch with a fraction; epochs: the length of the schedule.
    left: seconds left at its pace, None until that is known. images: of training a second, 0 until known.
    arguments: of the job, in one line. curve: of the epochs finished.
    """

    function: str
    epoch: float
    epochs: float
    left: float | None = None
    images: float = 0.0
    arguments: str = ""
    curve: tuple[CurvePoint, ...] = ()

    def __str__(self) -> str:
        """How far it is, in words."""
        left = "" if self.left is None else f", left {timedelta(seconds=round(self.left))}"
        return f"epoch {_place(self.epoch)} of {self.epochs:.6g}{left}"


class TrainingReport:
    """Writes to a workplace what its job is and how far its training is; ignores what cannot be written."""

    def __init__(self, workplace: Path, function: str, arguments: str = "") -> None:
        self._path = workplace / _FILE
        self._job = {"function": function, "arguments": arguments[:_LONGEST_ARGUMENTS]}
        self._written = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._images = 0
        self._curve: list[CurvePoint] = []

    def begin(self) -> None:
        """Reports the job alone: it begins, or failed."""
        self._write({})

    def forget(self) -> None:
        """Removes the report of work that ended in an orderly way."""
        with suppress(OSError):
            disk.remove(self._path, missing_ok=True)

    def resume(self, rows: Iterable[Epoch]) -> None:
        """Takes over the history of a training that goes on from a checkpoint."""
        self._curve = [CurvePoint.of(row) for row in rows]

    def finish_epoch(self, row: Epoch, epochs: float) -> None:
        """Takes a new row of the history, and reports it like :meth:`reach`."""
        # Of a checkpoint that was not gone on from, later rows are known than there are now.
        self._curve = [point for point in self._curve if point.epoch < row.epoch]
        self._curve.append(CurvePoint.of(row))
        self.reach(row.epoch, epochs)

    def reach(self, epoch: float, epochs: float, images: int = 0) -> None:
        """Reports the place of a training, unless the last report is less than a second old.

        images: of training an epoch; 0 for as many as at the last call.
        """
        now = time.monotonic()
        self._images = images or self._images
        if self._first is None:
            self._first = epoch, now
        if now - self._written < _EVERY:
            return
        self._written = now
        first, since = self._first
        pace = (epoch - first) / (now - since) if now > since else 0.0
        self._write(
            {
                "epoch": epoch,
                "epochs": epochs,
                "left": (epochs - epoch) / pace if pace > 0 else None,
                "images": pace * self._images,
                "curve": [
                    [value if math.isfinite(value) else None for value in point]
                    for point in thinned(self._curve)
                ],
            }
        )

    def _write(self, progress: Mapping[str, Any]) -> None:
        with suppress(StoreError):
            write_json(self._path, {**self._job, **progress}, synced=False)


def thinned(points: Sequence[CurvePoint], most: int = _MOST_POINTS) -> Sequence[CurvePoint]:
    """At most so many points of a curve and its last one, evenly spaced."""
    every = -(-len(points) // most)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _place(epoch: float) -> str:
    """A place in the schedule: whole epochs as they are, within an epoch with two decimals."""
    return f"{epoch:.6g}" if float(epoch).is_integer() else f"{epoch:.2f}"


def _progress(report: Mapping[str, Any]) -> TrainingProgress:
    """A training's report from a file, each value of the type that it is declared with."""
    left = report.get("left")
    curve = report.get("curve", [])[-2 * _MOST_POINTS :]
    progress = TrainingProgress(
        printable(str(report["function"])),
        float(report["epoch"]),
        float(report["epochs"]),
        None if left is None else float(left),
        float(report.get("images", 0.0)),
        printable(str(report.get("arguments", "")))[:_LONGEST_ARGUMENTS],
        tuple(CurvePoint(*(math.nan if value is None else float(value) for value in row)) for row in curve),
    )
    str(progress)  # raises for one that cannot be shown
    return progress


def reported_job(workplace: Path) -> tuple[str, str]:
    """The function of the job at a workplace, and its arguments in one line; "" where nothing says them."""
    try:
        report = read_json(workplace / _FILE)
        return (
            printable(str(report.get("function", ""))),
            printable(str(report.get("arguments", "")))[:_LONGEST_ARGUMENTS],
        )
    except (OSError, *OTHER_FORM):
        return "", ""


def trainings_in_progress(store: Store) -> dict[str, TrainingProgress]:
    """The trainings that reported within the last ten minutes, by the names of their jobs."""
    trainings = {}
    for path in sorted((store.root / "work").glob(f"*/{_FILE}")):
        try:
            if time.time() - path.lstat().st_mtime < _FORGOTTEN:
                trainings[path.parent.name] = _progress(read_json(path))
        except (OSError, *OTHER_FORM):
            continue  # finished, no training, or of another form
    return trainings
