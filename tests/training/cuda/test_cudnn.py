"""The binding to cuDNN on a CPU, on a library that stands in for it."""

import ctypes
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tombola.training.cuda import cudnn
from tombola.training.cuda.cudnn import Algorithm, Convolution, ConvolutionPlan, CudnnError

CONVOLUTION = Convolution("forward", (4, 8, 9, 7), (16, 8, 3, 3), (2, 1), (1, 0))


class Library:
    """Succeeds at everything; notes who uses a handle, and the most that used one of them at once."""

    def __init__(self) -> None:
        self.uses: list[tuple[str, int]] = []
        self.handles: Counter[int] = Counter()
        self.most, self.created = 0, 0
        self._at_once: Counter[int] = Counter()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == "cudnnCreate":
                self.created += 1
                arguments[0]._obj.value = self.created
            named = name == "cudnnBackendSetAttribute" and arguments[2].value == cudnn._HANDLE
            if named or name in ("cudnnSetStream", "cudnnBackendExecute"):
                handle = int(arguments[4][0]) if named else int(arguments[0].value)
                self.uses.append((name, threading.get_ident()))
                self.handles[handle] += 1
                self._at_once[handle] += 1
                self.most = max(self.most, self._at_once[handle])
                time.sleep(1e-3)
                self._at_once[handle] -= 1
            return 0

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(cudnn, "_library", lambda: library)
    monkeypatch.setattr(cudnn, "HANDLES", 4)
    handles: dict[int, cudnn._Handle] = {}

    def handle(_: int, number: int) -> cudnn._Handle:
        return handles.setdefault(number, handles.get(number) or cudnn._Handle())

    monkeypatch.setattr(cudnn, "_handle", handle)
    monkeypatch.setattr(cudnn, "_plans", {})
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(cudnn, "_check", lambda *_: None)
    monkeypatch.setattr(cudnn._Descriptor, "get", lambda *_: [0])  # bytes of a workspace
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: SimpleNamespace(cuda_stream=1))
    return library


def test_one_thread_at_a_time_uses_a_handle_and_sets_its_stream_first(library: Library) -> None:
    plan, tensor = ConvolutionPlan(CONVOLUTION, Algorithm(1, ())), torch.zeros(1)
    library.uses.clear()
    threads = [
        threading.Thread(target=lambda: [plan(tensor, tensor, tensor) for _ in range(10)]),
        threading.Thread(
            target=lambda: [ConvolutionPlan(CONVOLUTION, Algorithm(1, ((2, 0),))) for _ in range(10)]
        ),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert library.most == 1
    for before, (name, used_by) in zip([None, *library.uses], library.uses, strict=False):
        assert name == "cudnnSetStream" or (before is not None and used_by == before[1])


def algorithms(count: int) -> dict[Convolution, Algorithm]:
    """As many convolutions, of one to so many images, each by the engine of that number."""
    shapes = range(1, count + 1)
    return {
        Convolution("forward", (n, 8, 9, 7), (16, 8, 3, 3), (1, 1), (1, 1)): Algorithm(n, ()) for n in shapes
    }


class Ends:
    """Builds plans of four convolutions that end in an order, all of them begun before the first ends.

    statuses: by the number of images, of plans that fail.
    """

    def __init__(self, order: Sequence[int], statuses: dict[int, int]) -> None:
        self._ended = {images: threading.Event() for images in order}
        self._before = dict(zip(order[1:], order[:-1], strict=True))
        self._all_began = threading.Barrier(len(order))
        self._statuses = statuses

    def __call__(self, convolution: Convolution, *_: object) -> SimpleNamespace:
        images = convolution.input[0]
        self._all_began.wait(60)
        if images in self._before:
            assert self._ended[self._before[images]].wait(60)
        self._ended[images].set()
        if images in self._statuses:
            raise CudnnError(f"plan of {images} failed", self._statuses[images])
        return SimpleNamespace(get=lambda *_: [images])


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3)])
def test_plans_are_the_same_in_whatever_order_their_threads_end(
    library: Library, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...]
) -> None:
    monkeypatch.setattr(cudnn, "_finalized_plan", Ends(order, {}))
    wanted = algorithms(4)
    found = cudnn.built(wanted)
    assert list(found) == list(wanted)
    assert all(plan.convolution == convolution for convolution, plan in found.items())
    assert [plan.workspace for plan in found.values()] == [1, 2, 3, 4]
    handles = [plan._handle.pointer.value for plan in found.values()]
    assert handles == [1, 2, 3, 4]
    again = cudnn.built(dict(reversed(wanted.items())))  # would wait for ever if any were built again
    assert all(again[convolution] is plan for convolution, plan in found.items())


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1)])
@pytest.mark.parametrize("statuses", [{2: 4000, 4: 3000}, {2: 3000, 4: 4000}])
def test_of_several_plans_that_fail_the_first_is_told_whichever_failed_first(
    library: Library, monkeypatch: pytest.MonkeyPatch, order: tuple[int, ...], statuses: dict[int, int]
) -> None:
    monkeypatch.setattr(cudnn, "_finalized_plan", Ends(order, statuses))
    with pytest.raises(CudnnError, match="plan of 2 failed") as told:
        cudnn.built(algorithms(4))
    assert told.value.passing == (statuses[2] >= 4000)


def test_a_handle_is_used_by_one_thread_at_a_time_while_many_plans_are_built_and_executed(
    library: Library,
) -> None:
    tensor = torch.zeros(1)
    first = cudnn.built(algorithms(2))
    executed = threading.Thread(
        target=lambda: [plan(tensor, tensor, tensor) for _ in range(10) for plan in first.values()]
    )
    executed.start()
    found = cudnn.built(algorithms(20))
    executed.join()
    assert len(found) == 20
    assert library.created == cudnn.HANDLES == len(library.handles)
    assert library.most == 1


@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "PyTorch's cuDNN cannot be called"), (91801, "computes with cuDNN 91900, but version 91801")],
)
def test_a_cudnn_that_is_missing_or_another_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, found: int | None, words: str
) -> None:
    def load(name: str) -> SimpleNamespace:
        if found is None:
            raise OSError(f"{name}: cannot open shared object file")
        return SimpleNamespace(cudnnGetVersion=lambda: found)

    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(ctypes, "CDLL", load)
    cudnn._library.cache_clear()
    with pytest.raises(CudnnError, match=words):
        cudnn._library()
