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
    pid = process.get("pid")
    if process.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return None
    if process.get("boot") != _boot():
        return None  # before a reboot, or on another machine of the same name
    if process.get("processes") != _process_space():
        return None  # another container, whose process ids mean nothing here
    started = _started(pid)
    if started == "" and process.get("started"):
        return None  # it is hidden from this process, so it may also be another of the same number
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
    """When a process of this machine started, "" if that is not told, None if there is no such process.

    Guards against reused process ids.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass  # there is none, or no /proc here, or one that hides what others run
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return ""
