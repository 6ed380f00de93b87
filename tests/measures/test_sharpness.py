"""Sharpness against what is largest over all corners of a box, and steps by hand."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures import sharpness


def linear(channels: int, size: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Linear(channels, classes)


def two_layers(channels: int, size: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels, 6, bias=False), nn.ReLU(), nn.Linear(6, classes, bias=False))


@pytest.fixture(scope="module")
def points() -> tb.Data:
    """Three overlapping classes of two features."""
    draws = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 3
        return torch.randn(count, 2, generator=draws) + labels[:, None] * torch.tensor([1.0, -0.5]), labels

    return tb.data_from_tensors(split(60), split(30), name="points")


@pytest.fixture(scope="module")
def trained(points: tb.Data) -> tb.Run:
    recipe = tb.Recipe(epochs=10, batch_size=20, lr=0.3, weight_decay=0.0)
    return tb.train(tb.initialize(linear, points), points, recipe)


def loss_at(run: tb.Run, data: tb.Data, offset: np.ndarray) -> float:
    """The loss at weights moved by an offset, in float64."""
    weight, bias = (run.weights[name].double() for name in ("weight", "bias"))
    moved = torch.from_numpy(offset)
    logits = data.train.images.double() @ (weight + moved[:6].view(3, 2)).T + bias + moved[6:]
    return float(cross_entropy(logits, data.train.labels))


@pytest.mark.parametrize("epsilon", [1e-3, 5e-4, 0.05])
def test_of_a_convex_loss_the_largest_is_at_a_corner_of_the_box(
    trained: tb.Run, points: tb.Data, epsilon: float
) -> None:
    weights = torch.cat([trained.weights[name].flatten() for name in ("weight", "bias")]).double().numpy()
    reach = epsilon * (np.abs(weights) + 1)
    corners = itertools.product([-1, 1], repeat=9)
    highest = max(loss_at(trained, points, reach * np.array(corner)) for corner in corners)
    base = loss_at(trained, points, np.zeros(9))
    found = tb.box_sharpness(trained, points, epsilon=epsilon, iterations=30)
    assert found.parameters == 9
    assert found.loss == pytest.approx(base, rel=1e-6)
    assert found.highest <= highest * (1 + 1e-6)
    # Float32 losses, whose differences lie near 1e-7.
    assert found.sharpness == pytest.approx(100 * (highest - base) / (1 + base), rel=0.05, abs=2e-4)


def test_in_a_subspace_the_box_is_of_its_coordinates(
    trained: tb.Run, points: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    basis = np.random.default_rng(1).standard_normal((9, 2))
    monkeypatch.setattr(sharpness, "_random_basis", lambda count, dimension, seed: basis)
    weights = torch.cat([trained.weights[name].flatten() for name in ("weight", "bias")]).double().numpy()
    reach = 5e-3 * (np.abs(np.linalg.pinv(basis) @ weights) + 1)
    corners = itertools.product([-1, 1], repeat=2)
    highest = max(loss_at(trained, points, basis @ (reach * np.array(corner))) for corner in corners)
    found = tb.box_sharpness(trained, points, epsilon=5e-3, subspace=2, iterations=30)
    assert found.parameters == 2
    assert found.highest - found.loss == pytest.approx(highest - found.loss, rel=0.02)


def test_pruned_weights_stay_out_of_the_box(chain: list[tb.Run], digits: tb.Data) -> None:
    few = tb.take(digits, list(range(50)))
    pruned = sum(int((~keep).sum()) for keep in chain[2].ticket.mask.values())
    found = tb.box_sharpness(chain[2], few, iterations=1)
    total = sum(values.numel() for values in tb.module(chain[2]).parameters())
    assert found.parameters == total - pruned
    assert found.highest >= found.loss


def test_the_step_of_sam_by_hand(trained: tb.Run, points: tb.Data) -> None:
    module = nn.Linear(2, 3).double()
    module.load_state_dict({name: value.double() for name, value in trained.weights.items()})
    images, labels = points.train.images.double(), points.train.labels
    base = cross_entropy(module(images), labels)
    base.backward()
    loss = base.item()
    weights = torch.cat([values.detach().flatten() for values in module.parameters()])
    gradient = torch.cat([values.grad.flatten() for values in module.parameters()])
    for adaptive, rho in ((False, 0.05), (False, 0.5), (True, 0.5)):
        step = (
            weights**2 * gradient / (weights.abs() * gradient).norm()
            if adaptive
            else gradient / gradient.norm()
        )
        perturbed = loss_at(trained, points, (rho * step).numpy())
        found = tb.sam_sharpness(trained, points, rho=rho, adaptive=adaptive)
        assert found.sharpness == pytest.approx(perturbed - loss, rel=1e-3, abs=1e-7)
        assert found.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_only_the_adaptive_one_is_blind_to_rescaling(points: tb.Data) -> None:
    """Layers before and after a ReLU, times and divided by 4, are the same function."""
    start = tb.initialize(two_layers, points).start
    factors = {"0.weight": 4.0, "2.weight": 0.25}
    scaled = {name: value * factors[name] for name, value in start.items()}
    runs = [tb.run_from(weights, network=two_layers, data=points) for weights in (start, scaled)]
    adaptive, plain = (
        [tb.sam_sharpness(run, points, rho=0.3, adaptive=kind).sharpness for run in runs]
        for kind in (True, False)
    )
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-4)
    assert plain[0] != pytest.approx(plain[1], rel=0.1)


def test_where_the_gradient_vanishes_nothing_rises() -> None:
    for adaptive in (True, False):
        step = sharpness.uphill(torch.ones(3), torch.zeros(3), 0.05, adaptive=adaptive)
        assert torch.equal(step, torch.zeros(3))


def test_what_diverged_and_options_out_of_range_are_refused(trained: tb.Run, points: tb.Data) -> None:
    broken = replace(trained, weights={name: value * math.nan for name, value in trained.weights.items()})
    for measure in (tb.box_sharpness, tb.sam_sharpness):
        with pytest.raises(
            TicketError, match="there is no sharpness of this run: the loss on the train images"
        ):
            measure(broken, points)
    for options, words in (
        ({"epsilon": 0.0}, "epsilon is 0.0; it must lie between 0 and 1"),
        ({"iterations": 0}, "iterations is 0; it must be at least 1"),
        ({"subspace": 10}, "subspace is 10; it must be from 1 to 9, or None"),
    ):
        with pytest.raises(RecipeError, match=words):
            tb.box_sharpness(trained, points, **options)
    with pytest.raises(RecipeError, match="rho is 0; it must be above 0"):
        tb.sam_sharpness(trained, points, rho=0)
