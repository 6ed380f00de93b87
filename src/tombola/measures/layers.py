"""Sparsity layer by layer: where global pruning takes its weights from."""

from __future__ import annotations

from tombola.registry import declare
from tombola.ticket import Ticket


@declare("layer-sparsity", stored=False)
def layer_sparsity(ticket: Ticket) -> dict[str, float]:
    """The share of pruned weights in each prunable tensor by name, from 0 to 1, in the network's order."""
    return {name: 1.0 - float(keep.double().mean()) for name, keep in ticket.mask.items()}
