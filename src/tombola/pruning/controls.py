"""Controls of a ticket: its mask permuted or random, its weights drawn anew, or the network left dense.

All take their weights from the dense start, never from the surviving weights alone, so that a ticket without
its dense start is refused rather than silently measured at zeros; controls of a ticket with trained weights
(learning-rate rewinding) take the dense start, too. What they return are tickets, to be trained and measured
like those of :mod:`tombola.pruning.prune`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch

from tombola import files, seeds
from tombola.cost import Cost
from tombola.errors import TicketError
from tombola.networks.frozen_rest import check_nothing_frozen
from tombola.pruning.allocation import check_scope
from tombola.registry import declare
from tombola.ticket import Mask, Ticket

RandomScope = Literal["global", "layerwise"]


@declare("permute", stored=False)
def permute(ticket: Ticket, *, seed: int = 0) -> Ticket:
    """The ticket with its mask permuted at random within each layer: layerwise sparsity and start are kept.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    ticket.dense_start()
    draws = seeds.generator("permutation", seed)
    mask: dict[str, torch.Tensor] = {}
    for name, keep in ticket.mask.items():
        order = torch.from_numpy(draws.permutation(keep.numel()))
        mask[name] = keep.reshape(-1)[order].reshape(keep.shape)
    return replace(ticket, mask=mask, trained=None)


@declare("randomize", stored=False)
def randomize(ticket: Ticket, *, seed: int = 0, scope: RandomScope = "global") -> Ticket:
    """The dense start under a mask drawn uniformly at random that keeps as many weights as the ticket's.

    scope: ``"global"`` draws over the whole network, so that every layer comes out about equally sparse;
        ``"layerwise"`` draws for each layer as many as the ticket keeps there. Such a mask is distributed as
        one that :func:`permute` gives, but drawn from a stream of its own.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    check_scope(scope, get_args(RandomScope))
    ticket.dense_start()
    draws = seeds.generator("random mask", seed)
    if scope == "layerwise":
        mask = {
            name: _random_mask(keep.numel(), int(keep.sum()), draws).reshape(keep.shape)
            for name, keep in ticket.mask.items()
        }
        return replace(ticket, mask=mask, trained=None)
    flat = _random_mask(ticket.total, ticket.kept, draws)
    return replace(ticket, mask=_in_layers(flat, ticket.mask), trained=None)


@declare("reinitialize", stored=False, cost=lambda ticket: Cost(result=replace(ticket, epoch=0)))
def reinitialize(ticket: Ticket, *, seed: int, keep_signs: bool = False) -> Ticket:
    """The ticket's mask over another initialisation of the same network, at epoch 0.

    keep_signs: prunable weights take only their magnitude from the new initialisation and keep the sign that
        they have in the ticket's dense start, at pruned positions too; for a rewound ticket that is the sign
        at the rewinding point. Everything else (biases, batch norm) is new. This is the reinitialisation
        "with signs" of Zhou et al. (2019); their signed constants keep one magnitude a layer instead.

    Raises :class:`~tombola.errors.TicketError` if the new initialisation is the ticket's own start or its
    pruned weights are frozen, and with ``keep_signs`` if the ticket does not carry its dense start.
    """
    check_nothing_frozen(ticket.network, ticket.start)
    state = ticket.network.initialized(seed).state_dict()
    start = {name: value.detach().clone() for name, value in state.items()}
    if files.fingerprint(start) == ticket.start_fingerprint:
        raise TicketError(f"seed {seed} is the initialisation that this ticket starts from; choose another")
    if keep_signs:
        signs = ticket.dense_start()
        start |= {name: _with_signs(start[name], signs[name]) for name in ticket.mask}
    return replace(
        ticket, start=start, start_fingerprint=files.fingerprint(start), complete=True, trained=None,
        epoch=0, step=0, steps=1,
    )  # fmt: skip


@declare("densify", stored=False, cost=lambda ticket: Cost(result=replace(ticket, density=1.0)))
def densify(ticket: Ticket) -> Ticket:
    """The dense start under a full mask: of a ticket at epoch 0 a random dense network.

    It stands at round 0, so that its training under a chain's noise number is the chain's own dense run.
    For a random dense network that the ticket does not come from, densify a reinitialised one.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    ticket.dense_start()
    mask = {name: torch.ones_like(keep) for name, keep in ticket.mask.items()}
    return replace(ticket, mask=mask, round=0, density=1.0, nonfinite=0, trained=None)


def _random_mask(total: int, kept: int, draws: np.random.Generator) -> torch.Tensor:
    """A flat mask that keeps ``kept`` of ``total`` positions, each choice of them equally likely."""
    flat = torch.zeros(total, dtype=torch.bool)
    flat[torch.from_numpy(draws.permutation(total)[:kept])] = True
    return flat


def _with_signs(magnitudes: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """The absolute values of ``magnitudes``, negative where ``signs`` is."""
    return torch.where(signs < 0, -magnitudes.abs(), magnitudes.abs())


def _in_layers(flat: torch.Tensor, like: Mask) -> dict[str, torch.Tensor]:
    """A flat mask cut into the layers of another mask."""
    parts = torch.split(flat, [keep.numel() for keep in like.values()])
    return {name: part.reshape(keep.shape) for (name, keep), part in zip(like.items(), parts, strict=True)}
