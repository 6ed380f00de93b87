"""The binding to cuDNN on a CPU, on a library that stands in for it."""

import ctypes
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tombola.training.cuda import cudnn
from tombola.training.cuda.cudnn import Algorithm, Convolution, ConvolutionPlan, CudnnError

CONVOLUTION = Convolution("forward", (4, 8, 9, 7), (16, 8, 3, 3), (2, 1), (1, 0))


class Library:
    """Succeeds at everything; notes who uses a handle, and how many at once."""

    def __init__(self) -> None:
        self.uses: list[tuple[str, int]] = []
        self.at_once = self.most = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            named = name == "cudnnBackendSetAttribute" and arguments[2].value == cudnn._HANDLE
            if named or name in ("cudnnSetStream", "cudnnBackendExecute"):
                self.uses.append((name, threading.get_ident()))
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                time.sleep(1e-3)
                self.at_once -= 1
            return 0

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(cudnn, "_library", lambda: library)
    handle = cudnn._Handle()
    monkeypatch.setattr(cudnn, "_handle", lambda device: handle)
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
