"""Pruning of whole channels by the scales of batch norm: the tickets of Early-Bird (You et al., 2020).

A channel goes as network slimming takes it (Liu et al., 2017): all scales are ranked together by absolute
value, and of one that goes every weight into it and out of it is masked. Which these are follows from the
network (:mod:`tombola.networks.symmetry`). The ticket keeps its shape and is trained like any other.
"""

from __future__ import annotations

import numpy as np
import torch

from tombola.cost import HEADER_BYTES, RESULT_BYTES, Cost, Outline
from tombola.errors import RecipeError, TicketError
from tombola.measures.early_bird import norm_scales
from tombola.networks.symmetry import UnitGroup, symmetry
from tombola.pruning.allocation import keep_highest, nearest_count
from tombola.pruning.subject import ticket_of
from tombola.registry import declare
from tombola.ticket import Mask, Ticket
from tombola.training.losses import weights_of
from tombola.training.run import Run


def _channels_cost(subject: Outline) -> Cost:
    """No training; the mask as bits, and about the ticket that is left."""
    return Cost(disk=RESULT_BYTES + HEADER_BYTES + subject.weights / 8, result=subject)


@declare("prune-channels", cost=_channels_cost)
def prune_channels(subject: Run | Ticket, *, fraction: float) -> Ticket:
    """The ticket without the channels whose batch norm has the smallest scales.

    subject: a run, whose ticket's start is kept, or a ticket, by the scales that it has: of Early-Bird that
        which :func:`~tombola.pretrain` takes at the epoch that :func:`~tombola.early_bird` found.
    fraction: share of the scales that go, above 0 and below 1; 0.3, 0.5 and 0.7 as published. All layers are
        ranked together, the very mask that ``early_bird(of="channels")`` looks at.

    A channel that several layers share, as in a residual stream, goes if the scales of all of them do, where
    the published code gives each layer a choice of its own. Which share of the weights is left follows from
    that; biases and norms are not masked, and what reads a channel no longer reads it.

    Raises :class:`~tombola.errors.RecipeError` for a fraction that keeps all channels or none,
    :class:`~tombola.errors.NetworkError` for a network without batch norm or whose channels cannot be
    followed, and :class:`~tombola.errors.TicketError` for scales that are not finite, or a layer that would
    lose all its channels.
    """
    ticket, weights = ticket_of(subject), weights_of(subject)[1]
    names = list(norm_scales(ticket))
    scales = [weights[name].abs().double().cpu().numpy() for name in names]
    ranked = np.concatenate(scales)
    if not np.isfinite(ranked).all():
        raise TicketError("scales of batch norm are not all finite, as after a training that diverged")
    count = nearest_count(len(ranked), 1 - fraction) if 0 < fraction < 1 else 0
    if not 0 < count < len(ranked):
        raise RecipeError(
            f"fraction is {fraction}; of {len(ranked):,} channels it must keep some and prune some"
        )
    kept = keep_highest(ranked, np.ones(len(ranked), dtype=bool), count)
    ends = np.cumsum([len(layer) for layer in scales])[:-1]
    pruned = {name: ~keep for name, keep in zip(names, np.split(kept, ends), strict=True)}
    for name, gone in pruned.items():
        if gone.all():
            raise TicketError(
                f"all channels of {name.removesuffix('.weight')} would go, so that nothing passes it; "
                "take a smaller fraction"
            )
    mask = {name: keep.clone() for name, keep in ticket.mask.items()}
    for group in symmetry(ticket.network).groups:
        _mask_units(mask, group, pruned)
    return ticket.with_mask(mask)


def _mask_units(mask: Mask, group: UnitGroup, pruned: dict[str, np.ndarray]) -> None:
    """Mask, in place, all weights of the units of a group whose scales all go."""
    layers = [pruned[axis.name][axis.places[:, 0]] for axis in group.axes if axis.name in pruned]
    if not layers:
        return
    gone = np.logical_and.reduce(layers)
    for axis in group.axes:
        if axis.name in mask:
            places = torch.from_numpy(axis.places[gone].reshape(-1))
            rows = mask[axis.name][slice(*axis.rows)]
            rows.index_fill_(axis.dim, places, False)
