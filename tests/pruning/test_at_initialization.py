"""Pruning at initialisation against derivatives by hand, in closed form and by differences."""

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tombola as tb
from tombola.errors import DataError, RecipeError, TicketError
from tombola.pruning import sensitivity
from tombola.pruning.sensitivity import grasp, snip
from tombola.pruning.synaptic_flow import synflow


def layers(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    inputs = channels * size[0] * size[1]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, classes)
    )


def no_norm(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    inputs = channels * size[0] * size[1]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 5, bias=False), nn.ReLU(), nn.Linear(5, classes, bias=False)
    )


@pytest.fixture(scope="module")
def digits() -> tb.Data:
    return tb.load_data("digits")


def loss_of(ticket: tb.Ticket, weights: dict[str, Tensor], examples: tuple[Tensor, Tensor]) -> Tensor:
    """The loss of the first network above in float64, batch norm by its formula."""
    images, labels = examples
    state = {name: value.double() for name, value in ticket.start.items()} | weights
    hidden = images.double().flatten(1) @ state["1.weight"].T + state["1.bias"]
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = torch.tanh(hidden * state["2.weight"] + state["2.bias"])
    return cross_entropy((hidden @ state["4.weight"].T + state["4.bias"]), labels)


def one_batch(score: str, ticket: tb.Ticket, data: tb.Data) -> tuple[Tensor, Tensor]:
    [part] = sensitivity._examples(score, ticket, data)
    assert part.share == 1
    return part.images, part.labels


@pytest.mark.parametrize("score", [snip, grasp])
def test_in_parts_it_is_that_of_one_batch(
    digits: tb.Data, score: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = tb.initialize(no_norm, digits, seed=3)
    together = score(ticket, digits)
    monkeypatch.setattr(sensitivity, "AT_ONCE", 99)
    monkeypatch.setattr(sensitivity, "_IN_A_PART", 45)
    parts = sensitivity._examples(score.__name__, ticket, digits)
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[4] * 10, [4] * 10, [2] * 10]
    apart = score(ticket, digits)
    for name, scores in together.items():
        torch.testing.assert_close(apart[name], scores, rtol=1e-4, atol=1e-9, msg=name)


def test_two_hundred_classes_go_in_parts_of_all_of_them() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2200, 1, 2, 2), dtype=torch.uint8, generator=generator)
    labels = torch.arange(2200) % 200
    data = tb.data_from((images, labels), (images[:200], labels[:200]), name="many-classes")
    ticket = tb.initialize(no_norm, data)
    parts = sensitivity._examples("snip", ticket, data)
    assert [torch.bincount(part.labels).tolist() for part in parts] == [[2] * 200] * 5
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert tb.prune_at_initialization(ticket, data, score="snip", sparsity=0.5).sparsity == 0.5


def test_snip_is_the_derivative_by_a_closing_connection(digits: tb.Data) -> None:
    ticket = tb.initialize(layers, digits, seed=3)
    examples = one_batch("snip", ticket, digits)
    assert torch.bincount(examples[1]).tolist() == [10] * 10
    connections = {name: torch.ones_like(keep, dtype=torch.float64) for name, keep in ticket.mask.items()}
    for connection in connections.values():
        connection.requires_grad_()
    closed = {name: ticket.start[name].double() * connection for name, connection in connections.items()}
    expected = torch.autograd.grad(loss_of(ticket, closed, examples), list(connections.values()))
    for (name, scores), by_hand in zip(snip(ticket, digits).items(), expected, strict=True):
        torch.testing.assert_close(scores.double(), by_hand.abs(), rtol=1e-3, atol=1e-6, msg=name)


def test_grasp_is_minus_half_the_change_of_the_squared_gradient_by_a_closing_connection(
    digits: tb.Data,
) -> None:
    ticket = tb.initialize(layers, digits, seed=3)
    examples = one_batch("grasp", ticket, digits)
    scores = grasp(ticket, digits)

    def squared_gradient(name: str, place: int, factor: float) -> float:
        weights = {key: ticket.start[key].double().clone().requires_grad_() for key in ticket.mask}
        with torch.no_grad():
            weights[name].view(-1)[place] *= factor
        images, labels = examples
        state = {key: value.double() for key, value in ticket.start.items()} | weights
        hidden = images.double().flatten(1) @ state["1.weight"].T + state["1.bias"]
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
        hidden = torch.tanh(hidden * state["2.weight"] + state["2.bias"])
        loss = cross_entropy((hidden @ state["4.weight"].T + state["4.bias"]) / 200, labels)
        return sum(float((g**2).sum()) for g in torch.autograd.grad(loss, list(weights.values())))

    for name in ticket.mask:
        for place in (0, 17, ticket.mask[name].numel() - 1):
            # d |g|^2 / d log w = 2 w (H g)
            step = 1e-4
            slope = (squared_gradient(name, place, 1 + step) - squared_gradient(name, place, 1 - step)) / (
                2 * step
            )
            assert float(scores[name].view(-1)[place]) == pytest.approx(slope / 2, rel=0.02, abs=1e-10)


def test_synflow_of_two_layers_in_closed_form(digits: tb.Data) -> None:
    ticket = tb.initialize(no_norm, digits, seed=1)
    first, second = (ticket.start[name].double().abs() for name in ("1.weight", "3.weight"))
    scores = synflow(ticket)
    # The flow is 1^T |B| |A| 1, a sum over paths; a weight's score is the flow through it.
    torch.testing.assert_close(scores["1.weight"], second.sum(0)[:, None] * first)
    torch.testing.assert_close(scores["3.weight"], second * first.sum(1)[None])


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow", "random", "magnitude"])
def test_a_ticket_has_the_exact_count_and_counts_as_one_pruning(digits: tb.Data, score: str) -> None:
    start = tb.initialize("convnet", digits, seed=0)
    ticket = tb.prune_at_initialization(start, digits, score=score, sparsity=0.9, rounds=3)
    assert ticket.kept == math.floor(0.1 * start.total + 0.5)
    assert (ticket.round, ticket.density) == (1, pytest.approx(0.1))
    again = tb.prune_at_initialization(start, digits, score=score, sparsity=0.9, rounds=3)
    assert again.fingerprint == ticket.fingerprint
    inverted = tb.prune_at_initialization(start, digits, score=score, sparsity=0.9, rounds=1, invert=True)
    assert inverted.kept == ticket.kept
    assert inverted.fingerprint != ticket.fingerprint


def test_only_in_many_rounds_synflow_loses_no_layer(digits: tb.Data) -> None:
    """The conservation that Tanaka et al. prove; all at once, whole layers go."""
    start = tb.initialize("convnet", digits, seed=0)
    ticket = tb.prune_at_initialization(start, digits, score="synflow", sparsity=0.99)
    assert ticket.collapsed_layers == []
    with pytest.warns(UserWarning, match="layer collapse: 1 of 5 layers keep no weight"):
        lost = tb.prune_at_initialization(start, digits, score="magnitude", sparsity=0.99)
    assert lost.collapsed_layers


@pytest.mark.parametrize(
    "options", [{}, {"invert": True, "sparsity": 0.0}, {"exclude": ["14.weight"]}, {"sparsity": 0.99}]
)
@pytest.mark.parametrize("network", ["convnet", "conv4", no_norm])
def test_the_rounds_of_synflow_are_those_of_one_prune_after_the_other(
    digits: tb.Data, network: str, options: dict[str, Any]
) -> None:
    """In one network whose weights close, and with a network built for each round: the same masks."""
    start = tb.initialize(network, digits, seed=2)
    if "exclude" in options:
        options = options | {"exclude": list(start.mask)[-1:]}
    # Inverted, more than some weights are a whole layer.
    sparsity, rounds = options.get("sparsity", 0.9) or 5 / start.total, 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers are lost
        ticket = tb.prune_at_initialization(
            start, digits, score="synflow", rounds=rounds, **options | {"sparsity": sparsity}
        )
    expected = start
    options = {name: value for name, value in options.items() if name != "sparsity"}
    for number in range(1, rounds + 1):
        fraction = 1 - (1 - sparsity) ** (number / rounds) / expected.density
        expected = tb.prune(expected, fraction=fraction, score="synflow", **options)
    assert all(torch.equal(keep, expected.mask[name]) for name, keep in ticket.mask.items())
    assert torch.equal(start.start[name := next(iter(start.mask))], ticket.start[name])


@pytest.mark.parametrize(("options", "sparsity"), [({}, 0.985), ({"init": "signed-constant"}, 0.5)])
def test_channels_that_are_left_out_of_the_flow_change_no_mask(
    digits: tb.Data, options: dict[str, str], sparsity: float
) -> None:
    """Against one prune after the other, each in the whole network, and where many scores are equal."""
    start = tb.initialize("resnet20", digits, seed=1, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shortcuts lose their weights
        ticket = tb.prune_at_initialization(start, digits, score="synflow", rounds=12, sparsity=sparsity)
    assert any(not keep.flatten(1).any(1).all() for keep in ticket.mask.values())
    expected = start
    for number in range(1, 13):
        fraction = 1 - (1 - sparsity) ** (number / 12) / expected.density
        expected = tb.prune(expected, fraction=fraction, score="synflow")
    assert all(torch.equal(keep, expected.mask[name]) for name, keep in ticket.mask.items())


def test_a_weight_of_exactly_zero_may_stay(digits: tb.Data) -> None:
    start = tb.initialize(no_norm, digits)
    zeros = {
        name: value * (torch.arange(value.numel()).view_as(value) % 4 == 0)
        for name, value in start.start.items()
    }
    ticket = tb.prune_at_initialization(
        replace(start, start=zeros, start_fingerprint=""), digits, score="synflow", sparsity=0.2, rounds=2
    )
    assert ticket.kept == math.floor(0.8 * start.total + 0.5)


def test_erk_with_random_scores_is_the_random_ticket_of_sparse_training(digits: tb.Data) -> None:
    start = tb.initialize("convnet", digits, seed=0)
    ticket = tb.prune_at_initialization(start, digits, score="random", sparsity=0.8, scope="erk")
    densities = {name: float(keep.float().mean()) for name, keep in ticket.mask.items()}
    shares = {name: sum(keep.shape) / keep.numel() for name, keep in ticket.mask.items()}
    unit = [densities[name] / shares[name] for name in ticket.mask if densities[name] < 1]
    assert np.ptp(unit) / np.mean(unit) < 0.01


def test_what_cannot_be_pruned_is_refused(digits: tb.Data) -> None:
    start = tb.initialize("convnet", digits, seed=0)
    for sparsity in (0.0, 1.0, math.nan):
        with pytest.raises(RecipeError, match="must lie between 0 and 1"):
            tb.prune_at_initialization(start, digits, score="snip", sparsity=sparsity)
    few = "keeps none of 8,456 weights; give 5.9e-05 to 0.99994087"
    with pytest.raises(RecipeError, match=few):
        tb.prune_at_initialization(start, digits, score="snip", sparsity=0.99999)
    with pytest.raises(RecipeError, match="sparsity is 1e-05, which keeps all of 8,456"):
        tb.prune_at_initialization(start, digits, score="snip", sparsity=0.00001)
    with pytest.raises(RecipeError, match="rounds is 0; it must be a whole number"):
        tb.prune_at_initialization(start, digits, score="snip", sparsity=0.5, rounds=0)
    sparse = tb.prune_at_initialization(start, digits, score="random", sparsity=0.5)
    with pytest.raises(TicketError, match="give a dense one"):
        tb.prune_at_initialization(sparse, digits, score="snip", sparsity=0.5)
    lost = r"score synflow is the same .* so it ranks nothing; of 0\.weight nothing is left"
    with pytest.raises(TicketError, match=lost):
        tb.prune_at_initialization(start, digits, score="synflow", sparsity=0.999, scope="layerwise")
    zeros = torch.zeros(9, dtype=torch.int64)
    images = tb.ImageSet(digits.train.images[:9], zeros)
    one_class = replace(digits, train=images, test=images, class_names=("zero",))
    with pytest.raises(DataError, match="needs images of two classes"):
        snip(start, one_class)
    huge = replace(start, start={name: value * 1e200 for name, value in start.start.items()})
    with pytest.raises(TicketError, match="not finite"):
        synflow(replace(huge, start={name: value.double() for name, value in huge.start.items()}))


@pytest.mark.parametrize("score", ["snip", "grasp", "synflow"])
def test_scores_by_gradients_draw_from_no_global_generator(digits: tb.Data, score: str) -> None:
    start = tb.initialize("convnet", digits)
    before = torch.get_rng_state()
    tb.prune(start, fraction=0.5, score=score, data=digits)
    assert torch.equal(torch.get_rng_state(), before)


def test_synflow_counts_a_tied_weight_as_one(digits: tb.Data) -> None:
    class Tied(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
            self.second.weight = self.first.weight
            self.last = nn.Linear(64, classes, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            return self.last(self.second(self.first(images.flatten(1))))

    start = tb.initialize(Tied, digits)
    weight, last = (start.start[name].double().abs() for name in ("first.weight", "last.weight"))
    # The flow is 1' L W W 1, so that W has the gradient (1' L)' (W 1)' + (1' L W)' 1'.
    ones, out = torch.ones(64, dtype=torch.float64), last.sum(0)
    gradient = torch.outer(out, weight @ ones) + torch.outer(out @ weight, ones)
    assert torch.allclose(synflow(start)["first.weight"], weight * gradient)


def test_only_scores_of_many_classes_have_another_version() -> None:
    start = tb.initialize("convnet", "digits")

    def version(data: str, score: str) -> int:
        job = tb.job(tb.prune_at_initialization, start, data, score=score, sparsity=0.5)
        return job.declaration.version

    scores = ("snip", "grasp", "synflow", "magnitude")
    versions = {
        (data, score): version(data, score) for data in ("cifar100", "tinyimagenet") for score in scores
    }
    assert {call for call, number in versions.items() if number == 2} == {
        ("tinyimagenet", "snip"),
        ("tinyimagenet", "grasp"),
    }
