import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR

from tombola import Augmentation, Recipe
from tombola.errors import RecipeError


def test_the_defaults_are_those_of_the_paper() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.lr, recipe.weight_decay, recipe.schedule) == (200, 0.1, 5e-4, "cosine")
    assert recipe.augmentation == Augmentation(pad=None, flip=None, fill="black")


def test_the_cosine_by_hand() -> None:
    recipe = Recipe(epochs=2, lr=0.2)
    rates = [recipe.rate(epoch, step, 2) for epoch in (0, 1) for step in (0, 1)]
    # 0.1 * (1 + cos(0, 45, 90, 135 degrees))
    assert rates == pytest.approx([0.2, 0.1 + 0.1 * math.sqrt(0.5), 0.1, 0.1 - 0.1 * math.sqrt(0.5)])


@given(st.floats(1e-6, 1e3), st.integers(1, 300), st.integers(1, 500))
def test_the_cosine_starts_at_the_rate_given_and_falls_towards_zero(
    lr: float, epochs: int, steps: int
) -> None:
    recipe = Recipe(epochs=epochs, lr=lr)
    assert recipe.rate(0, 0, steps) == lr
    last = recipe.rate(epochs - 1, steps - 1, steps)
    # 1 + cos(pi - x) is about x^2 / 2 for the small x that is left of the way.
    assert 0 < last <= lr * (math.pi / (epochs * steps)) ** 2 / 4 + 1e-12 * lr
    assert all(a > b for a, b in pairwise(recipe.rate(0, step, steps) for step in range(steps)))


def test_a_constant_rate_stays() -> None:
    recipe = Recipe(epochs=9, lr=0.3, schedule="constant")
    assert {recipe.rate(epoch, step, 4) for epoch in range(9) for step in range(4)} == {0.3}


def test_a_rate_with_steps_drops_by_gamma_at_the_start_of_each_milestone() -> None:
    recipe = Recipe(epochs=6, lr=1.0, schedule="step", milestones=(2, 4), gamma=0.5)
    rates = [recipe.rate(epoch, step, 2) for epoch in range(6) for step in range(2)]
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_milestones_may_be_a_list_and_make_the_same_recipe() -> None:
    first, second = (Recipe(schedule="step", milestones=kind([80, 120])) for kind in (list, tuple))
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("epochs", 0, "a whole number, at least 1, or iterations such as '1500it'"),
        ("epochs", 2.5, "a whole number, at least 1, or iterations such as '1500it'"),
        ("epochs", "2", "a whole number, at least 1, or iterations such as '1500it'"),
        ("batch_size", 0, "a whole number, at least 1"),
        ("batch_size", -5, "a whole number, at least 1"),
        ("batch_size", 12.0, "a whole number, at least 1"),
        ("lr", 0, "above 0 and finite"),
        ("lr", -0.1, "above 0 and finite"),
        ("lr", math.nan, "above 0 and finite"),
        ("lr", math.inf, "above 0 and finite"),
        ("momentum", 1.0, "from 0 to below 1"),
        ("momentum", -0.1, "from 0 to below 1"),
        ("momentum", math.nan, "from 0 to below 1"),
        ("weight_decay", -1e-4, "0 or above, and finite"),
        ("weight_decay", math.inf, "0 or above, and finite"),
        ("gamma", 0, "above 0 and finite"),
        ("gamma", math.nan, "above 0 and finite"),
        ("precision", "float16", "auto or float32 or bfloat16"),
        ("betas", (0.9, 1.0), "two numbers from 0 to below 1"),
        ("betas", (0.9,), "two numbers from 0 to below 1"),
        ("betas", 0.9, "two numbers from 0 to below 1"),
        ("betas", ("0.9", "0.99"), "two numbers from 0 to below 1"),
        ("eps", 0, "above 0 and finite"),
        ("eps", math.nan, "above 0 and finite"),
        ("warmup", -1, "a whole number of epochs from 0 to the recipe's 200, or '500it'"),
        ("warmup", 201, "a whole number of epochs from 0 to the recipe's 200, or '500it'"),
        ("warmup", 1.5, "a whole number of epochs from 0 to the recipe's 200, or '500it'"),
        ("label_smoothing", 1.0, "from 0 to below 1"),
        ("label_smoothing", -0.1, "from 0 to below 1"),
        ("label_smoothing", math.nan, "from 0 to below 1"),
        ("milestones", (3, 2), "rising whole epochs above 0, or rising iterations such as '32000it'"),
        ("milestones", (2, 2), "rising whole epochs above 0, or rising iterations such as '32000it'"),
        ("milestones", (0, 2), "rising whole epochs above 0, or rising iterations such as '32000it'"),
        ("milestones", (1.5,), "rising whole epochs above 0, or rising iterations such as '32000it'"),
    ],
)
def test_an_impossible_value_is_refused_by_name_with_what_is_allowed(
    name: str, value: object, allowed: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**{name: value})  # type: ignore[arg-type]
    assert str(caught.value) == f"{name} is {value!r}; it must be {allowed}"


def test_a_name_that_there_is_not_is_refused_with_the_nearest() -> None:
    for name, value, near in (("schedule", "cosin", "cosine"), ("optimizer", "adamv", "adamw")):
        with pytest.raises(RecipeError, match=f"no {name} '{value}'; did you mean '{near}'"):
            Recipe(**{name: value})  # type: ignore[arg-type]


def test_milestones_and_the_step_schedule_go_together() -> None:
    for recipe in ({"milestones": (2,)}, {"schedule": "step"}):
        with pytest.raises(
            RecipeError, match="milestones must be given for schedule 'step', and for no other"
        ):
            Recipe(**recipe)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"betas": (0.8, 0.9)}, r"betas is (0.8, 0.9), which optimizer 'sgd' does not have; leave it out"),
        ({"optimizer": "nesterov", "eps": 1e-4}, "eps is 0.0001, which optimizer 'nesterov' does not have;"),
        ({"optimizer": "adamw", "momentum": 0.0}, "momentum is 0.0, which optimizer 'adamw' does not have;"),
        ({"optimizer": "nesterov", "momentum": 0}, "momentum is 0, but optimizer 'nesterov' needs some;"),
    ],
)
def test_numbers_that_an_optimizer_does_not_have_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        Recipe(**fields)


@given(
    st.integers(1, 6), st.integers(0, 6), st.integers(1, 5), st.sampled_from(["cosine", "constant", "step"])
)
def test_rates_are_those_of_schedulers_of_pytorch(
    epochs: int, warmup: int, steps: int, schedule: str
) -> None:
    warmup = min(warmup, epochs)
    milestones = (1, 3) if schedule == "step" else ()
    recipe = Recipe(epochs=epochs, lr=0.3, schedule=schedule, milestones=milestones, warmup=warmup, gamma=0.2)

    def rates(scheduler_of: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        scheduler = scheduler_of(optimizer)
        seen = []
        for _ in range(epochs * steps):
            seen.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return seen

    after = {
        "cosine": lambda optimizer: CosineAnnealingLR(optimizer, epochs * steps),
        "constant": lambda optimizer: ConstantLR(optimizer, 1.0),
        "step": lambda optimizer: MultiStepLR(optimizer, [steps, 3 * steps], 0.2),
    }
    expected = rates(after[schedule])
    if warming := warmup * steps:
        ramp = rates(lambda optimizer: LinearLR(optimizer, 1 / warming, 1.0, max(warming - 1, 1)))
        expected[:warming] = ramp[:warming] if warming > 1 else [0.3]
    found = [recipe.rate(epoch, step, steps) for epoch in range(epochs) for step in range(steps)]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_checkpoints_of_before_know_a_recipe_without_the_later_fields() -> None:
    before = {
        "epochs": 200, "batch_size": 256, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4,
        "schedule": "cosine", "milestones": [], "gamma": 0.1, "precision": "auto",
        "augmentation": {"pad": None, "flip": None, "fill": "black"},
    }  # fmt: skip
    assert Recipe().identity() == before
    later = Recipe(optimizer="adamw", betas=(0.8, 0.9), warmup=2)
    assert later.identity() == before | {"optimizer": "adamw", "betas": [0.8, 0.9], "warmup": 2}
    assert json.loads(json.dumps(later.identity())) == later.identity()


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Recipe().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "gamma", "eps", "temperature", "alpha"])
@pytest.mark.parametrize("value", ["0.1", None, True, (0.1,)])
def test_what_is_no_number_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"^{name} is .*; it must be a number$"):
        Recipe(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    recipe = Recipe(
        lr=np.float32(0.5), epochs=np.int64(3), optimizer="adamw", betas=np.array([0.5, 0.75]),
        augmentation=Augmentation(pad=np.int64(2), cutout=np.int64(4)),
    )  # fmt: skip
    augmentation = Augmentation(pad=2, cutout=4)
    assert recipe == Recipe(lr=0.5, epochs=3, optimizer="adamw", betas=(0.5, 0.75), augmentation=augmentation)
    assert type(recipe.augmentation.cutout) is int


def test_an_augmentation_by_its_fields_alone_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"augmentation is {'cutout': 2}; it must be an Augmentation"):
        Recipe(augmentation={"cutout": 2})  # type: ignore[arg-type]
