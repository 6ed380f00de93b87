import itertools
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tombola
from tombola import Recipe
from tombola.errors import DeviceError, RecipeError
from tombola.training import evaluation
from tombola.training.device import (
    Mode,
    _Streams,
    environment,
    process_settings,
    repeatable,
    resolve_device,
    resolve_precision,
)


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("device", [None, "auto", "cpu", torch.device("cpu")])
@pytest.mark.usefixtures("_no_gpu")
def test_without_a_gpu_everything_is_the_cpu(device: str | None) -> None:
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "no device 'gpu'; known: auto, cpu, cuda, cuda:0"),
        ("cuda", r"device 'cuda' asked for, but PyTorch sees no GPU \(.+\); use cpu or auto"),
        ("cuda:1", "device 'cuda:1' asked for"),
        ("mps", "device 'mps' is not supported; use cpu or cuda"),
    ],
)
@pytest.mark.usefixtures("_no_gpu")
def test_a_device_that_is_not_there_is_refused(device: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        resolve_device(device)


@pytest.mark.parametrize(
    ("precision", "device", "resolved"),
    [
        ("auto", "cpu", "float32"), ("auto", "cuda", "bfloat16"), ("float32", "cpu", "float32"),
        ("float32", "cuda", "float32"), ("bfloat16", "cuda", "bfloat16"),
    ],
)  # fmt: skip
def test_precision_is_bfloat16_on_gpus_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, resolved: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert resolve_precision(Recipe(precision=precision), torch.device(device)) == resolved  # type: ignore[arg-type]


def test_a_gpu_without_bfloat16_is_told_what_to_ask_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    with pytest.raises(DeviceError, match="Tesla T4 has no bfloat16; give the recipe precision='float32'"):
        resolve_precision(Recipe(), torch.device("cuda"))
    assert resolve_precision(Recipe(precision="float32"), torch.device("cuda")) == "float32"


class _OnSomeGpu:
    """Stands for a flat network on a GPU."""

    images = (3, 32, 32)
    module = torch.nn.Linear(1, 1)
    weights = SimpleNamespace(device=torch.device("cuda"))


@pytest.mark.parametrize(
    ("capability", "fused"),
    [
        ((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 6), True), ((8, 9), True), ((9, 0), True),
        ((12, 0), True),
    ],
)  # fmt: skip
def test_passes_are_fused_on_gpus_with_bfloat16_of_any_architecture(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fused: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(evaluation, "knows_this_torch", lambda: True)
    for module in ("fused", "rewrite"):  # what they import may not be here
        name = f"tombola.training.cuda.{module}"
        there = SimpleNamespace(FusedNetwork=lambda *_: "fused", check_fused=lambda *_: None)
        monkeypatch.setitem(sys.modules, name, there)  # type: ignore[arg-type]
    network: Any = _OnSomeGpu()
    assert evaluation._fused_network(network, "float32") == ("fused" if fused else None)


def test_without_triton_passes_are_plain_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(evaluation, "knows_this_torch", lambda: True)
    monkeypatch.setitem(sys.modules, "tombola.training.cuda.fused", None)
    network: Any = _OnSomeGpu()
    assert evaluation._fused_network(network, "float32") is None


def test_what_compiled_kernels_are_found_by_is_there_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = pytest.importorskip("triton.runtime.cache")
    compiler = pytest.importorskip("triton.backends.nvidia.compiler")
    from triton.backends.compiler import GPUTarget

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    evaluation.prepare_gpu.cache_clear()
    cache.triton_key.cache_clear()
    compiler.get_ptxas_version.cache_clear()
    for thread in evaluation.prepare_gpu(torch.device("cuda", 0)):
        thread.join()
    assert cache.triton_key.cache_info().currsize == 1
    monkeypatch.setattr(compiler.subprocess, "check_output", None)  # no other program is asked again
    assert compiler.CUDABackend(GPUTarget("cuda", 90, 32)).hash().endswith("-90")


def test_without_triton_nothing_is_prepared_and_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    evaluation.prepare_gpu.cache_clear()
    for thread in evaluation.prepare_gpu(torch.device("cuda", 0)):
        thread.join()


@pytest.mark.parametrize(("gpu", "loads"), [("GPU X", True), ("GPU Y", False)])
def test_cudnn_is_loaded_beforehand_where_convolution_plans_are_named(
    monkeypatch: pytest.MonkeyPatch, gpu: str, loads: bool
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: gpu)
    monkeypatch.setattr(evaluation, "table_for", lambda name, _: "table" if name == "GPU X" else None)
    loaded: list[torch.device] = []
    monkeypatch.setattr(evaluation, "load_cudnn", loaded.append)
    evaluation.prepare_gpu.cache_clear()
    for thread in evaluation.prepare_gpu(torch.device("cuda", 0)):
        thread.join()
    assert loaded == [torch.device("cuda", 0)] * loads


def test_for_a_gpu_without_fused_passes_nothing_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    evaluation.prepare_gpu.cache_clear()
    assert evaluation.prepare_gpu(torch.device("cuda", 0)) == ()


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match="no device 'cuda:2'; known: cuda:0, cuda:1, cpu"):
        resolve_device("cuda:2")
    assert resolve_device("cuda:1") == torch.device("cuda:1")


def test_bfloat16_on_a_cpu_is_refused() -> None:
    with pytest.raises(
        DeviceError, match="precision 'bfloat16' is for GPUs; on a CPU use 'float32' or 'auto'"
    ):
        resolve_precision(Recipe(precision="bfloat16"), torch.device("cpu"))


def test_the_environment_of_a_cpu_names_instruction_set_and_threads() -> None:
    found = environment(torch.device("cpu"), "float32", "eager", "default")
    assert found["torch"] == torch.__version__
    assert found["hardware"].endswith(", 1 threads")
    assert (found["precision"], found["engine"], found["mode"]) == ("float32", "eager", "default")
    assert (found["numpy"], found["tombola"]) == (np.__version__, tombola.__version__)


def settings() -> list[bool]:
    backends = torch.backends
    return [
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.are_deterministic_algorithms_enabled(),
    ]


def test_settings_on_which_bits_rest_hold_while_any_training_wants_them() -> None:
    before = settings()
    wanted = [False, True, False, False, False, False]
    assert before != wanted
    first, second = process_settings("default"), process_settings("default")
    with first:
        assert settings() == wanted
        second.__enter__()
    assert settings() == wanted  # the second, begun within the first, outlasts it
    second.__exit__(None, None, None)
    assert settings() == before


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        ("autotuned", [True, False, False, False, False, False]),
        ("deterministic", [False, True, False, False, False, True]),
    ],
)
def test_a_mode_sets_what_it_is_named_for_and_takes_it_back(mode: Mode, wanted: list[bool]) -> None:
    before = settings()
    with process_settings(mode):
        assert settings() == wanted
    assert settings() == before


def test_two_modes_at_once_are_refused() -> None:
    with (
        process_settings("default"),
        pytest.raises(
            RecipeError, match="mode 'autotuned' asked for while something computes in mode 'default'"
        ),
        process_settings("autotuned"),
    ):
        raise AssertionError
    with process_settings("autotuned"):
        assert settings()[0]


def test_an_unknown_mode_is_refused() -> None:
    with (
        pytest.raises(RecipeError, match="no mode 'fast'; known: autotuned, default, deterministic"),
        repeatable(torch.device("cpu"), "fast"),  # type: ignore[arg-type]
    ):
        raise AssertionError


def test_on_a_cpu_no_setting_is_touched() -> None:
    before = settings()
    with repeatable(torch.device("cpu")):
        assert settings() == before


def test_a_measure_computes_in_the_mode_of_the_trainings_around_it() -> None:
    with process_settings("autotuned"), process_settings(None):
        assert settings()[0]
    with process_settings(None):
        assert settings() == [False, True, False, False, False, False]


def test_no_two_computations_have_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    handles = itertools.cycle(range(4))  # handed out in turn, used or not
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: SimpleNamespace(cuda_stream=next(handles)))
    streams = _Streams()
    taken = [streams.take(0) for _ in range(4)]
    assert len({stream.cuda_stream for stream in taken}) == 4
    with pytest.raises(DeviceError, match="4 computations at once on cuda:0 are as many as there may be"):
        streams.take(0)
    streams.give_back(0, taken[2])
    assert streams.take(0) is taken[2]
    assert streams.take(1).cuda_stream in range(4)  # of another GPU
