"""Warnings that point to the user's line, however many functions of the package lie between."""

from __future__ import annotations

import sys
import warnings
from itertools import count

# Packages whose frames are no user's: ours, and what lies between two of ours for a decorator or a context.
_BETWEEN = frozenset({"tombola", "torch", "contextlib", "functools"})


def warn(message: str) -> None:
    """Warn of something at the line that called the package, where Python then says it once."""
    frame = sys._getframe()
    for level in count(1):
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _BETWEEN or frame.f_back is None:
            warnings.warn(message, stacklevel=level)
            return
        frame = frame.f_back
