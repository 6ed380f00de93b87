"""On a CPU, where what would be captured is kept and called again instead."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tombola.lab.supervision import device_is_lost
from tombola.training import choice
from tombola.training.cuda import capture as capture_module
from tombola.training.cuda.capture import CapturedSteps, capture
from tombola.training.epoch import DevicePlan

CPU = torch.device("cpu")


class Kept:
    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(work: Callable[[], None], pool: Any, *, before: Callable[[], object], generator: None) -> Kept:
        for _ in range(2):
            before()
            work()
        return Kept(work)

    monkeypatch.setattr(capture_module, "capture", keep)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (1, [1])],
    ids=["rest", "whole", "one", "single"],
)
def test_each_step_finds_its_place_and_the_last_its_size(count: int, sizes: list[int]) -> None:
    plan = DevicePlan.empty(count, min(4, count), CPU)
    seen: list[tuple[int, int]] = []
    steps = CapturedSteps(lambda size: seen.append((int(plan.step), size)), plan)
    seen.clear()
    steps.replay(0, len(sizes))
    assert seen == list(enumerate(sizes))
    seen.clear()
    # In the middle of an epoch, as after an interruption.
    steps.replay(len(sizes) - 1, len(sizes))
    assert seen == [(len(sizes) - 1, sizes[-1])]


def test_work_that_waits_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert choice.captured_or_cause(failing(RuntimeError("it waits"))) == "it waits"


def test_cudnn_that_fails_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    error = RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR")
    left = [failing(error), lambda: "captured"]
    assert choice.captured_or_cause(lambda: left.pop(0)()) == "captured"
    assert choice.captured_or_cause(failing(error)) == str(error)
    left = [failing(RuntimeError("it waits")), lambda: "captured"]
    assert choice.captured_or_cause(lambda: left.pop(0)()) == "it waits"


@pytest.mark.parametrize("error", [torch.AcceleratorError("assert"), RuntimeError("Triton Error: assert")])
def test_a_device_in_trouble_is_raised_whoever_met_it(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    monkeypatch.setattr(torch.cuda, "synchronize", failing(torch.AcceleratorError("met first")))
    with pytest.raises(
        torch.AcceleratorError, match="assert" if type(error) is not RuntimeError else "first"
    ):
        choice.captured_or_cause(failing(error))


def test_steps_and_their_owner_are_no_cycle() -> None:
    class Owner:
        def __init__(self) -> None:
            self.plan = DevicePlan.empty(4, 2, CPU)
            self.steps = CapturedSteps(self.take, self.plan)

        def take(self, size: int) -> None:
            pass

    # What is kept in place of graphs refers to the work, as a graph does not.
    owner = Owner()
    held = [value for value in vars(owner.steps).values() if value is not None and value is not owner.plan]
    assert all(isinstance(value, Kept) for value in held)


@pytest.mark.parametrize("full", [True, False])
def test_a_capture_that_fails_says_whether_memory_was_the_cause(
    monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    class Stream:
        device_index = 0
        device = CPU

        def synchronize(self) -> None:
            pass

    class Global:
        state: object = "global"

        def graphsafe_get_state(self) -> object:
            return self.state

        def graphsafe_set_state(self, state: object) -> None:
            self.state = state

    class Graph:
        def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
            begun.append(pool)

        def capture_end(self) -> None:
            raise torch.AcceleratorError("operation failed due to a previous error during capture")

    def work() -> None:
        assert isinstance(generator.state, torch.Generator)  # of this capture
        if begun:
            raise torch.OutOfMemoryError("too much") if full else RuntimeError("it waits")

    generator = Global()
    monkeypatch.setattr(torch.cuda, "default_generators", {CPU.index: generator})
    begun: list[Any] = []
    ended: list[Any] = []
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda device, pool: ended.append(pool), raising=False
    )
    with pytest.raises(RuntimeError, match="too much" if full else "it waits") as failure:
        capture(work, "pool", before=lambda: None)
    assert isinstance(failure.value, torch.OutOfMemoryError) == full
    assert not device_is_lost(failure.value)
    assert ended == begun == ["pool"]
    assert generator.state == "global"


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_memory_is_made_once_where_idle_engines_hold_some(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def full() -> None:
        tried.append(len(capture_module._idle))
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(capture_module, "_idle", [("key", None)])
    with pytest.raises(torch.OutOfMemoryError):
        choice.captured_or_cause(full)
    assert tried == [1, 0]
