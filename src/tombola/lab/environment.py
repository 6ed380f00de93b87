"""The versions that results depend on, which must be the same on all machines of a cluster.

The driver compares those of each worker when it connects, and each worker its own before a job.
"""

from __future__ import annotations

import platform
import socket
from collections.abc import Mapping

import numpy
import torch

from tombola.version import __version__


def versions() -> dict[str, str]:
    """The versions in this process, by name."""
    return {
        "tombola": __version__,
        "torch": torch.__version__.partition("+")[0],
        "numpy": numpy.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def difference(worker: Mapping[str, str], driver: Mapping[str, str], where: str) -> str | None:
    """An error message about the first version that differs on a worker; None if all agree."""
    for name, version in driver.items():
        if worker[name] != version:
            return (
                f"the worker on {where} has {name} {worker[name]}, here is {version}; install the same "
                "versions on all machines"
            )
    return None


def difference_here(driver: Mapping[str, str]) -> str | None:
    """An error message about a version of this worker that is not the driver's; None if all agree."""
    return difference(versions(), driver, socket.gethostname())
