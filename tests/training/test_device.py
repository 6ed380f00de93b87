import numpy as np
import pytest
import torch

import tombola
from tombola import Recipe
from tombola.errors import RecipeError
from tombola.training.device import environment, repeatable, resolve_device, resolve_precision


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
        ("cuda", "device 'cuda' asked for, but PyTorch sees no GPU; use cpu or auto"),
        ("cuda:1", "device 'cuda:1' asked for"),
        ("mps", "device 'mps' is not supported; use cpu or cuda"),
    ],
)
@pytest.mark.usefixtures("_no_gpu")
def test_a_device_that_is_not_there_is_refused(device: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        resolve_device(device)


@pytest.mark.parametrize(
    ("precision", "device", "resolved"),
    [
        ("auto", "cpu", "float32"), ("auto", "cuda", "bfloat16"), ("float32", "cpu", "float32"),
        ("float32", "cuda", "float32"), ("bfloat16", "cuda", "bfloat16"),
    ],
)  # fmt: skip
def test_precision_is_bfloat16_on_gpus_unless_asked_otherwise(
    precision: str, device: str, resolved: str
) -> None:
    assert resolve_precision(Recipe(precision=precision), torch.device(device)) == resolved  # type: ignore[arg-type]


def test_bfloat16_on_a_cpu_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="precision 'bfloat16' is for GPUs; on a CPU use 'float32' or 'auto'"
    ):
        resolve_precision(Recipe(precision="bfloat16"), torch.device("cpu"))


def test_the_environment_of_a_cpu_names_instruction_set_and_threads() -> None:
    found = environment(torch.device("cpu"), "float32", "eager")
    assert found["torch"] == torch.__version__
    assert found["hardware"].endswith(", 1 threads")
    assert (found["precision"], found["engine"]) == ("float32", "eager")
    assert (found["numpy"], found["tombola"]) == (np.__version__, tombola.__version__)


def settings() -> list[bool]:
    backends = torch.backends
    return [
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        backends.cudnn.allow_tf32,
        backends.cuda.matmul.allow_tf32,
    ]


def test_settings_on_which_bits_rest_hold_while_any_training_wants_them() -> None:
    gpu, before = torch.device("cuda"), settings()
    wanted = [False, True, False, False]
    assert before != wanted
    first, second = repeatable(gpu), repeatable(gpu)
    with first:
        assert settings() == wanted
        second.__enter__()
    assert settings() == wanted  # the second, begun within the first, outlasts it
    second.__exit__(None, None, None)
    assert settings() == before


def test_on_a_cpu_no_setting_is_touched() -> None:
    before = settings()
    with repeatable(torch.device("cpu")):
        assert settings() == before
