"""The memory of a GPU that does not suffice: said in words, and noticed where PyTorch passes over it.

A convolution may need a workspace. Where that does not fit, PyTorch takes the next algorithm, without a word
and for as long as the thread lives. Other algorithms give other bits, so bits would depend on what else lies
in memory. Only the count of failed allocations gives it away: those of which no error told were silent.
The count is the whole process's, and so is the remedy, a new process.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tombola.errors import DeviceLost

# An error takes a moment from being counted to being told, by another thread perhaps.
_PATIENCE, _LOOKS = 0.1, 10

_lock = threading.Lock()
_told: Counter[int] = Counter()
_lost: set[int] = set()


class Shortage:
    """Notices whether a convolution on the current GPU lacked memory, from when this was made.

    In mode ``"autotuned"`` it notices nothing, because algorithms are chosen by timing anyhow. Without a GPU
    neither.

    Raises :class:`~tombola.errors.DeviceLost` if one of this process has lacked memory before.
    """

    def __init__(self) -> None:
        self._device: int | None = None
        if torch.cuda.is_available() and not torch.backends.cudnn.benchmark:
            self._device = torch.cuda.current_device()
            _refuse_if_lost(self._device)
            self._before = _silent(self._device)

    def check(self) -> None:
        """Raises :class:`~tombola.errors.DeviceLost` if one has, so that bits may differ."""
        if self._device is not None and self.remember():
            _refuse_if_lost(self._device)

    def remember(self, *, under_way: int = 0) -> bool:
        """Whether one has; if so, later computations of this process are refused.

        under_way: failed allocations whose errors are on their way to where they will be told.
        """
        if self._device is None:
            return False
        for _ in range(_LOOKS):
            if _silent(self._device) <= self._before + under_way:
                return False
            time.sleep(_PATIENCE)
        with _lock:
            _lost.add(self._device)
        return True


@contextmanager
def watched() -> Iterator[None]:
    """Choose algorithms in this context; raises at its beginning and end as :class:`Shortage` does."""
    shortage = Shortage()
    try:
        yield
    except torch.OutOfMemoryError:
        shortage.remember(under_way=1)
        raise
    shortage.check()


def tell() -> None:
    """Say that a ``torch.OutOfMemoryError`` of the current GPU was caught; called once for each."""
    if torch.cuda.is_available():
        with _lock:
            _told[torch.cuda.current_device()] += 1


def _silent(device: int) -> int:
    failed = torch.cuda.memory_stats_as_nested_dict(device).get("num_ooms", 0)
    with _lock:
        return int(failed) - _told[device]


def _refuse_if_lost(device: int) -> None:
    if device in _lost:
        raise DeviceLost(
            f"{out_of_memory(torch.device('cuda', device))}: a convolution's workspace did not fit, and "
            "PyTorch took another algorithm in silence, which gives other bits; begin a new process, with "
            "fewer slots or smaller batches"
        )


def out_of_memory(device: torch.device) -> str:
    """The beginning of the error message for a GPU whose memory does not suffice."""
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    return f"CUDA out of memory on {device} ({total:.0f} GiB, {free:.1f} free now)"
