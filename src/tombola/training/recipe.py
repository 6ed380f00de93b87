"""The recipe of a training: schedule, optimizer, loss, augmentation, precision.

Defaults are those of the paper (section 3.3 and Appendix G). Free of torch, for the command line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from tombola.data.augmentation import Augmentation
from tombola.declarations import Definitions
from tombola.errors import RecipeError
from tombola.one_line import OneLine
from tombola.source import Use
from tombola.training.definitions import LOSSES, OPTIMIZERS, SCHEDULES, factor, is_own
from tombola.training.length import (
    Iterations,
    Length,
    epochs_of,
    is_length,
    iterations_of,
    place_of,
    written_length,
)

MOST_EPOCHS = 65_534
"""An image is forgotten at most every other epoch, and 16 bits count to 32,767."""

OPTIMIZER_STATES: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum",),
    "nesterov": ("momentum",),
    "adamw": ("first_moment", "second_moment"),
}
"""By optimizer, what it keeps between steps, a number for each weight."""


def has_momentum(optimizer: object) -> bool:
    """Whether an optimizer, by its name in a recipe, has momentum: AdamW has not; a declared one may."""
    return "momentum" in OPTIMIZER_STATES.get(str(optimizer), ("momentum",))


_BELONGING: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd", "nesterov")),
    "betas": ("optimizer", ("adamw",)),
    "eps": ("optimizer", ("adamw",)),
    "label_smoothing": ("loss", ("cross-entropy", "distillation")),
    "temperature": ("loss", ("distillation",)),
    "alpha": ("loss", ("distillation",)),
}
"""Fields that only some optimizers or losses of tombola read. A declared optimizer may read any."""

_NUMBERS = ("lr", "momentum", "weight_decay", "gamma", "eps", "temperature", "alpha")

_LATER_FIELDS = ("optimizer", "betas", "eps", "warmup", "loss", "label_smoothing", "temperature", "alpha")
"""Fields that the checkpoints of older versions do not have."""


@dataclass(frozen=True, repr=False)
class Recipe(OneLine):
    """How to train: by default SGD on cross-entropy.

    Raises :class:`~tombola.errors.RecipeError` for a value outside its range.
    """

    epochs: Length = 200
    """Length of the whole schedule, pretraining included: 200 or "200ep", or iterations as "64000it", which
    may end within an epoch."""
    batch_size: int = 256
    """Images a step; the last, smaller batch of an epoch is kept."""
    lr: float = 0.1
    """Learning rate at the start. The default is for SGD; AdamW usually wants about 0.001."""
    momentum: float = 0.9
    """Momentum of SGD, from 0 to below 1, without dampening."""
    weight_decay: float = 5e-4
    """On every parameter: an L2 penalty as in PyTorch's SGD; of AdamW decoupled, times the learning rate."""
    schedule: str = "cosine"
    """"cosine" to zero, step by step; "constant"; "step", a drop by gamma at each milestone; "ramp", constant
    for half of the epochs and linear to a hundredth at nine tenths; or a declared one."""
    milestones: tuple[Length, ...] = ()
    """Places at which schedule "step" multiplies the rate by gamma: epochs, or iterations as "32000it"."""
    gamma: float = 0.1
    """Factor of schedule "step"."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random crops and flips of the training images."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of convolutions and products; "auto" is bfloat16 on a GPU, float32 on a CPU. Weights are float32."""
    optimizer: str = "sgd"
    """"sgd", "nesterov" (SGD with Nesterov momentum), "adamw", all as in torch.optim; or a declared one."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root in AdamW's denominator."""
    warmup: Length = 0
    """Linear warm-up, in epochs or in iterations as "500it": step t of the W in it, counted from 1, has rate
    lr * t / W. Then comes the schedule as it stands at that place, neither shifted nor stretched."""
    loss: str = "cross-entropy"
    """What is minimised: "cross-entropy"; "distillation" from a training's teacher; or a declared loss."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, as in PyTorch's cross-entropy."""
    temperature: float = 4.0
    """T of distillation, by which the logits of both networks are divided."""
    alpha: float = 0.9
    """Of distillation, whose loss is alpha T^2 KL(teacher || student) + (1 - alpha) cross-entropy."""

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
        for name in _NUMBERS:
            value = getattr(self, name)
            _require(isinstance(value, int | float) and not isinstance(value, bool), name, value, "a number")
        _require(
            isinstance(self.augmentation, Augmentation), "augmentation", self.augmentation, "an Augmentation"
        )
        self._check_lengths()
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
        for name, definitions in (("schedule", SCHEDULES), ("loss", LOSSES), ("optimizer", OPTIMIZERS)):
            object.__setattr__(self, name, _defined(name, getattr(self, name), definitions))
        precisions = ("auto", "float32", "bfloat16")
        _require(self.precision in precisions, "precision", self.precision, " or ".join(precisions))
        _require(
            _is_share(self.label_smoothing), "label_smoothing", self.label_smoothing, "from 0 to below 1"
        )
        _require(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0 and finite")
        _require(0 <= self.alpha <= 1, "alpha", self.alpha, "from 0 to 1")
        betas = self.betas
        _require(
            isinstance(betas, list | tuple) and len(betas) == 2 and all(map(_is_share, betas)),
            "betas", betas, "two numbers from 0 to below 1",
        )  # fmt: skip
        object.__setattr__(self, "betas", tuple(map(float, betas)))
        _require(0 < self.eps < math.inf, "eps", self.eps, "above 0 and finite")
        self._check_belonging()
        if not is_own(SCHEDULES, self.schedule) and bool(self.milestones) != (self.schedule == "step"):
            raise RecipeError(
                f"schedule is {self.schedule!r} and milestones are {self.milestones}; "
                "milestones must be given for schedule 'step', and for no other"
            )

    def _check_lengths(self) -> None:
        """Write the lengths as jobs have them; RecipeError for what is none, or is longer than the recipe."""
        epochs = _length("epochs", self.epochs, "a whole number, at least 1, or iterations such as '1500it'")
        _require(epochs != 0, "epochs", epochs, "a whole number, at least 1, or iterations such as '1500it'")
        _require(
            isinstance(epochs, str) or epochs <= MOST_EPOCHS, "epochs", epochs,
            f"a whole number, at most {MOST_EPOCHS:,}: forgetting events of an image are counted to 32,767",
        )  # fmt: skip
        object.__setattr__(self, "epochs", epochs)
        comparable = f"from 0 to the recipe's {epochs}"
        warmup = _length("warmup", self.warmup, f"a whole number of epochs {comparable}, or '500it'")
        object.__setattr__(self, "warmup", warmup)
        longer = _in_one_unit(warmup, epochs) and _count(warmup) > _count(epochs)
        _require(not longer, "warmup", warmup, f"a whole number of epochs {comparable}, or '500it'")
        allowed = "rising whole epochs above 0, or rising iterations such as '32000it'"
        _require(
            isinstance(self.milestones, list | tuple), "milestones", self.milestones, f"a list: {allowed}"
        )
        _require(all(map(is_length, self.milestones)), "milestones", self.milestones, allowed)
        milestones = tuple(map(written_length, self.milestones))
        object.__setattr__(self, "milestones", milestones)
        counts = list(map(_count, milestones))
        rising = 0 not in counts and counts == sorted(set(counts))
        _require(rising and _in_one_unit(*milestones), "milestones", milestones, allowed)

    def _check_belonging(self) -> None:
        """Raises RecipeError for a field that the recipe's optimizer or loss would not read."""
        for name, (part, owners) in _BELONGING.items():
            value, chosen = getattr(self, name), getattr(self, part)
            own = part == "optimizer" and is_own(OPTIMIZERS, chosen)
            if value != getattr(Recipe, name) and chosen not in owners and not own:
                raise RecipeError(f"{name} is {value!r}, which {part} {chosen!r} does not have; leave it out")
        if self.optimizer == "nesterov" and self.momentum == 0:
            raise RecipeError("momentum is 0, but optimizer 'nesterov' needs some; use 'sgd' without")

    @property
    def optimizer_numbers(self) -> tuple[float, ...]:
        """What an optimizer reads besides the learning rate: momentum, betas, eps, weight decay."""
        return (self.momentum, *self.betas, self.eps, self.weight_decay)

    @property
    def optimizer_states(self) -> tuple[str, ...]:
        """What the optimizer keeps for each weight; empty for a declared one, which keeps what it likes."""
        return OPTIMIZER_STATES.get(self.optimizer, ())

    @property
    def definitions(self) -> tuple[Use, ...]:
        """The schedule, loss and optimizer, each after its kind."""
        return ("schedules", self.schedule), ("losses", self.loss), ("optimizers", self.optimizer)

    @property
    def keeps_state(self) -> bool:
        """Whether the optimizer keeps anything from step to step, which restarts where a training begins."""
        return self.optimizer != "sgd" or self.momentum > 0

    def identity(self) -> dict[str, Any]:
        """The fields as JSON values, for checkpoints; without later ones that are at their defaults."""
        values: dict[str, Any] = asdict(self) | {
            "milestones": list(self.milestones),
            "augmentation": self.augmentation.identity(),
        }
        values["betas"] = list(self.betas)
        usual = Recipe()
        for name in _LATER_FIELDS:
            if getattr(self, name) == getattr(usual, name):
                del values[name]
        return values

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """Learning rate of one step, ``step`` of ``steps`` of an epoch (all counted from 0).

        The cosine falls a little with every step and would reach zero one step after the last.
        """
        warmup_epoch, warmup_step = place_of(self.warmup, steps)
        if (epoch, step) < (warmup_epoch, warmup_step):
            return self.lr * (epoch * steps + step + 1) / (warmup_epoch * steps + warmup_step)
        return self.lr * factor(self.in_epochs(steps), epoch + step / steps)

    def in_epochs(self, steps: int) -> Recipe:
        """This recipe as schedules see it, for epochs of so many steps: no length is in iterations.

        Lengths that were given in iterations are epochs, with a fraction where they end within one.
        """
        lengths = (self.epochs, self.warmup, *self.milestones)
        if not any(isinstance(length, str) for length in lengths):
            return self
        resolved = copy(self)
        epochs, warmup, *milestones = (epochs_of(length, steps) for length in lengths)
        resolved_lengths = {"epochs": epochs, "warmup": warmup, "milestones": tuple(milestones)}
        for name, value in resolved_lengths.items():
            object.__setattr__(resolved, name, value)  # not checked: fractions are for schedules alone
        return resolved


def _length(name: str, value: Any, allowed: str) -> int | Iterations:
    """A length as jobs have it; RecipeError for a value that is none."""
    _require(is_length(value), name, value, allowed)
    return written_length(value)


def _count(length: int | Iterations) -> int:
    """The number of a length, in its own unit."""
    iterations = iterations_of(length)
    return int(length) if iterations is None else iterations


def _in_one_unit(*lengths: int | Iterations) -> bool:
    """Whether lengths can be compared without data: all in epochs, or all in iterations; 0 is in both."""
    return len({isinstance(length, str) for length in lengths if length != 0}) < 2


def _defined(field_name: str, value: object, definitions: Definitions[Any]) -> str:
    """The written name of a schedule, loss or optimizer; RecipeError if there is none of that name."""
    if not isinstance(value, str) and not callable(value):
        _require(False, field_name, value, " or ".join(definitions.names()))
    return definitions.written(value)


def _as_pythons(value: object) -> object:
    """Numbers of numpy's as Python's, in a tuple where they are several; anything else as it is."""
    if isinstance(value, tuple | list):
        return tuple(map(_as_pythons, value))
    return _as_pythons(value.tolist()) if hasattr(value, "tolist") else value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise RecipeError(f"{name} is {value!r}; it must be {allowed}")
