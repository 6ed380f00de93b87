import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola import files, seeds
from tombola.data.augmentation import draw
from tombola.errors import RecipeError
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.engines import EagerEngine
from tombola.training.epoch import EpochPlan

Same = Callable[..., bool]


# An independent training loop


# Of float32 weights of about 0.1 over 28 steps; oneDNN's kernels differ from processor to processor by 2e-5.
_ROUNDING = 5e-5


def _named(name: str) -> Callable[[str], str]:
    """What assert_close says, of which weight."""
    return lambda text: f"{name}: {text}"


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


def of_torch(module: nn.Module, recipe: tb.Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            module.parameters(), recipe.lr, recipe.betas, recipe.eps, recipe.weight_decay, foreach=False
        )
    return torch.optim.SGD(
        module.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay,
        nesterov=recipe.optimizer == "nesterov",
    )  # fmt: skip


def train_plainly(
    ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe, noise: int, augmentation_noise: int | None = None
) -> Plain:
    """Plain PyTorch, image by image, with torch.optim and masks by multiplication."""
    augmented = noise if augmentation_noise is None else augmentation_noise
    raw, labels = data.train.images.numpy(), data.train.labels
    count, _, height, width = raw.shape
    mean = (raw / 255).mean(axis=(0, 2, 3))[:, None, None]
    std = (raw / 255).std(axis=(0, 2, 3))[:, None, None]
    pad = 1  # an eighth of the image side
    module = plain_net()
    module.load_state_dict(dict(ticket.start))
    optimizer = of_torch(module, recipe)
    parameters = dict(module.named_parameters())

    def cut() -> None:
        with torch.no_grad():
            for name, keep in ticket.mask.items():
                parameters[name].mul_(keep)
                for value in optimizer.state[parameters[name]].values():
                    if isinstance(value, torch.Tensor) and value.shape == keep.shape:
                        value.mul_(keep)

    cut()
    seen = Plain({}, [[] for _ in range(count)], [], [], 0.0)
    steps = math.ceil(count / recipe.batch_size)
    first = ticket.step  # of the first epoch, in which the steps before lie behind
    for epoch in range(ticket.epoch, recipe.epochs):
        order = seeds.generator("order", noise, ticket.round, epoch).permutation(count)
        draws = draw(recipe.augmentation, data, noise=augmented, round=ticket.round, epoch=epoch)
        total = 0.0
        for step in range(first, steps):
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
            rate = recipe.lr / 2 * (1 + math.cos(math.pi * done))
            if epoch < recipe.warmup:
                rate = recipe.lr * (epoch + (step + 1) / steps) / recipe.warmup
            optimizer.param_groups[0]["lr"] = rate
            module.train()
            outputs = module(inputs)
            loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cut()
            total += float(loss.detach()) * len(places)
            for place, right in zip(places, (outputs.argmax(1) == targets).tolist(), strict=True):
                seen.answers[order[place]].append(right)
        seen.losses.append(total / (count - first * recipe.batch_size))
        first = 0
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


@pytest.mark.parametrize(
    "fields",
    [
        {"lr": 0.05},
        {"lr": 0.2, "momentum": 0.0},
        {"lr": 0.05, "optimizer": "nesterov", "label_smoothing": 0.1, "warmup": 3},
        {"lr": 0.01, "optimizer": "adamw", "betas": (0.8, 0.99), "eps": 1e-4, "label_smoothing": 0.2},
    ],
    ids=str,
)
def test_training_is_that_of_an_independent_loop_in_plain_pytorch(
    rewound: tb.Ticket, colour: tb.Data, fields: dict[str, Any]
) -> None:
    # Seven steps an epoch, the last of 18 images; four epochs are left.
    recipe = tb.Recipe(epochs=5, batch_size=32, weight_decay=5e-3, **fields)
    assert draw(recipe.augmentation, colour, noise=4, round=2, epoch=1).flips.any()
    run = tb.train(rewound, colour, recipe, noise=4)
    plain = train_plainly(rewound, colour, recipe, noise=4)

    assert run.weights.keys() == plain.weights.keys()
    for name, value in plain.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=_ROUNDING, msg=_named(name))
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


def test_learning_rate_rewinding_trains_on_by_the_schedule_from_the_rewind_point(
    colour: tb.Data, same_bits: Same
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=32, lr=0.05)
    start = tb.pretrain(tb.initialize(plain_net, colour, seed=3), colour, recipe, epochs=1)
    chain = tb.imp(start, colour, recipe, rounds=2, fraction=0.5, noise=4, rewinding="learning_rate")
    state, mask = dict(start.start), dict(start.mask)
    for round_, run in enumerate(chain):
        assert all(torch.equal(run.ticket.mask[name], keep) for name, keep in mask.items())
        by_hand = SimpleNamespace(start=state, mask=mask, epoch=1, step=0, round=round_)
        plain = train_plainly(by_hand, colour, recipe, noise=4)
        for name, value in plain.weights.items():
            torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=_ROUNDING, msg=_named(name))
        assert run.history.column("lr")[1:] == pytest.approx(plain.rates)
        assert run.history.column("epoch") == [1, 2, 3]
        # The smaller half of what is left goes, over all layers.
        state = run.weights
        left = torch.cat([state[name][keep].abs() for name, keep in mask.items()]).sort().values
        limit = left[len(left) - math.floor(run.ticket.total * 0.5 ** (round_ + 1) + 0.5)]
        mask = {name: keep & (state[name].abs() >= limit) for name, keep in mask.items()}
    # The dense start stays at hand for controls.
    assert same_bits(run.ticket.dense_start(), start.start)


def test_a_ticket_is_trained_for_what_is_left_of_the_schedule(start: tb.Ticket, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=12, batch_size=400, lr=0.02)
    rewound = tb.pretrain(start, digits, recipe, epochs=2)
    run = tb.train(rewound, digits, recipe, noise=1)
    assert run.history.column("epoch") == [2, *range(3, 13)]
    assert len(run.history) - 1 == 10
    # The last rate of each epoch, of three steps, by the formula of the whole schedule.
    rates = [0.01 * (1 + math.cos(math.pi * (epoch + 2 / 3) / 12)) for epoch in range(12)]
    assert run.history.column("lr")[1:] == pytest.approx(rates[2:])


def test_a_ticket_taken_within_an_epoch_begins_with_what_is_left_of_it(colour: tb.Data) -> None:
    recipe = tb.Recipe(epochs=5, batch_size=32, lr=0.05, weight_decay=5e-3)
    start = tb.pretrain(tb.initialize(plain_net, colour, seed=3), colour, recipe, epochs="10it", noise=1)
    assert (start.epoch, start.step, start.steps) == (1, 3, 7)
    assert "taken at epoch 1, step 3 of 7" in repr(start)
    ticket = start.with_mask(
        {name: value.abs() > 0.05 for name, value in start.start.items() if name in start.mask}
    )
    run = tb.train(ticket, colour, recipe, noise=4)
    plain = train_plainly(ticket, colour, recipe, noise=4)
    for name, value in plain.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=_ROUNDING, msg=_named(name))
    assert sum(map(len, plain.answers)) == 3 * 210 + 210 - 3 * 32
    falls = [sum(a and not b for a, b in itertools.pairwise(story)) for story in plain.answers]
    assert run.forgetting.events.tolist() == falls
    assert run.forgetting.learned.tolist() == [any(story) for story in plain.answers]
    rows = run.history[1:]
    assert run.history.column("epoch") == [1, 2, 3, 4, 5]
    assert [row.lr for row in rows] == pytest.approx(plain.rates)
    assert [row.train_loss for row in rows] == pytest.approx(plain.losses, rel=1e-4)
    assert (rows[0].forgetting_events, sum(row.forgetting_events for row in rows)) == (0, sum(falls))
    begun = [story[0] for story in plain.answers if len(story) == 4]  # presented in the first epoch, too
    assert rows[0].train_accuracy == pytest.approx(100 * sum(begun) / (210 - 3 * 32))
    assert run.accuracy == plain.test_accuracy


@pytest.mark.parametrize("iterations", [1, 3, 7, 10])
def test_a_training_from_an_iteration_on_is_the_uninterrupted_one(
    colour: tb.Data, iterations: int, same_bits: Same
) -> None:
    recipe = tb.Recipe(epochs=4, batch_size=32, lr=0.1, momentum=0.0)
    start = tb.initialize(plain_net, colour)
    whole = tb.train(start, colour, recipe, noise=5)
    ticket = tb.pretrain(start, colour, recipe, epochs=f"{iterations}it", noise=5)
    rest = tb.train(ticket, colour, recipe, noise=5)
    assert same_bits(rest.weights, whole.weights)
    assert torch.equal(rest.forgetting.correct, whole.forgetting.correct)
    epoch, step = divmod(iterations, 7)
    # Forgetting is counted from a presentation to the next: alike once every image was presented again.
    later = epoch + 1 + (step > 0)
    for name in ("lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert rest.history.column(name)[-2:] == whole.history.column(name)[-2:]
    events = {row.epoch: row.forgetting_events for row in whole.history}
    assert all(row.forgetting_events == events[row.epoch] for row in rest.history if row.epoch > later)


def test_pretraining_to_whole_epochs_in_iterations_gives_the_ticket_of_these_epochs(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, late: tb.Ticket
) -> None:
    for length in ("12it", "1ep"):
        ticket = tb.pretrain(start, digits, recipe, epochs=length, noise=1)
        assert ticket.fingerprint == late.fingerprint


def test_pretraining_goes_on_within_an_epoch(colour: tb.Data, same_bits: Same) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=32, momentum=0.0)
    start = tb.initialize(plain_net, colour)
    direct = tb.pretrain(start, colour, recipe, epochs="10it")
    for between in ("9it", "5it", "1ep"):
        first = tb.pretrain(start, colour, recipe, epochs=between)
        assert tb.pretrain(first, colour, recipe, epochs="10it").fingerprint == direct.fingerprint
    assert same_bits(
        tb.pretrain(direct, colour, recipe, epochs=2).start,
        tb.pretrain(start, colour, recipe, epochs=2).start,
    )
    with pytest.raises(RecipeError, match="taken at epoch 1, step 3 of 7 already; pretrain to a later one"):
        tb.pretrain(direct, colour, recipe, epochs="10it")


def test_a_place_in_iterations_that_there_is_not_is_refused(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    words = r"rewind is to iteration 36, but the recipe has 36, 12 an epoch; rewind to an earlier one"
    with pytest.raises(RecipeError, match=words):
        tb.pretrain(start, digits, recipe, epochs="36it")
    with pytest.raises(RecipeError, match="rewind is to epoch 0, but the recipe has 3 epochs"):
        tb.pretrain(start, digits, recipe, epochs="0it")
    with pytest.raises(RecipeError, match="'12 it' is no length"):
        tb.pretrain(start, digits, recipe, epochs="12 it")


def test_a_ticket_taken_within_an_epoch_is_refused_where_epochs_have_other_steps(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    ticket = tb.pretrain(start, digits, recipe, epochs="1it")
    words = "taken at epoch 0, step 1 of 12 steps, but here an epoch has 6; take as many images"
    with pytest.raises(RecipeError, match=words):
        tb.train(ticket, digits, replace(recipe, batch_size=200))
    with pytest.raises(RecipeError, match=words):
        tb.imp(ticket, digits, replace(recipe, batch_size=200), rounds=1)


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


def test_data_order_and_augmentation_can_have_numbers_of_their_own(
    rewound: tb.Ticket, colour: tb.Data, same_run: Same
) -> None:
    recipe = tb.Recipe(epochs=3, batch_size=32, lr=0.05)
    run = tb.train(rewound, colour, recipe, noise=4, augmentation_noise=9)
    assert (run.noise, run.order_noise, run.augmentation_noise) == (4, None, 9)
    plain = train_plainly(rewound, colour, recipe, noise=4, augmentation_noise=9)
    for name, value in plain.weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=_ROUNDING, msg=_named(name))
    assert run.history.column("train_loss")[1:] == pytest.approx(plain.losses, rel=1e-4)
    crossed = tb.train(rewound, colour, recipe, noise=9, order_noise=4)
    assert files.fingerprint(crossed.weights) == files.fingerprint(run.weights)
    assert crossed.fingerprint != run.fingerprint  # its noise has another number
    both = tb.train(rewound, colour, recipe, noise=4)
    assert same_run(tb.train(rewound, colour, recipe, noise=4, order_noise=4, augmentation_noise=4), both)
    assert not same_run(both, run)


def test_pretraining_splits_its_noise_as_training_does(colour: tb.Data) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=32, lr=0.05, momentum=0.0)
    start = tb.initialize(plain_net, colour)
    ticket = tb.pretrain(start, colour, recipe, epochs=1, noise=1, order_noise=2)
    halves = tb.train(ticket, colour, recipe, noise=1, order_noise=2)
    whole = tb.train(start, colour, recipe, noise=1, order_noise=2)
    assert files.fingerprint(halves.weights) == files.fingerprint(whole.weights)


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
    with pytest.raises(RecipeError, match=r"augmentation_noise is '2'; it takes a whole number or None"):
        tb.train(start, digits, recipe, augmentation_noise="2")  # type: ignore[arg-type]


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
