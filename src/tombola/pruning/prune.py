"""One prune step of iterative magnitude pruning: a trained run becomes the next, sparser ticket.

The lowest-magnitude surviving weights of the trained run are removed (Algorithm 1 of the paper) and the rest
go back to the ticket's start, to the same place in the schedule: late rewinding needs no code of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola.cost import HEADER_BYTES, RESULT_BYTES, Cost, Outline
from tombola.errors import RecipeError, TicketError, unknown
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.run import Run

Scope = Literal["global", "layerwise"]


def _cost(run: Outline, fraction: float) -> Cost:
    pruned = replace(run, density=run.density * (1 - fraction))
    return Cost(disk=RESULT_BYTES + HEADER_BYTES + run.weights / 8, result=pruned)


@declare("prune", cost=_cost)
def prune(run: Run, *, fraction: float = 0.2, scope: Scope = "global", exclude: Sequence[str] = ()) -> Ticket:
    """The ticket of the next round.

    run: a trained ticket.
    fraction: share of the surviving weights to remove, between 0 and 1, both excluded.
    scope: rank the weights of all layers together (``"global"``) or each layer for itself (``"layerwise"``).
    exclude: names of weights that are left alone, such as ``"linear.weight"``.

    Raises :class:`~tombola.errors.RecipeError` for a fraction outside (0, 1) or an unknown scope and
    :class:`~tombola.errors.TicketError` for an excluded name that is no prunable weight.
    """
    ticket = run.ticket
    check_pruning(ticket, fraction, scope, exclude)
    ranked = [name for name in ticket.mask if name not in exclude]
    scores = {name: magnitude(run.weights[name]) for name in ranked}
    kept = {name: ticket.mask[name].numpy().reshape(-1) for name in ranked}
    allocate = keep_globally if scope == "global" else keep_layerwise
    chosen = allocate(scores, kept, ticket.density, fraction)
    mask = {
        name: torch.from_numpy(chosen[name]).reshape(keep.shape) if name in chosen else keep
        for name, keep in ticket.mask.items()
    }
    nonfinite = sum(int((scores[name][kept[name]] < 0).sum()) for name in ranked)
    density = ticket.density * (1 - fraction)
    return replace(ticket, mask=mask, round=ticket.round + 1, density=density, nonfinite=nonfinite)


def check_pruning(ticket: Ticket, fraction: float, scope: str, exclude: Sequence[str]) -> None:
    """Refuse settings under which a ticket cannot be pruned."""
    check_fraction(fraction)
    check_scope(scope)
    if isinstance(exclude, str):
        raise TicketError(f"exclude is {exclude!r}; it must be a list of names, such as [{exclude!r}]")
    for name in exclude:
        if name not in ticket.mask:
            raise TicketError(unknown("prunable weight", name, ticket.mask))
    if set(exclude) == set(ticket.mask):
        raise TicketError(
            f"nothing to prune: {ticket.network.name} has no prunable weight that is not excluded"
        )


def check_fraction(fraction: float) -> None:
    """Refuse a pruning fraction outside (0, 1)."""
    if not 0 < fraction < 1:
        raise RecipeError(f"fraction is {fraction}; it must lie between 0 and 1, both excluded")


def check_scope(scope: str) -> None:
    """Refuse a scope that there is not."""
    if scope not in get_args(Scope):
        raise RecipeError(unknown("pruning scope", scope, get_args(Scope)))


Scores = npt.NDArray[np.float32]


def magnitude(weights: Tensor) -> Scores:
    """Absolute values as a flat float32 array; a non-finite weight ranks below every finite one, at -1."""
    values = np.abs(weights.detach().cpu().numpy().reshape(-1))
    return np.where(np.isfinite(values), values, np.float32(-1))


Kept = npt.NDArray[np.bool_]


def nearest_count(total: int, density: float) -> int:
    """The number of weights out of ``total`` that stay at ``density``: nearest integer, half up."""
    return int(np.floor(total * density + 0.5))


def remaining_count(kept: Kept, density: float, fraction: float) -> int:
    """The number of weights that stay when ``fraction`` of the kept ones goes.

    density: what earlier rounds should have left; followed where they did.
    """
    count = int(kept.sum())
    if count == nearest_count(len(kept), density):
        return nearest_count(len(kept), density * (1 - fraction))
    return nearest_count(count, 1 - fraction)


def keep_highest(scores: Scores, kept: Kept, count: int) -> Kept:
    """The ``count`` highest-scoring of the kept positions; pruned positions never rank again.

    If no more than ``count`` positions are kept already, all of them stay.
    """
    excess = int(kept.sum()) - count
    if excess <= 0:
        return kept.copy()
    ranked = scores[kept]
    threshold = np.partition(ranked, excess - 1)[excess - 1]
    pruned = ranked < threshold
    ties = np.flatnonzero(ranked == threshold)
    pruned[ties[: excess - int(pruned.sum())]] = True
    result = kept.copy()
    result[kept] = ~pruned
    return result


def keep_globally(
    scores: Mapping[str, Scores], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """One ranking over all layers, in the order given; ``fraction`` of the kept weights goes."""
    before = np.concatenate([kept[name] for name in scores])
    joined = keep_highest(
        np.concatenate(list(scores.values())), before, remaining_count(before, density, fraction)
    )
    ends = np.cumsum([len(layer) for layer in scores.values()])[:-1]
    return dict(zip(scores, np.split(joined, ends), strict=True))


def keep_layerwise(
    scores: Mapping[str, Scores], kept: Mapping[str, Kept], density: float, fraction: float
) -> dict[str, Kept]:
    """A ranking for each layer; ``fraction`` of the kept weights of each goes."""
    return {
        name: keep_highest(layer, kept[name], remaining_count(kept[name], density, fraction))
        for name, layer in scores.items()
    }
