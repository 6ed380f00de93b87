"""The seam between the loop and the device: what an engine does for an epoch.

The loop draws an epoch's order, crops and flips on the CPU and hands them over as a plan; an engine trains
stretches of its steps and says at the end what came out. The eager engine runs on any device; a captured one
only has to do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tombola.data.augmentation import Draws
from tombola.data.imageset import ImageSet
from tombola.training.body import Body


@dataclass(frozen=True)
class EpochPlan:
    """One epoch as drawn, in order of presentation.

    order: int64 ``(N,)``, which image comes when.
    draws: crops and flips of each presentation.
    rates: learning rate of each step.
    batch_size: images a step; the last step may have fewer.
    """

    order: Tensor
    draws: Draws
    rates: list[float]
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.rates)


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

    name: str
    body: Body

    def begin(self, plan: EpochPlan) -> None:
        """Take in the plan of the next epoch and clear the tally."""

    def advance(self, first: int, last: int) -> None:
        """Train steps ``first`` to ``last - 1`` of the plan."""

    def stretch(self) -> int:
        """Number of steps that are best taken between two looks at the clock."""

    def tally(self) -> EpochTally:
        """What the steps so far gave; the engine's own tensors, which a resumed epoch copies into."""

    def evaluate(self, images: ImageSet) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent, in evaluation mode, without augmentation."""
