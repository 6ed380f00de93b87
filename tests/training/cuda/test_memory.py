"""A GPU whose count of failed allocations is made up."""

import threading
from collections import Counter

import pytest
import torch

from tombola.errors import DeviceLost
from tombola.lab.supervision import device_is_lost
from tombola.training.cuda import memory
from tombola.training.cuda.capture import with_room
from tombola.training.cuda.memory import Shortage, tell, watched


class Gpu:
    failed = 7  # before anything was watched


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: {"num_ooms": gpu.failed})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 8 * 2**30))
    monkeypatch.setattr(memory, "_PATIENCE", 0.0)
    monkeypatch.setattr(memory, "_told", Counter())
    monkeypatch.setattr(memory, "_lost", set())
    return gpu


def test_what_failed_before_or_was_told_is_no_shortage(gpu: Gpu) -> None:
    shortage = Shortage()
    shortage.check()
    gpu.failed += 1
    tell()
    shortage.check()
    gpu.failed += 1  # where nobody computes
    with watched():
        pass


def test_a_silent_failure_ends_what_goes_on_and_all_that_follows(gpu: Gpu) -> None:
    shortage = Shortage()
    gpu.failed += 1
    with pytest.raises(DeviceLost, match=r"8 GiB, 1\.0 free now.*fewer slots") as caught:
        shortage.check()
    assert device_is_lost(caught.value)
    with pytest.raises(DeviceLost):
        Shortage()


def test_autotuned_computations_may_take_any_algorithm(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with watched():
        gpu.failed += 1


@pytest.mark.parametrize("silent", [0, 2])
def test_work_that_did_not_fit_at_first_is_made_again_unless_something_was_silent(
    gpu: Gpu, silent: int
) -> None:
    def make() -> str:
        if gpu.failed == 7:
            gpu.failed += silent + 1
            raise torch.OutOfMemoryError("full")
        return "made"

    if silent:
        with pytest.raises(DeviceLost):
            with_room(make)
    else:
        assert with_room(make) == "made"


@pytest.mark.parametrize("silent", [0, 2])
def test_work_that_does_not_fit_says_so_and_the_process_remembers_what_was_silent(
    gpu: Gpu, silent: int
) -> None:
    def make() -> None:
        gpu.failed += silent + 1
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        with_room(make)
    tell()  # as the caller does
    if silent:
        with pytest.raises(DeviceLost):
            with_room(lambda: None)
    else:
        with_room(lambda: None)


def test_a_failure_is_not_held_against_others_while_its_error_is_on_its_way(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def sleep(seconds: float) -> None:
        looked.set()
        caught.join()

    def catch() -> None:
        looked.wait()
        tell()

    monkeypatch.setattr(memory.time, "sleep", sleep)
    caught = threading.Thread(target=catch)
    shortage = Shortage()
    gpu.failed += 1
    caught.start()
    shortage.check()


def test_without_a_gpu_nothing_is_watched() -> None:
    with watched():
        tell()
