"""A GPU whose count of failed allocations is made up."""

import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

import tombola as tb
from tombola.errors import DeviceLost
from tombola.lab.supervision import device_is_lost
from tombola.training import choice, evaluation
from tombola.training.choice import captured_or_cause, engine_for
from tombola.training.cuda import memory
from tombola.training.cuda.capture import with_room
from tombola.training.cuda.memory import check, note_caught, watched
from tombola.training.engines import EagerEngine

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Gpu:
    failed = 7  # before anything was watched


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: {"num_ooms": gpu.failed})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 8 * 2**30))
    monkeypatch.setattr(memory, "_PATIENCE", 0.001)
    monkeypatch.setattr(memory, "_watchers", Counter())
    monkeypatch.setattr(memory, "_caught", Counter())
    monkeypatch.setattr(memory, "_lost", set())
    return gpu


def full(gpu: Gpu) -> torch.OutOfMemoryError:
    """The error of an allocation that fails now."""
    gpu.failed += 1
    return torch.OutOfMemoryError("full")


def test_what_failed_before_or_was_caught_is_no_shortage(gpu: Gpu) -> None:
    with watched(GPU):
        check(GPU)
        error = full(gpu)
        note_caught(error)
        note_caught(error)  # by the next one that it passes
        check(GPU)
    gpu.failed += 1  # where nothing of ours computes
    with watched(GPU):
        check(GPU)


def silently(gpu: Gpu, then: Callable[[], object] = lambda: None) -> None:
    """Compute with an allocation that fails without a word."""
    with watched(GPU):
        gpu.failed += 1
        then()


def nothing() -> None:
    with watched(GPU):
        pass


def test_a_silent_failure_ends_what_goes_on_and_all_that_follows(gpu: Gpu) -> None:
    with pytest.raises(DeviceLost, match=r"8 GiB, 1\.0 free now.*fewer slots") as caught:
        silently(gpu)
    assert device_is_lost(caught.value)
    with pytest.raises(DeviceLost):
        nothing()


def told(work: Callable[[], object]) -> bool:
    """Whether this raises for a GPU that is lost."""
    try:
        work()
    except DeviceLost:
        return True
    return False


def test_it_is_told_in_between_as_well(gpu: Gpu) -> None:
    seen: list[bool] = []
    assert told(lambda: silently(gpu, lambda: seen.append(told(lambda: check(GPU)))))
    assert seen == [True]


def test_a_silent_failure_before_another_error_is_remembered(gpu: Gpu) -> None:
    def make() -> None:
        gpu.failed += 1
        raise RuntimeError("it waits")

    assert captured_or_cause(make) == "it waits"
    with pytest.raises(DeviceLost):
        nothing()


def test_nothing_of_a_gpu_is_asked_for_work_on_a_cpu(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    def asked() -> int:
        raise AssertionError("the GPU was asked")

    monkeypatch.setattr(torch.cuda, "current_device", asked)
    monkeypatch.setattr(memory, "_lost", {0})
    with engine_for(start.network, digits, recipe, CPU, "float32", "default") as engine:
        assert isinstance(engine, EagerEngine)


def test_autotuned_computations_may_take_any_algorithm(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    silently(gpu)


@pytest.mark.parametrize("silent", [0, 2])
def test_work_that_did_not_fit_at_first_is_made_again_unless_something_was_silent(
    gpu: Gpu, silent: int
) -> None:
    def make() -> str:
        if gpu.failed == 7:
            gpu.failed += silent
            raise full(gpu)
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
        gpu.failed += silent
        raise full(gpu)

    with pytest.raises(torch.OutOfMemoryError):
        with_room(make)
    if silent:
        with pytest.raises(DeviceLost):
            nothing()
    else:
        nothing()


def test_threads_that_run_out_of_memory_together_are_not_lost(gpu: Gpu) -> None:
    failed = threading.Barrier(2, timeout=30)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            with watched(GPU):
                error = full(gpu)
                failed.wait()
                raise error
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [type(error) for error in raised] == [torch.OutOfMemoryError] * 2
    nothing()


def test_a_watcher_that_comes_while_an_error_is_on_its_way_misses_nothing(gpu: Gpu) -> None:
    with watched(GPU):
        error = full(gpu)  # another thread's
        assert told(lambda: silently(gpu, lambda: note_caught(error)))
        assert told(lambda: check(GPU))
        memory._lost.clear()  # for this test's own end
        gpu.failed -= 1


@pytest.fixture
def eager(
    gpu: Gpu, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, monkeypatch: pytest.MonkeyPatch
) -> EagerEngine:
    """An engine on the CPU that takes it for that GPU."""
    engine = EagerEngine(start.network, digits, recipe, CPU, "float32")
    engine._device = engine._evaluator._device = GPU
    monkeypatch.setattr(evaluation, "device_batches", lambda *_: engine._batches)
    return engine


def test_an_eager_engine_looks_before_a_checkpoint(gpu: Gpu, eager: EagerEngine) -> None:
    seen: list[bool] = []
    assert told(lambda: silently(gpu, lambda: seen.append(told(eager.tally))))
    assert seen == [True]


def test_an_evaluation_by_plain_operations_is_watched(
    gpu: Gpu, eager: EagerEngine, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(*_: object) -> tuple[float, float]:
        gpu.failed += 1
        return 0.0, 0.0

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    with pytest.raises(DeviceLost):
        eager.evaluate(digits.test)


@pytest.mark.parametrize("known", [True, False])
def test_an_eager_engine_is_watched_as_long_as_it_is_lent(
    gpu: Gpu, eager: EagerEngine, digits: tb.Data, recipe: tb.Recipe, start: tb.Ticket,
    monkeypatch: pytest.MonkeyPatch, known: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(choice, "knows_this_torch", lambda: known)
    monkeypatch.setattr(choice, "EagerEngine", type(eager) if known else lambda *_, **options: eager)
    monkeypatch.setattr(choice, "_captured", lambda *_: eager)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None))

    def use() -> None:
        with engine_for(start.network, digits, recipe, GPU, "float32", "default") as engine:
            assert engine is eager
            gpu.failed += 1

    with pytest.raises(DeviceLost):
        use()
