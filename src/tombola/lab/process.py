"""Processes told apart: which one holds a lease, and whether it still runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """What tells this process from every other, on any machine and at any time."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "processes": _process_space(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def runs(process: Mapping[str, Any]) -> bool | None:
    """Whether the process of an identity runs; None if that cannot be known on this machine."""
    if process.get("host") != socket.gethostname() or not isinstance(process.get("pid"), int):
        return None
    if process.get("boot") != _boot():
        return False
    if process.get("processes") != _process_space():
        return None  # another container, whose process ids mean nothing here
    started = _started(process["pid"])
    return started is not None and started == process.get("started")


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
