"""The versions that results depend on, which must be the same on all machines."""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping

import numpy
import torch

from tombola.version import __version__


def versions() -> dict[str, str]:
    """Those of this process."""
    return {
        "tombola": __version__,
        "torch": torch.__version__.partition("+")[0],
        "numpy": numpy.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def different(worker: Mapping[str, str], driver: Mapping[str, str], where: str) -> str | None:
    """What is different on a worker, and what to do about it."""
    for what, version in driver.items():
        if worker[what] != version:
            return (
                f"the worker on {where} has {what} {worker[what]}, here is {version}; install the same "
                "versions on all machines"
            )
    return None


def different_here(driver: Mapping[str, str]) -> str | None:
    """What is different in this process, which works for a driver elsewhere."""
    return different(versions(), driver, socket.gethostname())
