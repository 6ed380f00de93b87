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

# Captures of several threads must not overlap, and none goes together with waiting for the whole device.
_capturing = threading.Lock()


def capture(work: Callable[[], None], pool: Any, *, before: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """Work as a graph, on the current stream, which must be one's own.

    before: called before each time that the work is done, which it is a few times beforehand.

    Raises ``RuntimeError`` for work that waits for the GPU, and ``torch.OutOfMemoryError`` as usual.
    """
    stream = torch.cuda.current_stream()
    cause, full = "", False
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
            # Not by torch.cuda.graph, which gives the free memory of all streams back to the driver. Another
            # thread may be about to launch a product that uses the workspace which has just been cleared.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        except torch.AcceleratorError as error:
            full = isinstance(error.__context__, torch.OutOfMemoryError)
            if not full and "captur" not in str(error):
                raise  # the device itself is in trouble
            cause = reason(error.__context__ or error)  # the operation that could not be, before the end
            # Some releases of PyTorch go on allocating for a capture that failed, and refuse all others.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        finally:
            torch._C._cuda_clearCublasWorkspaces()
    # Out here, so that nobody finds the device's error behind this one and gives the device up.
    if full:
        raise torch.OutOfMemoryError(cause)
    if cause:
        raise_if_lost()  # which ends a capture with the same words
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
