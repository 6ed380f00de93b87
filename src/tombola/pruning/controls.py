"""Controls: what a ticket's mask and weights are held against.

Each takes its weights from the dense start, never from the surviving weights alone, so that a ticket without
its dense start is refused rather than silently measured at zeros.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from tombola import files, seeds
from tombola.declared import declare
from tombola.ticket import Mask, Ticket


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
    return replace(ticket, mask=mask)


@declare("randomize", stored=False)
def randomize(ticket: Ticket, *, seed: int = 0) -> Ticket:
    """The dense start under a mask drawn uniformly over the whole network; it keeps as many weights.

    Raises :class:`~tombola.errors.TicketError` if the ticket does not carry its dense start.
    """
    ticket.dense_start()
    draws = seeds.generator("random mask", seed)
    flat = torch.zeros(ticket.total, dtype=torch.bool)
    flat[torch.from_numpy(draws.permutation(ticket.total)[: ticket.kept])] = True
    return replace(ticket, mask=_split(flat, ticket.mask))


@declare("reinitialize", stored=False)
def reinitialize(ticket: Ticket, *, seed: int) -> Ticket:
    """The ticket's mask over another initialisation of the same network, at epoch 0."""
    state = ticket.network.initialized(seed).state_dict()
    start = {name: value.detach().clone() for name, value in state.items()}
    return replace(ticket, start=start, epoch=0, start_fingerprint=files.fingerprint(start), complete=True)


def _split(flat: torch.Tensor, like: Mask) -> dict[str, torch.Tensor]:
    """A flat mask cut into the layers of another."""
    parts = torch.split(flat, [keep.numel() for keep in like.values()])
    return {name: part.reshape(keep.shape) for (name, keep), part in zip(like.items(), parts, strict=True)}
