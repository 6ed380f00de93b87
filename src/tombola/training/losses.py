"""What a training minimises: the mean of a recipe's loss over a batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tombola import seeds
from tombola.errors import RecipeError, TombolaError, reason
from tombola.training.definitions import LOSSES, definition_of, is_own
from tombola.training.recipe import Recipe


def mean_loss(recipe: Recipe, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch, a float32 number.

    outputs: logits, float32 ``(B, classes)``; targets: int64 ``(B,)``.
    """
    if recipe.loss == "cross-entropy":
        return functional.cross_entropy(outputs, targets, label_smoothing=recipe.label_smoothing)
    return definition_of(LOSSES, recipe.loss)(outputs, targets).mean()


def check_loss(recipe: Recipe, classes: int) -> None:
    """Raises RecipeError for a declared loss that fails, draws, or gives no loss of each example."""
    if not is_own(LOSSES, recipe.loss):
        return
    count = classes + 1  # so that a loss a class cannot be taken for one an example
    what = f"loss {recipe.loss}"
    outputs = torch.linspace(-1, 1, count * classes).view(count, classes).requires_grad_()
    with seeds.torch_stream("check"):
        before = torch.get_rng_state()
        try:
            losses = definition_of(LOSSES, recipe.loss)(outputs, torch.arange(count) % classes)
        except TombolaError:
            raise
        except Exception as error:  # a user's function
            raise RecipeError(f"{what} failed: {type(error).__name__}: {reason(error)}") from error
        if not torch.equal(before, torch.get_rng_state()):
            raise RecipeError(f"{what} draws random numbers, which no stream covers; leave them out")
    shape: object = tuple(losses.shape) if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    if shape != (count,):
        raise RecipeError(f"{what} gave {shape} for {count} examples; it must give ({count},), one of each")
    if not losses.requires_grad:
        raise RecipeError(f"{what} gave numbers that do not depend on the logits; nothing could be learned")
