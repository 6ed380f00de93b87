"""The sparsity of each layer."""

from __future__ import annotations

import pytest

import tombola as tb


def test_the_sparsity_of_a_layer_is_its_share_of_zeros(chain: list[tb.Run]) -> None:
    ticket = chain[2].ticket
    shares = tb.layer_sparsity(ticket)
    assert list(shares) == list(ticket.mask)
    for name, keep in ticket.mask.items():
        assert shares[name] == pytest.approx(int((~keep.bool()).sum()) / keep.numel())
    pruned = sum(shares[name] * keep.numel() for name, keep in ticket.mask.items())
    assert pruned / sum(keep.numel() for keep in ticket.mask.values()) == pytest.approx(ticket.sparsity)


def test_a_dense_network_has_no_sparse_layer(start: tb.Ticket) -> None:
    assert set(tb.layer_sparsity(start).values()) == {0.0}
