from collections import Counter

import pytest

import tombola as tb
from tombola.errors import JobError, RecipeError
from tombola.lab import stable
from tombola.lab.driver import Progress
from tombola.lab.stable import first_stable_epochs
from tombola.measures.first_stable import FirstStable, first_stable_epoch


class Rounds(Progress):
    """How many jobs each round of questions computed."""

    def __init__(self) -> None:
        self.missing: list[int] = []

    def begin(self, found: int, missing: int) -> None:
        self.missing.append(missing)


@pytest.fixture(scope="module")
def short() -> tb.Recipe:
    return tb.Recipe(epochs=3, batch_size=200, lr=0.1, momentum=0.0)


def start_of(seed: int) -> tb.Job:
    return tb.job(tb.initialize, "convnet", "digits", seed=seed)


def test_the_search_of_the_lab_is_that_of_the_library(lab: tb.Lab, digits: tb.Data, short: tb.Recipe) -> None:
    found = first_stable_epochs(lab, [start_of(1), start_of(2)], "digits", short, points=3, threshold=0.5)
    for seed, each in zip((1, 2), found, strict=True):
        start = tb.initialize("convnet", digits, seed=seed)
        assert each == first_stable_epoch(start, digits, short, points=3, threshold=0.5)


def test_a_search_started_anew_computes_nothing(lab: tb.Lab, short: tb.Recipe) -> None:
    rounds = [Rounds(), Rounds()]
    first, again = (
        first_stable_epochs(lab, [start_of(1)], "digits", short, points=3, progress=progress)
        for progress in rounds
    )
    assert first == again
    assert all(rounds[0].missing)
    assert not any(rounds[1].missing)
    assert len(rounds[0].missing) == len(rounds[1].missing)


def test_several_lengths_at_once_share_all_jobs_with_one_at_a_time(lab: tb.Lab, short: tb.Recipe) -> None:
    rounds = [Rounds(), Rounds()]
    together, single = (
        first_stable_epochs(lab, [start_of(1)], "digits", short, points=3, at_once=at_once, progress=progress)
        for at_once, progress in zip((4, 1), rounds, strict=True)
    )
    assert together[0].epoch == single[0].epoch
    assert list(together[0].instabilities) == [0, 1, 2]
    assert len(rounds[0].missing) == 1
    assert not any(rounds[1].missing)


def test_the_trunk_is_trained_once_to_its_end_and_once_along_its_points(
    lab: tb.Lab, short: tb.Recipe
) -> None:
    first_stable_epochs(lab, [start_of(1)], "digits", short, points=3, at_once=4)
    kinds = Counter(lab.store.description(name)["function"] for name in lab.store.names())
    # Lengths 0, 1 and 2: two branches each, and the trunk's end for all of them.
    assert kinds == {"initialize": 1, "train": 7, "trunk": 2, "instability": 3}


def test_free_slots_are_filled_with_lengths(
    lab: tb.Lab, short: tb.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def nothing(answers: object, budget: int, *, at_once: int, neighbours: int) -> tuple[int, ...]:
        seen.append(at_once)
        return ()

    monkeypatch.setattr(stable, "questions", nothing)
    starts = [start_of(1), start_of(2)]
    lab.run(starts).raise_failures()
    lab.workers = 12
    first_stable_epochs(lab, starts, "digits", short)  # two children a length: 12 / (2 * 2)
    first_stable_epochs(lab, starts, "digits", tb.Recipe(epochs=4))  # three, for the momentum: 12 / (2 * 3)
    lab.workers = 0
    first_stable_epochs(lab, starts, "digits", short)
    assert seen == [3, 3, 2, 2, 1, 1]


def test_a_search_of_the_callers_own_ticket(lab: tb.Lab, digits: tb.Data) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=400)
    (found,) = first_stable_epochs(lab, [tb.initialize("convnet", digits)], digits, recipe, points=3)
    assert isinstance(found, FirstStable)
    assert list(found.instabilities) == [0]


def test_no_start_or_a_pretrained_one_is_refused(lab: tb.Lab, short: tb.Recipe) -> None:
    with pytest.raises(RecipeError, match="no start to search from; give at least one"):
        first_stable_epochs(lab, [], "digits", short)
    late = tb.job(tb.pretrain, start_of(0), "digits", short, epochs=1)
    with pytest.raises(RecipeError, match=r"taken at epoch 1; .* searched from epoch 0"):
        first_stable_epochs(lab, [start_of(0), late], "digits", short)


def test_a_job_that_fails_ends_the_search(lab: tb.Lab) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=400, precision="bfloat16")
    with pytest.raises(JobError, match=r"job \w+ failed.*: precision 'bfloat16' is for GPUs"):
        first_stable_epochs(lab, [start_of(0)], "digits", recipe, points=3)
