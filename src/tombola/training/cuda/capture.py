"""CUDA graphs: work on a GPU captured once and replayed without Python, and the memory that graphs hold.

Engines and heads capture their steps by :class:`CapturedSteps`. Engines that wait for the next training are
kept in an LRU cache, which is emptied where memory does not suffice (:func:`with_room`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any, TypeVar

import torch

from tombola.data.streamed import StreamedBatches
from tombola.errors import reason
from tombola.seeds import borrowing
from tombola.training.cuda.memory import note_caught, watched
from tombola.training.epoch import DevicePlan
from tombola.warn import warn

T = TypeVar("T")

STRETCH = 64
"""Steps launched between two looks at the clock."""

# Times that work is done before its capture, in which libraries choose their algorithms.
_WARM_UPS = 3

# Releases of PyTorch whose internals captures rest on.
_OLDEST, _NEWEST = (2, 9), (2, 13)

# Captures of several threads must not overlap, and none goes together with waiting for the whole device.
_capturing = threading.Lock()

# Engines kept for the next training; each holds its network, its graphs and their memory.
_MOST_IDLE = 8

_idle: list[tuple[object, Any]] = []
_idle_lock = threading.Lock()


def capture(
    work: Callable[[], None],
    pool: torch.cuda._POOL_HANDLE,
    *,
    before: Callable[[], object],
    generator: torch.Generator | None = None,
) -> torch.cuda.CUDAGraph:
    """Capture work as a graph, on the current stream, which no other thread may use.

    pool: the memory pool that it shares with other graphs, of ``torch.cuda.graph_pool_handle``.
    before: called before each time that the work is done, which it is a few times before the capture.
    generator: of the current GPU, from which work draws that would draw from the global one; its seed and
        offset when the graph is replayed are those it draws from then. None for work that does not draw.

    Raises ``RuntimeError`` for work that waits for the GPU or draws on the CPU, which a graph would not do
    again, and ``torch.OutOfMemoryError`` as usual.
    """
    stream = torch.cuda.current_stream()
    cause, full = "", False
    # Some releases of PyTorch take the global generator along whether the work draws or not, and it would be
    # of no use after a capture that failed.
    with borrowing, _capturing, _in_place_of_global(generator or torch.Generator(stream.device)):
        for _ in range(_WARM_UPS):
            before()
            work()
        before()
        stream.synchronize()
        # So that the graph has a workspace of its own: two graphs may replay at once.
        torch._C._cuda_clearCublasWorkspaces()
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        drawn_on_cpu = torch.get_rng_state()
        try:
            # Not by torch.cuda.graph, which gives the free memory of all streams back to the driver. Another
            # thread may be about to launch a product that uses the workspace which has just been cleared.
            graph.capture_begin(pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
            if generator is not None and not torch.equal(drawn_on_cpu, torch.get_rng_state()):
                cause = "it draws random numbers on the CPU"
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
    # Out here, so that the device's error does not become the context of this one, which would count as a
    # lost device.
    if full:
        raise torch.OutOfMemoryError(cause)
    if cause:
        raise_if_lost()  # which ends a capture with the same words
        raise RuntimeError(cause)
    return graph


@contextmanager
def _in_place_of_global(generator: torch.Generator) -> Iterator[None]:
    """Context in which the GPU's global generator has the state of another; the CPU's is left as it was."""
    global_generator = torch.cuda.default_generators[generator.device.index]
    before = global_generator.graphsafe_get_state()
    with torch.random.fork_rng(devices=[]):
        global_generator.graphsafe_set_state(generator)
        try:
            yield
        finally:
            global_generator.graphsafe_set_state(before)


@cache
def knows_this_torch() -> bool:
    """Whether captured and fused steps are made for this PyTorch; where not, it is said, once."""
    release = tuple(map(int, torch.__version__.split(".")[:2]))
    if _OLDEST <= release <= _NEWEST:
        return True
    oldest, newest = (".".join(map(str, version)) for version in (_OLDEST, _NEWEST))
    warn(
        f"GPUs take plain steps, which are slower: captured and fused ones are made for PyTorch {oldest} to "
        f"{newest}, and this is {torch.__version__}"
    )
    return False


class CapturedSteps:
    """The steps of a plan as graphs: one for full batches, and one for a smaller last batch.

    take: called with the size of a batch, it does the step that the plan's counter points to, and reads all
        that differs from step to step on the device. Capturing it calls it a few times.
    generator: from which the steps draw, and which nothing else uses; None for steps that do not draw.

    Raises ``RuntimeError`` for work that cannot be captured, as :func:`capture` does.
    """

    def __init__(
        self, take: Callable[[int], None], plan: DevicePlan, generator: torch.Generator | None = None
    ) -> None:
        def step(size: int) -> None:
            take(size)
            plan.step.add_(1)

        # The work itself is not kept: its owner, which has these steps, would be part of a cycle, and its
        # graphs would be freed by the garbage collection of any thread, within a capture perhaps.
        self._plan = plan
        self._generator = generator
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        self._full, *smaller = (
            capture(partial(step, size), pool, before=plan.step.zero_, generator=generator)
            for size in (plan.batch_size, len(plan.order) % plan.batch_size)
            if size
        )
        self._last = smaller[0] if smaller else self._full

    def replay(
        self,
        first: int,
        last: int,
        step_seeds: Sequence[int] = (),
        streamed: StreamedBatches | None = None,
    ) -> None:
        """Launch steps ``first`` to ``last - 1``, counted from 0.

        step_seeds: a seed for each step of the epoch, for steps that draw.
        streamed: the images of the steps, where they do not lie on the device.
        """
        self._plan.step.fill_(first)
        for step in range(first, last):
            if streamed is not None:
                streamed.load(step)
            if self._generator is not None:
                self._generator.manual_seed(step_seeds[step])
            (self._last if step == len(self._plan.rates) - 1 else self._full).replay()
            if streamed is not None:
                streamed.launched(step)


def give_memory_back() -> None:
    """Return the free memory in PyTorch's cache to the driver."""
    with _capturing:
        torch.cuda.empty_cache()


def raise_if_lost() -> None:
    """Raises ``torch.AcceleratorError`` if the device is lost, whichever thread lost it."""
    with _capturing:
        torch.cuda.synchronize()


def keep_idle(key: object, engine: object) -> None:
    """Add an engine to the LRU cache of idle engines; the one idle longest is evicted where it is full."""
    with _idle_lock:
        _idle.append((key, engine))
        del _idle[:-_MOST_IDLE]


def take_idle(key: object) -> Any:
    """Remove and return the last used idle engine of that key; None if there is none."""
    with _idle_lock:
        for place in reversed(range(len(_idle))):
            if _idle[place][0] == key:
                return _idle.pop(place)[1]
    return None


def forget_engines() -> None:
    """Evict all idle engines and free their memory."""
    with _idle_lock:
        _idle.clear()
    give_memory_back()


def with_room(make: Callable[[], T]) -> T:
    """The result of ``make``, called again after evicting idle engines where memory does not suffice.

    PyTorch frees its cache by itself in that case, but not during a capture.
    """
    with watched(torch.device("cuda")):
        try:
            return make()
        except torch.OutOfMemoryError as error:
            note_caught(error)
        # Out here nothing refers to what failed any more, and its memory is free.
        forget_engines()
        return make()
