from collections.abc import Callable, Mapping, Sequence

import pytest

from tombola.errors import ExperimentError
from tombola.experiments.claims.claim import Checks, Claim, Find, claim, judge, needed
from tombola.experiments.claims.quantities import rank_correlation
from tombola.table.key import Key
from tombola.table.number import Cell, by_key, measured

FIRST, SECOND, THIRD, FOURTH = KEYS = tuple(
    Key(metric="val_accuracy", sparsity=sparsity) for sparsity in (0.0, 67.23, 89.26, 96.48)
)


def cells(*runs: Sequence[float], epochs: int = 20) -> dict[Key, Cell]:
    """The runs of the first key, of the second, and so on."""
    return by_key(measured(key, values, epochs=epochs) for key, values in zip(KEYS, runs, strict=False))


def made(checks: Callable[[Find], Checks], also: Callable[[Find], Checks] | None = None) -> Claim:
    return claim(7, "Tickets are better.", section="4", rests_on=("table2",), also=also)(checks)


@made
def tickets_are_better(find: Find) -> Checks:
    dense = find(FIRST)
    yield "at 67.23", find(SECOND) > dense
    yield "at 89.26", find(THIRD) > dense


@pytest.mark.parametrize(
    ("second", "third", "status"),
    [(91, 92, "holds"), (91, 89, "partly"), (89, 91, "partly"), (89, 88, "fails"), (90, 90, "fails")],
)
def test_all_some_or_none_of_the_comparisons_decide(second: float, third: float, status: str) -> None:
    verdict = judge(tickets_are_better, cells([90], [second], [third]))
    assert verdict.status == status
    assert [words for words, _ in verdict.comparisons] == ["at 67.23", "at 89.26"]
    assert [c.left.value for _, c in verdict.comparisons] == [second, third]


def test_missing_cells_are_named_and_nothing_is_decided() -> None:
    verdict = judge(tickets_are_better, cells([90]))
    assert verdict.status == "not computable yet"
    assert verdict.missing == (SECOND, THIRD)
    assert verdict.comparisons == ()
    assert str(verdict) == "C7: not computable yet, 2 cells are missing"


def test_what_can_be_compared_without_the_missing_cells_is_told_and_decides_nothing() -> None:
    for second, holding in ((91, 1), (89, 0)):
        verdict = judge(tickets_are_better, cells([90], [second]))
        assert (verdict.status, verdict.missing) == ("not computable yet", (THIRD,))
        assert [words for words, _ in verdict.comparisons] == ["at 67.23"]
        words = f"C7: not computable yet, 1 cell is missing; so far {holding} of 1 hold, 2 in all"
        assert str(verdict) == words


def test_an_undefined_number_decides_nothing() -> None:
    def follows(find: Find) -> Checks:
        yield "fine", find(FIRST) > 0
        yield "correlation", rank_correlation([find(FIRST), find(SECOND)], [1.0, 2.0]) > 0

    verdict = judge(made(follows), cells([90], [90]))
    assert (verdict.status, verdict.undefined) == ("not computable yet", ("correlation",))
    assert str(verdict) == "C7: not computable yet, undefined: correlation"
    assert judge(made(follows), cells([90], [91])).status == "holds"


def test_a_claim_without_comparisons_is_refused() -> None:
    with pytest.raises(ExperimentError, match="C7 lists no comparison; a claim needs at least one"):
        judge(made(lambda find: iter(())), {})


def test_what_a_claim_needs_is_known_before_there_are_cells() -> None:
    assert needed(tickets_are_better) == (FIRST, SECOND, THIRD)


def also_sparser(find: Find) -> Checks:
    yield "at 96.48", find(FOURTH) > find(FIRST)
    yield "in order", rank_correlation([find(THIRD), find(FOURTH)], [1.0, 2.0]) > 0


def test_comparisons_over_unprinted_figures_join_when_all_of_them_can_be_computed() -> None:
    extended = made(tickets_are_better.checks, also=also_sparser)
    assert needed(extended) == (FIRST, SECOND, THIRD)
    assert needed(extended, also=True) == KEYS
    without = judge(extended, cells([90], [91], [92]))
    assert (without.status, len(without.comparisons), len(without.cells)) == ("holds", 2, 3)
    undefined = judge(extended, cells([90], [91], [92], [92]))
    assert (undefined.status, len(undefined.comparisons), len(undefined.cells)) == ("holds", 2, 3)
    joined = judge(extended, cells([90], [91], [92], [89]))
    assert (joined.status, len(joined.comparisons), len(joined.cells)) == ("partly", 4, 4)


def test_a_verdict_says_on_how_many_runs_and_epochs_it_rests() -> None:
    verdict = judge(tickets_are_better, cells([90, 90.1], [95], [95, 95, 95], epochs=40))
    assert (verdict.runs, verdict.epochs) == ((1, 3), (40,))
    assert str(verdict) == "C7: holds, 2 of 2 comparisons hold, 1 to 3 runs of 40 epochs"
    mixed: Mapping[Key, Cell] = cells([90], [91], [92]) | cells([90], epochs=200)
    assert judge(tickets_are_better, mixed).epochs == (20, 200)
    assert str(judge(tickets_are_better, mixed)).endswith("1 run of 20 and 200 epochs")


def test_pairs_of_noise_copies_are_not_called_runs() -> None:
    height = Key(metric="barrier", over="pairs")

    def of_both(find: Find) -> Checks:
        yield "barrier", find(height) < 10
        yield "accuracy", find(FIRST) > 50

    barriers = by_key([measured(height, [1, 2, 3], epochs=20)])
    both = judge(made(of_both), cells([90, 91]) | barriers)
    assert (both.runs, both.behind) == ((2, 2), "2 runs and 3 pairs of 3 noise copies of one run")

    def of_barriers(find: Find) -> Checks:
        yield "barrier", find(height) < 9

    verdict = judge(made(of_barriers), barriers)
    assert verdict.runs is None
    assert str(verdict) == (
        "C7: holds, 1 of 1 comparison holds, 3 pairs of 3 noise copies of one run of 20 epochs"
    )


@pytest.mark.parametrize(
    ("second", "third", "status", "within"),
    [
        # Each cell has a spread of 1 over three runs; the interval of a difference reaches 2.27.
        (95, 96, "holds", False),
        (92, 96, "undecided", True),  # one turned around: partly
        (92, 92, "undecided", True),
        (85, 84, "fails", False),
        (89, 84, "undecided", True),
        (95, 85, "partly", False),
        (95, 89, "undecided", True),  # turned around: holds
        (92, 85, "undecided", True),  # turned around: fails
        (92, 89, "undecided", True),
    ],
)
def test_a_verdict_that_gaps_within_the_noise_decide_is_undecided(
    second: float, third: float, status: str, within: bool
) -> None:
    runs = ([value - 1, value, value + 1] for value in (90, second, third))
    verdict = judge(tickets_are_better, cells(*runs))
    assert (verdict.status, verdict.within_noise) == (status, within)


@pytest.mark.parametrize(
    ("second", "third", "within"),
    [
        # 90 and the second have three runs, the third is a single one: its gap may be noise.
        (95, 96, None),
        (92, 96, True),  # one turned around: partly, whatever the other is
        (95, 85, None),  # were the other noise, all might hold
        (92, 85, True),
    ],
)
def test_what_hangs_on_a_gap_of_unknown_noise_is_not_called_certain(
    second: float, third: float, within: bool | None
) -> None:
    verdict = judge(tickets_are_better, cells([89, 90, 91], [second - 1, second, second + 1], [third]))
    assert verdict.within_noise is within


def test_clear_gaps_both_ways_make_partly_certain() -> None:
    def three(find: Find) -> Checks:
        yield from tickets_are_better.checks(find)
        yield "at 96.48", find(FOURTH) > find(FIRST)

    verdict = judge(made(three), cells(*([value - 1, value, value + 1] for value in (90, 95, 85, 92))))
    assert (verdict.status, verdict.within_noise) == ("partly", False)


def test_single_runs_say_nothing_of_noise() -> None:
    verdict = judge(tickets_are_better, cells([90], [90.01], [95]))
    assert (verdict.status, verdict.within_noise) == ("holds", None)
