"""Engines that wait for the next training on their GPU; whoever lacks memory may have theirs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from tombola.training.capture import give_memory_back

T = TypeVar("T")

# Engines kept for the next training; each holds its network, its graphs and their memory.
_KEPT = 8

_idle: list[tuple[Any, Any]] = []
_lock = threading.Lock()


def keep(key: Any, engine: Any) -> None:
    """Keep an engine, and let the one go that has waited longest where they are many."""
    with _lock:
        _idle.append((key, engine))
        del _idle[:-_KEPT]


def take(key: Any) -> Any:
    """The last used idle engine of that kind, or None."""
    with _lock:
        for place in reversed(range(len(_idle))):
            if _idle[place][0] == key:
                return _idle.pop(place)[1]
    return None


def forget_engines() -> None:
    """Free the memory of engines that nobody uses."""
    with _lock:
        _idle.clear()
    give_memory_back()


def with_room(make: Callable[[], T]) -> T:
    """What is made; where memory does not suffice, once more after idle engines were forgotten.

    PyTorch gives back what it keeps for later by itself, but not during a capture.
    """
    try:
        return make()
    except torch.OutOfMemoryError:
        pass
    # Out here nothing refers any more to what failed, and its memory is free.
    forget_engines()
    return make()
