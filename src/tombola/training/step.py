"""A training step: what is done at one learning rate, whoever launches it.

Here it is plain PyTorch, on a CPU and for networks that cannot be traced; on a GPU see
:mod:`tombola.training.cuda.fused`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from tombola.data.batches import Batches
from tombola.data.imageset import ImageSet
from tombola.training.epoch import DevicePlan, EpochPlan, gathered_at_step
from tombola.training.flat_network import FlatNetwork
from tombola.training.recipe import Recipe

TakeStep = Callable[[Tensor, Tensor, float | Tensor], None]
"""What a step does with images, labels and a learning rate; the rate is a tensor if it is captured."""


class Step(Protocol):
    """Takes steps with one body on a GPU, without ever waiting for it: steps are captured."""

    name: str

    def set_numbers(self, recipe: Recipe) -> bool:
        """Take momentum and weight decay of a recipe; False if steps captured before would not."""

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels of the batch that the plan points to."""

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Move the weights, masked, by one batch; loss and rights as :func:`take_step` gives them."""


class PlainStep:
    """Plain PyTorch operations; see :class:`Step`."""

    name = "plain"

    def __init__(self, body: FlatNetwork, batches: Batches, precision: str, recipe: Recipe) -> None:
        self._body = body
        self._batches = batches
        self._precision = precision
        self._recipe = recipe

    def set_numbers(self, recipe: Recipe) -> bool:
        now, captured = ((each.momentum, each.weight_decay) for each in (recipe, self._recipe))
        return now == captured

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        return gathered_at_step(plan, self._batches, size)

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        taken = take_step(self._body, self._recipe, self._precision, inputs, targets, rate)
        # Also under a full mask: the next round copies another one in.
        self._body.select_kept()
        return taken


def take_step(
    body: FlatNetwork, recipe: Recipe, precision: str, inputs: Tensor, targets: Tensor, rate: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch; the mask is left to the caller.

    inputs: float32 ``(B, C, H, W)``; targets: int64 ``(B,)``.
    rate: the learning rate; a captured step gives a tensor, because a number would be captured for good.

    Returns the mean cross-entropy, float32, and whether each prediction was right, bool ``(B,)``.
    """
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = body.module(inputs)
        loss = functional.cross_entropy(outputs, targets)
    body.gradient.zero_()
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        # The kernel behind torch.optim.SGD(fused=True), called on the one flat tensor.
        torch._fused_sgd_(
            [body.weights], [body.gradient], [body.momentum] if recipe.momentum else [],
            weight_decay=recipe.weight_decay, momentum=recipe.momentum, lr=rate,
            dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
        )  # fmt: skip
        return loss.detach(), outputs.argmax(1) == targets


@dataclass(frozen=True)
class EpochTally:
    """What training a plan gave, on the engine's device.

    losses: float32 ``(steps,)``, mean cross-entropy of each step so far.
    right: bool ``(N,)`` in order of presentation, whether the prediction made in its step was right.
    """

    losses: Tensor
    right: Tensor


class Engine(Protocol):
    """Trains one body on one device."""

    body: FlatNetwork

    @property
    def name(self) -> str:
        """What takes the steps, as runs record it: bits rest on it."""

    def set_numbers(self, recipe: Recipe) -> bool:
        """Train by a recipe that differs in momentum and weight decay; False if the engine cannot."""

    def begin(self, plan: EpochPlan) -> None:
        """Take in the plan of the next epoch, which lies on the device, and clear the tally."""

    def advance(self, first: int, last: int) -> None:
        """Train steps ``first`` to ``last - 1`` of the plan."""

    def stretch(self) -> int:
        """Number of steps that are best taken between two looks at the clock."""

    def tally(self) -> EpochTally:
        """What the steps so far gave; the engine's own tensors, which a resumed epoch copies into."""

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent, in evaluation mode, without augmentation."""
