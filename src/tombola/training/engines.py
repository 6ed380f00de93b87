"""The eager engine: plain PyTorch steps on any device.

The data set lives on the device as uint8; batches are gathered, cropped, flipped and normalised there. Only
small results (one loss a step, one bit an image) are written down within an epoch, so that a GPU is never
waited for.
"""

from __future__ import annotations

import torch

from tombola.data.imageset import Data, ImageSet
from tombola.networks.network import Network
from tombola.training.cuda.capture import STRETCH, CapturedSteps
from tombola.training.epoch import DevicePlan, EpochPlan, gathered
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.recipe import Recipe
from tombola.training.step import EpochTally, PlainStep, take_step

# Images that are prepared for several small steps at once.
PREPARED_IMAGES = 512


class EagerEngine:
    """Trains a body with plain PyTorch operations; see :class:`~tombola.training.step.Engine`."""

    name = "eager"

    def __init__(
        self, network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str
    ) -> None:
        self.body = FlatNetwork(network, device)
        self._recipe = recipe
        self._device = device
        self._precision = precision
        self._data = data
        # Not by fused passes: their copies of the weights follow the fused steps only.
        self._evaluator = Evaluator(self.body, precision, fused=False)
        augmentation = recipe.augmentation
        pad = augmentation.padding(data)
        self._batches = device_batches(data, data.train, device, pad=pad, fill=augmentation.fill)

    def set_numbers(self, recipe: Recipe) -> bool:
        self._recipe = recipe
        return True

    def begin(self, plan: EpochPlan) -> None:
        self._plan = plan
        self._tally = EpochTally(
            torch.zeros(plan.steps, device=self._device),
            torch.zeros(len(plan.order), dtype=torch.bool, device=self._device),
        )

    def advance(self, first: int, last: int) -> None:
        self.body.module.train()
        for step, inputs, targets in gathered(self._plan, self._batches, first, last, self.stretch()):
            self._step(step, inputs, targets)

    def _step(self, step: int, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        rate = self._plan.rates[step]
        loss, right = take_step(self.body, self._recipe, self._precision, inputs, targets, rate)
        self.body.enforce_mask()
        place = step * self._plan.batch_size
        self._tally.losses[step] = loss
        self._tally.right[place : place + len(targets)] = right

    def stretch(self) -> int:
        return max(1, PREPARED_IMAGES // self._recipe.batch_size)

    def tally(self) -> EpochTally:
        return self._tally

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        return self._evaluator(self._data, images)


class GraphedEngine:
    """Trains a body by replaying captured steps; see :class:`~tombola.training.step.Engine`.

    Raises ``RuntimeError`` for a network whose step cannot be captured, one that waits for the GPU, say.
    """

    def __init__(
        self, network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str
    ) -> None:
        self.body = FlatNetwork(network, device)
        self._data = data
        self._device = device
        augmentation = recipe.augmentation
        batches = device_batches(
            data, data.train, device, pad=augmentation.padding(data), fill=augmentation.fill
        )
        count = len(data.train)
        self._plan = DevicePlan.empty(count, min(recipe.batch_size, count), device)
        self._tally = EpochTally(
            torch.zeros_like(self._plan.rates), torch.zeros(count, dtype=torch.bool, device=device)
        )
        self._evaluator = Evaluator(self.body, precision)
        self._step = self._evaluator.step(batches) or PlainStep(self.body, batches, precision, recipe)
        # The steps taken in capturing leave no trace: whoever trains loads a state first, and begins a plan.
        self._steps = CapturedSteps(self._train_step, self._plan)
        # Captured now, when memory that does not suffice can still be made.
        self._evaluator(data, data.test)

    @property
    def name(self) -> str:
        """Which engine, and what its steps are made of."""
        return f"graphed, {self._step.name}"

    def _train_step(self, size: int) -> None:
        """One step on the batch of that size which the step counter points to."""
        plan = self._plan
        inputs, targets = self._step.inputs(plan, size)
        rate = plan.rates[plan.step].squeeze(0)
        loss, right = self._step.learn(inputs, targets, rate)
        place = plan.step * plan.batch_size + torch.arange(size, device=self._device)
        self._tally.losses.index_copy_(0, plan.step, loss.float().view(1))
        self._tally.right.index_copy_(0, place, right)

    def set_numbers(self, recipe: Recipe) -> bool:
        return self._step.set_numbers(recipe)

    def begin(self, plan: EpochPlan) -> None:
        self._plan.begin(plan)
        self._tally.losses.zero_()
        self._tally.right.zero_()

    def advance(self, first: int, last: int) -> None:
        self._steps.replay(first, last)

    def stretch(self) -> int:
        return STRETCH

    def tally(self) -> EpochTally:
        return self._tally

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        return self._evaluator(self._data, images)
