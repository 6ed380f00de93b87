"""Selections by score and at random, by hand and against sorting."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.errors import DataError
from tombola.lab.costs import Costs
from tombola.measures.example_scores import ExampleScores


def numbered(labels: list[int]) -> tb.Data:
    """A data set of those train labels; the pixel of each image is its number."""
    classes = max(labels) + 1
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    test = torch.zeros(classes, 1, 1, 1, dtype=torch.uint8)
    return tb.data_from_tensors((images, torch.tensor(labels)), (test, torch.arange(classes)), name="tiny")


def scored(values: list[float], hard: str = "high") -> ExampleScores:
    return ExampleScores("el2n", torch.tensor(values, dtype=torch.float64), hard)


def chosen(selection: tb.Selection) -> list[int]:
    return selection.indices.tolist()


def test_windows_by_hand() -> None:
    data = numbered([0, 0, 0, 0, 1, 1, 1, 1])
    scores = scored([3, 0, 8, 1, 5, 2, 7, 4])
    assert chosen(tb.select_by_score(scores, data, share=0.25)) == [2, 6]
    assert chosen(tb.select_by_score(scores, data, share=0.25, keep="easy")) == [1, 3]
    assert chosen(tb.select_by_score(scores, data, share=0.25, skip=0.25)) == [4, 7]
    assert chosen(tb.select_by_score(scores, data, share=0.5, balanced=True)) == [2, 6, 4, 0]
    window = tb.select_by_score(scores, data, share=0.25, skip=0.25, balanced=True)
    assert chosen(window) == [4, 0]
    # Of a margin low ones are hard.
    margins = scored([3, 0, 8, 1, 5, 2, 7, 4], "low")
    assert chosen(tb.select_by_score(margins, data, share=0.25)) == [1, 3]
    # An infinite score, such as that of an image that was never learned, is the hardest.
    forgetting = scored([3, 0, math.inf, 1, 5, 2, 7, 4])
    assert chosen(tb.select_by_score(forgetting, data, share=0.125)) == [2]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=6, max_size=40),
    st.sampled_from([0.2, 0.5, 1.0]),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from(["hard", "easy"]),
)
def test_nothing_outside_the_window_is_more_extreme_than_what_is_inside(
    story: list[tuple[int, int]], share: float, skip: float, keep: str
) -> None:
    labels, values = [0, 1, 2, *(label for label, _ in story)], [0, 1, 2, *(value for _, value in story)]
    data, scores = numbered(labels), scored([float(value) for value in values])
    skipped, count = (math.floor(part * len(labels) + 0.5) for part in (skip, share))
    if skipped + count > len(labels):
        with pytest.raises(DataError, match="together they must be at most 1"):
            tb.select_by_score(scores, data, share=share, skip=skip, keep=keep)
        return
    inside = chosen(tb.select_by_score(scores, data, share=share, skip=skip, keep=keep))
    assert len(set(inside)) == count
    ordered = sorted(values, reverse=keep == "hard")
    assert [values[index] for index in inside] == ordered[skipped : skipped + count]


def test_balanced_takes_the_share_of_every_class(digits: tb.Data) -> None:
    scores = ExampleScores("el2n", torch.arange(1198, dtype=torch.float64))
    selection = tb.select_by_score(scores, digits, share=0.1, balanced=True)
    totals = torch.bincount(digits.train.labels).tolist()
    counts = torch.bincount(digits.train.labels[selection.indices]).tolist()
    assert counts == [math.floor(0.1 * total + 0.5) for total in totals]
    unbalanced = tb.select_by_score(scores, digits, share=0.1)
    assert chosen(unbalanced) == list(range(1197, 1077, -1))


def test_equal_scores_stand_in_an_order_of_the_seed() -> None:
    data = numbered([0, 1] * 100)
    orders = [
        chosen(tb.select_by_score(scored([1.0] * 200), data, share=0.5, seed=seed)) for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert set(orders[0]) != set(orders[2])


def test_random_selections_are_nested_and_without_repetition(digits: tb.Data) -> None:
    large, small = (tb.random_selection(digits, share=share, seed=3) for share in (0.7, 0.2))
    assert large.count == round(0.7 * 1198)
    assert len(set(chosen(large))) == large.count
    assert chosen(large)[: small.count] == chosen(small)
    other = tb.random_selection(digits, share=0.7, seed=4)
    # Of two independent parts of 0.7 about 0.49 is in both.
    both = len(set(chosen(large)) & set(chosen(other))) / 1198
    assert 0.45 < both < 0.53


def test_selected_are_the_very_same_inputs(digits: tb.Data) -> None:
    selection = tb.Selection("by hand", torch.tensor([7, 3, 5]), 1198)
    part = tb.selected(digits, selection)
    assert torch.equal(part.train.images, digits.train.images[[3, 5, 7]])
    assert torch.equal(part.mean, digits.mean)
    assert selection.csv() == "image\n7\n3\n5\n"
    assert selection.share == pytest.approx(3 / 1198)


def test_what_cannot_be_ranked_or_does_not_fit_is_refused(digits: tb.Data) -> None:
    data = numbered([0, 0, 0, 1])
    for arguments, words in (
        ({"share": 0.0}, "share is 0.0; it must lie above 0"),
        ({"share": 0.1}, "share is 0.1, which leaves none of 4 images"),
        ({"share": 0.5, "skip": 1.0}, "skip is 1.0"),
        ({"share": 0.5, "keep": "hardest"}, "no end to keep 'hardest'; did you mean 'hard'"),
        ({"share": 0.3, "balanced": True}, "leaves no image of class"),
    ):
        with pytest.raises(DataError, match=words):
            tb.select_by_score(scored([1, 2, 3, 4]), data, **arguments)
    with pytest.raises(DataError, match=r"1 of the 4 el2n scores are not known \(NaN\)"):
        tb.select_by_score(scored([1, 2, math.nan, 4]), data, share=0.5)
    with pytest.raises(DataError, match="the scores are of 4 images, but digits has 1,198"):
        tb.select_by_score(scored([1, 2, 3, 4]), digits, share=0.5)
    with pytest.raises(DataError, match="the selection is of 4 images, but digits has 1,198"):
        tb.selected(digits, tb.Selection("by hand", torch.tensor([1]), 4))


def test_scores_and_selections_are_jobs_and_what_is_trained_on_them_has_keys_of_its_own(
    run: tb.Run, digits: tb.Data, recipe: tb.Recipe, tmp_path: object
) -> None:
    lab = tb.Lab(tmp_path)
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    scores = tb.job(tb.example_scores, start, "digits")
    mean = tb.job(tb.mean_scores, [scores, tb.job(tb.example_scores, start, "digits", score="el2n")])
    short = tb.Recipe(epochs=1, batch_size=100, lr=0.1)
    trainings = [
        tb.job(tb.train, start, tb.job(tb.selected, "digits", selection), short)
        for selection in (
            tb.job(tb.select_by_score, mean, "digits", share=0.2),
            tb.job(tb.select_by_score, mean, "digits", share=0.2, keep="easy"),
            tb.job(tb.random_selection, "digits", share=0.2),
            tb.job(tb.herding, start, "digits", share=0.2),
            tb.job(tb.k_center, start, "digits", share=0.2, balanced=True),
        )
    ]
    planned = [Costs().of(training) for training in trainings]
    assert [cost.epochs for cost in planned] == pytest.approx([0.2] * 5)
    lab.run([*trainings, scores]).raise_failures()
    by_hand = tb.example_scores(tb.initialize("convnet", digits), digits)
    assert torch.equal(lab.result(scores).values, by_hand.values)
    assert torch.equal(lab.result(mean).values, by_hand.values)
    hardest = by_hand.values.argsort(descending=True)[: round(0.2 * 1198)].sort().values
    expected = tb.train(tb.initialize("convnet", digits), tb.take(digits, hardest), short)
    assert lab.result(trainings[0]).accuracy == expected.accuracy
    rows = [number for number in lab.table(*trainings) if number.key.metric == "val_accuracy"]
    told = [(one.key.subset_criterion, one.key.subset_percent, dict(one.key.more)) for one in rows]
    assert told == [
        ("by_score", 20, {"example_score": "el2n"}),
        ("by_score", 20, {"example_score": "el2n", "keep": "easy"}),
        ("random", 20, {}),
        ("herding", 20, {}),
        ("k_center", 20, {"balanced": True}),
    ]
    numbers = {number.key.metric: number.value for number in lab.table(scores)}
    np.testing.assert_allclose(numbers["example-scores.mean"], by_hand.mean)
