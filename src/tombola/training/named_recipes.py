"""Recipes of the classic networks by name, as their sources train them; docs/methods.md has the table.

A name is that of the network, but any network can be trained so. Free of torch, for the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.data.augmentation import Augmentation
from tombola.errors import RecipeError, unknown
from tombola.training.recipe import Recipe

Fields = Mapping[str, Any]

_UNAUGMENTED: Fields = {"augmentation": {"pad": 0, "flip": False}}


def _by_adam(epochs: str, lr: float) -> Fields:
    """Batches of 60 by Adam at a constant rate; AdamW without decay is Adam."""
    return {
        "epochs": epochs, "batch_size": 60, "lr": lr, "optimizer": "adamw", "weight_decay": 0.0,
        "schedule": "constant", **_UNAUGMENTED,
    }  # fmt: skip


NAMED_RECIPES: Mapping[str, Fields] = {
    # Frankle & Carbin (2019), rates as Zhou et al. (2019) have them.
    "lenet300": _by_adam("50000it", 1.2e-3),
    "conv2": _by_adam("20000it", 2e-4),
    "conv4": _by_adam("25000it", 3e-4),
    "conv6": _by_adam("30000it", 3e-4),
    # Lee et al. (2019) from a tenth of their rate, as Caffe: at 0.1 lenet5 diverges, lenet300 does not.
    "lenet5": {
        "epochs": 100, "batch_size": 100, "lr": 0.01, "schedule": "step", "milestones": (42, 83),
        **_UNAUGMENTED,
    },
    # Ramanujan et al. (2020), who train conv2 to conv6 so too.
    "conv8": {"epochs": 100, "batch_size": 128, "weight_decay": 1e-4},
}  # fmt: skip
"""Fields of each that are not at their defaults."""


def recipe_fields(name: object) -> Fields:
    """The fields of a named recipe; RecipeError with the nearest name if there is none."""
    if name not in NAMED_RECIPES:
        raise RecipeError(unknown("recipe", str(name), NAMED_RECIPES))
    return NAMED_RECIPES[str(name)]


def named_recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of a classic network by its name: lenet300, lenet5, conv2, conv4, conv6 or conv8.

    changes: fields to replace, such as ``epochs=6``.

    Raises :class:`~tombola.errors.RecipeError` for another name or a value out of range.
    """
    fields = {**recipe_fields(name), **changes}
    if isinstance(fields.get("augmentation"), Mapping):
        fields["augmentation"] = Augmentation(**fields["augmentation"])
    return Recipe(**fields)


def as_options(name: str) -> list[str]:
    """The options of a command line that stand for a named recipe."""
    return [
        text
        for field, value in recipe_fields(name).items()
        for text in _options(f"--recipe.{field.replace('_', '-')}", value)
    ]


def _options(option: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [text for name, inner in value.items() for text in _options(f"{option}.{name}", inner)]
    values = value if isinstance(value, tuple) else (value,)
    return [option, *map(str, values)]
