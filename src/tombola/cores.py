"""The cores of this machine, and how many threads a computation on them uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tombola.errors import RecipeError

# A driver may have fewer cores than the machines that it drives.
_MOST_A_CORE, _MOST_ANYWHERE = 4, 256


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_per_core(name: str, count: int | None) -> None:
    """Raises RecipeError for a number of threads or processes far beyond the cores of any machine at hand.

    name: of the setting, for the error.
    """
    cores = available_cores()
    most = max(_MOST_ANYWHERE, _MOST_A_CORE * cores)
    if count is not None and count > most:
        has = f"{cores} core{'s' * (cores != 1)}"
        raise RecipeError(f"{name} is {count}; this machine has {has}, so give at most {most}")


@contextmanager
def intra_op_threads(count: int) -> Iterator[None]:
    """Sets torch's number of intra-op threads for a while, and restores the former number."""
    import torch  # here, since the command line asks for cores without waiting for it

    before = torch.get_num_threads()
    if before != count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            torch.set_num_threads(before)
