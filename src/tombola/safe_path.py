"""Keeps new processes of Python from importing out of the current folder, which others may write to.

A process that ``multiprocessing`` spawns is started as ``python -c``, and that looks for every module there
first, even for those of Python itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "PYTHONSAFEPATH"


@contextmanager
def safe_path() -> Iterator[None]:
    """While this lasts, new processes import what this one could, and nothing else."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
