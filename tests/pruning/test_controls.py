from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola.errors import TicketError

Same = Callable[..., bool]


@pytest.fixture(scope="module")
def ticket(chain: list[tb.Run]) -> tb.Ticket:
    """A quarter of the weights, rewound to epoch 1."""
    return chain[2].ticket


def counts(ticket: tb.Ticket) -> list[int]:
    return [int(keep.sum()) for keep in ticket.mask.values()]


def test_a_permuted_ticket_keeps_the_count_of_each_layer_at_other_positions(ticket: tb.Ticket) -> None:
    permuted = tb.permute(ticket)
    assert counts(permuted) == counts(ticket)
    assert all(not torch.equal(permuted.mask[name], keep) for name, keep in ticket.mask.items())
    assert (permuted.epoch, permuted.round, permuted.kept) == (ticket.epoch, ticket.round, ticket.kept)


def test_a_permuted_tickets_weights_are_the_dense_start_times_the_permuted_mask(
    ticket: tb.Ticket, late: tb.Ticket
) -> None:
    permuted = tb.permute(ticket, seed=3)
    weights = permuted.weights()
    for name, keep in permuted.mask.items():
        assert torch.equal(weights[name], late.start[name] * keep)
        # At positions that the ticket itself has pruned, too.
        assert weights[name][keep & ~ticket.mask[name]].all()
    for name in late.start.keys() - permuted.mask.keys():
        assert torch.equal(weights[name], late.start[name])


def test_a_random_ticket_keeps_the_count_of_the_whole_network(ticket: tb.Ticket, late: tb.Ticket) -> None:
    random = tb.randomize(ticket)
    assert random.kept == ticket.kept
    assert counts(random) != counts(ticket)
    for name, keep in random.mask.items():
        assert torch.equal(random.weights()[name], late.start[name] * keep)
        # Uniform: about a quarter of every layer, within five standard deviations.
        share = float(keep.double().mean())
        assert abs(share - 0.25) < 5 * (0.25 * 0.75 / keep.numel()) ** 0.5


@pytest.mark.parametrize("control", [tb.permute, tb.randomize, tb.reinitialize])
def test_a_control_is_drawn_from_its_seed_alone(
    control: Callable[..., tb.Ticket], ticket: tb.Ticket, same_bits: Same
) -> None:
    before = torch.get_rng_state()
    first, again, other = (control(ticket, seed=seed) for seed in (1, 1, 2))
    assert same_bits(first.weights(), again.weights())
    assert not same_bits(first.weights(), other.weights())
    assert torch.equal(before, torch.get_rng_state())


def test_controls_draw_from_streams_of_their_own(ticket: tb.Ticket) -> None:
    dense = {name: torch.ones_like(keep) for name, keep in ticket.mask.items()}
    half = dict(dense)
    half["3.weight"] = torch.arange(dense["3.weight"].numel()).reshape(dense["3.weight"].shape) % 2 == 0
    start = ticket.with_mask(half)
    masks = [control(start, seed=1).mask["3.weight"] for control in (tb.permute, tb.randomize)]
    assert not torch.equal(*masks)


def test_a_reinitialized_ticket_has_the_mask_over_another_initialisation_at_epoch_0(
    ticket: tb.Ticket, digits: tb.Data, same_bits: Same
) -> None:
    again = tb.reinitialize(ticket, seed=5)
    assert same_bits(again.mask, ticket.mask)
    assert same_bits(again.start, tb.initialize("convnet", digits, seed=5).start)
    assert again.start_fingerprint == tb.initialize("convnet", digits, seed=5).start_fingerprint
    assert (again.epoch, again.round) == (0, ticket.round)


@pytest.mark.parametrize("control", [tb.permute, tb.randomize])
def test_a_file_without_the_dense_start_is_refused_and_one_with_it_works(
    control: Callable[..., tb.Ticket], ticket: tb.Ticket, tmp_path: Path, same_bits: Same
) -> None:
    ticket.save(tmp_path / "without")
    with pytest.raises(TicketError, match=r"does not carry its dense start .* save it with with_start=True"):
        control(tb.Ticket.load(tmp_path / "without"))
    ticket.save(tmp_path / "with", with_start=True)
    loaded = tb.Ticket.load(tmp_path / "with")
    assert same_bits(control(loaded, seed=2).weights(), control(ticket, seed=2).weights())


def test_a_file_without_the_dense_start_can_be_reinitialized(ticket: tb.Ticket, tmp_path: Path) -> None:
    ticket.save(tmp_path / "t")
    again = tb.reinitialize(tb.Ticket.load(tmp_path / "t"), seed=5)
    assert again.complete
    assert counts(tb.permute(again)) == counts(ticket)


def test_pretraining_a_sparse_ticket_gives_no_dense_start(
    ticket: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    later = tb.pretrain(ticket, digits, recipe, epochs=2)
    assert counts(later) == counts(ticket)
    with pytest.raises(TicketError, match="does not carry its dense start"):
        tb.permute(later)


def test_a_control_trains_like_any_ticket(ticket: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    run = tb.train(tb.permute(ticket), digits, recipe)
    for name, keep in run.ticket.mask.items():
        assert not run.weights[name][~keep].any()
    assert run.accuracy > 20
