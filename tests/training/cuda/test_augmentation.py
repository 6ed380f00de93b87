"""Cutout and declared augmentations on a GPU: captured where they can be, the pixels those of a CPU."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola.data import transform
from tombola.data.augmentation import draw
from tombola.training import evaluation
from tombola.training.cuda import capture as capture_module
from tombola.training.cuda.capture import forget_engines
from tombola.training.epoch import DevicePlan, EpochPlan, gathered, gathered_at_step
from tombola.training.evaluation import device_batches

Same = Callable[..., bool]

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def _declared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(transform._augmentations, "_declared", {})
    tb.declare_augmentation("dimmed", draw=levels)(dimmed)
    tb.declare_augmentation("waiting", draw=levels)(waiting)
    tb.declare_augmentation("single")(single)
    yield
    forget_engines()


def levels(count: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    return {"level": generator.integers(1, 4, size=count)}


def dimmed(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    return (images // draws["level"].view(-1, 1, 1, 1)).byte()


def waiting(images: Tensor, draws: dict[str, Tensor]) -> Tensor:
    return images if images.max().item() < 0 else dimmed(images, draws)


def single(image: Tensor) -> Tensor:
    return image // 2 if torch.rand(()) < 0.5 else image


def train(data: tb.Data, **augmentation: Any) -> tb.Run:
    recipe = tb.Recipe(epochs=3, batch_size=100, lr=0.05, augmentation=tb.Augmentation(**augmentation))
    return tb.train(tb.initialize("convnet", data), data, recipe, device="cuda", noise=2)


class Launched:
    """Work that is done anew each time, where a graph of it would be replayed."""

    def __init__(self, work: Callable[[], None], pool: object, *, before: object, generator: object) -> None:
        self.replay = work


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "augmentation",
    [{"cutout": 3}, {"declared": "dimmed"}, {"declared": "dimmed", "cutout": 3, "fill": "mean"}],
)
def test_replayed_steps_give_the_bits_of_the_same_steps_taken_one_by_one(
    digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same, augmentation: dict[str, Any],
    fused: bool,
) -> None:  # fmt: skip
    if not fused:
        monkeypatch.setattr(evaluation, "_fused_network", lambda *_: None)
    plain = train(digits)
    graphed = train(digits, **augmentation)
    assert graphed.engine == f"graphed, {'fused' if fused else 'plain'}"
    assert not same_run(graphed, plain)
    assert same_run(train(digits), plain)  # whose engine was kept
    forget_engines()
    monkeypatch.setattr(capture_module, "capture", Launched)
    assert same_run(train(digits, **augmentation), graphed)


@pytest.mark.parametrize("declared", [None, "dimmed", "waiting", "single"])
def test_images_are_those_of_a_cpu(digits: tb.Data, declared: str | None) -> None:
    augmentation = tb.Augmentation(cutout=3, declared=declared)
    draws = draw(augmentation, digits, noise=1, round=0, epoch=2)
    order = torch.randperm(len(digits.train))
    plan = EpochPlan(order, draws, [0.1] * 12, 100)
    cpu, gpu = (device_batches(digits, digits.train, device, pad=1) for device in (torch.device("cpu"), CUDA))
    expected = [images for _, images, _ in gathered(plan, cpu, 0, 12, 3)]
    moved = plan.to(CUDA)
    eager = [images.cpu() for _, images, _ in gathered(moved, gpu, 0, 12, 3)]
    device_plan = DevicePlan.empty(len(order), 100, CUDA, draws)
    device_plan.begin(moved)
    for step, size in enumerate([100] * 11 + [98]):
        device_plan.step.fill_(step)
        images, _ = gathered_at_step(device_plan, gpu, size)
        torch.testing.assert_close(images.cpu(), expected[step], rtol=0, atol=1e-6)
        assert torch.equal(images.cpu(), eager[step])
        assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("declared", ["waiting", "single"])
def test_one_that_cannot_be_captured_takes_plain_steps_and_says_so(
    digits: tb.Data, same_run: Same, declared: str
) -> None:
    words = f"network convnet under augmentation {declared} cannot be captured as a CUDA graph"
    with pytest.warns(UserWarning, match=words):
        run = train(digits, declared=declared)
    assert run.engine == "eager"
    torch.rand(3)
    assert same_run(train(digits, declared=declared), run)


def test_heads_are_trained_under_it_in_captured_steps(
    digits: tb.Data, recwarn: pytest.WarningsRecorder
) -> None:
    start = tb.initialize("convnet", digits)
    recipes = [
        tb.Recipe(epochs=2, batch_size=100, augmentation=tb.Augmentation(declared=declared))
        for declared in (None, "dimmed", "dimmed")
    ]
    plain, *probes = (tb.probe(start, digits, recipe=recipe, device="cuda") for recipe in recipes)
    assert probes[0] == probes[1] != plain
    assert not [warning for warning in recwarn if "CUDA graphs" in str(warning.message)]
