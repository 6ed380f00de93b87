"""The seam between the loop and the device: what an engine does for an epoch.

The loop draws an epoch's order, crops and flips on the CPU and hands them over as a plan; an engine trains
stretches of its steps and says at the end what came out. The eager engine runs on any device; a captured one
only has to do the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from tombola.data.imageset import ImageSet
from tombola.training.body import Body
from tombola.training.plan import EpochPlan
from tombola.training.recipe import Recipe


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

    body: Body

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
