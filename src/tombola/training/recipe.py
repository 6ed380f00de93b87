"""The recipe of a training: schedule, optimizer, augmentation, precision.

Defaults are those of the paper (section 3.3 and Appendix G). Free of torch, for the command line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from tombola.data.augmentation import Augmentation
from tombola.errors import RecipeError
from tombola.one_line import OneLine

MOST_EPOCHS = 65_534
"""An image is forgotten at most every other epoch, and 16 bits count to 32,767."""


@dataclass(frozen=True, repr=False)
class Recipe(OneLine):
    """How to train: SGD on cross-entropy, without dampening or Nesterov.

    Raises :class:`~tombola.errors.RecipeError` for a value outside its range.
    """

    epochs: int = 200
    """Length of the whole schedule, pretraining included."""
    batch_size: int = 256
    """Images a step; the last, smaller batch of an epoch is kept."""
    lr: float = 0.1
    """Learning rate at the start."""
    momentum: float = 0.9
    """Momentum, from 0 to below 1."""
    weight_decay: float = 5e-4
    """L2 penalty, coupled as in PyTorch's SGD, on every parameter."""
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """Cosine to zero, step by step; constant; or a drop by gamma at each milestone."""
    milestones: tuple[int, ...] = ()
    """Epochs at which schedule "step" multiplies the rate by gamma."""
    gamma: float = 0.1
    """Factor of schedule "step"."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random crops and flips of the training images."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions and products; "auto" is bfloat16 on a GPU, float32 on a CPU. Weights are float32."""

    def _in_one_line(self) -> str:
        """The fields that differ from their defaults, as Python takes them."""
        defaults = {field.name: field.default for field in fields(self)} | {"augmentation": Augmentation()}
        changed = [name for name, default in defaults.items() if getattr(self, name) != default]
        return f"Recipe({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"

    def _facts(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _as_pythons(getattr(self, entry.name)))
        _require(
            _is_integer(self.epochs) and self.epochs >= 1, "epochs", self.epochs, "a whole number, at least 1"
        )
        _require(
            self.epochs <= MOST_EPOCHS, "epochs", self.epochs,
            f"a whole number, at most {MOST_EPOCHS:,}: forgetting events of an image are counted to 32,767",
        )  # fmt: skip
        _require(
            _is_integer(self.batch_size) and self.batch_size >= 1,
            "batch_size", self.batch_size, "a whole number, at least 1",
        )  # fmt: skip
        _require(0 < self.lr < math.inf, "lr", self.lr, "above 0 and finite")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        _require(
            0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or above, and finite"
        )
        _require(0 < self.gamma < math.inf, "gamma", self.gamma, "above 0 and finite")
        schedules = ("cosine", "constant", "step")
        _require(self.schedule in schedules, "schedule", self.schedule, " or ".join(schedules))
        precisions = ("auto", "float32", "bfloat16")
        _require(self.precision in precisions, "precision", self.precision, " or ".join(precisions))
        object.__setattr__(self, "milestones", tuple(self.milestones))
        rising = list(self.milestones) == sorted(set(self.milestones))
        positive = all(_is_integer(epoch) and epoch > 0 for epoch in self.milestones)
        _require(rising and positive, "milestones", self.milestones, "rising whole epochs above 0")
        if bool(self.milestones) != (self.schedule == "step"):
            raise RecipeError(
                f"schedule is {self.schedule!r} and milestones are {self.milestones}; "
                "milestones must be given for schedule 'step', and for no other"
            )

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate of one step, ``step`` of ``steps`` of an epoch (all counted from 0).

        The cosine falls a little with every step and would reach zero one step after the last.
        """
        if self.schedule == "cosine":
            done = (epoch + step / steps) / self.epochs
            return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return self.lr


def _as_pythons(value: object) -> object:
    """A number of numpy's as Python's, also within a tuple or list; anything else as it is."""
    if isinstance(value, tuple | list):
        return tuple(map(_as_pythons, value))
    return value.item() if hasattr(value, "item") else value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value!r}; it must be {allowed}")
