"""One prune step of iterative magnitude pruning: a trained run becomes the next, sparser ticket.

The lowest-magnitude surviving weights of the trained run are removed (Algorithm 1 of the paper) and the rest
go back to the ticket's start, to the same place in the schedule: late rewinding needs no code of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from tombola.declared import declare
from tombola.errors import RecipeError, TicketError, unknown
from tombola.pruning.allocation import keep_globally, keep_layerwise
from tombola.pruning.scores import magnitude
from tombola.ticket import Ticket
from tombola.training.run import Run

Scope = Literal["global", "layerwise"]


@declare("prune")
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
