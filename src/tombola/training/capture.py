"""Capturing work on a GPU as a CUDA graph, which replays it without asking Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from tombola.errors import reason

# Times that work is done before its capture, in which libraries choose their algorithms.
_WARM_UPS = 3

# Captures of several threads must not overlap, and giving memory back while one is under way would break it.
_capturing = threading.Lock()


def capture(work: Callable[[], None], pool: Any, *, before: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Work as a graph, on the current stream, which must be one's own.

    before: called before each time that the work is done, which it is a few times beforehand.

    Raises ``RuntimeError`` for work that waits for the GPU, and ``torch.OutOfMemoryError`` as usual.
    """
    stream = torch.cuda.current_stream()
    cause = ""
    with _capturing:
        for _ in range(_WARM_UPS):
            before()
            work()
        before()
        stream.synchronize()
        # So that the graph has a workspace of its own: two graphs may replay at once.
        torch._C._cuda_clearCublasWorkspaces()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"):
                work()
        except torch.AcceleratorError as error:
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            if "captur" not in str(error):
                raise  # the device itself is in trouble
            cause = reason(error)
            # Some releases of PyTorch go on allocating for a capture that failed, and refuse all others.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        finally:
            torch._C._cuda_clearCublasWorkspaces()
    # Out here, so that nobody finds the device's error behind this one and gives the device up.
    if cause:
        raise RuntimeError(cause)
    return graph


def give_memory_back() -> None:
    """Free what PyTorch keeps of a GPU's memory for later."""
    with _capturing:
        torch.cuda.empty_cache()


def raise_if_lost() -> None:
    """Let a device in trouble say so: ``torch.AcceleratorError``, whoever met the trouble first."""
    with _capturing:
        torch.cuda.synchronize()
