import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.data.augmentation import draw
from tombola.errors import RecipeError
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.engines import EagerEngine
from tombola.training.epoch import EpochPlan

Same = Callable[..., bool]


# An independent training loop


def plain_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


@dataclass
class Plain:
    """What the independent loop saw."""

    weights: dict[str, torch.Tensor]
    answers: list[list[bool]]
    losses: list[float]
    rates: list[float]
    test_accuracy: float


def train_plainly(ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe, noise: int) -> Plain:
    """Plain PyTorch, image by image, with torch.optim.SGD and masks by multiplication."""
    raw, labels = data.train.images.numpy(), data.train.labels
    count, _, height, width = raw.shape
    mean = (raw / 255).mean(axis=(0, 2, 3))[:, None, None]
    std = (raw / 255).std(axis=(0, 2, 3))[:, None, None]
    pad = 1  # an eighth of the image side
    module = plain_net()
    module.load_state_dict(dict(ticket.start))
    optimizer = torch.optim.SGD(
        module.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    parameters = dict(module.named_parameters())

    def cut() -> None:
        with torch.no_grad():
            for name, keep in ticket.mask.items():
                parameters[name].mul_(keep)

    cut()
    seen = Plain({}, [[] for _ in range(count)], [], [], 0.0)
    steps = math.ceil(count / recipe.batch_size)
    for epoch in range(ticket.epoch, recipe.epochs):
        order = seeds.generator("order", noise, ticket.round, epoch).permutation(count)
        draws = draw(recipe.augmentation, data, noise=noise, round=ticket.round, epoch=epoch)
        total = 0.0
        for step in range(steps):
            places = range(step * recipe.batch_size, min((step + 1) * recipe.batch_size, count))
            pictures = []
            for place in places:
                picture = np.pad(raw[order[place]], ((0, 0), (pad, pad), (pad, pad)))
                row, column = int(draws.rows[place]), int(draws.columns[place])
                picture = picture[:, row : row + height, column : column + width]
                if draws.flips[place]:
                    picture = picture[:, :, ::-1]
                pictures.append((picture / 255 - mean) / std)
            inputs = torch.tensor(np.stack(pictures), dtype=torch.float32)
            targets = torch.tensor([int(labels[order[place]]) for place in places])
            done = (epoch + step / steps) / recipe.epochs
            optimizer.param_groups[0]["lr"] = recipe.lr / 2 * (1 + math.cos(math.pi * done))
            module.train()
            outputs = module(inputs)
            loss = functional.cross_entropy(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cut()
            total += float(loss.detach()) * len(places)
            for place, right in zip(places, (outputs.argmax(1) == targets).tolist(), strict=True):
                seen.answers[order[place]].append(right)
        seen.losses.append(total / count)
        seen.rates.append(optimizer.param_groups[0]["lr"])
    module.eval()
    tests = torch.tensor((data.test.images.numpy() / 255 - mean) / std, dtype=torch.float32)
    with torch.no_grad():
        right = module(tests).argmax(1) == data.test.labels
    seen.test_accuracy = 100 * int(right.sum()) / len(right)
    seen.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return seen


@pytest.fixture(scope="module")
def rewound(colour: tb.Data) -> tb.Ticket:
    """A ticket of round 2 with a quarter of the weights, rewound to epoch 1."""
    recipe = tb.Recipe(epochs=3, batch_size=32, lr=0.05)
    start = tb.pretrain(tb.initialize(plain_net, colour, seed=3), colour, recipe, epochs=1)
    *_, last = tb.imp(start, colour, recipe, rounds=2, fraction=0.5)
    return last.ticket


@pytest.mark.parametrize(("momentum", "lr"), [(0.9, 0.05), (0.0, 0.2)])
def test_training_is_that_of_an_independent_loop_in_plain_pytorch(
    rewound: tb.Ticket, colour: tb.Data, momentum: float, lr: float
) -> None:
    # Seven steps an epoch, the last of 18 images; four epochs are left.
    recipe = tb.Recipe(epochs=5, batch_size=32, lr=lr, momentum=momentum, weight_decay=5e-3)
    assert draw(recipe.augmentation, colour, noise=4, round=2, epoch=1).flips.any()
    run = tb.train(rewound, colour, recipe, noise=4)
    plain = train_plainly(rewound, colour, recipe, noise=4)

    assert run.weights.keys() == plain.weights.keys()
    for name, value in plain.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=1e-5, msg=name)
    falls = [sum(a and not b for a, b in itertools.pairwise(story)) for story in plain.answers]
    assert run.forgetting.events.tolist() == falls
    assert run.forgetting.learned.tolist() == [any(story) for story in plain.answers]
    assert run.forgetting.correct.tolist() == [story[-1] for story in plain.answers]
    assert sum(falls) > 10

    rows = run.history[1:]
    assert [row.lr for row in rows] == pytest.approx(plain.rates)
    assert [row.train_loss for row in rows] == pytest.approx(plain.losses, rel=1e-4)
    for epoch, row in enumerate(rows):
        right = sum(story[epoch] for story in plain.answers)
        assert row.train_accuracy == pytest.approx(100 * right / 210)
        forgotten = sum(story[epoch - 1] and not story[epoch] for story in plain.answers) if epoch else 0
        assert row.forgetting_events == forgotten
    assert run.accuracy == plain.test_accuracy
    assert run.accuracy > 50


# Rewinding


def test_a_ticket_is_trained_for_what_is_left_of_the_schedule(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=12, batch_size=400, lr=0.02)
    rewound = tb.pretrain(start, digits, recipe, epochs=2)
    run = tb.train(rewound, digits, recipe, noise=1)
    assert run.history.column("epoch") == [2, *range(3, 13)]
    assert len(run.history) - 1 == 10
    # The last rate of each epoch, of three steps, by the formula of the whole schedule.
    rates = [0.01 * (1 + math.cos(math.pi * (epoch + 2 / 3) / 12)) for epoch in range(12)]
    assert run.history.column("lr")[1:] == pytest.approx(rates[2:])


def test_a_rewound_ticket_starts_with_its_weights_batch_norm_and_no_momentum(
    chain: list[tb.Run],
    late: tb.Ticket,
    digits: tb.Data,
    recipe: tb.Recipe,
    monkeypatch: pytest.MonkeyPatch,
    same_bits: Same,
) -> None:
    states = []
    begin = EagerEngine.begin

    def record(self: EagerEngine, plan: EpochPlan) -> None:
        states.append((self.flat_network.state(), self.flat_network.momentum.clone(), plan.rates[0]))
        begin(self, plan)

    monkeypatch.setattr(EagerEngine, "begin", record)
    run = tb.train(chain[2].ticket, digits, recipe, noise=3)
    state, momentum, rate = states[0]
    for name, value in late.start.items():
        assert torch.equal(state[name], value * run.ticket.mask[name] if name in run.ticket.mask else value)
    assert int(state["1.num_batches_tracked"]) == 12
    assert state["1.running_mean"].any()
    assert not momentum.any()
    assert rate == pytest.approx(0.05 * (1 + math.cos(math.pi / 3)))
    assert int(run.weights["1.num_batches_tracked"]) == 36


def test_pretraining_is_the_first_epochs_of_training_under_the_same_noise(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, same_bits: Same
) -> None:
    class Keeping(Watch):
        def __init__(self) -> None:
            self.states: list[dict[str, torch.Tensor]] = []

        def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
            if epoch_end:
                tensors = snapshot().tensors.items()
                self.states.append(
                    {
                        name.removeprefix("weights."): value
                        for name, value in tensors
                        if name.startswith("weights.")
                    }
                )

    keeping = Keeping()
    tb.train(start, digits, recipe, noise=5, watch=keeping)
    for epochs in (1, 2):
        ticket = tb.pretrain(start, digits, recipe, epochs=epochs, noise=5)
        assert same_bits(ticket.start, keeping.states[epochs - 1])
        assert (ticket.epoch, ticket.round, ticket.kept) == (epochs, 0, ticket.total)
    assert not same_bits(tb.pretrain(start, digits, recipe, epochs=1, noise=6).start, keeping.states[0])


def test_pretraining_can_go_on_from_a_pretrained_start(
    late: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    later = tb.pretrain(late, digits, recipe, epochs=2, noise=1)
    assert later.epoch == 2
    assert int(later.start["1.num_batches_tracked"]) == 24
    assert later.start_fingerprint != late.start_fingerprint


@pytest.mark.parametrize("epochs", [0, -1, 3, 4])
def test_a_rewind_point_outside_the_budget_is_refused(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, epochs: int
) -> None:
    words = f"rewind is to epoch {epochs}, but the recipe has 3 epochs; allowed are 1 to 2"
    with pytest.raises(RecipeError, match=words):
        tb.pretrain(start, digits, recipe, epochs=epochs)


def test_a_recipe_too_short_to_rewind_within_says_so(start: tb.Ticket, digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="the recipe has 1 epoch; none lies within"):
        tb.pretrain(start, digits, tb.Recipe(epochs=1), epochs=1)


def test_pretraining_to_an_epoch_already_behind_is_refused(
    late: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    with pytest.raises(RecipeError, match="taken at epoch 1 already; pretrain to a later one"):
        tb.pretrain(late, digits, recipe, epochs=1)


# Noise and streams


def test_the_same_training_twice_gives_the_same_bits_and_other_noise_others(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, run: tb.Run, same_run: Same
) -> None:
    assert same_run(tb.train(start, digits, recipe, noise=1), run)
    assert same_run(tb.train(start, digits, recipe, noise=np.int64(1)), run)  # type: ignore[arg-type]
    assert not same_run(tb.train(start, digits, recipe, noise=2), run)


def test_noise_is_order_and_augmentation_and_nothing_else(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, run: tb.Run
) -> None:
    other = tb.train(start, digits, recipe, noise=2)
    # Before any step both are the same.
    assert repr(replace(other.history[0], seconds=0)) == repr(replace(run.history[0], seconds=0))


def test_the_noise_of_another_round_can_be_asked_for(
    chain: list[tb.Run], late: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, same_run: Same
) -> None:
    again = tb.train(late, digits, recipe, noise=3, noise_round=1)
    assert not same_run(again, chain[0])
    assert same_run(again, tb.train(replace(late, round=1), digits, recipe, noise=3))


def test_training_touches_no_global_generator_and_hears_none(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, run: tb.Run, same_run: Same
) -> None:
    kept = torch.get_rng_state()
    try:
        torch.manual_seed(99)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
        assert same_run(tb.train(start, digits, recipe, noise=1), run)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    finally:
        torch.set_rng_state(kept)


def test_training_leaves_the_ticket_as_it_was(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, same_bits: Same
) -> None:
    before = {name: value.clone() for name, value in start.start.items()}
    tb.train(start, digits, recipe)
    assert same_bits(start.start, before)
    assert all(keep.all() for keep in start.mask.values())


def test_a_noise_that_is_no_whole_number_is_refused(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    with pytest.raises(RecipeError, match=r"noise is 1\.5; it takes a whole number"):
        tb.train(start, digits, recipe, noise=1.5)  # type: ignore[arg-type]


# Runs that fail


def test_a_run_that_diverges_finishes_is_flagged_and_can_be_pruned(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    ticket = chain[1].ticket
    run = tb.train(ticket, digits, replace(recipe, lr=1e25))
    assert len(run.history) == 3
    assert run.diverged
    assert run.failed
    bad = sum(int((~value.isfinite()).sum()) for name, value in run.weights.items() if name in ticket.mask)
    assert bad > 0
    for name, keep in ticket.mask.items():
        assert not run.weights[name].numpy().view(np.int32)[~keep.numpy()].any()
    pruned = tb.prune(run, fraction=0.5)
    assert (pruned.nonfinite, pruned.kept) == (bad, 2114)
    assert len(tb.train(pruned, digits, recipe).history) == 3


def test_a_run_at_a_rate_of_a_million_finishes_and_is_flagged(start: tb.Ticket, digits: tb.Data) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=2, batch_size=100, lr=1e6))
    assert len(run.history) == 3
    assert run.failed
    assert tb.prune(run).kept == 6765  # 0.8 of 8456


def test_a_run_that_stays_at_chance_finishes_and_is_flagged_without_having_diverged(
    start: tb.Ticket, digits: tb.Data
) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=600, lr=1e-12))
    assert run.failed
    assert not run.diverged


def test_a_chain_goes_on_after_a_round_that_diverged(start: tb.Ticket, digits: tb.Data) -> None:
    runs = list(tb.imp(start, digits, tb.Recipe(epochs=1, batch_size=100, lr=1e25), rounds=2))
    assert [run.ticket.round for run in runs] == [0, 1, 2]
    assert all(run.diverged for run in runs)
    assert all(run.ticket.nonfinite > 0 for run in runs[1:])
