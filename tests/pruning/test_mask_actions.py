"""Mask actions against numpy: what moves, what stays, and by how much weights are scaled."""

import math

import numpy as np
import pytest
import torch

import tombola as tb
from tombola.errors import RecipeError, TicketError


@pytest.fixture(scope="module")
def ticket(start: tb.Ticket) -> tb.Ticket:
    """A ticket of round 1 that keeps 30% of the weights."""
    return tb.prune(start, fraction=0.7)


def values_of(ticket: tb.Ticket, name: str) -> np.ndarray:
    return ticket.start[name].numpy()


def test_all_values_of_a_layer_are_shuffled_within_it(start: tb.Ticket, ticket: tb.Ticket) -> None:
    shuffled = tb.shuffle_start(ticket, seed=1)
    for name in ticket.mask:
        before, after = values_of(start, name), values_of(shuffled, name)
        assert sorted(before.ravel()) == sorted(after.ravel())
        assert (before != after).mean() > 0.9
    assert shuffled.start_fingerprint != ticket.start_fingerprint
    assert (shuffled.round, shuffled.kept, shuffled.complete) == (1, ticket.kept, True)
    assert tb.shuffle_start(ticket, seed=1).fingerprint == shuffled.fingerprint
    assert tb.shuffle_start(ticket, seed=2).fingerprint != shuffled.fingerprint
    # What is no prunable weight stays.
    assert all(
        torch.equal(shuffled.start[name], start.start[name]) for name in start.start.keys() - ticket.mask
    )


def test_values_of_kept_weights_are_shuffled_among_these(ticket: tb.Ticket) -> None:
    shuffled = tb.shuffle_start(ticket, among="kept")
    for name, mask in ticket.mask.items():
        keep, before, after = mask.numpy(), values_of(ticket, name), values_of(shuffled, name)
        assert (before[~keep] == after[~keep]).all()
        assert sorted(before[keep]) == sorted(after[keep])


@pytest.mark.parametrize("among", ["all", "kept"])
def test_signs_can_stay_where_they_are(ticket: tb.Ticket, among: str) -> None:
    shuffled = tb.shuffle_start(ticket, among=among, keep_signs=True)  # type: ignore[arg-type]
    for name in ticket.mask:
        before, after = values_of(ticket, name), values_of(shuffled, name)
        assert (np.sign(before) == np.sign(after)).all()
        assert sorted(np.abs(before).ravel()) == sorted(np.abs(after).ravel())


def test_a_signed_constant_is_the_deviation_of_the_layer_with_the_signs_of_the_start(
    ticket: tb.Ticket,
) -> None:
    constant, shuffled = tb.signed_constant(ticket), tb.signed_constant(ticket, seed=3)
    for name in ticket.mask:
        before = values_of(ticket, name).astype(np.float64)
        expected = np.sign(before) * before.std()
        np.testing.assert_allclose(values_of(constant, name), expected, rtol=1e-5)
        assert sorted(values_of(constant, name).ravel()) == sorted(values_of(shuffled, name).ravel())
        assert (values_of(constant, name) != values_of(shuffled, name)).any()


def test_layers_are_rescaled_by_the_share_that_is_on(ticket: tb.Ticket) -> None:
    mean, variance, stated = (
        tb.rescale(ticket), tb.rescale(ticket, exponent=0.5), tb.rescale(ticket, density=0.25, exponent=0.5),
    )  # fmt: skip
    for name, mask in ticket.mask.items():
        before, ratio = values_of(ticket, name), mask.numel() / int(mask.sum())
        np.testing.assert_allclose(values_of(mean, name), before * ratio, rtol=1e-6)
        np.testing.assert_allclose(values_of(variance, name), before * np.sqrt(ratio), rtol=1e-6)
        np.testing.assert_array_equal(values_of(stated, name), before * 2)


def test_what_has_no_values_to_act_on_is_refused(ticket: tb.Ticket, tmp_path: object) -> None:
    ticket.save(f"{tmp_path}/ticket")
    surviving = tb.Ticket.load(f"{tmp_path}/ticket")
    for act in (tb.shuffle_start, tb.signed_constant, tb.rescale):
        with pytest.raises(TicketError, match="does not carry its dense start"):
            act(surviving)
    with pytest.raises(RecipeError, match="no choice of weights 'pruned'"):
        tb.shuffle_start(ticket, among="pruned")  # type: ignore[arg-type]
    for density in (0.0, 1.5):
        with pytest.raises(RecipeError, match="must be above 0 and at most 1"):
            tb.rescale(ticket, density=density)
    with pytest.raises(RecipeError, match="exponent is nan; it must be finite"):
        tb.rescale(ticket, exponent=math.nan)
    nothing = {
        name: torch.zeros_like(keep) if name == "3.weight" else keep for name, keep in ticket.mask.items()
    }
    with pytest.raises(TicketError, match=r"3\.weight keeps no weight"):
        tb.rescale(ticket.with_mask(nothing))
