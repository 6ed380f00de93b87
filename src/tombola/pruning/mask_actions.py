"""Mask actions of Zhou et al. (2019): what the weights of a mask start from in place of their first values.

These are "mask-1 actions", on the weights that are kept. The first one, back to the start, is what tickets
do anyway; fresh draws are :func:`tombola.reinitialize`. All take values from the dense start, and return the
ticket's mask over another start, at the same place in the schedule. Source: "Deconstructing lottery tickets:
zeros, signs, and the supermask".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from tombola import files, seeds
from tombola.errors import RecipeError, TicketError, unknown
from tombola.registry import declare
from tombola.ticket import Ticket

Among = Literal["all", "kept"]


@declare("shuffle-start", stored=False)
def shuffle_start(ticket: Ticket, *, seed: int = 0, among: Among = "all", keep_signs: bool = False) -> Ticket:
    """The ticket with the starting values of each layer shuffled within it.

    among: the values of ``"all"`` weights of a layer over all of its positions (their random_reinit), or
        those of its ``"kept"`` weights over these (their random_reshuffle).
    keep_signs: shuffle magnitudes alone, so that each position keeps its sign.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    if among not in get_args(Among):
        raise RecipeError(unknown("choice of weights", str(among), get_args(Among)))
    start = ticket.dense_start()
    draws = seeds.generator("shuffled start", seed)
    shuffled = {}
    for name, keep in ticket.mask.items():
        chosen = keep if among == "kept" else torch.ones_like(keep)
        values = start[name][chosen]
        moved = values[torch.from_numpy(draws.permutation(len(values)))]
        if keep_signs:
            moved = torch.where(values < 0, -moved.abs(), moved.abs())
        shuffled[name] = start[name].masked_scatter(chosen, moved)
    return _from_values(ticket, shuffled)


@declare("signed-constant", stored=False)
def signed_constant(ticket: Ticket, *, seed: int | None = None) -> Ticket:
    """The ticket whose weights keep their signs and have one magnitude a layer, its standard deviation.

    The deviation is over all weights of the layer, pruned ones too. A weight of 0 stays 0.

    seed: shuffle the signs of each layer (their rand_signed_constant); None for each weight's own.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    start = ticket.dense_start()
    constants = {}
    draws = None if seed is None else seeds.generator("shuffled signs", seed)
    for name in ticket.mask:
        signs = start[name].sign()
        if draws is not None:
            order = torch.from_numpy(draws.permutation(signs.numel()))
            signs = signs.reshape(-1)[order].reshape(signs.shape)
        constants[name] = signs * start[name].std(correction=0)
    return _from_values(ticket, constants)


@declare("rescale", stored=False)
def rescale(ticket: Ticket, *, density: float | None = None, exponent: float = 1.0) -> Ticket:
    """The ticket with the weights of each layer divided by a power of the share of them that is on.

    density: that share, above 0 and at most 1; None for what the mask keeps of each layer.
    exponent: 1 is the rescaling of Zhou et al., under which a layer's outputs have the mean that they have
        without the mask; 0.5 keeps their variance instead (Ramanujan et al., 2020: their scaled
        initialisations, of which the fan in is that of the weights that are on).

    Raises :class:`~tombola.errors.RecipeError` for a density out of range, and
    :class:`~tombola.errors.TicketError` for a layer that keeps nothing, or if the ticket does not carry its
    dense start.
    """
    if density is not None and not 0 < density <= 1:
        raise RecipeError(f"density is {density}; it must be above 0 and at most 1")
    start = ticket.dense_start()
    if density is None and (collapsed := ticket.collapsed_layers):
        raise TicketError(f"{collapsed[0]} keeps no weight, so that nothing scales it; give density=...")
    return _from_values(
        ticket,
        {
            name: start[name] * (density or int(keep.sum()) / keep.numel()) ** -exponent
            for name, keep in ticket.mask.items()
        },
    )


def _from_values(ticket: Ticket, values: Mapping[str, Tensor]) -> Ticket:
    """The ticket over its dense start with these values of its prunable weights."""
    start = {**ticket.dense_start(), **values}
    return replace(
        ticket, start=start, start_fingerprint=files.fingerprint(start), complete=True, trained=None
    )
