"""Identities of processes across machines, reboots and containers, and whether such a process still runs.

A lease names its owner by one; see :mod:`tombola.lab.lease`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """The identity of this process, unique over all machines and times; JSON."""
    return {
        "host": socket.gethostname(),
        "boot": _boot(),
        "processes": _process_space(),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


def runs(process: Mapping[str, Any]) -> bool | None:
    """Whether the process of an identity still runs; None if this machine cannot tell."""
    pid = process.get("pid")
    if process.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return None
    if process.get("boot") != _boot():
        return None  # before a reboot, or on another machine of the same name
    if process.get("processes") != _process_space():
        return None  # another container, whose process ids mean nothing here
    started = _start_time(pid)
    if started == "" and process.get("started"):
        return None  # it is hidden from this process, so it may also be another of the same number
    return started is not None and started == process.get("started")


@cache
def _boot() -> str:
    """The id of this machine's boot, "" where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def _process_space() -> str:
    """The namespace of process ids, "" where there is none: containers have their own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> str | None:
    """When a process of this machine started, "" if it is hidden, None if there is no such process.

    Tells a process from a later one with the same id.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        pass  # there is no such process, no /proc, or one that hides the processes of other users
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass
    return ""
