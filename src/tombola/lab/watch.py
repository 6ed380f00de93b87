"""What the lab does while a job runs: keeps its lease alive and its checkpoints, and ends it if it hangs."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tombola.lab.attempts import forget_attempts, note
from tombola.lab.deadline import Stop, Stopped
from tombola.lab.lease import Lease
from tombola.lab.under_way import Teller
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.history import Epoch

# Calls that are told of a hung job, the innermost first.
_CALLS = 3


class LabWatch(Checkpoints):
    """Keeps checkpoints at a job's workplace and its lease alive.

    every: seconds of wall time between checkpoints.
    hung_after: seconds without a sign of life after which the work counts as hung.
    stop: at every sign of life the work ends once it is due, a training with a checkpoint.
    """

    def __init__(
        self,
        workplace: Path,
        lease: Lease,
        *,
        every: float,
        hung_after: float,
        on_epoch: Callable[[Epoch, int], None] | None = None,
        stop: Stop | None = None,
    ) -> None:
        super().__init__(workplace, every=every)
        self._lease = lease
        self._stop = stop or Stop()
        self._over = False  # the schedule is, and only the result is missing
        self._hung_after = hung_after
        self._on_epoch = on_epoch
        self.teller: Teller | None = None

    @contextmanager
    def at_work(self, gives_signs: bool) -> Iterator[None]:
        """Meanwhile the work gives signs of life or counts as hung; or it cannot give any."""
        self._lease.watch(self._hung_after if gives_signs else None)
        try:
            yield
        finally:
            self._lease.watch(None)

    def beat(self) -> None:
        self._lease.beat()
        self._stop.check()

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        self._lease.beat()
        if self._stop.is_due() and not self._over:
            self.keep(snapshot())
            raise Stopped
        super().advanced(snapshot, epoch_end=epoch_end)

    def put(self, written: Path) -> None:
        self._lease.check()  # a checkpoint takes long to write; if it is lost by now, this one is nobody's
        super().put(written)
        forget_attempts(self._folder)  # whoever gets on does not kill its worker

    def finished_epoch(self, row: Epoch, epochs: int) -> None:
        note(self._folder, f"finished epoch {row.epoch} of {epochs}")
        self._over = row.epoch == epochs
        if self.teller is not None:
            self.teller.epoch(row.epoch, epochs)
        if self._on_epoch is not None:
            self._on_epoch(row, epochs)


def end_hung(workplace: Path, thread: int, end_process: Callable[[], None]) -> None:
    """Leave word of where a hung job is, then end its process.

    thread: that of the job. end_process: see :func:`~tombola.lab.execute.execute`.
    """
    frame = sys._current_frames().get(thread)
    calls = traceback.extract_stack(frame)[-_CALLS:] if frame is not None else []
    places = (f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
    note(workplace, f"no sign of life for too long, in {' in '.join(places)}; its process is ended")
    end_process()
