"""Scores against hand calculations, brute force and torch.nn.utils.prune."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import tombola as tb
from tombola import files
from tombola.errors import RecipeError, TicketError
from tombola.pruning.scores import ranked_values, score_names

Pruned = Callable[..., tb.Run]
ZHOU = [
    "magnitude", "small_final", "large_init", "small_init", "large_init_large_final",
    "small_init_small_final", "magnitude_increase", "movement", "random",
]  # fmt: skip


@pytest.fixture
def pruned(run: tb.Run) -> Pruned:
    """Makes a run of a made-up network of one or more layers: first weights, final weights, mask."""

    def make(
        start: Mapping[str, Tensor], final: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None = None
    ) -> tb.Run:
        mask = mask or {name: torch.ones(value.shape, dtype=torch.bool) for name, value in start.items()}
        density = sum(int(keep.sum()) for keep in mask.values()) / sum(v.numel() for v in start.values())
        ticket = replace(run.ticket, start=start, mask=mask, density=density, start_fingerprint="")
        return replace(run, ticket=ticket, weights=final)

    return make


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}


START = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 0.5, -0.25]])
FINAL = torch.tensor([[-1.5, -2.0, 0.5], [-5.0, 2.5, -1.0]])


def test_the_criteria_of_zhou_are_there() -> None:
    assert score_names()[: len(ZHOU)] == ZHOU


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("magnitude", [1.5, 2.0, 0.5, 5.0, 2.5, 1.0]),
        ("small_final", [-1.5, -2.0, -0.5, -5.0, -2.5, -1.0]),
        ("large_init", [1.0, 2.0, 3.0, 4.0, 0.5, 0.25]),
        ("small_init", [-1.0, -2.0, -3.0, -4.0, -0.5, -0.25]),
        ("magnitude_increase", [0.5, 0.0, -2.5, 1.0, 2.0, 0.75]),
        ("movement", [2.5, 0.0, 2.5, 1.0, 2.0, 0.75]),
        # Ranks by the first weights 3 4 5 6 2 1 of 6, by the final ones 3 4 1 6 5 2.
        ("large_init_large_final", [3 / 6, 4 / 6, 1 / 6, 6 / 6, 2 / 6, 1 / 6]),
        # 4 3 2 1 5 6 and 4 3 6 1 2 5.
        ("small_init_small_final", [4 / 6, 3 / 6, 2 / 6, 1 / 6, 2 / 6, 5 / 6]),
    ],
)
def test_scores_by_hand(pruned: Pruned, score: str, expected: list[float]) -> None:
    made = pruned({"a": START}, {"a": FINAL})
    assert ranked_values(made, ["a"], score)["a"].tolist() == expected
    inverted = ranked_values(made, ["a"], score, invert=True)["a"]
    assert inverted.tolist() == [-value for value in expected]


def test_positions_do_not_depend_on_the_layout_in_memory(pruned: Pruned) -> None:
    weights = torch.arange(24.0).reshape(1, 2, 3, 4)
    laid_out = weights.contiguous(memory_format=torch.channels_last)
    for final in (weights, laid_out):
        values = ranked_values(pruned({"a": weights}, {"a": final}), ["a"])["a"]
        assert values.dtype == np.float32
        assert values.tolist() == list(range(24))


SHAPES = {"0.weight": (16, 9), "1.weight": (7, 16), "2.weight": (3, 7)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("score", "importance"),
    [
        ("magnitude", lambda start, final: final.abs()),
        ("large_init", lambda start, final: start.abs()),
        ("small_final", lambda start, final: 100 - final.abs()),
        ("movement", lambda start, final: (final - start).abs()),
        ("magnitude_increase", lambda start, final: 100 + final.abs() - start.abs()),
    ],
)
def test_masks_are_those_of_torch_nn_utils_prune(
    pruned: Pruned, score: str, importance: Callable[[Tensor, Tensor], Tensor], seed: int
) -> None:
    start, final = drawn(SHAPES, seed), drawn(SHAPES, seed + 100)
    # In double precision: 100 - |w| makes no ties of them.
    start, final = ({name: value.double() for name, value in state.items()} for state in (start, final))
    made = pruned(start, final)
    for fraction in (0.1, 0.5, 0.93):
        layers = [nn.Linear(shape[1], shape[0], dtype=torch.float64) for shape in SHAPES.values()]
        for layer, value in zip(layers, final.values(), strict=True):
            layer.weight.data = value
        total = sum(value.numel() for value in start.values())
        torch_prune.global_unstructured(
            [(layer, "weight") for layer in layers],
            pruning_method=torch_prune.L1Unstructured,
            importance_scores={
                (layer, "weight"): importance(start[name], final[name])
                for name, layer in zip(SHAPES, layers, strict=True)
            },
            amount=total - math.floor(total * (1 - fraction) + 0.5),
        )
        mask = tb.prune(made, fraction=fraction, score=score).mask
        for name, layer in zip(SHAPES, layers, strict=True):
            assert torch.equal(mask[name], layer.weight_mask.bool())


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.93])
def test_magnitude_in_each_layer_is_l1_unstructured_of_torch(pruned: Pruned, fraction: float) -> None:
    final = drawn(SHAPES, 7)
    mask = tb.prune(pruned(drawn(SHAPES, 6), final), fraction=fraction, scope="layerwise").mask
    for name, (rows, columns) in SHAPES.items():
        layer = nn.Linear(columns, rows)
        layer.weight.data = final[name]
        count = rows * columns
        torch_prune.l1_unstructured(layer, "weight", count - math.floor(count * (1 - fraction) + 0.5))
        assert torch.equal(mask[name], layer.weight_mask.bool())


def top(values: list[float], percentile: float) -> set[int]:
    """The positions above a percentile of different values."""
    order = sorted(range(len(values)), key=lambda position: values[position])
    return set(order[math.floor(percentile * len(values) + 1e-9) :])


@given(st.integers(2, 40), st.integers(0, 10_000), st.floats(0.05, 0.95))
@pytest.mark.parametrize(("score", "sign"), [("large_init_large_final", 1), ("small_init_small_final", -1)])
def test_the_smaller_rank_keeps_the_intersection_of_two_top_sets(
    run: tb.Run, score: str, sign: int, size: int, seed: int, fraction: float
) -> None:
    """Against Zhou's search for the percentile at which both top sets have enough weights in common."""
    draws = np.random.default_rng(seed)
    values = [(1 + draws.permutation(size)) * draws.choice([-1, 1], size) for _ in range(2)]
    start, final = (torch.from_numpy(each.astype(np.float32)) for each in values)
    ticket = replace(
        run.ticket, start={"a": start}, mask={"a": torch.ones(size, dtype=torch.bool)}, start_fingerprint=""
    )
    mask = tb.prune(replace(run, ticket=ticket, weights={"a": final}), fraction=fraction, score=score).mask
    kept = set(np.flatnonzero(mask["a"].numpy()).tolist())
    by_start, by_final = ([sign * abs(float(value)) for value in each] for each in values)

    def common(percentile: float) -> set[int]:
        return top(by_start, percentile) & top(by_final, percentile)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if len(common(middle)) >= len(kept) else (low, middle)
    # Between two percentiles one weight or two leave the intersection.
    assert common(high) <= kept <= common(low)
    assert len(common(low)) - len(common(high)) <= 2


def test_ranks_are_taken_among_the_surviving_weights_of_each_layer(pruned: Pruned) -> None:
    start = {"a": torch.tensor([9.0, 1.0, 2.0, 3.0]), "b": torch.tensor([10.0, 20.0])}
    mask = {"a": torch.tensor([False, True, True, True]), "b": torch.tensor([True, True])}
    values = ranked_values(pruned(start, start, mask), ["a", "b"], "large_init_large_final")
    assert values["a"].tolist() == [0.0, 1 / 3, 2 / 3, 1.0]
    assert values["b"].tolist() == [1 / 2, 1.0]


def test_random_scores_go_by_noise_and_round_and_keep_any_weight_alike(run: tb.Run) -> None:
    first, again = (tb.prune(run, score="random", fraction=0.5) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    other = tb.prune(replace(run, noise=2), score="random", fraction=0.5)
    later = tb.prune(replace(run, ticket=replace(run.ticket, round=1)), score="random", fraction=0.5)
    names = list(first.mask)
    for ticket in (other, later):
        same = sum(int((first.mask[name] & ticket.mask[name]).sum()) for name in names)
        assert same == pytest.approx(0.25 * first.total, abs=5 * math.sqrt(first.total / 16))
    for keep in first.mask.values():
        assert int(keep.sum()) == pytest.approx(keep.numel() / 2, abs=5 * math.sqrt(keep.numel() / 4))


def test_weights_of_another_sign_go_first(pruned: Pruned) -> None:
    made = pruned({"a": START}, {"a": FINAL})
    gone = tb.prune(made, fraction=2 / 6, same_sign=True).mask["a"]
    # The first one has become negative; then the smallest, 0.5.
    assert gone.tolist() == [[False, True, False], [True, True, True]]
    for options in ({"score": "small_final"}, {"score": "magnitude", "invert": True}):
        mask = tb.prune(made, fraction=2 / 6, same_sign=True, **options).mask["a"]
        assert mask.tolist() == [[False, True, True], [False, True, True]]


def test_inverted_magnitude_is_small_final(run: tb.Run) -> None:
    assert (
        tb.prune(run, invert=True).fingerprint
        == tb.prune(run, score="small_final").fingerprint
        != tb.prune(run).fingerprint
    )


@pytest.mark.parametrize("options", [{}, {"invert": True}, {"same_sign": True}])
@pytest.mark.parametrize("score", ZHOU)
def test_weights_that_are_not_finite_go_first_under_every_score(
    run: tb.Run, score: str, options: dict[str, bool]
) -> None:
    weights = {name: value.clone() for name, value in run.weights.items()}
    weights["3.weight"].view(-1)[[5, 7]] = torch.tensor([math.inf, math.nan])
    weights["0.weight"].view(-1)[3] = -math.inf
    ticket = tb.prune(replace(run, weights=weights), fraction=2 / 8456, score=score, **options)
    gone = {name: (~keep).reshape(-1).nonzero().flatten().tolist() for name, keep in ticket.mask.items()}
    assert {name: positions for name, positions in gone.items() if positions} == {
        "0.weight": [3], "3.weight": [5],
    }  # fmt: skip
    assert ticket.nonfinite == 3


@pytest.mark.parametrize("score", ZHOU)
def test_a_run_without_a_finite_weight_is_pruned_by_position(run: tb.Run, score: str) -> None:
    weights = {name: torch.full_like(run.weights[name], math.nan) for name in run.ticket.mask}
    ticket = tb.prune(replace(run, weights=weights), fraction=0.5, score=score)
    kept = torch.cat([keep.reshape(-1) for keep in ticket.mask.values()])
    assert kept.tolist() == [False] * 4228 + [True] * 4228
    assert ticket.nonfinite == 8456


def test_a_ticket_is_pruned_by_the_weights_that_training_starts_from(start: tb.Ticket) -> None:
    by_final, by_start = (tb.prune(start, score=score) for score in ("magnitude", "large_init"))
    assert by_final.fingerprint == by_start.fingerprint
    assert (by_final.round, by_final.epoch, by_final.start) == (1, 0, start.start)
    sizes = torch.cat([start.start[name].abs().reshape(-1) for name in start.mask])
    kept = torch.cat([keep.reshape(-1) for keep in by_final.mask.values()])
    assert float(sizes[kept].min()) >= float(sizes[~kept].max())
    with pytest.raises(TicketError, match="score movement is the same for all weights that are left, so it"):
        tb.prune(start, score="movement")


def test_a_declared_score_is_known_by_name_and_as_itself(run: tb.Run) -> None:
    @tb.declare_score("signed")
    def signed(run: tb.Run) -> Mapping[str, Tensor]:
        return {name: run.weights[name] for name in run.ticket.mask}

    ticket = tb.prune(run, score="signed", fraction=0.5)
    assert tb.prune(run, score=signed, fraction=0.5).fingerprint == ticket.fingerprint
    weights = torch.cat([run.weights[name].reshape(-1) for name in ticket.mask])
    kept = torch.cat([keep.reshape(-1) for keep in ticket.mask.values()])
    assert float(weights[kept].min()) >= float(weights[~kept].max())


def test_a_score_gets_the_data_that_it_asks_for(run: tb.Run, digits: tb.Data) -> None:
    seen: list[tb.Data] = []

    @tb.declare_score("of-data")
    def of_data(run: tb.Run, data: tb.Data) -> Mapping[str, Tensor]:
        seen.append(data)
        return {name: run.weights[name].abs() for name in run.ticket.mask}

    assert tb.prune(run, score="of-data", data=digits).fingerprint == tb.prune(run).fingerprint
    assert seen == [digits]
    with pytest.raises(RecipeError, match="score of-data asks for data; give data="):
        tb.prune(run, score="of-data")
    short = tb.Recipe(epochs=1, batch_size=400)
    assert len(list(tb.imp(run.ticket, digits, short, rounds=2, score=of_data))) == 3
    assert seen == [digits] * 3


UNFIT: dict[str, Callable[[dict[str, Tensor]], object]] = {
    r"gave \(72,\) for 0\.weight; it must be a tensor \(8, 1, 3, 3\)": lambda weights: {
        name: value.reshape(-1) for name, value in weights.items()
    },
    r"gave a float for 0\.weight; it must be a tensor": lambda weights: dict.fromkeys(weights, 1.0),
    r"gave nothing for 14\.weight; it must score every prunable weight": lambda weights: {
        name: value for name, value in weights.items() if name != "14.weight"
    },
    r"is NaN for some of 3\.weight; it must be a number": lambda weights: (
        weights | {"3.weight": weights["3.weight"] * math.nan}
    ),
    "is the same for all weights that are left, so it ranks nothing": lambda weights: {
        name: torch.ones_like(value) for name, value in weights.items()
    },
    "gave a list; it must be a dict of a tensor for each weight": lambda weights: list(weights.values()),
}


@pytest.mark.parametrize("words", UNFIT)
def test_scores_that_do_not_fit_are_refused_in_one_line(run: tb.Run, words: str) -> None:
    def unfit(run: tb.Run) -> object:
        return UNFIT[words]({name: run.weights[name] for name in run.ticket.mask})

    tb.declare_score("unfit")(unfit)  # type: ignore[arg-type]
    with pytest.raises(TicketError, match=f"^score unfit {words}") as refusal:
        tb.prune(run, score="unfit")
    assert "\n" not in str(refusal.value)


def test_pruned_weights_may_score_anything(run: tb.Run) -> None:
    @tb.declare_score("of-survivors")
    def of_survivors(run: tb.Run) -> Mapping[str, Tensor]:
        return {
            name: run.weights[name].abs().masked_fill(~keep, math.nan)
            for name, keep in run.ticket.mask.items()
        }

    sparse = replace(run, ticket=tb.prune(run, fraction=0.5))
    assert tb.prune(sparse, score=of_survivors).fingerprint == tb.prune(sparse).fingerprint


def test_a_score_that_there_is_not_is_answered_with_the_nearest(run: tb.Run) -> None:
    with pytest.raises(RecipeError, match="no score 'movment'; did you mean 'movement'"):
        tb.prune(run, score="movment")
    with pytest.raises(RecipeError, match="no version 2 of score 'movement' here; there is 1"):
        tb.prune(run, score="movement@2")
    with pytest.raises(RecipeError, match="'movement@x' has the version 'x'; write a number from 1"):
        tb.prune(run, score="movement@x")
    with pytest.raises(RecipeError, match=r"score .*lambda.* is not declared; put @tombola\.declare_score"):
        tb.prune(run, score=lambda run: run.weights)
    with pytest.raises(RecipeError, match="the score name 'magnitude' is taken; choose another"):
        tb.declare_score("magnitude")(lambda run: run.weights)
    with pytest.raises(RecipeError, match=r"takes \(run, images\); it must take \(subject\) or \(subject, d"):
        tb.declare_score("odd")(lambda run, images: run.weights)


def declared(name: str, function: Any) -> str:
    """A score of this name, declared until the test ends."""
    tb.declare_score(name)(function)
    return name


def test_weights_of_another_sign_go_in_the_order_of_their_scores_over_all_layers(chain: list[tb.Run]) -> None:
    run = chain[0]
    weights = {name: value.clone() for name, value in run.weights.items()}
    for name in run.ticket.mask:
        flipped = torch.rand(weights[name].shape, generator=torch.Generator().manual_seed(len(name))) < 0.6
        weights[name] = torch.where(flipped, -run.ticket.start[name].sign(), run.ticket.start[name].sign())
        weights[name] *= run.weights[name].abs() + 1e-3
    run = replace(run, weights=weights)
    ticket = tb.prune(run, fraction=0.3, same_sign=True)
    before = run.ticket.mask
    gone = {name: before[name] & ~ticket.mask[name] for name in before}
    other = {name: weights[name].sign() != run.ticket.start[name].sign() for name in before}
    highest_gone = max(float(weights[name][gone[name]].abs().max()) for name in before if gone[name].any())
    lowest_kept = min(
        float(weights[name][ticket.mask[name] & other[name]].abs().min())
        for name in before
        if (ticket.mask[name] & other[name]).any()
    )
    assert all(bool(other[name][gone[name]].all()) for name in before)
    assert sum(bool(gone[name].any()) for name in before) > 1
    assert highest_gone <= lowest_kept


def test_a_score_may_work_in_place(chain: list[tb.Run]) -> None:
    def in_place(run: tb.Run) -> dict[str, torch.Tensor]:
        for name in run.ticket.mask:
            run.ticket.start[name].zero_()  # type: ignore[attr-defined]
            run.ticket.mask[name].zero_()
        return {name: run.weights[name].abs_() for name in run.ticket.mask}

    expected = tb.prune(chain[0])
    ticket = tb.prune(chain[0], score=declared("in-place", in_place))
    assert all(torch.equal(ticket.mask[name], expected.mask[name]) for name in ticket.mask)
    assert ticket.start_fingerprint == files.fingerprint(ticket.start)
    assert any(bool((value < 0).any()) for value in chain[0].weights.values())


def test_what_a_score_draws_is_the_same_in_every_process_and_leaves_no_trace(chain: list[tb.Run]) -> None:
    def drawn(run: tb.Run) -> dict[str, torch.Tensor]:
        return {name: torch.rand(keep.shape) for name, keep in run.ticket.mask.items()}

    score = declared("drawn", drawn)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = tb.prune(chain[0], score=score)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert tb.prune(chain[0], score=score).fingerprint == first.fingerprint


def test_random_pruning_of_other_starts_differs(digits: tb.Data) -> None:
    first, second = (tb.prune(tb.initialize("convnet", digits, seed=seed), score="random") for seed in (0, 5))
    assert any(not torch.equal(first.mask[name], second.mask[name]) for name in first.mask)


def test_an_error_within_a_score_names_it(chain: list[tb.Run]) -> None:
    score = declared("broken", lambda run: run.state)
    with pytest.raises(TicketError, match=r"score broken failed: AttributeError: .*'state'"):
        tb.prune(chain[0], score=score)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": None}, "fraction is None; it takes a number"),
        ({"fraction": "0.2"}, "fraction is '0.2'; it takes a number"),
        ({"fraction": [0.2, 0.3]}, "fraction is a list; it takes a number"),
        ({"exclude": None}, "exclude is None; it takes a list"),
        ({"same_sign": "no"}, "same_sign is 'no'; it takes True or False"),
        ({"invert": 1}, "invert is 1; it takes True or False"),
    ],
)
def test_settings_of_another_kind_are_refused(
    chain: list[tb.Run], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        tb.prune(chain[0], **options)


def test_numbers_of_numpy_are_numbers(chain: list[tb.Run]) -> None:
    plain = tb.prune(chain[0], fraction=0.3, invert=True)
    other = tb.prune(chain[0], fraction=np.float64(0.3), invert=np.True_)  # type: ignore[arg-type]
    assert other.fingerprint == plain.fingerprint


@pytest.mark.parametrize("function", [lambda *runs: {}, lambda run, *data: {}, lambda *, run: {}, 5])
def test_what_cannot_be_called_by_place_is_no_score(function: Any) -> None:
    with pytest.raises(RecipeError, match="it must"):
        tb.declare_score("odd")(function)


def test_as_many_fractions_as_rounds(start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    with pytest.raises(RecipeError, match="rounds is 1, but fraction has 2; give one for each round"):
        tb.imp(start, digits, recipe, rounds=1, fraction=[0.5, 0.2])
