"""One prune step of iterative pruning: a trained run becomes the next, sparser ticket.

The surviving weights of the trained run are scored (:mod:`tombola.pruning.scores`), by default by their
magnitude; the lowest leave the mask (Algorithm 1 of the paper; how many of which layer is said in
:mod:`tombola.pruning.allocation`), and the rest go back to the ticket's start, at the same place in the
schedule: late rewinding needs no code of its own. With learning-rate rewinding (Renda et al., 2020) they stay
as they were trained, and only the place in the schedule is the start's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any, Literal, TypedDict, TypeGuard, get_args

import numpy as np
import torch

from tombola.cost import HEADER_BYTES, RESULT_BYTES, Cost, Outline
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError, unknown
from tombola.pruning.allocation import Scope, allocation, check_scope
from tombola.pruning.scores import (
    DEFAULT,
    Score,
    nonfinite_count,
    ranked_values,
    wants_data,
    written_score,
)
from tombola.pruning.sensitivity import scored_in_one_batch
from tombola.pruning.subject import ticket_of
from tombola.registry import declare
from tombola.ticket import Ticket, apply_mask
from tombola.training.run import Run

Rewinding = Literal["weights", "learning_rate"]
Rates = Sequence[tuple[str, float]] | Mapping[str, float]
"""How fast layers are pruned, by name, in proportion to all others."""
REWINDINGS: tuple[Rewinding, ...] = get_args(Rewinding)


class RankingOptions(TypedDict, total=False):
    """The fields of :class:`Pruning` but its fraction, as keyword arguments of a search."""

    scope: Scope
    exclude: Sequence[str]
    score: str | Score
    same_sign: bool
    invert: bool
    rewinding: Rewinding
    rates: Rates


class PruningOptions(RankingOptions, total=False):
    """All fields of :class:`Pruning`, likewise."""

    fraction: float | Sequence[float]


@dataclass(frozen=True)
class Pruning:
    """How a round prunes.

    fraction: share of the surviving weights to remove, between 0 and 1, both excluded; one for all rounds, or
        a list with one for each.
    scope: rank the weights of all layers together (``"global"``), take the share from each layer
        (``"layerwise"``), or leave as many weights as ``"global"`` does, the same share of each layer
        (``"uniform"``) or shares after its dimensions (``"erk"``; Erdos-Renyi-Kernel, Evci et al., 2020).
    exclude: names of weights that are left alone, such as ``"linear.weight"``.
    score: what weights are ranked by, high kept: the name of a score, or a function under
        :func:`tombola.declare_score`. Those of Zhou et al. (2019) are ``"magnitude"`` (their large_final),
        ``"small_final"``, ``"large_init"``, ``"small_init"``, ``"large_init_large_final"``,
        ``"small_init_small_final"``, ``"magnitude_increase"``, ``"movement"`` and ``"random"``.
    same_sign: weights whose sign is another than at the start go first.
    invert: the lowest scores are kept.
    rewinding: what goes back to the start: ``"weights"`` and learning rate, or the ``"learning_rate"`` alone,
        so that the next round goes on from the trained weights (Renda et al., 2020).
    rates: of scope ``"layerwise"``: how fast layers are pruned in proportion to all others, which have 1, by
        the names of weights or of modules that hold them: ``{"linear": 0.5}`` prunes the output layer at half
        the rate, as Frankle & Carbin (2019) do. As many weights go in all as without. Pairs,
        ``[("linear", 0.5)]``, are the same.

    Raises :class:`~tombola.errors.RecipeError` for a setting out of range.
    """

    fraction: float | Sequence[float] = 0.2
    scope: Scope = "global"
    exclude: Sequence[str] = ()
    score: str | Score = DEFAULT
    same_sign: bool = False
    invert: bool = False
    rewinding: Rewinding = "weights"
    rates: Rates = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", _checked_fraction(self.fraction))
        check_scope(self.scope)
        if isinstance(self.exclude, str):
            raise RecipeError(
                f"exclude is {self.exclude!r}; it must be a list of names, such as [{self.exclude!r}]"
            )
        if not isinstance(self.exclude, Iterable):
            raise RecipeError(f"exclude is {self.exclude!r}; it must be a list of names")
        for name in ("same_sign", "invert"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise RecipeError(f"{name} is {value!r:.60}; it must be True or False")
            object.__setattr__(self, name, bool(value))
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if self.rewinding not in REWINDINGS:
            raise RecipeError(unknown("rewinding", str(self.rewinding), REWINDINGS))
        written_score(self.score)
        object.__setattr__(self, "rates", _checked_rates(self.rates, self.scope))

    def fraction_of(self, number: int) -> float:
        """The fraction of a round, the first of which is 1; RecipeError if none was given for it."""
        if not isinstance(self.fraction, Sequence):
            return self.fraction
        if number > len(self.fraction):
            raise RecipeError(
                f"rounds is {number:,}, but fraction has {len(self.fraction)}; give one for each round"
            )
        return self.fraction[number - 1]

    def prunings(self, rounds: int) -> Mapping[float, int]:
        """How many of the first rounds remove each fraction; errors as of :meth:`fraction_of`."""
        if not isinstance(self.fraction, Sequence):
            return {self.fraction: rounds}
        if rounds > 0:
            self.fraction_of(rounds)
        return Counter(self.fraction[:rounds])

    def options(self, number: int, data: object) -> dict[str, Any]:
        """The arguments of :func:`prune` for one round, counted likewise.

        data: what the score gets, if it asks for data.
        """
        options = {
            "fraction": self.fraction_of(number),
            "scope": self.scope,
            "exclude": self.exclude,
            "score": self.score,
            "same_sign": self.same_sign,
            "invert": self.invert,
            "rewinding": self.rewinding,
            "rates": self.rates,
        }
        return options | ({"data": data} if self._takes_data else {})

    @cached_property
    def _takes_data(self) -> bool:
        return wants_data(self.score)

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
        for name, _ in self._pairs:
            if not any(_holds(name, weight) for weight in prunable):
                raise TicketError(unknown(f"{kind}, or module that holds one,", name, prunable))

    @property
    def _pairs(self) -> tuple[tuple[str, float], ...]:
        """The rates, by name."""
        return tuple(self.rates.items() if isinstance(self.rates, Mapping) else self.rates)

    def rates_of(self, names: Sequence[str]) -> Mapping[str, float] | None:
        """The rate of each of some weights: that of the longest name that holds it; None without rates."""
        if not self.rates:
            return None
        longest_first = sorted(self._pairs, key=lambda pair: -len(pair[0]))
        return {name: next((rate for of, rate in longest_first if _holds(of, name)), 1.0) for name in names}


def _holds(name: str, weight: str) -> bool:
    """Whether a name is that of a weight or of a module that holds it."""
    return weight == name or weight.startswith(f"{name}.")


def _checked_rates(rates: object, scope: Scope) -> tuple[tuple[str, float], ...]:
    """Rates as pairs of names and plain numbers, by name; RecipeError for anything else."""
    pairs = list(rates.items() if isinstance(rates, Mapping) else rates if _is_list(rates) else [(rates,)])
    for pair in pairs:
        if not _is_list(pair) or len(pair) != 2 or not isinstance(pair[0], str):
            raise RecipeError(f"rates is {rates!r:.60}; give a rate by name, such as {{'linear': 0.5}}")
        if isinstance(pair[1], bool) or not isinstance(pair[1], Real) or not 0 < float(pair[1]) < math.inf:
            raise RecipeError(f"the rate of {pair[0]} is {pair[1]!r:.60}; it must be above 0 and finite")
    if pairs and scope != "layerwise":
        raise RecipeError(f"rates are of scope 'layerwise', and scope is {scope!r}; leave one of them out")
    if len(dict(pairs)) < len(pairs):
        raise RecipeError(f"rates is {rates!r:.60}; give each name once")
    return tuple(sorted((name, float(rate)) for name, rate in pairs))


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _checked_fraction(fraction: object) -> float | tuple[float, ...]:
    """A fraction, or one for each round, as plain numbers; RecipeError for anything else."""
    several = isinstance(fraction, Iterable) and not isinstance(fraction, str | bytes)
    fractions = tuple(fraction) if isinstance(fraction, Iterable) and several else (fraction,)
    for single in fractions:
        if not isinstance(single, Real):
            raise RecipeError(f"fraction is {fraction!r:.60}; it must be a number, or one for each round")
        if not 0 < float(single) < 1:
            raise RecipeError(f"fraction is {single}; it must lie between 0 and 1, both excluded")
    if not fractions:
        raise RecipeError("fraction is an empty list; give one for each round")
    numbers = tuple(map(float, fractions))
    return numbers if several else numbers[0]


def _prune_cost(run: Outline, fraction: float, rewinding: Rewinding) -> Cost:
    """No training; disk for the mask as bits and trained weights, and the ticket that is left."""
    pruned = replace(run, density=run.density * (1 - fraction))
    trained = 4 * pruned.weights * pruned.density if rewinding == "learning_rate" else 0
    return Cost(disk=RESULT_BYTES + HEADER_BYTES + run.weights / 8 + trained, result=pruned)


@declare("prune", version=2, unchanged={2: scored_in_one_batch}, cost=_prune_cost)
def prune(
    run: Run | Ticket,
    *,
    fraction: float = 0.2,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    score: str | Score = DEFAULT,
    same_sign: bool = False,
    invert: bool = False,
    rewinding: Rewinding = "weights",
    data: DataLike | None = None,
    rates: Rates = (),
) -> Ticket:
    """The ticket of the next round.

    run: a trained ticket, or one that is pruned as it is: its weights are those that training starts from.
    fraction: one number. scope, exclude, score, same_sign, invert, rewinding, rates: as for
        :class:`Pruning`.
    data: for a score that asks for data.

    Raises :class:`~tombola.errors.RecipeError` for a setting out of range or a score that lacks its data, and
    :class:`~tombola.errors.TicketError` for an excluded name that is no prunable weight, or scores that do
    not fit the weights, are NaN or rank nothing.
    """
    data = None if data is None else load_data(data)
    ticket = ticket_of(run)
    pruning = Pruning(fraction, scope, exclude, score, same_sign, invert, rewinding, rates)
    if isinstance(pruning.fraction, Sequence):
        raise RecipeError(f"fraction is {fraction}; one pruning takes one number")
    names = pruning.ranked(ticket)
    scores = ranked_values(run, names, score, same_sign=pruning.same_sign, invert=pruning.invert, data=data)
    kept = {name: ticket.mask[name].numpy().reshape(-1) for name in names}
    shapes = {name: ticket.mask[name].shape for name in names}
    allocate = allocation(scope, shapes, pruning.rates_of(names))
    still_kept = allocate(scores, kept, ticket.density, fraction)
    mask = {
        name: torch.from_numpy(still_kept[name]).reshape(keep.shape) if name in still_kept else keep
        for name, keep in ticket.mask.items()
    }
    weights = run.weights if isinstance(run, Run) else run.trained
    trained = apply_mask(weights, mask) if rewinding == "learning_rate" and weights is not None else None
    return replace(
        ticket, mask=mask, round=ticket.round + 1, density=ticket.density * (1 - fraction),
        nonfinite=nonfinite_count(run, names), trained=trained,
    )  # fmt: skip
