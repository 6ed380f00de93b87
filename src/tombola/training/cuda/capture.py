"""Capturing work on a GPU as a CUDA graph, which replays it without asking Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch

from tombola.errors import reason
from tombola.training.epoch import DevicePlan

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


STRETCH = 64
"""Steps launched between two looks at the clock."""


class CapturedSteps:
    """What is done at each step of a plan, captured once for a whole batch and once for a smaller last one.

    take: called with the size of a batch, it does the step that the plan's counter points to, reading on the
        device whatever differs from step to step. Capturing it calls it a few times.

    Raises ``RuntimeError`` for work that waits for the GPU.
    """

    def __init__(self, take: Callable[[int], None], plan: DevicePlan) -> None:
        def step(size: int) -> None:
            take(size)
            plan.step.add_(1)

        # The work itself is not kept: whoever has it and these steps would be a cycle, and its graphs would
        # be freed by the garbage collection of any thread, within a capture perhaps.
        self._plan = plan
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self._whole, *smaller = (
            capture(partial(step, size), pool, before=plan.step.zero_)
            for size in (plan.batch_size, len(plan.order) % plan.batch_size)
            if size
        )
        self._last = smaller[0] if smaller else self._whole

    def replay(self, first: int, last: int) -> None:
        """Launch the steps from ``first`` up to ``last``, counted from 0."""
        self._plan.step.fill_(first)
        for step in range(first, last):
            (self._last if step == len(self._plan.rates) - 1 else self._whole).replay()
