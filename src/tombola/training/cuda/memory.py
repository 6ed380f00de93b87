"""The memory of a GPU that does not suffice: said in words, and noticed where PyTorch passes over it.

A convolution may need a workspace. Where that does not fit, PyTorch takes the next algorithm, without a word
and for as long as the thread lives. Other algorithms give other bits, so bits would depend on what else lies
in memory. PyTorch's count of failed allocations gives it away: those of which no error came were silent. The
count is the whole process's, and so is the remedy, a new process. What cuDNN allocates by itself is not
counted, nor anything under another allocator than PyTorch's own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tombola.errors import MemoryShort

# An error takes a moment from being counted to being caught, by another thread perhaps.
_PATIENCE, _LOOKS = 0.1, 10

_lock = threading.Lock()
_watchers: Counter[int] = Counter()
_before: dict[int, int] = {}  # silent failures when the first of the watchers came, which are not ours
_caught: Counter[int] = Counter()
_lost: set[int] = set()


@contextmanager
def watched(device: torch.device) -> Iterator[None]:
    """Algorithms may be chosen in this context; a failure that is silent is remembered for good.

    On a CPU, and in mode ``"autotuned"``, where they are chosen by timing anyhow, nothing is watched.

    Raises :class:`~tombola.errors.MemoryShort` at its beginning and end if a convolution of this process has
    lacked memory, so that bits may differ.
    """
    if not _counts(device):
        yield
        return
    index = _index(device)
    with _lock:
        _refuse_if_lost(index)
        if not _watchers[index]:
            _before[index] = _silent(index)
        _watchers[index] += 1
    try:
        yield
    except torch.OutOfMemoryError as error:
        note_caught(error)
        raise
    finally:
        _look(index)
        with _lock:
            _watchers[index] -= 1
    _refuse_if_lost(index)


def check(device: torch.device) -> None:
    """Raises within :func:`watched` what its end would raise; may wait for a second."""
    if _counts(device):
        index = _index(device)
        _look(index)
        _refuse_if_lost(index)


def note_caught(error: torch.OutOfMemoryError) -> None:
    """Count an error of the current GPU as told; called wherever one is caught, it counts each once."""
    if not getattr(error, "noted", False):
        error.noted = True  # type: ignore[attr-defined]
        if torch.cuda.is_available():
            with _lock:
                _caught[torch.cuda.current_device()] += 1


def _look(index: int) -> None:
    """Remember a GPU on which an allocation has failed in silence."""
    for _ in range(_LOOKS):
        with _lock:
            if _silent(index) <= _before[index]:
                return
        time.sleep(_PATIENCE)
    with _lock:
        _lost.add(index)


def _counts(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available() and not torch.backends.cudnn.benchmark


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def _silent(index: int) -> int:
    """Allocations that failed without an error that was caught; for a moment, those on their way as well."""
    return int(torch.cuda.memory_stats_as_nested_dict(index).get("num_ooms", 0)) - _caught[index]


def _refuse_if_lost(index: int) -> None:
    if index in _lost:
        raise MemoryShort(
            f"{out_of_memory(torch.device('cuda', index))}: a convolution's workspace did not fit, and "
            "PyTorch took another algorithm in silence, which gives other bits; begin a new process, with "
            "fewer slots or smaller batches"
        )


def capacity(device: torch.device) -> int:
    """Bytes that this process may have on a GPU, those that it has included."""
    free, total = torch.cuda.mem_get_info(device)
    share = torch.cuda.get_per_process_memory_fraction(_index(device))
    return int(min(free + torch.cuda.memory_reserved(device), share * total))


def out_of_memory(device: torch.device) -> str:
    """The beginning of the error message for a GPU whose memory does not suffice."""
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info(device))
    return f"CUDA out of memory on {device} ({total:.0f} GiB, {free:.1f} free now)"
