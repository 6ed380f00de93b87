from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.untrained import untrained
from tombola.pruning.controls import densify

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


def test_a_layerwise_random_mask_keeps_the_count_of_each_layer(ticket: tb.Ticket, late: tb.Ticket) -> None:
    random = tb.randomize(ticket, seed=1, scope="layerwise")
    assert counts(random) == counts(ticket)
    for name, keep in random.mask.items():
        assert torch.equal(random.weights()[name], late.start[name] * keep)
        assert not torch.equal(keep, ticket.mask[name])
        assert not torch.equal(keep, tb.permute(ticket, seed=1).mask[name])


@given(st.integers(0, 10), st.integers(0, 3))
def test_masks_of_controls_keep_the_counts_of_a_slow_count(start: tb.Ticket, tenths: int, seed: int) -> None:
    mask = {
        name: (torch.arange(keep.numel()) % 10 < tenths).reshape(keep.shape)
        for name, keep in start.mask.items()
    }
    sparse = start.with_mask(mask)
    slow = [sum(bool(kept) for kept in keep.flatten().tolist()) for keep in mask.values()]
    for control in (tb.permute, lambda t, seed: tb.randomize(t, seed=seed, scope="layerwise")):
        made = control(sparse, seed=seed).mask
        assert [sum(bool(kept) for kept in keep.flatten().tolist()) for keep in made.values()] == slow
    assert tb.randomize(sparse, seed=seed).kept == sum(slow)


def test_every_position_is_kept_equally_often(ticket: tb.Ticket) -> None:
    # 72 weights in the first layer, of which so many are kept; 300 draws, within five standard deviations.
    kept = counts(ticket)[0]
    for control in (tb.permute, lambda t, seed: tb.randomize(t, seed=seed, scope="layerwise")):
        hits = sum(control(ticket, seed=seed).mask["0.weight"].double() for seed in range(300))
        share = kept / 72
        assert (hits / 300 - share).abs().max() < 5 * (share * (1 - share) / 300) ** 0.5


def test_reinitialisation_with_signs_takes_new_magnitudes_under_the_signs_of_the_dense_start(
    ticket: tb.Ticket, late: tb.Ticket, digits: tb.Data
) -> None:
    again = tb.reinitialize(ticket, seed=5, keep_signs=True)
    fresh = tb.initialize("convnet", digits, seed=5).start
    assert (again.epoch, again.round, again.complete) == (0, ticket.round, True)
    for name, value in again.start.items():
        if name in ticket.mask:
            assert torch.equal(value.abs(), fresh[name].abs())
            # Pruned positions too, so that permuting it afterwards means what it says.
            assert torch.equal(value < 0, late.start[name] < 0)
        else:
            assert torch.equal(value, fresh[name])
    assert all(torch.equal(again.mask[name], keep) for name, keep in ticket.mask.items())
    assert again.start_fingerprint != tb.reinitialize(ticket, seed=5).start_fingerprint


def test_the_initialisation_that_a_ticket_has_already_is_refused(start: tb.Ticket) -> None:
    half = start.with_mask(
        {name: torch.arange(keep.numel()).reshape(keep.shape) % 2 == 0 for name, keep in start.mask.items()}
    )
    for keep_signs in (False, True):
        with pytest.raises(TicketError, match="seed 0 is the initialisation that this ticket starts from"):
            tb.reinitialize(half, seed=0, keep_signs=keep_signs)


def test_a_densified_ticket_is_the_dense_network_it_comes_from(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, same_run: Same, late: tb.Ticket
) -> None:
    dense = densify(chain[2].ticket)
    assert dense.fingerprint == late.fingerprint
    assert dense.sparsity == 0
    # Under the chain's noise number, its training is the chain's own dense run.
    assert same_run(tb.train(dense, digits, recipe, noise=3), chain[0])


def test_a_random_dense_network_is_at_chance(ticket: tb.Ticket, digits: tb.Data, same_bits: Same) -> None:
    random = densify(tb.reinitialize(ticket, seed=9))
    assert same_bits(random.weights(), tb.initialize("convnet", digits, seed=9).weights())
    assert abs(untrained(random, digits).accuracy - 10) < 6.2


@pytest.mark.parametrize(
    "control",
    [
        tb.permute,
        tb.randomize,
        lambda ticket: tb.randomize(ticket, scope="layerwise"),
        lambda ticket: tb.reinitialize(ticket, seed=3, keep_signs=True),
        densify,
    ],
)
def test_every_control_that_needs_the_dense_start_says_so(
    control: Callable[..., tb.Ticket], ticket: tb.Ticket, tmp_path: Path
) -> None:
    ticket.save(tmp_path / "t")
    with pytest.raises(TicketError, match=r"does not carry its dense start .* save it with with_start=True"):
        control(tb.Ticket.load(tmp_path / "t"))


def test_an_unknown_scope_of_a_random_mask_is_refused(ticket: tb.Ticket) -> None:
    with pytest.raises(RecipeError, match="no pruning scope 'layers'; did you mean 'layerwise'"):
        tb.randomize(ticket, scope="layers")


def test_controls_are_jobs_that_leave_the_names_of_older_ones(ticket: tb.Ticket) -> None:
    run = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", tb.Recipe())
    pruned = tb.job(tb.prune, run)
    assert tb.job(tb.randomize, pruned, scope="global").name == tb.job(tb.randomize, pruned).name
    assert tb.job(tb.reinitialize, pruned, seed=1, keep_signs=False).arguments.keys() == {"ticket", "seed"}
    assert tb.job(densify, pruned).needs == (pruned,)


def test_controls_of_a_ticket_with_trained_weights_take_the_dense_start(
    chain: list[tb.Run], same_bits: Callable[..., bool]
) -> None:
    carried = tb.prune(chain[1], fraction=0.5, rewinding="learning_rate")
    rewound = tb.prune(chain[1], fraction=0.5)
    for control in (tb.permute, tb.randomize, tb.densify):
        assert same_bits(control(carried).weights(), control(rewound).weights())
    assert tb.reinitialize(carried, seed=9).fingerprint == tb.reinitialize(rewound, seed=9).fingerprint
