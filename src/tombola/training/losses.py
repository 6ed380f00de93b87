"""What a training minimises: the mean of a recipe's loss over a batch.

Distillation is that of Hinton et al. (2015): the student follows the softened outputs of a teacher, which
sees the same augmented images in evaluation mode.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tombola import seeds
from tombola.errors import RecipeError, TombolaError, reason
from tombola.ticket import State, Ticket
from tombola.training.definitions import LOSSES, definition_of, is_own
from tombola.training.recipe import Recipe
from tombola.training.run import Run


class Teacher:
    """The network of a run, or of a ticket as it is, in evaluation mode on a device.

    precision: of its convolutions and products, as of the student's.
    """

    def __init__(self, subject: Run | Ticket, device: torch.device, precision: str) -> None:
        ticket, weights = weights_of(subject)
        module = ticket.network.initialized(0)
        module.load_state_dict(dict(weights))
        self._module = module.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._precision = precision

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 ``(B, classes)``, of images ``(B, C, H, W)``."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "bfloat16"):
            outputs: Tensor = self._module(images)
        return outputs.float()


def mean_loss(recipe: Recipe, outputs: Tensor, targets: Tensor, taught: Tensor | None = None) -> Tensor:
    """The loss of a batch, a float32 number.

    outputs: logits, float32 ``(B, classes)``; targets: int64 ``(B,)``.
    taught: the teacher's logits, float32 ``(B, classes)``, for distillation.
    """
    if is_own(LOSSES, recipe.loss):
        return definition_of(LOSSES, recipe.loss)(outputs, targets).mean()
    loss = functional.cross_entropy(outputs, targets, label_smoothing=recipe.label_smoothing)
    if taught is None:
        return loss
    softened, followed = ((logits / recipe.temperature).log_softmax(1) for logits in (outputs, taught))
    divergence = functional.kl_div(softened, followed, reduction="batchmean", log_target=True)
    return recipe.alpha * recipe.temperature**2 * divergence + (1 - recipe.alpha) * loss


def weights_of(subject: Run | Ticket) -> tuple[Ticket, State]:
    """The ticket of a run with the weights that training left, or a ticket with those that it has."""
    if isinstance(subject, Run):
        return subject.ticket, subject.weights
    return subject, subject.weights()


def check_loss(recipe: Recipe, classes: int) -> None:
    """Raises RecipeError for a declared loss that fails, draws, or gives no loss of each example."""
    if not is_own(LOSSES, recipe.loss):
        return
    count = classes + 1  # so that a loss a class cannot be taken for one an example
    what = f"loss {recipe.loss}"
    outputs = torch.linspace(-1, 1, count * classes).view(count, classes).requires_grad_()
    returned: list[Any] = []

    def take() -> None:
        returned.append(definition_of(LOSSES, recipe.loss)(outputs, torch.arange(count) % classes))

    with seeds.torch_stream("check"):
        try:
            drawn = seeds.drawn_from(take)
        except TombolaError:
            raise
        except Exception as error:  # a user's function
            raise RecipeError(f"{what} failed: {type(error).__name__}: {reason(error)}") from error
    if drawn:
        raise RecipeError(f"{what} draws random numbers, which no stream covers; leave them out")
    losses = returned[-1]
    shape: object = tuple(losses.shape) if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
    if shape != (count,):
        raise RecipeError(f"{what} gave {shape} for {count} examples; it must give ({count},), one of each")
    if not losses.requires_grad:
        raise RecipeError(f"{what} gave numbers that do not depend on the logits; nothing could be learned")
