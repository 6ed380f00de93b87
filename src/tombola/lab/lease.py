"""Leases: who works on a job, so that each is computed once however many drivers and workers there are.

A lease is a file, created exclusively. Its time of change is its heartbeat, written and read on the file
server's clock. One whose heart stopped, or whose process is known to be dead, is taken over. Clocks jump, so
of a process that is seen to run only the watcher's own steady clock says that its heart stopped, and that
clock also ends a heartbeat of the future. The heartbeat goes on only while the work shows signs of life: a
hung job is noticed, and its worker process ended.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tombola.errors import unwritable
from tombola.lab import process
from tombola.untrusted import json_object

# Seconds without a heartbeat after which a lease is taken over.
STALE = 60.0
# Seconds between heartbeats.
HEARTBEAT = 10.0
# Seconds between looks at whether the work still shows signs of life.
_LOOK = 1.0
# Seconds between two of them after which the process was suspended meanwhile, and its work with it.
_SUSPENDED = 10.0


class LeaseLost(Exception):
    """The lease is somebody else's now: the work must stop without leaving a trace."""


@dataclass
class Lease:
    """A lease that is held. Made by :func:`acquire`.

    patience: seconds without a sign of life after which the work counts as hung; None while nothing is
        expected of it, so that the process speaks for it.
    hung: called once it does, in a thread of its own; the heartbeat stops in any case.
    """

    path: Path
    owner: dict[str, Any]
    alive: float = field(default_factory=time.monotonic)
    lost: bool = False
    patience: float | None = None
    hung: Callable[[], None] | None = None

    def watch(self, patience: float | None) -> None:
        """Expect signs of life from now on, so many seconds apart at most; None expects none."""
        self.alive = time.monotonic()
        self.patience = patience

    def is_hung(self) -> bool:
        """Whether signs of life have been missing for too long."""
        patience = self.patience  # once: the work may say at any moment that it expects no more signs
        return patience is not None and time.monotonic() - self.alive > patience

    def beat(self) -> None:
        """A sign of life from the work; raises :class:`LeaseLost` if the lease is gone."""
        self.alive = time.monotonic()
        if self.lost:
            raise LeaseLost(str(self.path))

    def check(self) -> None:
        """Raise :class:`LeaseLost` unless the lease is still this owner's, as the file system has it now."""
        if _look(self.path).owner != self.owner:
            self.lost = True
        self.beat()

    def is_ours(self) -> bool | None:
        """Whether the lease is still this owner's; None if that cannot be read now."""
        try:
            return _look(self.path).owner == self.owner
        except OSError:
            return None

    def clear(self) -> None:
        """Remove the workplace of finished work, the lease with it, unless somebody else works there now."""
        if self.is_ours():
            shutil.rmtree(self.path.parent, ignore_errors=True)
        with suppress(OSError):
            self.path.parent.rmdir()  # of a lease that was lost: empty if the other one has finished too

    def release(self) -> None:
        """Give the lease back; one that cannot be removed is at least not this process's any more."""
        _held.discard(self)
        try:
            if _look(self.path).owner == self.owner:
                self.path.unlink(missing_ok=True)
        except OSError:
            _given_up.add(self.owner["lease"])

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def acquire(folder: Path) -> Lease | None:
    """The lease on a workplace, or None while another owner holds it.

    Raises :class:`~tombola.errors.StoreUnwritable` if the place cannot be written to.
    """
    try:
        path = folder / "lease"
        for _ in range(2):
            folder.mkdir(parents=True, exist_ok=True)
            owner = process.identity() | {"lease": uuid.uuid4().hex}
            if _create(path, owner):
                lease = Lease(path, owner)
                _held.add(lease)
                return lease
            if not _clear_if_stale(path):
                return None
    except FileNotFoundError:
        return None  # its last owner finished just now, and cleared the place away
    except OSError as error:
        raise unwritable(folder, error) from error
    return None


def free(folder: Path) -> bool:
    """Whether a lease could be had now: there is none, or a dead one."""
    path = folder / "lease"
    try:
        return _is_stale(path, _look(path))
    except FileNotFoundError:
        return True
    except OSError:
        return False  # nobody can tell whose it is, so it is somebody's


def holder(folder: Path) -> dict[str, Any] | None:
    """The identity of the process in the lease on a workplace, alive or dead; None if there is no lease."""
    try:
        return _look(folder / "lease").owner
    except OSError:
        return None


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Create the lease file whole and exclusively: written beside, then linked to its name."""
    beside = path.with_name(f".lease.{owner['lease']}")
    try:
        beside.write_text(json.dumps(owner))
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    return True


def _clear_if_stale(path: Path) -> bool:
    """Take a dead lease out of the way; True if the place is free now."""
    seen = _look(path)
    try:
        if not _is_stale(path, seen):
            return False
    except FileNotFoundError:
        return True
    aside = path.with_name(f".stale.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    # Between the look and the rename its heart may have beaten again, or another have taken over: then that
    # lease is put back.
    mistaken = _look(aside) != seen
    if mistaken:
        # If a third one was faster, the heartbeat of the second finds its lease gone and aborts.
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()
    return not mistaken


@dataclass(frozen=True)
class _Seen:
    """What a lease file says: whose it is, None if of nobody, and its last heartbeat in nanoseconds."""

    owner: dict[str, Any] | None = None
    beaten: int | None = None


def _look(path: Path) -> _Seen:
    """A lease file as it is now, whatever anybody wrote there; of one that is gone, nothing."""
    try:
        return _read(path)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    # Another client of the file server removed it after it was opened here; there may be another by now.
    return _read(path)


def _read(path: Path) -> _Seen:
    try:
        # Opened before its time is read: only then must a client of a file server ask the server.
        with path.open("rb") as file:
            text, beaten = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return _Seen()
    except IsADirectoryError:
        return _Seen(None, path.stat().st_mtime_ns)
    try:
        return _Seen(json_object(text), beaten)
    except ValueError:
        return _Seen(None, beaten)  # a power cut emptied it; it is stale in time


# The leases of others that this process has looked at: what it saw, and since when.
_known: dict[Path, tuple[_Seen, float]] = {}
# Leases that this process could not remove. To others they are stale in time, since nothing beats for them.
_given_up: set[str] = set()


def _unchanged(path: Path, seen: _Seen) -> float:
    """Seconds for which this process has seen a lease as it is, on a clock that never jumps."""
    before, since = _known.get(path, (None, 0.0))
    if before != seen:
        since = time.monotonic()
        _known[path] = seen, since
    return time.monotonic() - since


def _is_stale(path: Path, seen: _Seen) -> bool:
    """Whether what was seen of a lease is of a dead owner; FileNotFoundError if it is gone."""
    if seen.beaten is None:
        _known.pop(path, None)
        raise FileNotFoundError(path)
    lease = seen.owner.get("lease") if seen.owner is not None else None
    if isinstance(lease, str) and lease in _given_up:
        return True
    runs = process.runs(seen.owner) if seen.owner is not None else None
    if runs is False or _unchanged(path, seen) >= STALE:
        return True
    return runs is None and _server_time(path.parent) - seen.beaten / 1e9 >= STALE


def _server_time(folder: Path) -> float:
    """Now, on the clock of the file server that also stamps the leases."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    except OSError:
        return time.time()  # not to be written to from here: then this clock must do


class _Held:
    """The leases that this process holds, and the thread that beats for them."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat_on, name="tombola-heartbeat", daemon=True)
                self._thread.start()

    def discard(self, lease: Lease) -> None:
        with self._lock:
            self._leases.discard(lease)

    def all(self) -> list[Lease]:
        with self._lock:
            return list(self._leases)

    def _beat_on(self) -> None:
        last = looked = time.monotonic()
        while True:
            time.sleep(_LOOK)
            now = time.monotonic()
            missed = now - looked - _LOOK
            looked = now
            due = now - last >= HEARTBEAT
            if due:
                last = now
            with self._lock:
                leases = list(self._leases)
            for lease in leases:
                if missed > _SUSPENDED:  # nobody could give a sign in that time
                    lease.alive = min(now, lease.alive + missed)
                # Whatever goes wrong for one, the others must not go stale; the next look tries again.
                with suppress(Exception):
                    if lease.is_hung():
                        if lease.hung is not None:
                            lease.hung()
                    elif due:
                        _beat_for(lease)


def _beat_for(lease: Lease) -> None:
    """Renew a lease, or notice that it is lost."""
    try:
        if _look(lease.path).owner != lease.owner:
            lease.lost = True
        else:
            os.utime(lease.path)
    except OSError:
        pass  # a file server that hiccups; the next beat tries again


_held = _Held()


def held_here() -> list[Lease]:
    """The leases that this process holds."""
    return _held.all()
