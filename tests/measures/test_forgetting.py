import itertools
import math
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.learning import (
    ForgettingCurve,
    forgetting_curve,
    forgetting_ranking,
    summed_events,
)
from tombola.training.run import ForgettingRecord


def presented(run: tb.Run, epochs: list[list[bool]]) -> tb.Run:
    """The run with another record: right or wrong for each image in each epoch."""
    record = ForgettingRecord.empty(len(epochs[0]))
    for right in epochs:
        record.present(torch.arange(len(right)), torch.tensor(right))
    return replace(run, forgetting=record)


def test_forgetting_by_hand(run: tb.Run) -> None:
    stories = ["1111", "0111", "1010", "0000", "1000"]
    epochs = [[story[epoch] == "1" for story in stories] for epoch in range(4)]
    found = tb.forgetting(presented(run, epochs))
    # Events 0, 0, 2, 0, 1: mean 0.6, squared deviations 0.36 * 3 + 1.96 + 0.16 = 3.2 over 4.
    assert found.events_mean == pytest.approx(0.6)
    assert found.events_std == pytest.approx(math.sqrt(0.8))
    assert found.unforgettable == pytest.approx(2 / 5)
    assert found.never_learned == 1


@given(st.integers(1, 8).flatmap(
    lambda images: st.lists(st.lists(st.booleans(), min_size=images, max_size=images), min_size=1, max_size=8)
))  # fmt: skip
def test_forgetting_is_that_of_an_independent_count(run: tb.Run, epochs: list[list[bool]]) -> None:
    stories = list(zip(*epochs, strict=True))
    events = [sum(a and not b for a, b in itertools.pairwise(story)) for story in stories]
    found = tb.forgetting(presented(run, epochs))
    assert found.events_mean == pytest.approx(statistics.mean(events))
    assert found.events_std == pytest.approx(statistics.stdev(events) if len(events) > 1 else 0)
    kept = sum(any(story) and not count for story, count in zip(stories, events, strict=True))
    assert found.unforgettable == pytest.approx(kept / len(stories))
    assert found.never_learned == sum(not any(story) for story in stories)


def test_an_image_that_was_never_shown_right_is_never_learned_and_not_unforgettable(run: tb.Run) -> None:
    found = tb.forgetting(presented(run, [[False, False], [False, False]]))
    assert (found.events_mean, found.unforgettable, found.never_learned) == (0.0, 0.0, 2)


def test_the_events_of_a_run_are_those_of_its_history(run: tb.Run, digits: tb.Data) -> None:
    total = sum(run.history.column("forgetting_events"))
    assert tb.forgetting(run).events_mean * len(digits.train) == pytest.approx(total)
    assert run.history[1].forgetting_events == 0  # nothing can be forgotten in the first epoch
    assert total > 0


def test_the_curve_is_a_count_of_each_epoch_from_the_record(
    start: tb.Ticket, digits: tb.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[int, bool]] = []
    present = ForgettingRecord.present

    def record(self: ForgettingRecord, indices: Tensor, right: Tensor) -> int:
        seen.append(dict(zip(indices.tolist(), right.tolist(), strict=True)))
        return present(self, indices, right)

    monkeypatch.setattr(ForgettingRecord, "present", record)
    run = tb.train(start, digits, tb.Recipe(epochs=4, batch_size=100))
    lost = [sum(a[image] and not b[image] for image in a) for a, b in itertools.pairwise(seen)]
    assert forgetting_curve(run) == ForgettingCurve((1, 2, 3, 4), (0, *lost))
    assert all(lost)


def test_the_curve_of_a_rewound_run_begins_after_its_ticket(chain: list[tb.Run]) -> None:
    assert forgetting_curve(chain[1]).epochs == (2, 3)


@given(
    st.integers(1, 12).flatmap(
        lambda images: st.lists(
            st.lists(st.booleans(), min_size=images, max_size=images), min_size=1, max_size=6
        )
    ),
    st.integers(0, 2),
)
def test_the_ranking_is_by_events_with_the_never_learned_last(
    run: tb.Run, epochs: list[list[bool]], seed: int
) -> None:
    stories = list(zip(*epochs, strict=True))
    difficulty = [
        sum(a and not b for a, b in itertools.pairwise(story)) if any(story) else math.inf
        for story in stories
    ]
    order = forgetting_ranking(presented(run, epochs), seed=seed).tolist()
    assert sorted(order) == list(range(len(stories)))
    assert [difficulty[image] for image in order] == sorted(difficulty)


def test_ties_of_the_ranking_are_broken_by_the_seed(run: tb.Run) -> None:
    # Images 0 to 39 were never forgotten, the others once.
    record = presented(run, [[True] * 80, [image < 40 for image in range(80)]])
    first, again, other = (forgetting_ranking(record, seed=seed).tolist() for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for order in (first, other):
        assert sorted(order[:40]) == list(range(40))
        assert order[:40] != list(range(40))


def test_every_image_of_a_tie_comes_first_equally_often(run: tb.Run) -> None:
    tied = presented(run, [[True] * 4])
    first = [int(forgetting_ranking(tied, seed=seed)[0]) for seed in range(400)]
    # A quarter of 400, within five standard deviations of 8.7.
    assert all(abs(first.count(image) - 100) < 44 for image in range(4))


def three_runs(run: tb.Run, epochs: list[list[list[bool]]]) -> list[tb.Run]:
    """Three runs that differ in their noise, each with a record of its own."""
    return [replace(presented(run, shown), noise=noise) for noise, shown in enumerate(epochs)]


def answers(*stories: str) -> list[list[bool]]:
    """Right or wrong epoch by epoch, of images that are told one by one."""
    return [[answer == "1" for answer in epoch] for epoch in zip(*stories, strict=True)]


def test_events_of_three_runs_are_summed_and_halved_by_hand(run: tb.Run) -> None:
    runs = three_runs(
        run,
        [answers("1010", "1111", "0000"), answers("1010", "1011", "0000"), answers("1100", "0000", "0111")],
    )
    found = tb.summed_forgetting(runs)
    # Events 2 + 2 + 1, 0 + 1 + 0 and 0: halves 2.5, 0.5 and 0; mean 1, squared deviations 2.25 + 0.25 + 1.
    assert found.events_mean == pytest.approx(1.0)
    assert found.events_std == pytest.approx(math.sqrt(3.5 / 2))
    assert (found.images, found.never_learned, found.failed) == (3, 2, any(each.failed for each in runs))


@given(st.integers(1, 6).flatmap(
    lambda images: st.lists(
        st.lists(st.lists(st.booleans(), min_size=images, max_size=images), min_size=1, max_size=6),
        min_size=3, max_size=3,
    )
))  # fmt: skip
def test_the_sum_over_three_runs_is_that_of_an_independent_count(
    run: tb.Run, epochs: list[list[list[bool]]]
) -> None:
    images = range(len(epochs[0][0]))
    events = [
        sum(old[image] and not new[image] for shown in epochs for old, new in itertools.pairwise(shown))
        for image in images
    ]  # fmt: skip
    found = tb.summed_forgetting(three_runs(run, epochs))
    assert found.events_mean == pytest.approx(sum(events) / 2 / len(events))
    assert found.events_std == pytest.approx(statistics.stdev(events) / 2 if len(events) > 1 else 0)
    assert found.events_mean == pytest.approx(
        1.5 * statistics.mean(tb.forgetting(each).events_mean for each in three_runs(run, epochs))
    )


# Mean and spread to two decimals, as worked out with numpy alone from the published records.
@pytest.mark.parametrize(
    ("configuration", "mean", "spread"), [("0.9/256", 8.31, 11.29), ("0.0/256", 4.25, 5.05)]
)
def test_records_of_three_real_runs_give_what_numpy_gives(
    configuration: str, mean: float, spread: float
) -> None:
    with np.load(Path(__file__).parents[1] / "first_reading" / "forgetting.npz") as file:
        parts = [
            {key: file[f"{configuration}, weight decay 0.0005, seed {seed}.{key}"] for key in
             ("events", "learned", "correct")}
            for seed in range(3)
        ]  # fmt: skip
    halves = np.mean([part["events"].astype(float) for part in parts], axis=0) * 1.5
    found = summed_events(
        [ForgettingRecord(**{key: torch.from_numpy(part[key]) for key in part}) for part in parts]
    )
    assert found.images == 50_000
    assert found.events_mean == pytest.approx(float(halves.mean()), abs=1e-9)
    assert found.events_std == pytest.approx(float(halves.std(ddof=1)), abs=1e-9)
    # With so many images the printed digits do not tell a sample from a population standard deviation.
    for std in (halves.std(ddof=0), halves.std(ddof=1)):
        assert (round(found.events_mean, 2), round(float(std), 2)) == (mean, spread)


def test_fewer_runs_one_run_twice_and_runs_on_other_images_are_refused(run: tb.Run) -> None:
    runs = three_runs(run, [answers("10", "11")] * 3)
    with pytest.raises(RecipeError, match=r"of 2 run\(s\) cannot be summed as the paper's; give 3"):
        tb.summed_forgetting(runs[:2])
    with pytest.raises(RecipeError, match="a run was given twice"):
        tb.summed_forgetting([*runs[:2], runs[0]])
    other = replace(presented(run, answers("10", "11", "01")), noise=5)
    with pytest.raises(TicketError, match=r"trained on 2, 2, 3 images; .* image by image"):
        tb.summed_forgetting([*runs[:2], other])
