import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.errors import TicketError
from tombola.training.run import NOT_MEASURED, Epoch, ForgettingRecord, History


@pytest.fixture
def history() -> History:
    return History(
        [
            Epoch(2, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, 2.3, 10.0, 0, 0.0),
            Epoch(3, 0.1, math.inf, 50.0, 1.5, 60.5, 12, 0.25),
        ]
    )


def test_a_history_is_a_sequence_of_rows_with_columns(history: History) -> None:
    assert len(history) == 2
    assert history[-1].test_accuracy == 60.5
    assert [row.epoch for row in history] == history.column("epoch") == [2, 3]
    assert history[1:] == (history[1],)
    assert history.table()[1]["forgetting_events"] == 12


def test_a_history_comes_back_from_its_tensors_undefined_values_and_all(history: History) -> None:
    again = History.from_tensors(history.tensors())
    assert repr(again.table()) == repr(history.table())
    assert isinstance(again[1].epoch, int)
    assert isinstance(again[1].forgetting_events, int)


def test_columns_of_different_lengths_are_refused(history: History) -> None:
    with pytest.raises(TicketError, match="columns of different lengths"):
        History.from_tensors(history.tensors() | {"history.lr": torch.zeros(3, dtype=torch.float64)})


@given(st.data(), st.integers(1, 8), st.integers(0, 8))
def test_forgetting_is_right_the_last_time_and_wrong_now(
    data: st.DataObject, images: int, epochs: int
) -> None:
    record = ForgettingRecord.empty(images)
    story: list[list[bool]] = [[] for _ in range(images)]
    for _ in range(epochs):
        order = data.draw(st.permutations(range(images)))
        shown = order[: data.draw(st.integers(1, images))]
        right = data.draw(st.lists(st.booleans(), min_size=len(shown), max_size=len(shown)))
        forgotten = 0
        for image, answer in zip(shown, right, strict=True):
            forgotten += bool(story[image]) and story[image][-1] and not answer
            story[image].append(answer)
        assert record.present(torch.tensor(shown), torch.tensor(right)) == forgotten
    for image, answers in enumerate(story):
        falls = sum(a and not b for a, b in itertools.pairwise(answers))
        assert int(record.events[image]) == falls
        assert bool(record.learned[image]) == any(answers)
        assert bool(record.correct[image]) == (bool(answers) and answers[-1])


def test_a_record_comes_back_from_its_tensors_as_a_copy() -> None:
    record = ForgettingRecord.empty(3)
    for right in ([True, True, False], [True, False, False]):
        record.present(torch.arange(3), torch.tensor(right))
    tensors = record.tensors()
    again = ForgettingRecord.from_tensors(tensors)
    assert (again.events.tolist(), again.learned.tolist(), again.correct.tolist()) == (
        [0, 1, 0], [True, True, False], [True, False, False],
    )  # fmt: skip
    again.present(torch.tensor([0]), torch.tensor([False]))
    assert record.events.tolist() == tensors["forgetting.events"].tolist() == [0, 1, 0]
