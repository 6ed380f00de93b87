"""Checkpoints of a training in progress, from which it continues to the same bits.

The training loop notifies a :class:`Watch` of its progress. The base class does nothing; :class:`Checkpoints`
writes the state to a folder, at the first epoch end after an interval of wall time, and within an epoch only
when an epoch outlasts the interval.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola import disk, files
from tombola.errors import TicketError, unwritable
from tombola.training.run import Epoch
from tombola.warn import warn

_KIND = "tombola.checkpoint/1"
_NEWEST, _PREVIOUS = "checkpoint", "checkpoint.previous"


@dataclass(frozen=True)
class Checkpoint:
    """An interrupted training: its description as JSON values, and its tensors."""

    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class Watch:
    """Receives the progress of a training; this base class ignores it."""

    def resume(self) -> Checkpoint | None:
        """The checkpoint to continue from, if the training was interrupted before."""
        return None

    def beat(self) -> None:
        """Called as a sign of life by work that has nothing to snapshot."""

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        """Called after every few steps and at each epoch's end; ``snapshot`` takes a checkpoint."""

    def stepped(self, epoch: float, epochs: float, images: int) -> None:
        """Called after every few steps, which on a GPU may still be under way.

        epoch: the place in the schedule, within an epoch with a fraction; epochs: the schedule's length.
        images: training images of an epoch.
        """

    def finished_epoch(self, row: Epoch, epochs: float) -> None:
        """Called with each new row of the history; ``epochs`` is the length of the schedule in epochs."""


class Checkpoints(Watch):
    """Writes checkpoints to a folder, and keeps the previous one until the new one is complete.

    folder: made when first needed; use one for each training.
    every: seconds of wall time between checkpoints; 0 keeps one at every opportunity.
    """

    def __init__(self, folder: str | os.PathLike[str], *, every: float = 60.0) -> None:
        self._folder = Path(folder)
        self._every = every
        self._last = time.monotonic()
        self._newest_intact = True

    def resume(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; a damaged one is skipped with a warning."""
        for path in (self._folder / _NEWEST, self._folder / _PREVIOUS):
            if not path.exists():
                continue
            try:
                return Checkpoint(*files.read_tensors(path, _KIND))
            except TicketError as error:
                warn(f"skipping a checkpoint: {error}")
                self._newest_intact = self._newest_intact and path.name != _NEWEST
        return None

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        waited = time.monotonic() - self._last
        # Within an epoch only if the epoch outlasts the interval: then its end would come too late.
        if waited < (self._every if epoch_end else 2 * self._every):
            return
        self.keep(snapshot())
        self._last = time.monotonic()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint under a name of its own, then put it in place of the last one.

        Raises :class:`~tombola.errors.StoreUnwritable` if that cannot be done.
        """
        written = self._folder / f"{_NEWEST}.{uuid.uuid4().hex[:8]}"
        files.write_tensors(written, _KIND, checkpoint.description, checkpoint.tensors)
        try:
            try:
                self.put(written)
            finally:
                disk.remove(written, missing_ok=True)
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def put(self, written: Path) -> None:
        """Make a written checkpoint the newest, and the newest so far the previous one."""
        newest = self._folder / _NEWEST
        # A damaged one must not replace the undamaged one before it.
        if self._newest_intact:
            with suppress(FileNotFoundError):
                disk.replace(newest, self._folder / _PREVIOUS)
        disk.replace(written, newest)
        self._newest_intact = True
