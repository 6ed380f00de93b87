"""The trunk: one pretraining whose state is kept at several epochs, from which trainings branch off.

A trunk is a single training, so the state of its optimizer, its momentum, goes on from point to point; the
tickets taken at its points are to the bit those that ``pretrain`` returns. It is zero only in the branches.
The path of earlier points to a point depends on its epoch alone, so that as a job it has one name. The path
goes back by halves, so that a bisection over epochs mostly finds the next point on paths already trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tombola.cost import Cost
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError
from tombola.registry import declare
from tombola.seeds import NOISES, Streams
from tombola.ticket import State, Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import Mode
from tombola.training.estimate import trunk_cost
from tombola.training.length import steps_of_epoch
from tombola.training.loop import rewind_ticket, train_until
from tombola.training.preflight import check_rewind
from tombola.training.recipe import Recipe

# A point takes as much disk as a run with its momentum; on shorter stretches training again is cheaper.
_SHORTEST_HALF = 8


@dataclass(frozen=True, eq=False)
class Point:
    """The state of a trunk at one epoch: all that training on from there needs.

    epoch: its place in the schedule.
    weights: the ``state_dict``, on the CPU.
    momentum: that of each trainable parameter, by its name; of another optimizer all that it keeps, by names
        such as ``first_moment.conv.weight``. Empty for a recipe that keeps nothing.
    """

    epoch: int
    weights: State
    momentum: State


@declare("trunk", cost=trunk_cost, default_to=NOISES)
def trunk(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    epochs: int,
    after: Point | None = None,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Point:
    """Train a start to an epoch of the schedule; returns the state there, that of the optimizer included.

    epochs: place in the schedule of the point, in whole epochs; part of the recipe's budget.
    after: a point on the way there, of the same start, recipe and noise, to go on from.

    The other arguments and errors are as for :func:`~tombola.pretrain`, whose ticket :func:`ticket_at`
    returns.
    """
    data = load_data(data)
    check_rewind(epochs, recipe, steps_of_epoch(len(data.train), recipe.batch_size))
    ticket = start if after is None else ticket_at(start, after)
    if epochs <= ticket.epoch:
        raise RecipeError(f"the trunk is at epoch {ticket.epoch} already; go on to a later one than that")
    prefix = "momentum." if "momentum" in recipe.optimizer_states else ""
    kept = None
    if after is not None and recipe.keeps_state:
        kept = {f"{prefix}{name}": value for name, value in after.momentum.items()}
    streams = Streams.of(noise, start.round, order_noise, augmentation_noise)
    with train_until(ticket, data, recipe, (epochs, 0), streams, device, mode, watch, kept) as trained:
        flat_network = trained.engine.flat_network
        kept = flat_network.optimizer_state() if recipe.keeps_state else {}
        momentum = {name.removeprefix(prefix): value for name, value in kept.items()}
        return Point(epochs, flat_network.state(), momentum)


@declare("ticket_at", stored=False, cost=lambda point: Cost(result=point))
def ticket_at(start: Ticket, point: Point) -> Ticket:
    """The ticket taken at a point of the trunk of ``start``."""
    return rewind_ticket(start, point.weights, point.epoch)


def point_before(epoch: int) -> int:
    """The epoch of the point from which the trunk goes on to this one; 0 is its start.

    To 48 it goes by 8, 16, 32 and 40, to 43 by 8, 16, 32, 40 and 42.
    """
    step = epoch & -epoch  # the largest power of two that divides it
    return epoch - (step // 2 if step >= 2 * _SHORTEST_HALF else step)
