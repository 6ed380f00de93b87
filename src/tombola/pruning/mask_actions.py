"""Mask actions of Zhou et al. (2019): what kept and pruned weights are, in place of first values and zeros.

"Mask-1 actions" are on the weights that are kept. The first one, back to the start, is what tickets do
anyway; fresh draws are :func:`tombola.reinitialize`. The others take values from the dense start, and return
the ticket's mask over another start, at the same place in the schedule. The "mask-0 action" that freezes
pruned weights at their start is :func:`freeze_pruned`; it comes last, after controls and mask-1 actions.
Source: "Deconstructing lottery tickets: zeros, signs, and the supermask".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from tombola import files, seeds
from tombola.errors import RecipeError, TicketError, unknown
from tombola.networks.frozen_rest import (
    NETWORK,
    FrozenRestFactory,
    check_nothing_frozen,
    has_rest,
    rest_name,
    state_with_rest,
    state_without_rest,
)
from tombola.networks.network import FROZEN_REST
from tombola.registry import declare
from tombola.ticket import Mask, State, Ticket
from tombola.training.run import Run

Among = Literal["all", "kept"]
Shrunk = Literal["none", "pruned", "all"]


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

    Raises :class:`~tombola.errors.RecipeError` for a density or exponent out of range, and
    :class:`~tombola.errors.TicketError` for a layer that keeps nothing, or if the ticket does not carry its
    dense start.
    """
    if density is not None and not 0 < density <= 1:
        raise RecipeError(f"density is {density}; it must be above 0 and at most 1")
    if not math.isfinite(exponent):
        raise RecipeError(f"exponent is {exponent}; it must be finite, such as 1 or 0.5")
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


@declare("freeze-pruned", stored=False)
def freeze_pruned(ticket: Ticket, *, trained: Run | None = None, zero: Shrunk = "none") -> Ticket:
    """The ticket whose pruned weights stay at their values in its dense start, and are not trained.

    Its network is the same with a rest that never moves (``frozen-rest:resnet18@2``), where these values
    stand: as everywhere, the pruned weights themselves are 0, and the ticket's sparsity is the share that is
    not trained. Such a ticket is trained, measured and saved like any other, on a GPU by plain steps. Its
    next ticket, ``prune(run)``, has zeros at newly pruned positions until it is frozen again. Controls are
    taken before freezing.

    trained: a run of the mask search, by which ``zero`` tells weights that shrank, of smaller magnitude at
        its end than in the ticket's start. Weights that are 0 throughout the run, because rounds before it
        pruned them, count as shrunk: give the dense run, or in each round that of a frozen ticket.
    zero: which of them are 0 at the start: ``"none"``; of the ``"pruned"`` ones (their
        freeze_init_zero_mask), or ``"all"`` of them, of which kept ones are trained from 0
        (freeze_init_zero_all).

    Raises :class:`~tombola.errors.RecipeError` for a ``zero`` without a run, or another choice, and
    :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start or the run is of another
    network.
    """
    if zero not in get_args(Shrunk):
        raise RecipeError(unknown("choice of weights", str(zero), get_args(Shrunk)))
    if (zero == "none") != (trained is None):
        raise RecipeError(f"zero is {zero!r}; it goes with trained=, a run in which weights shrank")
    frozen = has_rest(ticket.network)
    start = state_without_rest(ticket.dense_start()) if frozen else dict(ticket.dense_start())
    mask = state_without_rest(ticket.mask) if frozen else ticket.mask
    rests = {name: start[name].masked_fill(keep, 0) for name, keep in mask.items()}
    for name, shrank in {} if trained is None else _shrunk(start, mask, trained).items():
        rests[name] = rests[name].masked_fill(shrank, 0)
        if zero == "all":
            start[name] = start[name].masked_fill(shrank & mask[name], 0)
    going_on = ticket.trained
    if going_on is not None:
        going_on = state_with_rest(state_without_rest(going_on) if frozen else going_on, rests)
    network = ticket.network
    if not frozen:
        factory = None if network.factory is None else FrozenRestFactory(network, network.maker())
        network = replace(network, name=f"{FROZEN_REST}{network.name}", factory=factory)
    return replace(
        ticket, network=network, start=state_with_rest(start, rests), start_fingerprint="",
        mask={f"{NETWORK}{name}": keep for name, keep in mask.items()}, trained=going_on,
    )  # fmt: skip


def _shrunk(start: State, mask: Mask, trained: Run) -> dict[str, Tensor]:
    """Where weights are smaller after a run than at the start; TicketError for a run of another network."""
    weights = trained.weights
    if has_rest(trained.ticket.network):
        weights = {
            name: value + trained.weights[rest_name(name)] if name in mask else value
            for name, value in state_without_rest(weights).items()
        }
    for name in mask:
        if name not in weights or weights[name].shape != start[name].shape:
            raise TicketError(
                f"the run is of network {trained.ticket.network.name}, which has no such {name}"
            )
    return {name: weights[name].abs() < start[name].abs() for name in mask}


def _from_values(ticket: Ticket, values: Mapping[str, Tensor]) -> Ticket:
    """The ticket over its dense start with these values of its prunable weights.

    Raises TicketError for a ticket whose pruned weights are frozen at other values.
    """
    check_nothing_frozen(ticket.network, ticket.start)
    start = {**ticket.dense_start(), **values}
    return replace(
        ticket, start=start, start_fingerprint=files.fingerprint(start), complete=True, trained=None
    )
