import itertools
import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tombola as tb
from tombola.measures.forgetting import ForgettingCurve, forgetting_curve, forgetting_ranking
from tombola.training.history import ForgettingRecord


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
