"""One training step in plain PyTorch: forward, backward, optimizer; and what a GPU engine captures as a step.

The eager engine calls :func:`take_step` itself; the graphed one captures a :class:`Step`, which is a
:class:`PlainStep` or a :class:`~tombola.training.cuda.fused.FusedStep` (see :mod:`tombola.training.engines`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tombola.data.batches import Batches
from tombola.training.epoch import DevicePlan, gathered_at_step
from tombola.training.flat_network import FlatNetwork
from tombola.training.losses import Teacher, mean_loss
from tombola.training.optimizers import move
from tombola.training.recipe import Recipe

TakeStep = Callable[[Tensor, Tensor, float | Tensor], None]
"""A step by images, labels and a learning rate; the rate is a tensor if the step is captured."""


def take_step(
    flat_network: FlatNetwork,
    recipe: Recipe,
    precision: str,
    inputs: Tensor,
    targets: Tensor,
    rate: float | Tensor,
    teacher: Teacher | None = None,
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch, without the mask, which the caller applies.

    inputs: float32 ``(B, C, H, W)``; targets: int64 ``(B,)``.
    rate: the learning rate; a captured step gives a tensor, because a number would be captured for good.
    teacher: of a distillation.

    Returns the mean loss, float32, and whether each prediction was right, bool ``(B,)``.
    """
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
        outputs = flat_network.module(inputs)
    taught = None if teacher is None else teacher(inputs)
    loss = mean_loss(recipe, outputs.float(), targets, taught)
    flat_network.gradient.zero_()
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        move(flat_network, recipe, rate)
        return loss.detach(), outputs.argmax(1) == targets


class Step(Protocol):
    """A training step on a GPU that can be captured: it never waits for the device."""

    name: str

    def set_numbers(self, recipe: Recipe) -> bool:
        """Take over a recipe's optimizer numbers; False if steps captured before would not."""

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels of the batch that the plan points to."""

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        """Move the weights by one batch, under the mask; returns what :func:`take_step` returns."""


class PlainStep:
    """A :class:`Step` of plain PyTorch operations, for networks that cannot be fused."""

    name = "plain"

    def __init__(self, flat_network: FlatNetwork, batches: Batches, precision: str, recipe: Recipe) -> None:
        self._flat_network = flat_network
        self._batches = batches
        self._precision = precision
        self._recipe = recipe

    def set_numbers(self, recipe: Recipe) -> bool:
        return recipe.optimizer_numbers == self._recipe.optimizer_numbers

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        return gathered_at_step(plan, self._batches, size)

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        self._flat_network.module.train()
        loss, right = take_step(self._flat_network, self._recipe, self._precision, inputs, targets, rate)
        # Also under a full mask: the next round copies another one in.
        self._flat_network.select_kept()
        return loss, right
