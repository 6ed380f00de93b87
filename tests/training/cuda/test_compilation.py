"""Kernels compiled before they are launched: on a CPU by a Triton that compiles nothing, on a GPU by it."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kernels import INTERPRETED, on_gpu_only

import tombola as tb
from tombola.data.augmentation import draw

triton = pytest.importorskip("triton")
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(INTERPRETED, reason="Triton's interpreter compiles nothing"),
]


def made_up(count: int) -> tb.Data:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 10
    return tb.data_from_tensors((images, labels), (images[:20], labels[:20]))


class Function:
    """Stands for a kernel of Triton's; notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[tuple[str, Any, Any]] = []

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **constants: self.done.append(("launched", grid, (arguments, constants)))

    def warmup(self, *arguments: Any, grid: Any, **constants: Any) -> None:
        self.done.append(("compiled", grid, (arguments, constants)))


@pytest.mark.parametrize(("device", "what"), [("meta", "compiled"), ("cpu", "launched")])
def test_a_kernel_on_meta_tensors_is_compiled_and_never_launched(device: str, what: str) -> None:
    from tombola.training.cuda.kernels import Kernel

    kernel, function, tensor = Kernel.__new__(Kernel), Function(), torch.zeros(2, device=device)
    kernel.function = function
    kernel[(3, 1)](tensor, 5, BLOCK=16)
    assert function.done == [(what, (3, 1), ((tensor, 5), {"BLOCK": 16}))]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Names of the kernels that are compiled for a GPU that is not there; none is."""
    from tombola.training.cuda import compilation
    from tombola.training.cuda.kernels import KERNELS

    names: list[str] = []

    def compiles(kernel: Any, key: Any, signature: Any, device: int, *_: object) -> SimpleNamespace:
        names.append(kernel.__name__)
        one = SimpleNamespace(src=SimpleNamespace(signature=signature), metadata=None)
        kernel.device_caches[device][0][key] = one
        return one

    gpu = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda _: 0,
        get_current_target=lambda: triton.backends.compiler.GPUTarget("cuda", 90, 32),
        launcher_cls=lambda *_: None,
    )
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime.driver, "_active", gpu)
    monkeypatch.setattr(triton.runtime.jit.JITFunction, "_do_compile", compiles)
    monkeypatch.setattr(compilation, "prepare_gpu", lambda _: ())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for kernel in KERNELS:
        kernel.function.device_caches.clear()
    yield names
    for kernel in KERNELS:
        kernel.function.device_caches.clear()


def compile_for(network: str, precision: str = "bfloat16", optimizer: str = "sgd") -> None:
    from tombola.training.cuda.compilation import compile_kernels

    data = made_up(40)
    ticket = tb.initialize(network, data, seed=0)
    recipe = tb.Recipe(epochs=1, batch_size=32, optimizer=optimizer)  # type: ignore[arg-type]
    drawn = draw(recipe.augmentation, data, noise=0, round=0, epoch=0)
    compile_kernels(ticket.network, data, recipe, precision, drawn)


@pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a GPU")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(
    ("network", "optimizer", "some", "not_one"),
    [
        ("resnet20", "sgd", "_weight_gradient_kernel", "_pool_kernel"),
        ("vgg16", "adamw", "_pool_gradient_kernel", "_sgd_kernel"),
    ],
)
def test_the_kernels_of_a_network_and_its_optimizer_are_compiled_once(
    compiled: list[str], network: str, optimizer: str, some: str, not_one: str
) -> None:
    compile_for(network, optimizer=optimizer)
    every = {"_crop_kernel", "_cross_entropy_kernel", "_statistics_kernel", "_normalise_kernel"}
    assert every | {"_gradient_sums_kernel", "_gradient_kernel", some} <= set(compiled)
    assert not_one not in compiled
    count = len(compiled)
    compile_for(network, optimizer=optimizer)
    assert len(compiled) == count


@pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a GPU")
@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_training_that_cannot_be_done_without_values_is_compiled_as_it_comes(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tombola.training.cuda import compilation

    tries: list[object] = []

    def fails(*arguments: object) -> None:
        tries.append(arguments)
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(compilation, "_check", fails)
    for _ in range(2):
        compile_for("resnet20")
    assert compiled == []
    assert len(tries) == 1


@on_gpu_only
@pytest.mark.parametrize("network", ["resnet18", "vgg16", "resnet20"])
def test_a_training_launches_no_kernel_that_was_not_compiled_ahead(
    network: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tombola.training import engines, evaluation
    from tombola.training.cuda.kernels import KERNELS

    monkeypatch.setattr(evaluation, "COMPILES_AHEAD", True)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel in KERNELS:
        kernel.function.device_caches.clear()
    compile_ahead = engines.compile_ahead
    ahead: list[bool] = []
    missed: list[str] = []
    hits: list[str] = []

    def noted(*arguments: Any) -> None:
        compile_ahead(*arguments)
        ahead.append(True)

    def listen(*, src: Any, cache_hit: bool, **_: object) -> None:
        (missed if ahead and not cache_hit else hits).append(src.name)

    monkeypatch.setattr(engines, "compile_ahead", noted)
    monkeypatch.setattr(triton.knobs.compilation, "listener", listen)
    data = made_up(400)
    ticket = tb.initialize(network, data, seed=0)
    recipe = tb.Recipe(epochs=1, batch_size=32, precision="bfloat16")
    tb.train(ticket, data, recipe, device="cuda")
    assert ahead
    assert hits
    assert missed == []
