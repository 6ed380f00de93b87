"""Recipes whose length, warm-up and milestones are in iterations, against torch.optim and a plain loop."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

import tombola as tb
from tombola import seeds
from tombola.cost import Outline, Size
from tombola.errors import RecipeError
from tombola.measures.learning import learning
from tombola.training import engines
from tombola.training.checkpoint import Watch
from tombola.training.estimate import pretrain_cost, train_cost
from tombola.training.run import Epoch
from tombola.training.trunk import trunk

Same = Callable[..., bool]
STEPS = 12  # of an epoch of the digits in batches of 100, the last of 98
PLAIN = tb.Augmentation(pad=0, flip=False)


# Rates


def rates_of_torch(count: int, lr: float, scheduler_of: Callable[[Any], LRScheduler]) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = scheduler_of(optimizer), []
    for _ in range(count):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return rates


def rates_of(recipe: tb.Recipe, count: int, steps: int) -> list[float]:
    return [recipe.rate(*divmod(iteration, steps), steps) for iteration in range(count)]


@pytest.mark.parametrize("steps", [1, 7, 391])
def test_milestones_in_iterations_are_those_of_multi_step_lr(steps: int) -> None:
    # He et al., 2016, section 4.2: 64k iterations, divided by 10 at 32k and 48k; here a hundredth.
    recipe = tb.Recipe(epochs="640it", schedule="step", milestones=("320it", "480it"), lr=0.1)
    expected = rates_of_torch(640, 0.1, lambda optimizer: MultiStepLR(optimizer, [320, 480], 0.1))
    assert rates_of(recipe, 640, steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 49])
@pytest.mark.parametrize("warmup", [1, 30, 49])
def test_a_warm_up_in_iterations_is_linear_lr_and_the_cosine_ends_with_the_iterations(
    steps: int, warmup: int
) -> None:
    recipe = tb.Recipe(epochs="150it", warmup=f"{warmup}it", lr=0.3)
    expected = rates_of_torch(150, 0.3, lambda optimizer: CosineAnnealingLR(optimizer, 150))
    ramp = LinearLR if warmup > 1 else None
    warm = [0.3]
    if ramp is not None:
        warm = rates_of_torch(warmup, 0.3, lambda optimizer: ramp(optimizer, 1 / warmup, 1.0, warmup - 1))
    assert rates_of(recipe, 150, steps) == pytest.approx([*warm, *expected[warmup:]], rel=1e-9)


def test_lengths_in_iterations_that_are_whole_epochs_give_the_rates_of_these_epochs() -> None:
    fields: dict[str, Any] = {"schedule": "step", "lr": 0.3}
    epochs = tb.Recipe(epochs=6, warmup=1, milestones=(2, 4), **fields)
    iterations = tb.Recipe(epochs="42it", warmup="7it", milestones=("14it", "28it"), **fields)
    assert rates_of(iterations, 42, 7) == rates_of(epochs, 42, 7)  # to the bit
    assert rates_of(tb.Recipe(epochs="42it"), 42, 7) == rates_of(tb.Recipe(epochs=6), 42, 7)


def test_a_declared_schedule_sees_lengths_in_epochs() -> None:
    @tb.declare_schedule("to-the-end")
    def to_the_end(recipe: tb.Recipe, epoch: float) -> float:
        assert not isinstance(recipe.epochs, str)
        assert recipe.milestones == (1, 1.25)
        return 1 - epoch / recipe.epochs

    recipe = tb.Recipe(epochs="30it", schedule="to-the-end", milestones=("12it", "15it"), lr=1.0)
    assert rates_of(recipe, 30, STEPS) == pytest.approx([1 - iteration / 30 for iteration in range(30)])
    assert recipe.epochs == "30it"


# Training


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))


def taken_plainly(
    start: tb.Ticket, data: tb.Data, iterations: int, scheduler_of: Callable[[Any], LRScheduler]
) -> tuple[dict[str, torch.Tensor], list[list[bool]], list[float]]:
    """Weights, answers by image and losses by iteration of a loop in plain PyTorch at lr 0.2."""
    pixels = data.train.images.float() / 255
    images, labels = (pixels - pixels.mean()) / pixels.std(correction=0), data.train.labels
    module = network()
    module.load_state_dict(dict(start.start))
    optimizer = torch.optim.SGD(module.parameters(), 0.2, 0.9, weight_decay=1e-3)
    scheduler = scheduler_of(optimizer)
    answers: list[list[bool]] = [[] for _ in labels]
    losses = []
    for iteration in range(iterations):
        epoch, step = divmod(iteration, STEPS)
        order = seeds.generator("order", 3, 0, epoch).permutation(len(labels))
        batch = torch.from_numpy(order)[100 * step : 100 * (step + 1)]
        outputs = module(images[batch])
        loss = nn.CrossEntropyLoss()(outputs, labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
        for image, right in zip(batch.tolist(), (outputs.argmax(1) == labels[batch]).tolist(), strict=True):
            answers[image].append(right)
    return {name: value.detach() for name, value in module.state_dict().items()}, answers, losses


def recipe_of(epochs: int | str, **fields: Any) -> tb.Recipe:
    usual: dict[str, Any] = {"batch_size": 100, "lr": 0.2, "weight_decay": 1e-3, "augmentation": PLAIN}
    return tb.Recipe(epochs=epochs, **{**usual, **fields})


@pytest.mark.parametrize("iterations", [5, 24, 41])
def test_a_training_by_iterations_is_a_plain_loop_of_so_many_steps(digits: tb.Data, iterations: int) -> None:
    start = tb.initialize(network, digits, seed=2)
    recipe = recipe_of(f"{iterations}it", schedule="step", milestones=("4it", "30it"), gamma=0.2)
    run = tb.train(start, digits, recipe, noise=3)
    weights, answers, losses = taken_plainly(
        start, digits, iterations, lambda optimizer: MultiStepLR(optimizer, [4, 30], 0.2)
    )
    for name, value in weights.items():
        torch.testing.assert_close(run.weights[name], value, rtol=1e-4, atol=1e-5, msg=name)
    epochs, rest = divmod(iterations, STEPS)
    # The last row is of the part of an epoch, at the place where it ends, with a test of the final weights.
    places = [*range(epochs + 1), *([iterations / STEPS] if rest else [])]
    assert run.history.column("epoch") == pytest.approx(places)
    last = run.history[-1]
    sizes = [98 if step % STEPS == STEPS - 1 else 100 for step in range(iterations)]
    begin = STEPS * (math.ceil(iterations / STEPS) - 1)
    weighted = sum(loss * size for loss, size in zip(losses[begin:], sizes[begin:], strict=True))
    assert last.train_loss == pytest.approx(weighted / sum(sizes[begin:]), rel=1e-4)
    presented = [story[epochs if rest else epochs - 1 :] for story in answers]
    right = sum(itertools.chain.from_iterable(presented))
    assert last.train_accuracy == pytest.approx(100 * right / sum(sizes[begin:]))
    assert last.lr == pytest.approx(0.2 * 0.2 ** sum(iterations - 1 >= place for place in (4, 30)))
    # Forgetting sees the whole epochs alone.
    whole = [story[:epochs] for story in answers]
    falls = [sum(a and not b for a, b in itertools.pairwise(story)) for story in whole]
    assert run.forgetting.events.tolist() == falls
    assert run.forgetting.learned.tolist() == [any(story) for story in whole]
    assert run.forgetting.correct.tolist() == [bool(story) and story[-1] for story in whole]
    assert sum(run.history.column("forgetting_events")) == sum(falls)
    curve = learning(run).curve
    assert (curve.epochs, sum(curve.events)) == (tuple(range(1, epochs + 1)), sum(falls))


def test_iterations_that_are_whole_epochs_give_their_bits_under_another_name(
    start: tb.Ticket, digits: tb.Data, run: tb.Run, recipe: tb.Recipe, same_run: Same
) -> None:
    assert same_run(tb.train(start, digits, replace(recipe, epochs="36it"), noise=1), run)
    names = [
        tb.job(tb.train, start, "digits", replace(recipe, epochs=epochs)).name
        for epochs in (3, "3ep", "36it")
    ]
    assert names[0] == names[1] != names[2]


def test_a_run_that_ends_within_an_epoch_is_kept_as_it_is(
    start: tb.Ticket, digits: tb.Data, tmp_path: Path, same_run: Same
) -> None:
    run = tb.train(start, digits, recipe_of("17it"))
    run.save(tmp_path / "run")
    assert same_run(tb.Run.load(tmp_path / "run"), run)
    assert run.history.column("epoch") == [0, 1, 17 / 12]
    assert "epochs 0 to 1.41667" in repr(run)


def test_a_training_may_begin_and_end_within_one_epoch(digits: tb.Data, same_bits: Same) -> None:
    start = tb.initialize(network, digits)
    recipe = recipe_of("22it", momentum=0.0)
    ticket = tb.pretrain(start, digits, recipe, epochs="15it", noise=4)
    rest, whole = (tb.train(begun, digits, recipe, noise=4) for begun in (ticket, start))
    assert same_bits(rest.weights, whole.weights)
    assert rest.history.column("epoch") == pytest.approx([1, 22 / 12])
    assert rest.history[-1].test_accuracy == whole.history[-1].test_accuracy
    assert not rest.forgetting.learned.any()


# Interrupted


class Rows(Watch):
    """Keeps what it is told of the progress."""

    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def finished_epoch(self, row: Epoch, epochs: float) -> None:
        self.told.append((row.epoch, epochs))


@pytest.mark.parametrize("after", [3, 12, 13, 15, 16])
def test_a_training_interrupted_in_its_last_part_of_an_epoch_gives_the_same_bits(
    digits: tb.Data,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    same_run: Same,
    after: int,
    interrupting: type[Any],
) -> None:
    monkeypatch.setattr(engines, "PREPARED_IMAGES", 1)  # an opportunity at every step, 16 in all
    start = tb.initialize(network, digits)
    recipe = recipe_of("16it", warmup="14it")
    with pytest.raises(interrupting.Interrupted):
        tb.train(start, digits, recipe, watch=interrupting(tmp_path, after))
    rest = interrupting(tmp_path, 0)
    resumed = tb.train(start, digits, recipe, watch=rest)
    rows = Rows()
    assert same_run(resumed, tb.train(start, digits, recipe, watch=rows))
    assert rest.left == after - 16  # only what was left was done
    assert rows.told == [(1, 16 / 12), (16 / 12, 16 / 12)]


# Refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"warmup": "40it", "epochs": "30it"}, "warmup is '40it'; it must be .* from 0 to the recipe's 30it"),
        ({"milestones": ("9it", 2)}, "rising whole epochs above 0, or rising iterations such as '32000it'"),
        ({"milestones": ("9it", "8it")}, "rising"),
        ({"milestones": ("0it",)}, "rising"),
        ({"milestones": "9it"}, "milestones is '9it'; it must be a list: rising"),
        ({"milestones": (2.5,)}, "rising"),
    ],
    ids=str,
)
def test_lengths_that_cannot_be_are_refused_by_the_recipe(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        tb.Recipe(schedule="step", **{"milestones": (1,), **fields})


def test_lengths_that_do_not_fit_these_epochs_are_refused_before_the_first_step(digits: tb.Data) -> None:
    start = tb.initialize(network, digits)
    words = "warmup is '30it', but the recipe has 2 epochs, 12 steps an epoch; warm up for no more"
    with pytest.raises(RecipeError, match=words):
        tb.train(start, digits, recipe_of(2, warmup="30it"))
    with pytest.raises(
        RecipeError, match="epochs is '800000it', 66,666 epochs of 12 steps; it must be at most"
    ):
        tb.train(start, digits, recipe_of("800000it"))
    with pytest.raises(RecipeError, match="rewind is to iteration 24, but the recipe has 20, 12 an epoch;"):
        tb.pretrain(start, digits, recipe_of("20it"), epochs=2)
    with pytest.raises(RecipeError, match="rewind is to iteration 24, but the recipe has 20, 12 an epoch;"):
        trunk(start, digits, recipe_of("20it"), epochs=2)
    ticket = tb.pretrain(start, digits, recipe_of("20it"), epochs="19it")
    words = "taken at iteration 19, but the recipe has 19 iterations, 12 an epoch; rewind to an earlier one"
    for call in (tb.train, lambda *arguments: tb.imp(*arguments, rounds=1)):
        with pytest.raises(RecipeError, match=words):
            call(ticket, digits, recipe_of("19it"))


def test_what_counts_in_whole_epochs_refuses_a_recipe_in_iterations(
    run: tb.Run, start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = recipe_of("20it")
    with pytest.raises(RecipeError, match="'20it', but trainings of heads are counted in whole epochs; give"):
        tb.probe(run, digits, recipe=recipe)
    with pytest.raises(RecipeError, match="'20it', but lengths of pretraining are counted in whole epochs"):
        tb.first_stable_epoch(start, digits, recipe)


# Costs


def test_a_cost_counts_what_is_left_of_the_iterations() -> None:
    data, recipe = Size(1_198, 599, 10), recipe_of("30it")
    assert train_cost(Outline(epoch=0.25), data, recipe).epochs == pytest.approx(30 / 12 - 0.25)
    assert pretrain_cost(Outline(), data, recipe, "9it").epochs == pytest.approx(9 / 12)
    # As many iterations over a tenth of the images are as many steps of fewer, larger epochs.
    tenth = replace(data, share=0.1)
    assert train_cost(Outline(), tenth, recipe).epochs == pytest.approx(30 / 2 * 0.1)
