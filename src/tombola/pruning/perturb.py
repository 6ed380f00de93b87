"""Starts moved within the axial subspace of their mask, A(m) = {w : w = m w} (Paul et al., 2023).

Paul, Chen, Larsen, Frankle, Ganguli & Dziugaite, "Unmasking the lottery ticket hypothesis: what's encoded in
a winning ticket's mask?". A pruning takes a rewound start by some distance to its projection on the next
mask; a start moved as far in a random direction tells whether training finds back from so far away
(:func:`tombola.pruning_robustness`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tombola import files, seeds
from tombola.cost import Cost
from tombola.errors import RecipeError, TicketError
from tombola.registry import declare
from tombola.ticket import Mask, State, Ticket


def flat(state: State, mask: Mask) -> Tensor:
    """The prunable weights of a state in one float64 tensor, in the order of the mask."""
    return torch.cat([state[name].double().flatten() for name in mask])


def pruned_distance(ticket: Ticket, mask: Mask) -> float:
    """The distance from a ticket's weights to their projection on another mask: what that takes away.

    Euclidean, over the prunable weights.
    """
    weights = ticket.weights()
    removed = (weights[name].double() * ~mask[name] for name in ticket.mask)
    return math.sqrt(sum(float((values**2).sum()) for values in removed))


@declare("perturb", stored=False, cost=lambda ticket: Cost(result=ticket))
def perturb(ticket: Ticket, *, distance: float, seed: int = 0) -> Ticket:
    """The ticket with its surviving weights moved by a distance in a random direction.

    distance: Euclidean, over the surviving weights; at least 0. All else stays: mask, weights at pruned
        positions, biases, batch norm, and place in the schedule.
    seed: number of the stream ``("perturbation", seed)``; the direction is uniform over the sphere.

    What moves is what training starts from: the start, or the trained weights of learning-rate rewinding.

    Raises :class:`~tombola.errors.RecipeError` for another distance, and
    :class:`~tombola.errors.TicketError` for a ticket without its dense start, or without a surviving weight.
    """
    if not (math.isfinite(distance) and distance >= 0):
        raise RecipeError(f"distance is {distance}; it must be finite and at least 0")
    if not ticket.kept:
        raise TicketError("the ticket keeps no weight, so nothing can be moved")
    start = ticket.dense_start()
    drawn = seeds.generator("perturbation", seed).standard_normal(ticket.kept)
    moves = torch.split(
        torch.from_numpy(drawn * (distance / float(np.linalg.norm(drawn)))),
        [int(keep.sum()) for keep in ticket.mask.values()],
    )
    before = start if ticket.trained is None else ticket.trained
    moved = dict(before)
    for (name, keep), move in zip(ticket.mask.items(), moves, strict=True):
        values = before[name].double()
        values[keep] += move
        moved[name] = values.to(before[name].dtype)
    if ticket.trained is not None:
        return replace(ticket, trained=moved)
    return replace(ticket, start=moved, start_fingerprint=files.fingerprint(moved))
