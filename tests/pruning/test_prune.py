import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import RecipeError, TicketError, TombolaError


def with_weights(run: tb.Run, seed: int, nonfinite: float = 0.0, levels: int = 50) -> tb.Run:
    """The run with other final weights: rounded, so that there are ties, and some of them not finite."""
    draws = np.random.default_rng(seed)
    weights = dict(run.weights)
    for name, keep in run.ticket.mask.items():
        values = (draws.integers(-levels, levels + 1, size=tuple(keep.shape)) / levels).astype(np.float32)
        values[draws.random(values.shape) < nonfinite] = draws.choice([math.nan, math.inf, -math.inf])
        weights[name] = torch.from_numpy(values) * keep
    return replace(run, weights=weights)


def test_learning_rate_rewinding_carries_the_trained_weights_under_the_same_mask(
    chain: list[tb.Run], same_bits: Callable[..., bool]
) -> None:
    run = chain[1]
    rewound = tb.prune(run, fraction=0.5)
    carried = tb.prune(run, fraction=0.5, rewinding="learning_rate")
    assert same_bits(carried.mask, rewound.mask)
    assert (carried.epoch, carried.round, carried.density) == (rewound.epoch, 2, rewound.density)
    assert same_bits(carried.start, rewound.start)
    assert carried.fingerprint != rewound.fingerprint
    weights = carried.weights()
    assert weights.keys() == run.weights.keys()
    for name, value in run.weights.items():
        expected = value * carried.mask[name] if name in carried.mask else value
        assert torch.equal(weights[name], expected)
    # Pruned again untrained, it keeps them, or goes back.
    assert tb.prune(carried, rewinding="learning_rate").trained is not None
    back = tb.prune(carried)
    assert back.trained is None
    assert same_bits(back.start, run.ticket.start)
    assert tb.prune(rewound, rewinding="learning_rate").trained is None  # there is nothing trained
    with pytest.raises(RecipeError, match="no rewinding 'rate'; known: learning_rate, weights"):
        tb.prune(run, rewinding="rate")  # type: ignore[arg-type]


def flat(state: dict[str, torch.Tensor], names: list[str]) -> np.ndarray:
    return np.concatenate([state[name].numpy().reshape(-1) for name in names])


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.floats(0.02, 0.9),
    st.sampled_from(["global", "layerwise"]),
    st.sets(st.sampled_from(["0.weight", "9.weight", "14.weight"])),
    st.sampled_from([0.0, 0.05, 0.6]),
    st.integers(1, 4),
)
def test_the_mask_of_every_round_is_that_of_a_stable_sort(
    run: tb.Run, seed: int, fraction: float, scope: str, exclude: set[str], nonfinite: float, rounds: int
) -> None:
    ranked = [name for name in run.ticket.mask if name not in exclude]
    for round_ in range(rounds):
        run = with_weights(run, seed + round_, nonfinite)
        before = run.ticket
        ticket = tb.prune(run, fraction=fraction, scope=scope, exclude=sorted(exclude))
        bad = 0
        for group in [[name] for name in ranked] if scope == "layerwise" else [ranked]:
            values, kept = flat(run.weights, group), flat(before.mask, group)
            rank = np.where(np.isfinite(values), np.abs(values), -1)
            bad += int((~np.isfinite(values) & kept).sum())
            positions = np.flatnonzero(kept)
            count = math.floor(len(values) * (1 - fraction) ** (round_ + 1) + 0.5)
            gone = positions[np.argsort(rank[positions], kind="stable")][: len(positions) - count]
            kept[gone] = False
            assert np.array_equal(flat(ticket.mask, group), kept)
        for name in exclude:
            assert torch.equal(ticket.mask[name], before.mask[name])
        assert ticket.round == before.round + 1
        assert ticket.nonfinite == bad
        run = replace(run, ticket=ticket)


def test_sparsity_over_thirty_rounds_is_that_of_the_paper_to_one_weight(run: tb.Run) -> None:
    for round_ in range(1, 31):
        run = replace(run, ticket=tb.prune(with_weights(run, round_)))
        assert abs(run.ticket.kept - 8456 * 0.8**round_) <= 1
        if round_ in (5, 10, 15, 20):
            # The paper's columns, in percent.
            assert 100 * run.ticket.sparsity == pytest.approx(
                {5: 67.23, 10: 89.26, 15: 96.48, 20: 98.85}[round_], abs=0.02
            )


def test_a_pruned_ticket_goes_back_to_the_start_and_its_place_in_the_schedule(chain: list[tb.Run]) -> None:
    ticket = tb.prune(chain[0])
    assert ticket.start is chain[0].ticket.start
    assert ticket.start_fingerprint == chain[0].ticket.start_fingerprint
    assert (ticket.epoch, ticket.network) == (1, chain[0].ticket.network)


def test_the_smallest_weight_goes_and_the_largest_stays(run: tb.Run) -> None:
    ticket = tb.prune(run, fraction=0.5)
    names = list(ticket.mask)
    size, kept = np.abs(flat(run.weights, names)), flat(ticket.mask, names)
    assert size[kept].min() >= size[~kept].max()


def test_a_mask_of_the_callers_own_loses_its_share_of_what_it_keeps(run: tb.Run) -> None:
    draws = np.random.default_rng(0)
    mask = {
        name: torch.from_numpy(draws.random(tuple(keep.shape)) < 0.5)
        for name, keep in run.ticket.mask.items()
    }
    ticket = run.ticket.with_mask(mask)
    kept = ticket.kept
    pruned = tb.prune(with_weights(replace(run, ticket=ticket), 1), fraction=0.2)
    assert abs(pruned.kept - 0.8 * kept) <= 0.5
    again = tb.prune(with_weights(replace(run, ticket=pruned), 2), fraction=0.2)
    assert abs(again.kept - 0.64 * kept) <= 1


def test_layerwise_pruning_after_global_pruning_takes_its_share_of_each_layer(chain: list[tb.Run]) -> None:
    before = chain[2].ticket.mask
    after = tb.prune(chain[2], fraction=0.2, scope="layerwise").mask
    for name, keep in after.items():
        assert abs(int(keep.sum()) - 0.8 * int(before[name].sum())) <= 1


def test_layers_that_are_not_excluded_any_more_lose_their_share_too(run: tb.Run) -> None:
    first = replace(run, ticket=tb.prune(run, fraction=0.5, exclude=["9.weight"]))
    second = tb.prune(first, fraction=0.5)
    assert second.kept == first.ticket.kept / 2


def test_non_finite_weights_go_first_by_position_and_are_counted(run: tb.Run) -> None:
    weights = dict(run.weights)
    weights["3.weight"] = weights["3.weight"].clone()
    weights["3.weight"].view(-1)[[5, 7]] = torch.tensor([math.inf, math.nan])
    weights["0.weight"] = weights["0.weight"].clone()
    weights["0.weight"].view(-1)[3] = -math.inf
    ill = replace(run, weights=weights)
    ticket = tb.prune(ill, fraction=2 / 8456)
    gone = {name: (~keep).reshape(-1).nonzero().flatten().tolist() for name, keep in ticket.mask.items()}
    assert gone == {"0.weight": [3], "3.weight": [5], "6.weight": [], "9.weight": [], "14.weight": []}
    assert ticket.nonfinite == 3
    # The next round names its own count, and pruned positions are no part of it.
    assert tb.prune(replace(ill, ticket=ticket), fraction=0.2).nonfinite == 1
    assert tb.prune(replace(run, ticket=ticket), fraction=0.2).nonfinite == 0


def test_a_loaded_run_is_pruned_like_the_saved_one_ties_and_all(
    run: tb.Run, tmp_path: Path, same_bits: Callable[..., bool]
) -> None:
    coarse = with_weights(run, 0, levels=1)
    coarse.save(tmp_path / "run")
    assert same_bits(tb.prune(tb.Run.load(tmp_path / "run")).mask, tb.prune(coarse).mask)


def test_pruning_leaves_the_run_as_it_was(run: tb.Run) -> None:
    before = {name: keep.clone() for name, keep in run.ticket.mask.items()}
    tb.prune(run, fraction=0.5)
    assert all(torch.equal(run.ticket.mask[name], keep) for name, keep in before.items())


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 20, math.nan])
def test_a_fraction_outside_0_to_1_is_refused(run: tb.Run, fraction: float) -> None:
    with pytest.raises(
        RecipeError, match=f"fraction is {fraction}; it must lie between 0 and 1, both excluded"
    ):
        tb.prune(run, fraction=fraction)


def test_an_unknown_scope_or_excluded_name_is_refused(run: tb.Run) -> None:
    with pytest.raises(RecipeError, match="no pruning scope 'layer'; did you mean 'layerwise'"):
        tb.prune(run, scope="layer")  # type: ignore[arg-type]
    with pytest.raises(TicketError, match=r"no prunable weight '1\.weight'"):
        tb.prune(run, exclude=["1.weight"])


def test_a_ticket_with_trained_weights_is_ranked_by_these(run: tb.Run) -> None:
    ticket = tb.prune(run, fraction=0.2, rewinding="learning_rate")
    again = tb.prune(ticket, fraction=0.5)
    for_run = tb.prune(replace(run, ticket=ticket, weights=ticket.weights()), fraction=0.5)
    assert all(torch.equal(again.mask[name], keep) for name, keep in for_run.mask.items())


def test_the_output_layer_can_be_pruned_at_half_the_rate(digits: tb.Data) -> None:
    """A fifth of the weights goes in all, of each layer a share in proportion to its rate."""
    ticket = tb.initialize("lenet300", digits)
    sizes = [keep.numel() for keep in ticket.mask.values()]
    assert sizes == [64 * 300, 300 * 100, 100 * 10]
    for number in range(1, 4):
        before = [int(keep.sum()) for keep in ticket.mask.values()]
        ticket = tb.prune(ticket, scope="layerwise", rates={"linear": 0.5})
        assert ticket.kept == math.floor(sum(sizes) * 0.8**number + 0.5)
        gone = [count - int(keep.sum()) for count, keep in zip(before, ticket.mask.values(), strict=True)]
        unit = sum(gone) / (before[0] + before[1] + before[2] / 2)
        expected = [unit * before[0], unit * before[1], unit * before[2] / 2]
        assert all(abs(count - exact) < 1 for count, exact in zip(gone, expected, strict=True))
        weights = ticket.start["linear.weight"].abs()
        assert weights[ticket.mask["linear.weight"]].min() >= weights[~ticket.mask["linear.weight"]].max()


def test_equal_rates_prune_as_none_and_the_longest_name_counts(digits: tb.Data) -> None:
    ticket = tb.initialize("lenet300", digits)
    plain = tb.prune(ticket, scope="layerwise")
    equal = tb.prune(ticket, scope="layerwise", rates={"groups": 0.5, "linear": 0.5})
    assert all(torch.equal(keep, plain.mask[name]) for name, keep in equal.mask.items())
    apart = tb.prune(
        ticket, scope="layerwise", rates={"groups": 1e-6, "groups.1.0.weight": 1, "linear": 1e-6}
    )
    assert [int((~keep).sum()) for keep in apart.mask.values()] == [0, 10_040, 0]
    # However small, they are rates in proportion; and 4 in 100 are more than the other layers have.
    tiny = tb.prune(ticket, scope="layerwise", rates={"groups": 1e-9, "linear": 1e-9})
    assert all(torch.equal(keep, plain.mask[name]) for name, keep in tiny.mask.items())
    most = tb.prune(ticket, fraction=0.96, scope="layerwise", rates={"groups.0": 1e-9, "linear": 1e-9})
    assert int(most.mask["groups.1.0.weight"].sum()) == 0
    assert most.kept == 2008
    # More than a layer has goes to the others.
    full = tb.prune(ticket, fraction=0.9, scope="layerwise", rates={"linear.weight": 1000})
    assert int(full.mask["linear.weight"].sum()) == 0
    assert full.kept == 5020


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": {"linear": 0.5}}, "rates are of scope 'layerwise', and scope is 'global'"),
        ({"rates": {"linear": 0}, "scope": "layerwise"}, "the rate of linear is 0; it must be above 0"),
        ({"rates": {"linear": math.nan}, "scope": "layerwise"}, "the rate of linear is nan"),
        ({"rates": [("linear", 1), ("linear", 2)], "scope": "layerwise"}, "give each name once"),
        ({"rates": "linear", "scope": "layerwise"}, "give a rate by name"),
        ({"rates": ["linear"], "scope": "layerwise"}, "give a rate by name"),
        ({"rates": {"liner": 0.5}, "scope": "layerwise"}, "no prunable weight, or module .* 'liner'"),
    ],
)
def test_rates_that_there_are_not_are_refused(digits: tb.Data, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TombolaError, match=message):
        tb.prune(tb.initialize("lenet300", digits), **options)
