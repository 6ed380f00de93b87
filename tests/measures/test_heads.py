from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.data.augmentation import draw
from tombola.measures.frozen import FrozenBody
from tombola.measures.heads import HEAD_RECIPE, evaluate_heads, initial_heads, train_heads
from tombola.training.cuda.capture import CapturedSteps
from tombola.training.device import repeatable
from tombola.training.epoch import DevicePlan
from tombola.training.evaluation import device_batches

CPU = torch.device("cpu")
WIDTHS = (8, 16, 16, 32)
PLACES = ("2", "5", "8", "11")


def body_of(subject: tb.Ticket | tb.Run, blocks: list[str] | None = None) -> FrozenBody:
    return FrozenBody(subject, blocks, None, CPU, "float32")


def trained(
    body: FrozenBody, data: tb.Data, recipe: tb.Recipe, batch_norm: str = "adapting", seed: int = 0
) -> Tensor:
    return train_heads(body, data, recipe, batch_norm=batch_norm, seed=seed, watch=tb.Watch())  # type: ignore[arg-type]


def linear(heads: Tensor, place: int) -> nn.Linear:
    """One head as a layer of PyTorch."""
    layer = nn.Linear(WIDTHS[place], heads.shape[1])
    with torch.no_grad():
        layer.bias.copy_(heads[place, :, 0])
        layer.weight.copy_(heads[place, :, 1 : 1 + WIDTHS[place]])
    return layer


def augmented(data: tb.Data, image: int, row: int, column: int, flip: bool, pad: int) -> np.ndarray:
    """One image, cropped, flipped and normalised by hand."""
    raw = data.train.images.numpy()
    padded = np.pad(raw[image], ((0, 0), (pad, pad), (pad, pad)))
    height, width = data.size
    crop = padded[:, row : row + height, column : column + width]
    crop = crop[:, :, ::-1] if flip else crop
    mean, std = (getattr(raw / 255, name)(axis=(0, 2, 3))[:, None, None] for name in ("mean", "std"))
    return ((crop / 255 - mean) / std).astype(np.float32)


def pooled(module: nn.Module, images: Tensor) -> list[Tensor]:
    """What the activated convolutions of the small network give, layer by layer."""
    found = []
    with torch.no_grad():
        for name, layer in module.named_children():
            images = layer(images)
            if name in PLACES:
                found.append(images.mean((2, 3)))
    return found


def test_the_recipe_is_the_papers() -> None:
    recipe = HEAD_RECIPE
    assert (recipe.epochs, recipe.lr, recipe.weight_decay) == (5, 0.005, 1e-4)
    assert (recipe.momentum, recipe.batch_size, recipe.schedule) == (0.9, 100, "constant")
    assert recipe.augmentation == tb.Recipe().augmentation


def test_a_head_begins_as_pytorch_begins_a_linear_layer(start: tb.Ticket, digits: tb.Data) -> None:
    body = body_of(start)
    before = torch.get_rng_state()
    heads = initial_heads(body, WIDTHS, 10, 3)
    assert torch.equal(before, torch.get_rng_state())
    for place, name in enumerate(PLACES):
        with seeds.torch_stream(f"probe head {name}", 3):
            expected = nn.Linear(WIDTHS[place], 10)
        layer = linear(heads, place)
        assert torch.equal(layer.weight, expected.weight)
        assert torch.equal(layer.bias, expected.bias)
        assert not heads[place, :, 1 + WIDTHS[place] :].any()
    assert not torch.equal(heads, initial_heads(body, WIDTHS, 10, 4))
    # The two places of 16 channels have streams of their own.
    assert not torch.equal(heads[1], heads[2])


@pytest.mark.parametrize(
    "how",
    [
        replace(HEAD_RECIPE, epochs=2),
        tb.Recipe(epochs=2, batch_size=300, lr=0.2, momentum=0.0, weight_decay=0.01, schedule="cosine"),
        replace(HEAD_RECIPE, epochs=1, lr=0.1, augmentation=tb.Augmentation(pad=0, flip=True)),
    ],
)
@pytest.mark.parametrize("batch_norm", ["adapting", "frozen"])
def test_training_is_that_of_one_linear_layer_at_a_time_with_pytorchs_optimizer(
    run: tb.Run, digits: tb.Data, how: tb.Recipe, batch_norm: str
) -> None:
    found = trained(body_of(run), digits, how, batch_norm, seed=5)
    module = run.ticket.network.build()
    module.load_state_dict(dict(run.weights))
    module.train(batch_norm == "adapting")
    layers = [linear(initial_heads(body_of(run), WIDTHS, 10, 5), place) for place in range(4)]
    optimizers = [
        torch.optim.SGD(layer.parameters(), how.lr, how.momentum, weight_decay=how.weight_decay)
        for layer in layers
    ]
    augmentation, size = how.augmentation, how.batch_size
    pad = augmentation.padding(digits)
    for epoch in range(how.epochs):
        order = seeds.generator("probe order", 5, epoch).permutation(1198)
        draws = draw(augmentation, digits, noise=5, round=0, epoch=epoch, stream="probe augmentation")
        for step, first in enumerate(range(0, 1198, size)):
            images = [
                augmented(
                    digits, order[i], int(draws.rows[i]), int(draws.columns[i]), bool(draws.flips[i]), pad
                )
                for i in range(first, min(first + size, 1198))
            ]
            labels = digits.train.labels[order[first : first + size]]
            for layer, optimizer, features in zip(
                layers, optimizers, pooled(module, torch.tensor(np.stack(images))), strict=True
            ):
                optimizer.param_groups[0]["lr"] = how.rate(epoch, step, -(-1198 // size))
                optimizer.zero_grad()
                functional.cross_entropy(layer(features), labels).backward()
                optimizer.step()
    for place, layer in enumerate(layers):
        made = linear(found, place)
        torch.testing.assert_close(made.weight, layer.weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(made.bias, layer.bias, rtol=1e-3, atol=1e-4)
        assert not found[place, :, 1 + WIDTHS[place] :].any()


def test_accuracy_and_loss_are_those_of_the_heads_on_plain_features(run: tb.Run, digits: tb.Data) -> None:
    body = body_of(run)
    heads = trained(body, digits, replace(HEAD_RECIPE, lr=0.1))
    adapted = body.state()
    losses, accuracies = evaluate_heads(body, heads, device_batches(digits, digits.test, CPU), tb.Watch())
    module = run.ticket.network.build()
    module.load_state_dict(adapted)
    raw = digits.train.images.numpy() / 255
    mean, std = (getattr(raw, name)(axis=(0, 2, 3))[:, None, None] for name in ("mean", "std"))
    images = torch.tensor((digits.test.images.numpy() / 255 - mean) / std, dtype=torch.float32)
    for place, features in enumerate(pooled(module.eval(), images)):
        with torch.no_grad():
            outputs = linear(heads, place)(features).double()
        right = outputs.argmax(1) == digits.test.labels
        assert accuracies[place] == pytest.approx(100 * float(right.double().mean()))
        assert losses[place] == pytest.approx(
            float(functional.cross_entropy(outputs, digits.test.labels)), rel=1e-4
        )


def test_a_place_without_finite_features_spoils_no_other(run: tb.Run, digits: tb.Data) -> None:
    broken = dict(run.weights)
    broken["9.weight"] = torch.full_like(broken["9.weight"], torch.nan)  # the last convolution
    recipe = replace(HEAD_RECIPE, epochs=1)
    test = device_batches(digits, digits.test, CPU)
    found = []
    for subject in (run, replace(run, weights=broken)):
        body = body_of(subject)
        heads = trained(body, digits, recipe, "frozen")
        found.append((heads, *evaluate_heads(body, heads, test, tb.Watch())))
    (heads, losses, accuracies), (other, other_losses, other_accuracies) = found
    assert torch.equal(heads[:3], other[:3])
    assert losses[:3] == other_losses[:3]
    assert accuracies[:3] == other_accuracies[:3]
    assert np.isnan(other_losses[3])
    assert other_accuracies[3] < 15


def test_life_is_shown_in_every_epoch_and_in_evaluation(start: tb.Ticket, digits: tb.Data) -> None:
    class Listener(tb.Watch):
        beats = 0

        def beat(self) -> None:
            self.beats += 1

    listener = Listener()
    body = body_of(start)
    heads = train_heads(body, digits, HEAD_RECIPE, batch_norm="frozen", seed=0, watch=listener)
    assert listener.beats >= HEAD_RECIPE.epochs
    before = listener.beats
    evaluate_heads(body, heads, device_batches(digits, digits.test, CPU), listener)
    assert listener.beats > before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_steps_are_captured_and_nothing_is_waited_for_within_an_epoch(
    start: tb.Ticket, digits: tb.Data, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.device("cuda")
    body = FrozenBody(start, None, None, cuda, precision)
    features = body.features
    seen = []

    def counted(images: Tensor) -> Tensor:
        seen.append(len(images))
        return features(images)

    def guarded(work: Callable[..., None]) -> Callable[..., None]:
        def guard(*arguments: object) -> None:
            torch.cuda.set_sync_debug_mode("error")
            try:
                work(*arguments)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return guard

    monkeypatch.setattr(body, "features", counted)
    monkeypatch.setattr(CapturedSteps, "replay", guarded(CapturedSteps.replay))
    monkeypatch.setattr(DevicePlan, "begin", guarded(DevicePlan.begin))
    with repeatable(cuda):
        train_heads(body, digits, HEAD_RECIPE, batch_norm="adapting", seed=0, watch=tb.Watch())
    last = len(digits.train) % 100
    assert set(seen) == {100, last}
    assert len(seen) < 12  # of 60 steps


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")
def test_captured_steps_are_those_that_would_have_been_launched(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = torch.device("cuda")

    def trained() -> Tensor:
        body = FrozenBody(start, None, None, cuda, "float32")
        with repeatable(cuda):
            return train_heads(body, digits, HEAD_RECIPE, batch_norm="adapting", seed=0, watch=tb.Watch())

    def fail(steps: CapturedSteps, take: Callable[[int], None], plan: DevicePlan) -> None:
        take(plan.batch_size)
        raise RuntimeError("it waits")

    captured = trained()
    monkeypatch.setattr(CapturedSteps, "__init__", fail)
    with pytest.warns(UserWarning, match="heads are trained without CUDA graphs: it waits"):
        assert torch.equal(captured, trained())
