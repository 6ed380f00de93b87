"""Leases: who works on a job, so that each is computed once however many drivers and workers there are.

A lease is a file, created exclusively. Its time of change is its heartbeat, written and read on the file
server's clock. One whose heart stopped, or whose process is known to be dead, is taken over. The heartbeat
goes on only while the work shows signs of life, so that a hung job is noticed too.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tombola.errors import StoreUnwritable, reason

# Seconds without a heartbeat after which a lease is taken over.
STALE = 60.0
# Seconds between heartbeats.
HEARTBEAT = 10.0
# Seconds without a sign of life from the work after which its heartbeat stops.
PATIENCE = 1800.0


class LeaseLost(Exception):
    """The lease is somebody else's now: the work must stop without leaving a trace."""


@dataclass
class Lease:
    """A lease that is held. Made by :func:`acquire`."""

    path: Path
    owner: dict[str, Any]
    alive: float
    lost: bool = False
    unwatched: bool = False  # the work gives no signs of life, so the process speaks for it

    def beat(self) -> None:
        """A sign of life from the work; raises :class:`LeaseLost` if the lease is gone."""
        self.alive = time.monotonic()
        if self.lost:
            raise LeaseLost(str(self.path))

    def check(self) -> None:
        """Raise :class:`LeaseLost` unless the lease is still this owner's, as the file system has it now."""
        if _owner_in(self.path) != self.owner:
            self.lost = True
        self.beat()

    def release(self) -> None:
        """Give the lease back."""
        _held.discard(self)
        if _owner_in(self.path) == self.owner:
            self.path.unlink(missing_ok=True)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def acquire(folder: Path) -> Lease | None:
    """The lease on a workplace, or None while another owner holds it.

    Raises :class:`~tombola.errors.StoreError` if the place cannot be written to.
    """
    try:
        path = folder / "lease"
        for _ in range(2):
            folder.mkdir(parents=True, exist_ok=True)
            owner = _identity() | {"lease": uuid.uuid4().hex}
            if _create(path, owner):
                lease = Lease(path, owner, time.monotonic())
                _held.add(lease)
                return lease
            if not _clear_if_stale(path):
                return None
    except FileNotFoundError:
        return None  # its last owner finished just now, and cleared the place away
    except OSError as error:
        raise StoreUnwritable(f"cannot write to {folder}: {reason(error)}") from error
    return None


def free(folder: Path) -> bool:
    """Whether a lease could be had now: there is none, or a dead one."""
    path = folder / "lease"
    try:
        return not path.exists() or _is_stale(path, _owner_in(path))
    except FileNotFoundError:
        return True


def _create(path: Path, owner: dict[str, Any]) -> bool:
    """Create the lease file whole and exclusively: written beside, then linked to its name."""
    beside = path.with_name(f".lease.{owner['lease']}")
    beside.write_text(json.dumps(owner))
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        beside.unlink()
    return True


def _clear_if_stale(path: Path) -> bool:
    """Take a dead lease out of the way; True if the place is free now."""
    owner = _owner_in(path)
    try:
        if not _is_stale(path, owner):
            return False
    except FileNotFoundError:
        return True
    aside = path.with_name(f".stale.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    # Between the look and the rename another may have taken over: then that lease is put back.
    mistaken = _owner_in(aside) != owner
    if mistaken:
        # If a third one was faster, the heartbeat of the second finds its lease gone and aborts.
        with suppress(FileExistsError):
            os.link(aside, path)
    aside.unlink()
    return not mistaken


def _is_stale(path: Path, owner: dict[str, Any] | None) -> bool:
    age = _server_time(path.parent) - path.stat().st_mtime
    # A lease that a power cut emptied names nobody; it is stale in time.
    return age >= STALE or (owner is not None and _known_dead(owner))


def _owner_in(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _server_time(folder: Path) -> float:
    """Now, on the clock of the file server that also stamps the leases."""
    probe = folder / f".clock.{uuid.uuid4().hex}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "processes": _process_space(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def _known_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner is a process of this machine that no longer runs."""
    if owner.get("host") != socket.gethostname() or not isinstance(owner.get("pid"), int):
        return False
    if owner.get("boot") != _boot():
        return True
    if owner.get("processes") != _process_space():
        return False  # another container, whose process ids mean nothing here
    started = _started(owner["pid"])
    return started is None or (started != owner.get("started"))


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def _process_space() -> str:
    """Names the space that process ids are counted in: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of this machine started, None if there is none; guards against reused process ids."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


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

    def _beat_on(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            with self._lock:
                leases = list(self._leases)
            for lease in leases:
                if not lease.unwatched and time.monotonic() - lease.alive > PATIENCE:
                    continue
                try:
                    if _owner_in(lease.path) != lease.owner:
                        lease.lost = True
                    else:
                        os.utime(lease.path)
                except OSError:
                    continue  # a file server that hiccups; the next beat tries again


_held = _Held()
