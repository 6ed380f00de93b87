"""The eager engine: plain PyTorch steps on any device.

The data set lives on the device as uint8; batches are gathered, cropped, flipped and normalised there. Only
small results (one loss a step, one bit an image) are written down within an epoch, so that a GPU is never
waited for.
"""

from __future__ import annotations

import torch

from tombola.data.imageset import Data, ImageSet
from tombola.networks.network import Network
from tombola.training.body import Body
from tombola.training.engine import EpochTally
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.gather import gathered
from tombola.training.plan import EpochPlan
from tombola.training.recipe import Recipe
from tombola.training.step import take_step

# Images that are prepared for several small steps at once.
PREPARED_IMAGES = 512


class EagerEngine:
    """Trains a body with plain PyTorch operations; see :class:`~tombola.training.engine.Engine`."""

    name = "eager"

    def __init__(
        self, network: Network, data: Data, recipe: Recipe, device: torch.device, precision: str
    ) -> None:
        self.body = Body(network, device)
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
