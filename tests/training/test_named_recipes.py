"""Recipes of the classic networks against the numbers of their papers, and the ways to name one."""

from __future__ import annotations

from pathlib import Path

import pytest
import tyro

import tombola as tb
from tombola.cli.named_recipe import with_named_recipe
from tombola.cli.optional import OPTIONAL
from tombola.errors import ExperimentError, RecipeError
from tombola.experiments.from_file import read_experiments
from tombola.training.named_recipes import NAMED_RECIPES


@pytest.mark.parametrize(
    ("name", "iterations", "rate"),
    [("lenet300", 50_000, 1.2e-3), ("conv2", 20_000, 2e-4), ("conv4", 25_000, 3e-4), ("conv6", 30_000, 3e-4)],
)
def test_those_of_frankle_and_carbin_are_adam_in_batches_of_sixty(
    name: str, iterations: int, rate: float
) -> None:
    recipe = tb.named_recipe(name)
    assert recipe == tb.Recipe(
        epochs=f"{iterations}it", batch_size=60, lr=rate, optimizer="adamw", weight_decay=0,
        schedule="constant", augmentation=tb.Augmentation(pad=0, flip=False),
    )  # fmt: skip


def test_that_of_snip_drops_its_rate_every_25_000_iterations_of_mnist() -> None:
    recipe = tb.named_recipe("lenet5")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.momentum) == (100, 100, 0.01, 0.9)
    steps = 60_000 // recipe.batch_size
    rates = [recipe.rate(step // steps, step % steps, steps) for step in (0, 24_999, 25_200, 50_000)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.0001])


def test_that_of_edge_popup_is_a_hundred_epochs_of_128() -> None:
    assert tb.named_recipe("conv8") == tb.Recipe(epochs=100, batch_size=128, weight_decay=1e-4)


@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_a_command_line_and_an_experiment_take_them_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(f'networks = ["{name}"]\nrecipe = "{name}"\n')
    [of_file] = read_experiments(tmp_path / "mine.toml").experiments
    assert [recipe for _, recipe in of_file.recipes()] == [tb.named_recipe(name)]
    arguments = with_named_recipe(["imp", "--recipe", name, "--rounds", "0"])
    assert parsed(arguments[1:]) == tb.named_recipe(name)


def parsed(options: list[str]) -> tb.Recipe:
    """The recipe that ``tombola imp`` reads of its options."""
    recipes: list[tb.Recipe] = []

    def taken(rounds: int = 20, recipe: tb.Recipe = tb.Recipe()) -> None:  # noqa: B008 (frozen)
        recipes.append(recipe)

    tyro.cli(taken, args=options, registry=OPTIONAL)
    return recipes[0]


def test_what_stands_beside_a_name_replaces_fields() -> None:
    assert parsed(with_named_recipe(["--recipe.epochs", "6", "--recipe=lenet300"])).epochs == 6
    assert tb.named_recipe("lenet300", epochs=6).epochs == 6
    experiment = tb.Experiment("mine", recipe={"like": "lenet300", "epochs": 6, "lr": [0.1, 0.2]})
    recipes = [recipe for _, recipe in experiment.recipes()]
    assert recipes == [tb.named_recipe("lenet300", epochs=6, lr=rate) for rate in (0.1, 0.2)]


def test_a_name_that_there_is_not_is_refused() -> None:
    with pytest.raises(RecipeError, match="no recipe 'lenet30'; did you mean 'lenet300'"):
        tb.named_recipe("lenet30")
    with pytest.raises(ExperimentError, match="mine: no recipe 'conv3'"):
        tb.Experiment("mine", recipe={"like": "conv3"})
    for arguments in (["--recipe"], ["--recipe", "--rounds"], ["--recipe="]):
        with pytest.raises(RecipeError, match="--recipe has no name; give one of lenet300, conv2"):
            with_named_recipe(arguments)
    with pytest.raises(RecipeError, match="twice"):
        with_named_recipe(["--recipe", "conv2", "--recipe", "conv4"])
