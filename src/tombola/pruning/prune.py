"""One prune step of iterative magnitude pruning: a trained run becomes the next, sparser ticket.

The surviving weights of the trained run are scored by their magnitude, the lowest leave the mask (Algorithm 1
of the paper), and the rest go back to the ticket's start, at the same place in the schedule: late rewinding
needs no code of its own. Counts follow the exact density, so sparsity never drifts from 1 - 0.8^n.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, get_args

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
Scores = npt.NDArray[np.float32]
"""One for each weight of a layer, flat; a non-finite weight has -1."""
Kept = npt.NDArray[np.bool_]
"""Whether each weight of a layer is kept, flat."""


class RankingOptions(TypedDict, total=False):
    """The fields of :class:`Pruning` but its fraction, as keyword arguments of a search."""

    scope: Scope
    exclude: Sequence[str]


class PruningOptions(RankingOptions, total=False):
    """All fields of :class:`Pruning`, likewise."""

    fraction: float


@dataclass(frozen=True)
class Pruning:
    """How a round prunes.

    fraction: share of the surviving weights to remove, between 0 and 1, both excluded.
    scope: rank the weights of all layers together (``"global"``) or each layer for itself (``"layerwise"``).
    exclude: names of weights that are left alone, such as ``"linear.weight"``.

    Raises :class:`~tombola.errors.RecipeError` for a setting out of range.
    """

    fraction: float = 0.2
    scope: Scope = "global"
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise RecipeError(f"fraction is {self.fraction}; it must lie between 0 and 1, both excluded")
        check_scope(self.scope)
        if isinstance(self.exclude, str):
            raise RecipeError(
                f"exclude is {self.exclude!r}; it must be a list of names, such as [{self.exclude!r}]"
            )
        object.__setattr__(self, "exclude", tuple(self.exclude))

    def ranked(self, ticket: Ticket) -> list[str]:
        """The names of the weights of a ticket that are ranked, in order.

        Raises :class:`~tombola.errors.TicketError` for an excluded name that the ticket does not have, or if
        all are excluded.
        """
        self.check_names(ticket.mask)
        names = [name for name in ticket.mask if name not in self.exclude]
        if not names:
            raise TicketError(
                f"nothing to prune: {ticket.network.name} has no prunable weight that is not excluded"
            )
        return names

    def check_names(self, prunable: Collection[str], kind: str = "prunable weight") -> None:
        """Raises TicketError for an excluded name that is none of the prunable weights, called ``kind``."""
        for name in self.exclude:
            if name not in prunable:
                raise TicketError(unknown(kind, name, prunable))


def check_scope(scope: str) -> None:
    """Raises RecipeError for an unknown scope."""
    if scope not in get_args(Scope):
        raise RecipeError(unknown("pruning scope", scope, get_args(Scope)))


def _prune_cost(run: Outline, fraction: float) -> Cost:
    """No training; disk for the mask as bits, and the ticket that is left."""
    pruned = replace(run, density=run.density * (1 - fraction))
    return Cost(disk=RESULT_BYTES + HEADER_BYTES + run.weights / 8, result=pruned)


@declare("prune", cost=_prune_cost)
def prune(run: Run, *, fraction: float = 0.2, scope: Scope = "global", exclude: Sequence[str] = ()) -> Ticket:
    """The ticket of the next round.

    run: a trained ticket.
    fraction, scope, exclude: as for :class:`Pruning`.

    Raises :class:`~tombola.errors.RecipeError` for a setting out of range and
    :class:`~tombola.errors.TicketError` for an excluded name that is no prunable weight.
    """
    ticket, pruning = run.ticket, Pruning(fraction, scope, exclude)
    names = pruning.ranked(ticket)
    scores = {name: magnitude(run.weights[name]) for name in names}
    kept = {name: ticket.mask[name].numpy().reshape(-1) for name in names}
    allocate = keep_globally if scope == "global" else keep_layerwise
    still_kept = allocate(scores, kept, ticket.density, fraction)
    mask = {
        name: torch.from_numpy(still_kept[name]).reshape(keep.shape) if name in still_kept else keep
        for name, keep in ticket.mask.items()
    }
    nonfinite = sum(int((scores[name][kept[name]] < 0).sum()) for name in names)
    density = ticket.density * (1 - fraction)
    return replace(ticket, mask=mask, round=ticket.round + 1, density=density, nonfinite=nonfinite)


def magnitude(weights: Tensor) -> Scores:
    """Absolute values as a flat float32 array; a non-finite weight ranks below every finite one, at -1."""
    values = np.abs(weights.detach().cpu().numpy().reshape(-1))
    return np.where(np.isfinite(values), values, np.float32(-1))


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


def remaining_count(kept: Kept, density: float, fraction: float) -> int:
    """The number of weights that stay when ``fraction`` of the kept ones goes.

    density: what earlier rounds should have left; followed where they did.
    """
    count = int(kept.sum())
    if count == nearest_count(len(kept), density):
        return nearest_count(len(kept), density * (1 - fraction))
    return nearest_count(count, 1 - fraction)


def nearest_count(total: int, density: float) -> int:
    """The number of weights out of ``total`` that stay at ``density``: nearest integer, half up."""
    return int(np.floor(total * density + 0.5))
