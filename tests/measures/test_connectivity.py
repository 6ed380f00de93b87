import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola.errors import NetworkError, RecipeError
from tombola.measures.connectivity import Barrier
from tombola.measures.interpolation import batches_for_statistics, interpolate, recalibrate_batch_norm
from tombola.training.device import repeatable
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.run import ForgettingRecord, History

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def first(data: tb.Data, count: int) -> tb.Data:
    """The data with the first images of its train split only."""
    return tb.data_from_tensors(
        (data.train.images[:count], data.train.labels[:count]), (data.test.images, data.test.labels)
    )


def run_of(factory: Callable[..., nn.Module], data: tb.Data, state: dict[str, torch.Tensor]) -> tb.Run:
    """A run with weights made by hand."""
    ticket = tb.initialize(factory, data)
    return tb.Run(ticket, state, History([]), ForgettingRecord.empty(len(data.train)), 0, "float32", "cpu")


def inputs(data: tb.Data, images: torch.Tensor) -> torch.Tensor:
    raw = data.train.images.numpy() / 255
    mean, std = (getattr(raw, name)(axis=(0, 2, 3))[:, None, None] for name in ("mean", "std"))
    return torch.tensor((images.numpy() / 255 - mean) / std, dtype=torch.float32)


def mixed(a: tb.Run, b: tb.Run, alpha: float) -> dict[str, torch.Tensor]:
    return {
        name: (1 - alpha) * value + alpha * b.weights[name] if value.is_floating_point() else value
        for name, value in a.weights.items()
    }


def measured(module: nn.Module, data: tb.Data, split: str = "test") -> tuple[float, float]:
    """Error in percent and mean cross-entropy on a split."""
    shown = getattr(data, split)
    with torch.no_grad():
        outputs = module.eval()(inputs(data, shown.images)).double()
    wrong = outputs.argmax(1) != shown.labels
    return 100 * float(wrong.double().mean()), float(functional.cross_entropy(outputs, shown.labels))


def weigh_by_hand(module: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Give batch norm the mean over all images of what it sees, and the mean variance within a batch.

    In training mode what a layer sees does not depend on running statistics, so all of it is read first.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    seen: dict[nn.Module, list[tuple[int, torch.Tensor, torch.Tensor]]] = {layer: [] for layer in layers}

    def read(layer: nn.Module, arguments: tuple[torch.Tensor]) -> None:
        values = arguments[0].double().transpose(0, 1).flatten(1)
        seen[layer].append((len(arguments[0]), values.mean(1), values.var(1)))

    hooks = [layer.register_forward_pre_hook(read) for layer in layers]
    with torch.no_grad():
        for batch in batches:
            module.train()(batch)
    for layer, hook in zip(layers, hooks, strict=True):
        hook.remove()
        images = sum(count for count, _, _ in seen[layer])
        layer.running_mean.copy_(sum(count * mean for count, mean, _ in seen[layer]) / images)
        layer.running_var.copy_(sum(count * variance for count, _, variance in seen[layer]) / images)


@pytest.fixture(scope="module")
def pair(digits: tb.Data, start: tb.Ticket) -> tuple[tb.Run, tb.Run]:
    """Two runs of one initialisation without anything that would make them stable."""
    recipe = tb.Recipe(epochs=4, batch_size=50, lr=0.1)
    first, second = (tb.train(start, digits, recipe, noise=noise) for noise in (1, 2))
    return first, second


# Eq. 3


def test_the_height_is_the_largest_error_minus_the_mean_of_the_ends() -> None:
    barrier = Barrier((0.0, 0.5, 1.0), (10.0, 50.0, 30.0), (0.1, 0.9, 0.3))
    assert barrier.height == 30.0
    assert barrier.loss_height == pytest.approx(0.7)
    # The ends count, too: with no error above them, half of their difference is left.
    assert Barrier((0.0, 0.5, 1.0), (10.0, 5.0, 30.0), (0, 0, 0)).height == 10.0


def test_a_run_has_no_barrier_to_itself(pair: tuple[tb.Run, tb.Run], digits: tb.Data) -> None:
    for recalibrate in (False, True):
        line = tb.barrier(pair[0], pair[0], digits, points=6, recalibrate=recalibrate)
        assert line.height == 0
        assert len(set(line.errors)) == len(set(line.losses)) == 1


@pytest.mark.parametrize("points", [3, 4, 8])
@pytest.mark.parametrize("recalibrate", [False, True])
def test_swapping_the_runs_mirrors_the_line_to_the_bit(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, points: int, recalibrate: bool
) -> None:
    there = tb.barrier(*pair, digits, points=points, recalibrate=recalibrate)
    back = tb.barrier(*reversed(pair), digits, points=points, recalibrate=recalibrate)
    assert there.errors == back.errors[::-1]
    assert there.losses == back.losses[::-1]
    assert there.height == back.height


def test_the_ends_are_the_runs_own_errors(pair: tuple[tb.Run, tb.Run], digits: tb.Data) -> None:
    line = tb.barrier(*pair, digits, points=3)
    assert (line.errors[0], line.errors[-1]) == tuple(100 - run.accuracy for run in pair)
    assert (line.losses[0], line.losses[-1]) == tuple(run.history[-1].test_loss for run in pair)
    assert line.alphas == (0.0, 0.5, 1.0)


def test_the_line_is_that_of_a_slow_independent_implementation(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data
) -> None:
    line = tb.barrier(*pair, digits)
    assert line.alphas == tuple(pytest.approx(index / 20) for index in range(21))
    expected = []
    for alpha in line.alphas:
        module = pair[0].ticket.network.build()
        module.load_state_dict(mixed(*pair, alpha))
        expected.append(measured(module, digits))
    assert line.errors == pytest.approx([error for error, _ in expected])
    assert line.losses == pytest.approx([loss for _, loss in expected], rel=1e-4)
    # There is something to measure; how much hangs on the processor's last bits.
    assert line.height > 0.1


def test_the_recalibrated_line_is_that_of_a_slow_independent_implementation(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data
) -> None:
    line = tb.barrier(*pair, digits, points=5, recalibrate=True)
    images = inputs(digits, digits.train.images)
    expected = []
    for alpha in line.alphas:
        module = pair[0].ticket.network.build()
        module.load_state_dict(mixed(*pair, alpha))
        weigh_by_hand(module, (images[:500], images[500:1000], images[1000:]))
        expected.append(measured(module, digits))
    assert line.errors == pytest.approx([error for error, _ in expected])
    assert line.losses == pytest.approx([loss for _, loss in expected], rel=1e-4)
    assert line.errors != tb.barrier(*pair, digits, points=5).errors


def test_the_recalibrated_line_is_that_of_the_loss_landscapes_package(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data
) -> None:
    landscapes = pytest.importorskip("loss_landscapes")
    modules = []
    for run in pair:
        modules.append(run.ticket.network.build())
        modules[-1].load_state_dict(dict(run.weights))
    batches = inputs(digits, digits.train.images).split(500)

    def measure(wrapper: object) -> list[float]:
        # The package moves the parameters of the first module, and leaves its buffers alone.
        weigh_by_hand(modules[0], batches)
        return list(measured(modules[0], digits))

    # Its steps begin behind the first end.
    theirs = landscapes.linear_interpolation(*modules, measure, steps=6)
    ours = tb.barrier(*pair, digits, points=7, recalibrate=True)
    assert ours.errors[1:] == pytest.approx(theirs[:, 0])
    assert ours.losses[1:] == pytest.approx(theirs[:, 1], rel=1e-4)


@pytest.mark.parametrize("recalibrate", [False, True])
def test_a_line_on_the_train_split_is_of_its_images_without_augmentation(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, recalibrate: bool
) -> None:
    line = tb.barrier(*pair, digits, points=3, split="train", recalibrate=recalibrate)
    assert line.split == "train"
    images = inputs(digits, digits.train.images)
    expected = []
    for alpha in line.alphas:
        module = pair[0].ticket.network.build()
        module.load_state_dict(mixed(*pair, alpha))
        if recalibrate:
            weigh_by_hand(module, images.split(500))
        expected.append(measured(module, digits, "train"))
    assert line.errors == pytest.approx([error for error, _ in expected])
    assert line.losses == pytest.approx([loss for _, loss in expected], rel=1e-4)


@pytest.mark.parametrize("split", ["test", "train"])
def test_both_readings_of_batch_norm_can_be_had_at_once(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, split: str
) -> None:
    both = tb.barrier(*pair, digits, points=5, split=split, recalibrate="beside")
    assert both.recalibrated == tb.barrier(*pair, digits, points=5, split=split, recalibrate=True)
    assert replace(both, recalibrated=None) == tb.barrier(*pair, digits, points=5, split=split)
    assert both.recalibrated.errors != both.errors


def test_the_network_is_built_once_however_many_points_there_are(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = tb.Network.build

    def counting(self: tb.Network) -> nn.Module:
        built.append(self.name)
        return build(self)

    monkeypatch.setattr(tb.Network, "build", counting)
    tb.barrier(*pair, digits, points=15, recalibrate="beside")
    assert built == ["convnet"]


def test_tied_weights_are_interpolated_once(digits: tb.Data) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64, bias=False)
            self.again = nn.Linear(64, 64, bias=False)
            self.again.weight = self.first.weight
            self.last = nn.Linear(64, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.last(self.again(self.first(images.flatten(1)).relu()))

    states = [dict(tb.initialize(Tied, digits, seed=seed).start) for seed in (1, 2)]
    runs = [run_of(Tied, digits, state) for state in states]
    line = tb.barrier(*runs, digits, points=4)
    for alpha, loss in zip(line.alphas, line.losses, strict=True):
        module = Tied()
        module.load_state_dict(mixed(*runs, alpha))
        assert loss == pytest.approx(measured(module, digits)[1], rel=1e-4)


# Lines that can be reasoned about


def test_the_barrier_of_a_moving_threshold_by_hand() -> None:
    """A classifier of one grey pixel says 1 above a threshold, which moves along the line."""

    def threshold() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(1, 2))

    def says_one_above(place: float, slope: float) -> dict[str, torch.Tensor]:
        weight, bias = torch.tensor([[0.0], [slope]]), torch.tensor([0.0, -slope * place])
        return {"1.weight": weight, "1.bias": bias}

    def pixels(places: list[float]) -> torch.Tensor:
        return (
            torch.tensor([round(127.5 * (place + 1)) for place in places]).view(-1, 1, 1, 1).to(torch.uint8)
        )

    # Train pixels of 0 and 255 have mean and deviation 1/2, so pixels from 0 to 255 become -1 to 1.
    places, labels = [-0.9, -0.6, -0.4, -0.2, 0.2, 0.5, 0.7, 0.9], [0, 1, 1, 1, 0, 0, 0, 1]
    data = tb.data_from_tensors(
        (pixels([-1.0, 1.0]), torch.tensor([0, 1])), (pixels(places), torch.tensor(labels))
    )
    runs = [run_of(threshold, data, says_one_above(*made)) for made in ((-0.8, 1.0), (0.8, 3.0))]
    line = tb.barrier(*runs, data, points=5)
    # At a, slope is 1 + 2a and slope times threshold -0.8 + 3.2a: thresholds -0.8, 0, 0.4, 0.64 and 0.8.
    # Wrong are ones at or below it and zeros above it: 0 + 3, 3 + 3, 3 + 2, 3 + 1 and 3 + 0 of 8.
    assert line.errors == (37.5, 75.0, 62.5, 50.0, 37.5)
    assert line.height == 37.5


def linear(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes, bias=False))


@pytest.fixture(scope="module")
def separable() -> tb.Data:
    """Two classes of 1x2x2 images: bright above or bright below."""
    above = torch.tensor([[[200, 200], [50, 50]]], dtype=torch.uint8)
    below = torch.tensor([[[50, 50], [200, 200]]], dtype=torch.uint8)
    images = torch.stack([above, below] * 10)
    labels = torch.tensor([0, 1] * 10)
    return tb.data_from_tensors((images, labels), (images, labels))


def test_the_line_between_a_linear_classifier_and_its_opposite_by_hand(separable: tb.Data) -> None:
    right = torch.tensor([[1.0, 1, -1, -1], [-1, -1, 1, 1]])
    runs = [run_of(linear, separable, {"1.weight": sign * right}) for sign in (1, -1)]
    line = tb.barrier(*runs, separable, points=5)
    # All right; in the middle all logits are 0, the first class is said and half are right; then all wrong.
    assert line.errors == (0, 0, 50, 100, 100)
    assert line.height == 50
    # Pixels are -1 and 1 after normalisation, so the logits are 4 and -4 at the end: log(1 + exp(-8 * sign)).
    expected = [math.log1p(math.exp(-8 * share)) for share in (1, 0.5, 0, -0.5, -1)]
    assert line.losses == pytest.approx(expected, rel=1e-3)


@given(st.integers(0, 1000))
def test_a_linear_model_has_no_barrier_in_the_loss(digits: tb.Data, seed: int) -> None:
    draws = torch.Generator().manual_seed(seed)

    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    runs = [
        run_of(factory, digits, {
            "1.weight": torch.randn(10, 64, generator=draws), "1.bias": torch.randn(10, generator=draws),
        })
        for _ in range(2)
    ]  # fmt: skip
    # Cross-entropy is convex in the weights: no point lies above the chord, so the larger end is the largest.
    line = tb.barrier(*runs, digits, points=5)
    assert line.loss_height == pytest.approx(abs(line.losses[0] - line.losses[-1]) / 2)
    for alpha, loss in zip(line.alphas, line.losses, strict=True):
        assert loss <= (1 - alpha) * line.losses[0] + alpha * line.losses[-1] + 1e-6


@given(st.integers(3, 30), st.data())
def test_interpolation_is_exact_at_the_ends_and_the_same_from_both_sides(
    points: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, points - 1))
    draws = np.random.default_rng(points)
    a, b = ({"w": torch.from_numpy(draws.normal(size=20).astype(np.float32))} for _ in range(2))
    there, back = torch.empty(20), torch.empty(20)
    interpolate({"w": there}, a, b, index, points)
    interpolate({"w": back}, b, a, points - 1 - index, points)
    assert torch.equal(there, back)
    share = index / (points - 1)
    torch.testing.assert_close(there, (1 - share) * a["w"] + share * b["w"])
    if index in (0, points - 1):
        assert torch.equal(there, (b if index else a)["w"])


def test_masks_of_the_runs_may_differ(chain: list[tb.Run], digits: tb.Data) -> None:
    line = tb.barrier(chain[0], chain[2], digits, points=3)
    assert (line.errors[0], line.errors[-1]) == (100 - chain[0].accuracy, 100 - chain[2].accuracy)
    assert line.sparsities == (0.0, 0.75)
    assert line.same_mask is False


def test_equal_masks_are_recorded_as_such_and_others_of_equal_sparsity_are_not(
    chain: list[tb.Run], digits: tb.Data
) -> None:
    assert tb.barrier(chain[1], chain[1], digits, points=3).same_mask is True
    other = replace(chain[1], ticket=tb.permute(chain[1].ticket))
    line = tb.barrier(chain[1], other, digits, points=3)
    assert (line.sparsities, line.same_mask) == ((0.5, 0.5), False)


# Recalibration


def test_recalibration_leaves_weights_and_momentum_of_batch_norm_alone(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data
) -> None:
    module = pair[0].ticket.network.build()
    module.load_state_dict(dict(pair[0].weights))
    recalibrate_batch_norm(module, device_batches(digits, digits.train, CPU), "float32")
    assert all(layer.momentum == 0.1 for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    for name, value in module.named_parameters():
        assert torch.equal(value, pair[0].weights[name])


def test_recalibrating_anew_replaces_what_stood_there(pair: tuple[tb.Run, tb.Run], digits: tb.Data) -> None:
    batches = device_batches(digits, digits.train, CPU)
    states = []
    for filled in (0.0, 123.0):
        module = copy.deepcopy(pair[0].ticket.network.build())
        module.load_state_dict(dict(pair[0].weights))
        module[1].running_mean.fill_(filled)
        recalibrate_batch_norm(module, batches, "float32")
        states.append(module[1].running_mean.clone())
    assert torch.equal(*states)


@pytest.mark.parametrize(("count", "cuts"), [(502, (500,)), (1001, (500,)), (1198, (500, 1000))])
def test_every_image_weighs_the_same_when_batch_norm_is_measured_anew(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, count: int, cuts: tuple[int, ...]
) -> None:
    data = first(digits, count)
    ours, by_hand = pair[0].ticket.network.build(), pair[0].ticket.network.build()
    for module in (ours, by_hand):
        module.load_state_dict(dict(pair[0].weights))
    recalibrate_batch_norm(ours, device_batches(data, data.train, CPU), "float32")
    # A single image left over goes with the batch before: 1001 images are 500 and 501.
    weigh_by_hand(by_hand, inputs(data, data.train.images).tensor_split(cuts))
    for name, value in by_hand.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def average_of_batches(module: nn.Module, images: torch.Tensor) -> int:
    """Measure batch norm by PyTorch's own cumulative average, in which every batch counts the same."""
    ends = [*range(500, len(images) - 1, 500), len(images)]
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None
    with torch.no_grad():
        for begin, end in zip([0, *ends], ends, strict=False):
            module.train()(images[begin:end].contiguous(memory_format=torch.channels_last))
    return len(ends)


@pytest.mark.parametrize(("count", "batches"), [(300, 1), (500, 1), (501, 1), (1000, 2), (1500, 3)])
def test_batches_of_one_size_are_averaged_to_the_bit_as_pytorch_does(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, same_bits: Callable[..., bool], count: int, batches: int
) -> None:
    many = tb.data_from_tensors(
        (digits.train.images.repeat(2, 1, 1, 1)[:count], digits.train.labels.repeat(2)[:count]),
        (digits.test.images, digits.test.labels),
    )
    uploaded = device_batches(many, many.train, CPU)
    ours, theirs = pair[0].ticket.network.build(), pair[0].ticket.network.build()
    for module in (ours, theirs):
        module.load_state_dict(dict(pair[0].weights))
    recalibrate_batch_norm(ours, uploaded, "float32")
    assert average_of_batches(theirs, uploaded.unaugmented(0, count)) == batches
    assert same_bits(ours.state_dict(), theirs.state_dict())


def test_a_layer_that_stands_at_two_places_has_the_average_over_both(digits: tb.Data) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(64, 10), nn.BatchNorm1d(10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            first: torch.Tensor = self.norm(self.linear(images.flatten(1)))
            second: torch.Tensor = self.norm(3 * first.relu() + 1)
            return second

    torch.manual_seed(0)
    ours = Twice()
    by_hand = copy.deepcopy(ours)
    recalibrate_batch_norm(ours, device_batches(digits, digits.train, CPU), "float32")
    weigh_by_hand(by_hand, inputs(digits, digits.train.images).split(500))
    torch.testing.assert_close(ours.norm.running_mean, by_hand.norm.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.norm.running_var, by_hand.norm.running_var, rtol=1e-4, atol=1e-5)
    assert ours.norm.momentum == 0.1
    assert not ours.norm._forward_pre_hooks


def test_recalibration_takes_a_single_last_image_along_with_the_batch_before(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))

    data = first(digits, 501)  # evaluation takes 500 images at a time
    run = tb.train(tb.initialize(factory, data), data, tb.Recipe(epochs=1, batch_size=60, lr=0.01))
    line = tb.barrier(run, run, data, points=3, recalibrate=True)
    module = factory()
    module.load_state_dict(dict(run.weights))
    with torch.no_grad():
        outputs = module[:2](inputs(data, data.train.images))
        module[2].running_mean.copy_(outputs.mean(0))
        module[2].running_var.copy_(outputs.var(0))
    error, loss = measured(module, data)
    assert line.errors[0] == pytest.approx(error)
    assert line.losses[0] == pytest.approx(loss, rel=1e-4)


# What is refused


def test_runs_of_different_networks_are_refused(run: tb.Run, digits: tb.Data, separable: tb.Data) -> None:
    other = run_of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits, {})
    with pytest.raises(
        NetworkError,
        match=r"one network; got convnet for 1x8x8 images of 10 classes and <.*lambda.*> for 1x8x8 images",
    ):
        tb.barrier(run, other, digits)


def test_different_networks_of_the_same_label_are_refused(digits: tb.Data) -> None:
    def run_with(width: int) -> tb.Run:
        factory = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, 10))  # noqa: E731
        return run_of(factory, digits, dict(tb.initialize(factory, digits).start))

    with pytest.raises(NetworkError, match="these differ, yet both are"):
        tb.barrier(run_with(3), run_with(4), digits)


def test_images_that_do_not_fit_are_refused(run: tb.Run, colour: tb.Data) -> None:
    with pytest.raises(NetworkError, match="convnet is for 1x8x8 images of 10 classes; colour has 3x8x10"):
        tb.barrier(run, run, colour)


@pytest.mark.parametrize("points", [2, 0, -1])
def test_fewer_than_three_points_are_refused(run: tb.Run, digits: tb.Data, points: int) -> None:
    with pytest.raises(RecipeError, match=f"points is {points}; a barrier needs at least 3"):
        tb.barrier(run, run, digits, points=points)


@pytest.mark.parametrize("recalibrate", ["both", None, 2])
def test_an_unknown_reading_of_batch_norm_is_refused(
    run: tb.Run, digits: tb.Data, recalibrate: object
) -> None:
    with pytest.raises(RecipeError, match=r"recalibrate is .*; it must be False, True or 'beside'"):
        tb.barrier(run, run, digits, recalibrate=recalibrate)  # type: ignore[arg-type]


def test_an_unknown_split_is_refused(run: tb.Run, digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="split is 'valid'; it must be 'test' or 'train'"):
        tb.barrier(run, run, digits, split="valid")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"device": "cuda"}])
def test_runs_of_different_precisions_or_devices_are_refused(
    run: tb.Run, digits: tb.Data, change: dict[str, str]
) -> None:
    with pytest.raises(RecipeError, match=r"trained in float32 on cpu and .*; no line mixes them"):
        tb.barrier(run, replace(run, **change), digits)


def test_somebody_can_be_told_of_every_point_and_nothing_is_changed(
    pair: tuple[tb.Run, tb.Run], digits: tb.Data, same_bits: Callable[..., bool]
) -> None:
    before = [{name: value.clone() for name, value in run.weights.items()} for run in pair]
    beats: list[None] = []

    class Hearing(tb.Watch):
        def beat(self) -> None:
            beats.append(None)

    generator = torch.get_rng_state()
    tb.barrier(*pair, digits, points=4, recalibrate=True, watch=Hearing())
    assert len(beats) == 2 * 4  # after the statistics of each and after its evaluation
    assert all(same_bits(run.weights, kept) for run, kept in zip(pair, before, strict=True))
    assert torch.equal(generator, torch.get_rng_state())


# On a GPU

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


@pytest.mark.cuda
@on_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_line_on_a_gpu_begins_and_ends_with_the_runs_own_errors_and_can_be_mirrored(
    start: tb.Ticket, digits: tb.Data, precision: str
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=50, lr=0.1, precision=precision)  # type: ignore[arg-type]
    runs = [tb.train(start, digits, recipe, noise=noise, device="cuda") for noise in (1, 2)]
    there, back = (
        tb.barrier(*some, digits, points=5, recalibrate="beside", device="cuda")
        for some in (runs, runs[::-1])
    )
    assert (there.errors[0], there.errors[-1]) == tuple(100 - run.accuracy for run in runs)
    assert there.losses == back.losses[::-1]
    assert there.recalibrated.losses == back.recalibrated.losses[::-1]
    if precision == "float32":
        here = tb.barrier(*runs, digits, points=5, recalibrate="beside", device="cpu")
        assert there.losses == pytest.approx(here.losses, rel=1e-3)
        assert there.recalibrated.losses == pytest.approx(here.recalibrated.losses, rel=1e-3)


@pytest.mark.cuda
@on_gpu
@pytest.mark.parametrize("network", ["convnet", "resnet20"])
def test_captured_statistics_are_those_of_plain_passes(digits: tb.Data, network: str) -> None:
    ticket = tb.initialize(network, digits, seed=0)
    with repeatable(CUDA):
        body = FlatNetwork(ticket.network, CUDA)
        evaluator = Evaluator(body, "float32")
        batches = device_batches(digits, digits.train, CUDA)
        for seed in (1, 2):  # captured once, replayed with other weights
            body.load(tb.initialize(network, digits, seed=seed).start)
            recalibrate_batch_norm(body.module, batches, "float32")
            expected = {name: value.clone() for name, value in body.module.named_buffers()}
            body.load(tb.initialize(network, digits, seed=seed).start)
            assert evaluator.measures_batch_norm(batches, batches_for_statistics(len(batches)))
            for name, value in body.module.named_buffers():
                torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
        # In evaluation mode again: nothing moves them.
        before = {name: value.clone() for name, value in body.module.named_buffers()}
        evaluator(digits, digits.test)
        for name, value in body.module.named_buffers():
            assert torch.equal(value, before[name])


# Ends that failed


def diverged(run: tb.Run) -> tb.Run:
    """A run as it would be had its weights become undefined in the last epoch."""
    row = replace(run.history[-1], train_loss=math.nan, test_loss=math.nan, test_accuracy=10.0)
    weights = {
        name: value * math.nan if value.is_floating_point() else value for name, value in run.weights.items()
    }
    return replace(run, weights=weights, history=History([*run.history[:-1], row]))


def at_chance(run: tb.Run) -> tb.Run:
    return replace(run, history=History([*run.history[:-1], replace(run.history[-1], test_accuracy=9.0)]))


def test_a_barrier_says_which_of_its_ends_failed(run: tb.Run, digits: tb.Data) -> None:
    line = tb.barrier(run, at_chance(run), digits, points=3)
    assert line.ends == ("trained", "at chance")
    assert line.failures() == "the second run stayed at chance"
    assert line.height == 0.0  # the weights are the same, and the errors a result
    both = tb.barrier(diverged(run), at_chance(run), digits, points=3, recalibrate="beside")
    assert both.failures() == "the first run diverged and the second run stayed at chance"
    assert both.recalibrated is not None
    assert both.recalibrated.ends == both.ends == ("diverged", "at chance")
    sound = tb.barrier(run, run, digits, points=3)
    assert (sound.ends, sound.failures()) == (("trained", "trained"), "")


def test_weights_that_are_not_finite_count_as_diverged_whatever_the_history_says(
    run: tb.Run, digits: tb.Data
) -> None:
    broken = replace(run, weights=diverged(run).weights)
    assert tb.barrier(broken, run, digits, points=3).ends == ("diverged", "trained")


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_barrier_over_an_undefined_loss_is_undefined(place: int, loss: float) -> None:
    losses = [0.1, 0.1, 0.1]
    losses[place] = loss
    line = Barrier((0.0, 0.5, 1.0), (10.0, 90.0, 10.0), tuple(losses))
    assert math.isnan(line.height)
    assert math.isnan(line.loss_height)


def test_a_barrier_from_before_ends_were_recorded_is_read(run: tb.Run, digits: tb.Data) -> None:
    from tombola.lab.results import pack, unpack

    line = tb.barrier(run, diverged(run), digits, points=3)
    packed = pack(line)
    assert unpack(packed, Barrier, dict).ends == ("trained", "diverged")
    del packed.numbers["value"]["ends"]
    before = unpack(packed, Barrier, dict)
    assert (before.ends, before.failures()) == (None, "")


@pytest.mark.parametrize("ends", [("x", "y"), ("trained",), ("trained", ["trained"])])
def test_ends_that_no_training_has_are_refused(ends: object) -> None:
    with pytest.raises(ValueError, match="it must be two of"):
        tb.Barrier((0.0, 1.0), (1.0, 1.0), (1.0, 1.0), ends=ends)  # type: ignore[arg-type]
