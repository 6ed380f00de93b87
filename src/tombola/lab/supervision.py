"""Supervision of a running job: heartbeats of its lease, checkpoints, a log, and counted attempts.

A job whose process dies suddenly leaves its attempt counted at its workplace; after too many it fails. A job
that hangs has its process ended, which counts the same. A suspect, a job with a counted death, runs in a
process without other suspects, so that jobs that merely share a worker with a culprit are not blamed. A job
fails sooner if the memory of its GPU did not suffice although it had both to itself.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import torch

from tombola import disk
from tombola.errors import DeviceLost, JobError, MemoryShort, OddFile, StoreError, TombolaError
from tombola.lab.deadline import Stop, Stopped
from tombola.lab.lease import Lease, count_here, free, held_here
from tombola.lab.store import read_json, write_json
from tombola.lab.training_progress import TrainingReport
from tombola.training.checkpoint import Checkpoint, Checkpoints
from tombola.training.run import Epoch, History
from tombola.untrusted import OTHER_FORM, read_regular

# Calls of a hung job that its log names, the innermost first.
_CALLS = 3


class LabWatch(Checkpoints):
    """Keeps checkpoints at a job's workplace, and keeps its lease alive while it gives signs of life.

    every: seconds of wall time between checkpoints.
    hung_after: seconds without a sign of life after which the work counts as hung.
    report: of how far a training is, within its epochs too.
    stop: at every sign of life the work ends once it is due, a training with a checkpoint.
    """

    def __init__(
        self,
        workplace: Path,
        lease: Lease,
        *,
        every: float,
        hung_after: float,
        on_epoch: Callable[[Epoch, float], None] | None = None,
        report: TrainingReport | None = None,
        stop: Stop | None = None,
    ) -> None:
        super().__init__(workplace, every=every)
        self._lease = lease
        self._stop = stop or Stop()
        self._trained = False  # the last epoch is over, and only the result is missing
        self._hung_after = hung_after
        self._on_epoch = on_epoch
        self._report = report

    @contextmanager
    def expecting_signs(self, gives_signs: bool) -> Iterator[None]:
        """Meanwhile work that gives signs of life counts as hung if they stop for too long."""
        self._lease.watch(self._hung_after if gives_signs else None)
        try:
            yield
        finally:
            self._lease.watch(None)

    def resume(self) -> Checkpoint | None:
        checkpoint = super().resume()
        if checkpoint is not None and self._report is not None:
            with suppress(TombolaError, *OTHER_FORM):  # of work without a history, or refused by it later
                self._report.resume(History.from_tensors(checkpoint.tensors))
        return checkpoint

    def beat(self) -> None:
        self._lease.beat()
        self._stop.check()

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        self._lease.beat()
        if self._stop.is_due() and not self._trained:
            self.keep(snapshot())
            raise Stopped
        super().advanced(snapshot, epoch_end=epoch_end)

    def put(self, written: Path) -> None:
        self._lease.check()  # it may be lost by now: a checkpoint takes long to write
        super().put(written)
        forget_attempts(self._folder)  # a job that gets on does not kill its worker

    def stepped(self, epoch: float, epochs: float, images: int) -> None:
        if self._report is not None:
            self._report.reach(epoch, epochs, images)

    def finished_epoch(self, row: Epoch, epochs: float) -> None:
        append_to_log(self._folder, f"finished epoch {row.epoch:.6g} of {epochs:.6g}")
        self._trained = row.epoch == epochs
        if self._report is not None:
            self._report.finish_epoch(row, epochs)
        if self._on_epoch is not None:
            self._on_epoch(row, epochs)


def end_hung(workplace: Path, thread: int, end_process: Callable[[], None]) -> None:
    """Writes to its log where a hung job is, then ends its process.

    thread: that of the job. end_process: see :func:`~tombola.lab.execute.execute`.
    """
    frame = sys._current_frames().get(thread)
    calls = traceback.extract_stack(frame)[-_CALLS:] if frame is not None else []
    places = (f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))
    append_to_log(workplace, f"no sign of life for too long, in {' in '.join(places)}; its process is ended")
    end_process()


_COUNT, _LOG = "attempts.json", "log.txt"
# Times that memory must not have sufficed for a job by itself: once it may have been another process's fault.
_SHORTAGES = 2
# Bytes that other processes may have on a GPU while a job counts as alone there; a context takes half a GiB.
_LITTLE = 2 * 2**30
# Lines of the log that a failure repeats.
_LAST_LINES = 4

_one_suspect = threading.Lock()


def count_attempt(workplace: Path, allowed: int, name: str) -> None:
    """Counts an attempt that begins; raises :class:`~tombola.errors.JobError` after as many as allowed.

    And if the memory of a GPU did not suffice for it alone, which another attempt would not change.
    """
    begun, short = deaths(workplace), _counted(workplace, "short")
    if short >= _SHORTAGES:
        raise JobError(
            f"job {name[:12]} needs more memory than its GPU has: {short} times it did not suffice with "
            f"nothing beside it; its last line: {last_lines(workplace).rpartition(' | ')[2]}; to try again, "
            f"delete {workplace}"
        )
    if begun >= allowed:
        log = last_lines(workplace)
        raise JobError(
            f"job {name[:12]} was begun {begun} times and never finished (does it kill its worker or hang?); "
            f"{f'its last lines: {log}; ' if log else ''}to try again, delete {workplace}"
        )
    shortages = {"short": short} if short else {}
    write_json(workplace / _COUNT, {"begun": begun + 1} | shortages, synced=False)  # no power loss counts
    append_to_log(workplace, f"begun on {socket.gethostname()} in process {os.getpid()}")


def forget_attempts(workplace: Path) -> None:
    """Sets the counted attempts to none: only a sudden death leaves its attempt counted."""
    with suppress(OSError):  # a store that became read-only: what made it so is on its way to the user
        disk.remove(workplace / _COUNT, missing_ok=True)


def deaths(workplace: Path) -> int:
    """Attempts that neither ended nor reached a checkpoint; one that is under way counts too."""
    return _counted(workplace, "begun")


def _counted(workplace: Path, what: str) -> int:
    try:
        return int(read_json(workplace / _COUNT)[what])
    except (OSError, *OTHER_FORM):
        return 0


class Solitude:
    """Whether a job has its process, and a GPU, to itself from its beginning on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._count = count_here()
        self._at_first = len(held_here()) == 1 and not self._allocated()

    def lasts(self) -> bool:
        """Whether no other job was in this process since, and other processes have little of the GPU."""
        if not self._at_first or count_here() != self._count:
            return False
        if self._device.type != "cuda":
            return True
        free_bytes, total = torch.cuda.mem_get_info(self._device)
        return total - free_bytes - torch.cuda.memory_reserved(self._device) < _LITTLE

    def _allocated(self) -> int:
        """Bytes that earlier jobs of this process left on the GPU."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0


def count_shortage(workplace: Path) -> None:
    """Counts that a GPU's memory did not suffice for a job that was alone with it."""
    counts = {"begun": deaths(workplace), "short": _counted(workplace, "short") + 1}
    with suppress(StoreError):  # then it is tried as often as any other
        write_json(workplace / _COUNT, counts, synced=False)


def append_to_log(workplace: Path, line: str) -> None:
    """Adds a line to the log that a job leaves at its workplace if its process dies."""
    now = datetime.now(UTC).strftime("%m-%d %H:%M:%S")
    with suppress(OSError, OddFile):
        disk.append(workplace / _LOG, f"{now} {line}\n".encode(errors="replace"))


def forget_log(workplace: Path) -> None:
    """Removes the log of a job that ended in an orderly way."""
    with suppress(OSError):
        disk.remove(workplace / _LOG, missing_ok=True)


def last_lines(workplace: Path) -> str:
    """The last lines of a job's log as one line; those on a fatal error if there was one."""
    try:
        lines = read_regular(workplace / _LOG).decode(errors="replace").split("\n")
    except (OSError, OddFile):
        return ""
    log = [" ".join(line.split()) for line in lines if line.strip()]
    fatal = [number for number, line in enumerate(log) if line.startswith("Fatal Python error")]
    # After such a line comes where the process was, the innermost call first.
    log = log[fatal[-1] :][:_LAST_LINES] if fatal else log[-_LAST_LINES:]
    return " | ".join(log)


@contextmanager
def apart_from_suspects(
    workplace: Path, waiting: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """Waits, before a suspect, until no other suspect runs in this process; other jobs begin at once.

    workplace: of the job. A suspect's log also gets where its process was if a signal such as a segmentation
        fault ends it.
    waiting: entered while another suspect is waited for.
    """
    if not deaths(workplace) or not free(workplace):  # counted for an attempt that is under way elsewhere
        yield
        return
    if not _one_suspect.acquire(blocking=False):
        with waiting():
            _one_suspect.acquire()
    try:
        with _crash_logged(workplace / _LOG):
            yield
    finally:
        _one_suspect.release()


@contextmanager
def _crash_logged(log: Path) -> Iterator[None]:
    """Appends the calls of this thread to a log if a fatal signal ends the process meanwhile."""
    if faulthandler.is_enabled():  # by a caller who wants its output elsewhere
        yield
        return
    try:
        file = disk.open_to_append(log)
    except (OSError, OddFile):  # another owner finished the job meanwhile, or there is no file
        yield
        return
    with file:
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            faulthandler.disable()


def device_is_lost(error: BaseException) -> bool:
    """Whether an error, or one behind it, leaves the GPU unusable for the rest of this process."""
    return any(isinstance(cause, torch.AcceleratorError | DeviceLost) for cause in _with_causes(error))


def memory_was_short(error: BaseException) -> bool:
    """Whether an error, or one behind it, is of a GPU whose memory did not suffice for a convolution."""
    return any(isinstance(cause, MemoryShort) for cause in _with_causes(error))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
