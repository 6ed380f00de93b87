import itertools
import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
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
