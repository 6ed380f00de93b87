"""Leases on workplaces, so that each job is computed once, however many drivers and workers there are.

A lease is a file, created exclusively. Its time of change is its heartbeat, written and read on the file
server's clock. A lease without a heartbeat for 60 s, or of a process known to be dead, may be taken over.
Because clocks jump, a lease of a process that is seen to run, and a heartbeat in the future, become stale
only by the steady clock of the process that watches them. A heartbeat is written only while the work shows
signs of life; the process of a hung job is ended.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tombola import disk
from tombola.errors import OddFile, StoreError, unwritable
from tombola.guarded import check_folder
from tombola.lab import process
from tombola.untrusted import json_object, open_regular

# Seconds without a heartbeat after which a lease may be taken over.
STALE = 60.0
# Seconds between heartbeats.
HEARTBEAT = 10.0
# Seconds between two looks for signs of life of the work.
_LOOK = 1.0
# Seconds by which a look may be late; after more the process and its work were suspended meanwhile.
_SUSPENDED = 10.0
# Bytes of the longest lease; ours have some 300.
_LONGEST = 2**16


class LeaseLost(Exception):
    """Another owner has the lease now: the work must stop and write nothing more."""


@dataclass
class Lease:
    """A held lease, returned by :func:`acquire`.

    owner: identity of the holding process, with an id of the lease itself.
    alive: time of the last sign of life of the work, on the clock of ``time.monotonic``.
    lost: whether another owner has it now.
    patience: seconds without a sign of life after which the work counts as hung; None while no signs are
        expected, so that the work is alive while its process is.
    hung: called once the work counts as hung, in a thread of its own; the heartbeat stops in any case.
    """

    path: Path
    owner: dict[str, Any]
    alive: float = field(default_factory=time.monotonic)
    lost: bool = False
    patience: float | None = None
    hung: Callable[[], None] | None = None

    def watch(self, patience: float | None) -> None:
        """Expects signs of life from now on, at most ``patience`` seconds apart; None expects none."""
        self.alive = time.monotonic()
        self.patience = patience

    def is_hung(self) -> bool:
        """Whether signs of life have been missing for too long."""
        patience = self.patience  # read once: the work's thread may set it to None at any moment
        return patience is not None and time.monotonic() - self.alive > patience

    def beat(self) -> None:
        """Notes a sign of life of the work; raises :class:`LeaseLost` if the lease is lost."""
        self.alive = time.monotonic()
        if self.lost:
            raise LeaseLost(str(self.path))

    def check(self) -> None:
        """Reads the lease file and raises :class:`LeaseLost` unless it is still this owner's."""
        if _read_lease(self.path).owner != self.owner:
            self.lost = True
        self.beat()

    def is_ours(self) -> bool | None:
        """Whether the lease is still this owner's; None if that cannot be read now."""
        try:
            check_folder(self.path.parent)  # behind another's link nothing is said of this lease
            return _read_lease(self.path).owner == self.owner
        except OSError:
            return None

    def clear(self) -> None:
        """Removes the workplace of finished work, with the lease, unless another owner works there now."""
        if self.is_ours():
            disk.remove_tree(self.path.parent, ignore_errors=True)
        with suppress(OSError):
            # After a lost lease: it is empty if the other owner has finished too.
            disk.remove_folder(self.path.parent)

    def release(self) -> None:
        """Gives the lease back; if its file cannot be removed, it counts as stale in this process."""
        _held.discard(self)
        try:
            _give_back(self.path, self.owner)
        except OSError:
            _unremovable.add(self.owner["lease"])

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def acquire(folder: Path) -> Lease | None:
    """The lease on a workplace, or None while another owner holds it.

    Raises :class:`~tombola.errors.StoreUnwritable` if the place cannot be written to, and
    :class:`~tombola.errors.StoreError` for a link, by which files elsewhere would be overwritten.
    """
    try:
        path = folder / "lease"
        for _ in range(2):
            if folder.is_symlink():
                raise StoreError(f"{folder} is a link, and work begins in no other folder; remove it")
            disk.make_folder(folder, parents=True, exist_ok=True)
            owner = process.identity() | {"lease": uuid.uuid4().hex}
            if _create(path, owner):
                if _gave_way(path, owner):
                    return None
                lease = Lease(path, owner)
                _held.add(lease)
                return lease
            if not _clear_if_stale(path):
                return None
    except FileNotFoundError:
        return None  # its last owner finished just now and removed the workplace
    except FileExistsError as error:
        if folder.is_file() or folder.is_symlink():
            raise unwritable(folder, error) from error
        return None  # the same, before mkdir looked at what was in its way
    except OSError as error:
        raise unwritable(folder, error) from error
    return None


def free(folder: Path) -> bool:
    """Whether a lease could be acquired now: there is none, or a stale one."""
    path = folder / "lease"
    try:
        return _is_stale(path, _read_lease(path))
    except FileNotFoundError:
        return True
    except OSError:
        return False  # a lease that cannot be read counts as held


def holder(folder: Path) -> dict[str, Any] | None:
    """The identity of the process in the lease on a workplace, alive or dead; None if there is no lease."""
    try:
        return _read_lease(folder / "lease").owner
    except OSError:
        return None


def holder_text(folder: Path) -> str:
    """The process in the lease on a workplace in words: "process 123 on host"."""
    owner = holder(folder) or {}
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Creates a lease file exclusively and in one step; False if there is one already."""
    written = path.with_name(f".lease.{owner['lease']}")
    try:
        disk.write_part(written, json.dumps(owner).encode())
        disk.link(written, path)  # of a complete file, so that no reader sees half of it
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):  # the lease is there or is not; what is left goes with the workplace
            disk.remove(written, missing_ok=True)
    return True


def _clear_if_stale(path: Path) -> bool:
    """Removes a stale lease; True if the workplace is free now."""
    state = _read_lease(path)
    try:
        if not _is_stale(path, state):
            return False
    except FileNotFoundError:
        return True
    aside = _aside(path, uuid.uuid4().hex)
    try:
        disk.rename(path, aside)
    except FileNotFoundError:
        return True
    # Between the look and the rename there may have been a heartbeat, or another owner may have taken over:
    # then that lease is put back.
    mistaken = _read_lease(aside) != state
    if aside.is_dir() and not aside.is_symlink():
        disk.remove_tree(aside)
        return True
    if mistaken:
        _put_back(aside, path)
        return False
    disk.remove(aside)
    return True


def _give_back(path: Path, owner: dict[str, Any]) -> None:
    """Removes an owner's lease, and never another's: the owner may be suspended between look and removal."""
    check_folder(path.parent)
    if _read_lease(path).owner != owner:
        return
    aside = _aside(path, owner["lease"])
    try:
        disk.rename(path, aside)
    except FileNotFoundError:
        return
    if _read_lease(aside).owner != owner:
        _put_back(aside, path)
        return
    # And under any name from which a process put it back that died before it removed that.
    for name in path.parent.glob(".stale.*"):
        with suppress(FileNotFoundError):
            if _read_lease(name).owner == owner:
                disk.remove(name)


def _aside(path: Path, name: str) -> Path:
    """Where a lease is put to be looked at: under the name of the lease that is given back, or one drawn."""
    return path.with_name(f".stale.{name}")


def _put_back(aside: Path, path: Path) -> None:
    """Puts a lease back that was put aside by mistake.

    A third owner may have been faster: it finds this lease aside, and gives way.
    """
    with suppress(FileExistsError, FileNotFoundError):
        disk.link(aside, path)
        disk.remove(aside)


def _gave_way(path: Path, owner: dict[str, Any]) -> bool:
    """Whether a lease that was created just now was given up for one that had been put aside by mistake.

    A lease is put aside in the moment in which its name becomes free. So the owner that creates one at that
    name before the other is back sees that one; without this look two owners would work for ten seconds.
    """
    for aside in path.parent.glob(".stale.*"):
        with suppress(FileNotFoundError):  # it was stale, and is removed
            state = _read_lease(aside)
            given_back = state.owner is not None and aside.name == f".stale.{state.owner.get('lease')}"
            if not given_back and not _is_stale(aside, state):
                _give_back(path, owner)
                _put_back(aside, path)
                return True
    return False


@dataclass(frozen=True)
class _LeaseState:
    """A lease file as read: its owner, None if unreadable; its last heartbeat in ns, None if it is gone.

    Unreadable are odd contents, and all that is no file: a pipe, a link, a folder. It is stale in time.
    """

    owner: dict[str, Any] | None = None
    heartbeat: int | None = None


def _read_lease(path: Path) -> _LeaseState:
    """The state of a lease file now, also of one that is gone or has odd contents."""
    try:
        return _read_once(path)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    # Another client of the file server removed it after it was opened here; there may be another by now.
    return _read_once(path)


def _read_once(path: Path) -> _LeaseState:
    """The state of a lease file; OSError with ESTALE if it is removed on the server meanwhile."""
    try:
        # Opened before its time is read: only then must a client of a file server ask the server.
        with open_regular(path, _LONGEST) as file:
            text, heartbeat = file.read(_LONGEST), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return _LeaseState()
    except OddFile:
        return _LeaseState(None, path.lstat().st_mtime_ns)
    try:
        return _LeaseState(json_object(text), heartbeat)
    except ValueError:
        return _LeaseState(None, heartbeat)  # emptied by a power loss; it is stale in time


# The leases of others that this process has read: their states, and since when they have been so.
_watched: dict[Path, tuple[_LeaseState, float]] = {}
# Ids of leases that this process could not remove. To others they are stale in time, without a heartbeat.
_unremovable: set[str] = set()


def _seconds_unchanged(path: Path, state: _LeaseState) -> float:
    """Seconds for which this process has read a lease in the same state, on a clock that never jumps."""
    before, since = _watched.get(path, (None, 0.0))
    if before != state:
        since = time.monotonic()
        _watched[path] = state, since
    return time.monotonic() - since


def _is_stale(path: Path, state: _LeaseState) -> bool:
    """Whether a lease in this state may be taken over; raises FileNotFoundError if it is gone."""
    if state.heartbeat is None:
        _watched.pop(path, None)
        raise FileNotFoundError(path)
    lease = state.owner.get("lease") if state.owner is not None else None
    if isinstance(lease, str) and lease in _unremovable:
        return True
    runs = process.runs(state.owner) if state.owner is not None else None
    if runs is False or _seconds_unchanged(path, state) >= STALE:
        return True
    # Asked next to the workplace, which may be removed now, and whose own time of change gc goes by.
    return runs is None and _server_time(path.parent.parent) - state.heartbeat / 1e9 >= STALE


def _server_time(folder: Path) -> float:
    """Seconds since the epoch on the clock of the file server, which also stamps the leases."""
    probe = folder / f".clock.{uuid.uuid4().hex[:8]}"
    try:
        disk.touch(probe)
        try:
            return probe.stat().st_mtime
        finally:
            disk.remove(probe)
    except OSError:
        return time.time()  # the folder cannot be written to: this machine's clock must do


class _Held:
    """The leases that this process holds, and the thread that writes their heartbeats.

    count: of all that it ever held.
    """

    def __init__(self) -> None:
        self.count = 0
        self._leases: set[Lease] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._lock:
            self.count += 1
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
        """Writes heartbeats for ever, and calls ``hung`` of leases whose work is; in a thread of its own."""
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
                if missed > _SUSPENDED:  # the work could give no sign in that time
                    lease.alive = min(now, lease.alive + missed)
                # An error of one must not let the others go stale; the next look tries again.
                with suppress(Exception):
                    if lease.is_hung():
                        if lease.hung is not None:
                            lease.hung()
                    elif due:
                        _beat_for(lease)


def _beat_for(lease: Lease) -> None:
    """Writes a heartbeat, or marks the lease as lost if it is another owner's."""
    try:
        if _read_lease(lease.path).owner != lease.owner:
            lease.lost = True
        else:
            disk.set_time(lease.path)
    except OSError:
        pass  # a short failure of the file server; the next heartbeat tries again


_held = _Held()


def held_here() -> list[Lease]:
    """The leases that this process holds."""
    return _held.all()


def count_here() -> int:
    """How many leases this process ever held."""
    return _held.count
