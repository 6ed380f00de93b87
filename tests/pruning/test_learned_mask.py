"""Learned masks against a loop in plain PyTorch, differences of the loss, and what is drawn by chance."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.networks import network as networks
from tombola.pruning.learned_mask import (
    learned_edge_popup,
    learned_state,
    learned_supermask,
    mask_from,
)
from tombola.pruning.masked_network import (
    Bernoulli,
    HighestScores,
    MaskedNetwork,
    MaskRule,
    mask_of_highest,
    network_state_of,
    scores_of,
)
from tombola.training.checkpoint import Checkpoint, Checkpoints

PLAIN = tb.Recipe(epochs=3, batch_size=32, lr=0.5, momentum=0.9, weight_decay=1e-4)


def net(channels: int, classes: int) -> nn.Module:
    """Two convolutions and a linear layer, without batch norm; half of each layer is a whole number."""
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes),
    )  # fmt: skip


WEIGHTS = ("0.weight", "2.weight", "6.weight")


@pytest.fixture(scope="module")
def plain(colour: tb.Data) -> tb.Data:
    """The colour images as features, which nothing crops or mirrors."""
    train, test = ((part.images.float() / 255, part.labels) for part in (colour.train, colour.test))
    return tb.data_from_tensors(train, test, name="plain", features=True)


@pytest.fixture(scope="module")
def untrained_start(plain: tb.Data) -> tb.Ticket:
    # Not of one magnitude: sums of equal weights are exactly 0 at times, where rounding decides a ReLU.
    return tb.initialize(net, plain, seed=4, init="kaiming-normal-fan-in")


def forward(state: Mapping[str, Tensor], masks: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    weights = {name: state[name] * masks[name] for name in WEIGHTS}
    first = functional.conv2d(inputs, weights["0.weight"], state["0.bias"], padding=1).relu()
    second = functional.conv2d(first, weights["2.weight"], stride=2, padding=1).relu()
    pooled = functional.adaptive_avg_pool2d(second, 2).flatten(1)
    return functional.linear(pooled, weights["6.weight"], state["6.bias"])


class Subnetwork(torch.autograd.Function):
    """The mask as the paper has it: the lowest go, and the gradient passes as it is."""

    @staticmethod
    def forward(ctx: object, sizes: Tensor, removed: int) -> Tensor:
        flat = sizes.clone().contiguous().flatten()
        order = flat.argsort()
        flat[order[:removed]] = 0
        flat[order[removed:]] = 1
        return flat.reshape(sizes.shape)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def learn_plainly(
    start: tb.Ticket,
    data: tb.Data,
    recipe: tb.Recipe,
    masks_of: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    scores: dict[str, Tensor],
    before_step: Callable[[int, int], None] = lambda epoch, step: None,
) -> dict[str, Tensor]:
    """Scores trained in plain PyTorch under noise 0, image after image as the streams say."""
    scores = {name: value.clone().requires_grad_() for name, value in scores.items()}
    optimizer = torch.optim.SGD(scores.values(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    count = len(data.train)
    steps = math.ceil(count / recipe.batch_size)
    for epoch in range(recipe.epochs):
        order = torch.from_numpy(seeds.generator("order", 0, 0, epoch).permutation(count))
        for step in range(steps):
            indices = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            done = (epoch + step / steps) / recipe.epochs
            optimizer.param_groups[0]["lr"] = recipe.lr / 2 * (1 + math.cos(math.pi * done))
            before_step(epoch, step)
            outputs = forward(start.start, masks_of(scores), data.train.images[indices])
            optimizer.zero_grad()
            functional.cross_entropy(outputs, data.train.labels[indices]).backward()
            optimizer.step()
    return {name: value.detach() for name, value in scores.items()}


def test_edge_popup_is_that_of_a_loop_in_plain_pytorch(plain: tb.Data, untrained_start: tb.Ticket) -> None:
    start = untrained_start
    removed = {name: keep.numel() // 2 for name, keep in start.mask.items()}
    draws = torch.Generator().manual_seed(1)
    first = {name: torch.randn(keep.shape, generator=draws) / 10 for name, keep in start.mask.items()}

    def masks(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: Subnetwork.apply(scores[name].abs(), removed[name]) for name in scores}  # type: ignore[no-untyped-call]

    expected = learn_plainly(start, plain, PLAIN, masks, first)
    state = learned_state(start, plain, PLAIN, HighestScores(0.5), first, 0, "cpu", "default", None)
    for name, scores in scores_of(state, start).items():
        torch.testing.assert_close(scores, expected[name], rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.allclose(scores, first[name], rtol=0.1)
    # Nothing but scores has moved, to the bit.
    for name, value in network_state_of(state).items():
        assert torch.equal(value, start.start[name])


def test_a_supermask_is_that_of_a_loop_in_plain_pytorch(plain: tb.Data, untrained_start: tb.Ticket) -> None:
    """With the drawn numbers of each step's own stream, layer after layer, and dynamic scaling."""
    start, recipe = untrained_start, replace(PLAIN, lr=20.0)
    states: list[Tensor] = []

    def seed(epoch: int, step: int) -> None:
        numbers = seeds.generator("dropout", 0, 0, epoch).integers(2**63, size=7)
        states.append(torch.Generator().manual_seed(int(numbers[step])).get_state())

    def masks(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        generator = torch.Generator()
        generator.set_state(states[-1])
        factors = {}
        for name, values in scores.items():
            probability = torch.sigmoid(values)
            mask = (torch.rand(values.shape, generator=generator) < probability).float()
            passed = mask + probability - probability.detach()
            factors[name] = passed * mask.numel() / mask.sum()
        return factors

    first = {name: torch.zeros(keep.shape) for name, keep in start.mask.items()}
    expected = learn_plainly(start, plain, recipe, masks, first, seed)
    scores = scores_of(learned_supermask(start, plain, recipe, True, 0, "cpu", "default", None), start)
    for name in scores:
        torch.testing.assert_close(scores[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
    likeliest = tb.supermask(start, plain, recipe, dynamic_scaling=True)
    assert all(torch.equal(likeliest.mask[name], scores[name] >= 0) for name in scores)
    assert 0.2 < likeliest.density < 0.8


@pytest.mark.parametrize("rule", [HighestScores(0.6), Bernoulli(), Bernoulli(dynamic_scaling=True)])
def test_the_gradient_of_a_score_is_that_of_its_factor_by_differences(plain: tb.Data, rule: MaskRule) -> None:
    """In float64: dL/ds = dL/dm times sign(s), or the slope of the sigmoid, and the scale of the layer."""
    start = tb.initialize(net, plain, seed=2)
    state = {name: value.double() for name, value in start.start.items()}
    module = MaskedNetwork(start.network.build(), rule).double()
    module.network.load_state_dict(state)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for scores in module.scores:
            scores.copy_(torch.randn(scores.shape, generator=draws))
    inputs, labels = plain.train.images[:16].double(), plain.train.labels[:16]
    torch.manual_seed(8)
    functional.cross_entropy(module(inputs), labels).backward()
    torch.manual_seed(8)
    with torch.no_grad():
        factors = {
            name: rule(scores, training=True) for name, scores in zip(WEIGHTS, module.scores, strict=True)
        }

    def loss(name: str, place: int, change: float) -> float:
        moved = factors[name].clone()
        moved.view(-1)[place] += change
        return float(functional.cross_entropy(forward(state, {**factors, name: moved}, inputs), labels))

    for name, scores in zip(WEIGHTS, module.scores, strict=True):
        gradient = scores.grad
        assert gradient is not None
        for place in (0, 7, 20, scores.numel() - 1):
            score = float(scores.detach().view(-1)[place])
            by_factor = (loss(name, place, 1e-5) - loss(name, place, -1e-5)) / 2e-5
            sigmoid = 1 / (1 + math.exp(-score))
            slope = np.sign(score) if isinstance(rule, HighestScores) else sigmoid * (1 - sigmoid)
            scale = float(factors[name].max()) if isinstance(rule, Bernoulli) else 1.0
            expected = by_factor * slope * scale
            assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_the_mask_does_not_rest_on_how_scores_lie_in_memory() -> None:
    """Public code flattens in place, which is a copy for channels_last: its mask is then the scores."""
    scores = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    other = scores.to(memory_format=torch.channels_last)
    assert other.stride() != scores.stride()
    mask = mask_of_highest(other, 30)
    assert torch.equal(mask, mask_of_highest(scores, 30))
    assert int(mask.sum()) == 30
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(scores[mask == 1].min()) >= float(scores[mask == 0].max())
    # Of equal scores the first go first, as in every pruning.
    assert mask_of_highest(torch.ones(5), 2).tolist() == [0, 0, 0, 1, 1]


def test_no_trace_takes_the_weights_without_their_masks(plain: tb.Data) -> None:
    """As the fused steps of a GPU are made: they would train and evaluate the network itself."""
    module = MaskedNetwork(net(3, 4), Bernoulli())
    with pytest.raises(NetworkError, match="which no trace would see"):
        fx.symbolic_trace(module)


@pytest.mark.parametrize("sparsity", [0.9, 0.23])
def test_an_edge_popup_ticket_keeps_its_share_of_each_layer_and_the_weights_of_its_start(
    digits: tb.Data, start: tb.Ticket, recipe: tb.Recipe, sparsity: float, same_bits: Callable[..., bool]
) -> None:
    ticket = tb.edge_popup(start, digits, replace(recipe, epochs=1), sparsity=sparsity)
    for mask in ticket.mask.values():
        assert int(mask.sum()) == math.floor((1 - sparsity) * mask.numel() + 0.5)
    assert (ticket.round, ticket.density, ticket.epoch) == (1, pytest.approx(1 - sparsity), 0)
    assert same_bits(ticket.start, start.start)
    assert ticket.start_fingerprint == start.start_fingerprint


def test_masks_alone_make_a_network_that_tells_digits_apart(digits: tb.Data) -> None:
    """Weights as they were drawn are at chance; 300 of 599 images right are 35 deviations above it."""
    start = tb.initialize("lenet300", digits, init="signed-constant")
    recipe = tb.Recipe(epochs=4, batch_size=64, lr=0.1, weight_decay=1e-4)
    assert tb.untrained(start, digits).accuracy < 30
    ticket = tb.edge_popup(start, digits, recipe, sparsity=0.5)
    assert tb.untrained(ticket, digits).accuracy > 50
    shuffled = tb.untrained(tb.permute(ticket), digits).accuracy
    assert shuffled < 30


def test_learned_masks_repeat_and_have_the_noise_of_their_number(
    digits: tb.Data, start: tb.Ticket, recipe: tb.Recipe
) -> None:
    short = replace(recipe, epochs=1)
    fingerprints = [tb.edge_popup(start, digits, short, noise=n).fingerprint for n in (0, 0, 1)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    fast = replace(short, lr=10.0)
    masks = [tb.supermask(start, digits, fast, noise=n, draw=d) for n, d in ((0, 3), (0, 3), (0, 4), (1, 3))]
    assert masks[0].fingerprint == masks[1].fingerprint
    assert len({ticket.fingerprint for ticket in masks}) == 3


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize("learn", [tb.edge_popup, tb.supermask])
def test_an_interrupted_learning_goes_on_to_the_same_bits(
    learn: Callable[..., tb.Ticket],
    after: int,
    digits: tb.Data,
    start: tb.Ticket,
    tmp_path: Path,
    interrupting: type[Any],
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=100, lr=5.0)
    with pytest.raises(interrupting.Interrupted):
        learn(start, digits, recipe, watch=interrupting(tmp_path, after))
    resumed: list[Checkpoint | None] = []

    class Recording(Checkpoints):
        def resume(self) -> Checkpoint | None:
            resumed.append(super().resume())
            return resumed[-1]

    ticket = learn(start, digits, recipe, watch=Recording(tmp_path, every=1000))
    assert resumed[0] is not None
    assert resumed[0].description["identity"]["network"]["name"].startswith("convnet under ")
    assert ticket.fingerprint == learn(start, digits, recipe).fingerprint


def test_a_checkpoint_is_of_the_source_of_the_network_within(
    plain: tb.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupting: type[Any]
) -> None:
    """An edit of it meanwhile is another training, also under masks and with a frozen rest."""
    monkeypatch.setattr(networks._networks, "_declared", {})
    tb.declare_network("edited")(net)
    start = tb.initialize("edited", plain)
    recipe = tb.Recipe(epochs=1, batch_size=32)
    frozen = tb.freeze_pruned(tb.prune(start, fraction=0.5))
    sources = []
    for number, ticket in enumerate((start, frozen, start)):
        learn = tb.edge_popup if number == 2 else tb.train
        with pytest.raises(interrupting.Interrupted):
            learn(ticket, plain, recipe, watch=interrupting(tmp_path / str(number), 1))  # type: ignore[operator]
        checkpoint = Checkpoints(tmp_path / str(number)).resume()
        assert checkpoint is not None
        sources.append(checkpoint.description["identity"]["source"])
    assert sources[0] == sources[1] == sources[2]


def test_a_drawn_mask_has_each_weight_with_its_probability() -> None:
    scores = {"weight": torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 50.0]).repeat(4, 1)}
    drawn = torch.stack([mask_from(scores, 5, draw)["weight"] for draw in range(500)]).double()
    probability = 1 / (1 + np.exp(-np.array([-3.0, -1.0, 0.0, 1.0, 3.0, 50.0])))
    deviation = np.sqrt(probability * (1 - probability) / 2000)
    assert (np.abs(drawn.mean((0, 1)).numpy() - probability) <= 4 * deviation + 1e-12).all()
    assert mask_from(scores, 5, None)["weight"][0].tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize("scaled", [False, True])
def test_the_accuracy_of_a_supermask_is_that_of_its_drawn_tickets(
    plain: tb.Data, untrained_start: tb.Ticket, scaled: bool
) -> None:
    recipe, start = replace(PLAIN, lr=20.0), untrained_start
    found = tb.supermask_accuracy(start, plain, recipe, dynamic_scaling=scaled, draws=3)
    tickets = [
        tb.supermask(start, plain, recipe, dynamic_scaling=scaled, draw=draw) for draw in (0, 1, 2, None)
    ]
    if scaled:
        tickets = [tb.rescale(ticket) for ticket in tickets]
    *drawn, likeliest = [tb.untrained(ticket, plain).accuracy for ticket in tickets]
    assert (found.accuracies, found.likeliest) == (tuple(drawn), likeliest)
    assert found.accuracy == pytest.approx(sum(drawn) / 3)
    assert found.density == pytest.approx(sum(ticket.density for ticket in tickets[:3]) / 3)


def test_the_accuracy_under_edge_popup_is_that_of_its_ticket_but_for_batch_norm(
    plain: tb.Data, untrained_start: tb.Ticket, digits: tb.Data, start: tb.Ticket
) -> None:
    ticket = tb.edge_popup(untrained_start, plain, PLAIN, sparsity=0.7)
    assert tb.edge_popup_accuracy(untrained_start, plain, PLAIN, sparsity=0.7) == tb.untrained(ticket, plain)
    # Batch norm as the learning has left it, and the mask by hand.
    recipe = tb.Recipe(epochs=1, batch_size=100)
    state = learned_edge_popup(start, digits, recipe, 0.5, 0, "cpu", "default", None)
    module = start.network.build().eval()
    module.load_state_dict(network_state_of(state))
    with torch.no_grad():
        for name, scores in scores_of(state, start).items():
            module.get_parameter(name).mul_(
                scores.abs() >= scores.abs().quantile(0.5, interpolation="higher")
            )
        right = sum(int((module(x).argmax(1) == y).sum()) for x, y in tb.batches(digits))
    assert module[1].running_mean.any()
    assert tb.edge_popup_accuracy(start, digits, recipe).accuracy == pytest.approx(100 * right / 599)


def test_what_cannot_be_learned_is_refused(digits: tb.Data, start: tb.Ticket, recipe: tb.Recipe) -> None:
    for sparsity in (0.0, 1.0, math.nan):
        with pytest.raises(RecipeError, match=f"sparsity is {sparsity}; it must lie between 0 and 1"):
            tb.edge_popup(start, digits, recipe, sparsity=sparsity)
    words = r"leaves nothing of the 72 weights of 0\.weight, .* give at most 0\.99305556"
    with pytest.raises(RecipeError, match=words):
        tb.edge_popup(start, digits, recipe, sparsity=0.995)
    sparse = tb.prune(start, fraction=0.5)
    for learn in (tb.edge_popup, tb.supermask):
        with pytest.raises(TicketError, match=r"sparsity 0\.5000 already; give a dense one"):
            learn(sparse, digits, recipe)
    for draw in (-1, -7):
        with pytest.raises(RecipeError, match="must be a whole number from 0 on"):
            tb.supermask(start, digits, recipe, draw=draw)
    with pytest.raises(RecipeError, match="draws is 0"):
        tb.supermask_accuracy(start, digits, recipe, draws=0)


def test_a_drawn_mask_that_leaves_nothing_of_a_layer_is_told(plain: tb.Data) -> None:
    def narrow(channels: int, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(240, 1), nn.Linear(1, classes))

    start, recipe = tb.initialize(narrow, plain), tb.Recipe(epochs=1, batch_size=210, lr=1e-6)
    # Four weights of probability 1/2, which are all off in one draw of sixteen.
    scores = {name: torch.zeros(keep.shape) for name, keep in start.mask.items()}
    draw = next(draw for draw in range(200) if not mask_from(scores, 0, draw)["2.weight"].any())
    with pytest.warns(UserWarning, match=r"layer collapse: 1 of 2 layers keep no weight \(2\.weight\)"):
        tb.supermask(start, plain, recipe, draw=draw)


def test_scores_that_diverged_rank_lowest_and_are_told(digits: tb.Data, start: tb.Ticket) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400, lr=1e30, weight_decay=0.5)
    with pytest.warns(UserWarning, match=r"mask diverged: 8,\d+ of 8,456 scores are not finite"):
        ticket = tb.edge_popup(start, digits, recipe, sparsity=0.5)
    assert ticket.nonfinite > 0
    assert ticket.kept == start.total // 2
    for accuracy in (tb.edge_popup_accuracy, tb.supermask_accuracy):
        with pytest.raises(TicketError, match=r"mask diverged: scores of 0\.weight are not all finite"):
            accuracy(start, digits, recipe)
