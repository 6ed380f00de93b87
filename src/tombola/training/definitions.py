"""Schedules, losses and optimizers by name and version: those of tombola, and those that users declare.

A recipe names one of each. The schedules of tombola are functions here; its losses and optimizers are in
:mod:`.losses` and :mod:`.optimizers`. Free of torch, for the command line.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeVar

from tombola.declarations import Definitions, only_version, parsed
from tombola.errors import RecipeError, reason

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from tombola.training.length import Length
    from tombola.training.recipe import Recipe

Schedule = Callable[["Recipe", float], float]
"""From a recipe and a place in it, in epochs, to the share of its learning rate."""
Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""From logits float32 ``(B, classes)`` and labels int64 ``(B,)`` to the loss of each example, ``(B,)``."""
OptimizerFactory = Callable[["list[nn.Parameter]", "Recipe"], "optim.Optimizer"]
"""From the trainable parameters of a network and a recipe to an optimizer of them."""

D = TypeVar("D", Schedule, Loss, OptimizerFactory)


def cosine(recipe: Recipe, epoch: float) -> float:
    """From 1 to zero, which it would reach at the end of the last epoch."""
    return 0.5 * (1.0 + math.cos(math.pi * (epoch / _in_epochs(recipe.epochs))))


def constant(recipe: Recipe, epoch: float) -> float:
    """1 throughout."""
    return 1.0


def step(recipe: Recipe, epoch: float) -> float:
    """1, times gamma from each milestone on."""
    return recipe.gamma ** sum(epoch >= milestone for milestone in map(_in_epochs, recipe.milestones))


def _in_epochs(length: Length) -> float:
    """A length of the recipe that a schedule gets (:meth:`~tombola.Recipe.in_epochs`)."""
    assert not isinstance(length, str)
    return length


def ramp(recipe: Recipe, epoch: float) -> float:
    """1 for half of the epochs, then linear to 0.01 at nine tenths, and that to the end (Garipov et al.,
    2018)."""
    share = epoch / _in_epochs(recipe.epochs)
    return 1.0 if share <= 0.5 else max(1.0 - 0.99 * (share - 0.5) / 0.4, 0.01)


def _computed_elsewhere(*_: object) -> NoReturn:
    """Holds the place of what :mod:`.losses` and :mod:`.optimizers` compute by its name."""
    raise NotImplementedError


SCHEDULES: Definitions[Schedule] = Definitions(
    "schedule",
    "schedules",
    {schedule.__name__: only_version(schedule) for schedule in (cosine, constant, step, ramp)},
    RecipeError,
    numbered=True,
)
LOSSES: Definitions[Loss] = Definitions(
    "loss",
    "losses",
    dict.fromkeys(("cross-entropy", "distillation"), only_version(_computed_elsewhere)),
    RecipeError,
    numbered=True,
)
OPTIMIZERS: Definitions[OptimizerFactory] = Definitions(
    "optimizer",
    "optimizers",
    dict.fromkeys(("sgd", "nesterov", "adamw"), only_version(_computed_elsewhere)),
    RecipeError,
    numbered=True,
)


def declare_schedule(name: str, *, version: int = 1) -> Callable[[Schedule], Schedule]:
    """Declare a schedule under a lasting name, for ``schedule=`` of a :class:`~tombola.Recipe`.

    The function takes ``(recipe, epoch)`` and returns the factor, 0 or above, by which the recipe's ``lr`` is
    multiplied. ``epoch`` is the place in the schedule, a float: 2.5 is the middle of the third epoch. It is
    called for each step; a warm-up of the recipe goes before it. Lengths of the recipe that were given in
    iterations are epochs here too: ``recipe.epochs`` may then be 2.5.

    version: to be raised when what it returns changes.

    Raises :class:`~tombola.errors.RecipeError` if the name is taken or the function takes something else.
    """
    return _declared_in(SCHEDULES, name, version, "(recipe, epoch)")


def declare_loss(name: str, *, version: int = 1) -> Callable[[Loss], Loss]:
    """Declare a loss under a lasting name, for ``loss=`` of a :class:`~tombola.Recipe`.

    The function takes logits float32 ``(B, classes)`` and labels int64 ``(B,)``, on the device that trains,
    and returns the loss of each example, ``(B,)``; their mean is minimised. It must not draw random numbers.

    version: to be raised when what it returns changes.

    Raises :class:`~tombola.errors.RecipeError` if the name is taken or the function takes something else.
    """
    return _declared_in(LOSSES, name, version, "(logits, labels)")


def declare_optimizer(name: str, *, version: int = 1) -> Callable[[OptimizerFactory], OptimizerFactory]:
    """Declare an optimizer under a lasting name, for ``optimizer=`` of a :class:`~tombola.Recipe`.

    The function takes the trainable parameters of a network, a list, and the recipe, and, if it has a third
    parameter ``names``, the names of the parameters in the same order; it returns a
    ``torch.optim.Optimizer``. Its ``step()`` is called without a closure. The learning rates of its groups
    follow the schedule: a group that begins at another rate than the recipe's keeps its ratio to it. Its
    ``state_dict()`` stands in checkpoints; what of it has the shape of a weight is 0 where that is pruned. On
    a GPU steps with it are plain ones, not captured.

    version: to be raised when what it returns changes.

    Raises :class:`~tombola.errors.RecipeError` if the name is taken or the function takes something else.
    """
    return _declared_in(OPTIMIZERS, name, version, "(parameters, recipe) or (parameters, recipe, names)")


NAMES = "names"
"""The parameter by which a declared optimizer asks for the names of what it optimizes."""


def _declared_in(definitions: Definitions[D], name: str, version: int, takes: str) -> Callable[[D], D]:
    def register(function: D) -> D:
        if not callable(function):
            raise RecipeError(f"{definitions.kind} {name!r} is {function!r:.60}; it must be a function")
        signature = inspect.signature(function)
        further = (
            {NAMES: None} if definitions.kind == OPTIMIZERS.kind and NAMES in signature.parameters else {}
        )
        try:
            signature.bind(None, None, **further)
        except TypeError:
            raise RecipeError(
                f"{definitions.kind} {name!r} takes {signature}; it must take {takes}"
            ) from None
        definitions.declare(name, version, function)
        return function

    return register


def definition_of(definitions: Definitions[D], name: str) -> D:
    """What was defined under a name, as a recipe has it."""
    bare, version = parsed(name, RecipeError)
    return definitions.find(bare, version or 1)


def is_own(definitions: Definitions[D], name: str) -> bool:
    """Whether a name, as a recipe has it, was declared by a user."""
    return not definitions.is_built_in(parsed(name, RecipeError)[0])


def factor(recipe: Recipe, epoch: float) -> float:
    """The share of a recipe's learning rate that its schedule gives at a place in it, in epochs.

    Raises :class:`~tombola.errors.RecipeError` for a schedule that fails, or gives no rate.
    """
    schedule = definition_of(SCHEDULES, recipe.schedule)
    if SCHEDULES.is_built_in(recipe.schedule):
        return schedule(recipe, epoch)
    try:
        share = schedule(recipe, epoch)
        number = float(share)
    except Exception as error:  # a user's function
        raise RecipeError(
            f"schedule {recipe.schedule} failed at epoch {epoch:g}: {type(error).__name__}: {reason(error)}"
        ) from error
    if not 0 <= number < math.inf:
        raise RecipeError(
            f"schedule {recipe.schedule} gave {number:g} at epoch {epoch:g}; it must give 0 or above"
        )
    return number
