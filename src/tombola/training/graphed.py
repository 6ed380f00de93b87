"""The graphed engine: a whole training step as one CUDA graph.

Gather, crop, flip, normalise, forward, backward, SGD, mask and the tally are captured once and replayed for
every step; a second graph serves the last, smaller batch. Which batch it is, at which learning rate, momentum
and weight decay, and under which mask, is read on the device: nothing waits for the GPU within an epoch, and
one engine serves every round, seed and recipe that differ in nothing else.
"""

from __future__ import annotations

import torch

from tombola.data.imageset import Data, ImageSet
from tombola.networks.network import Network
from tombola.training.body import Body
from tombola.training.captured_steps import STRETCH, CapturedSteps
from tombola.training.engine import EpochTally
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.plan import DevicePlan, EpochPlan
from tombola.training.recipe import Recipe
from tombola.training.step import PlainStep


class GraphedEngine:
    """Trains a body by replaying captured steps; see :class:`~tombola.training.engine.Engine`.

    Raises ``RuntimeError`` for a network whose step cannot be captured, one that waits for the GPU, say.
    """

    def __init__(
        self, network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str
    ) -> None:
        self.body = Body(network, device)
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
