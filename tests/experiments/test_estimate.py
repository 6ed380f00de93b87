"""What a command says before its first epoch, against costs added up by hand."""

from pathlib import Path

import pytest

import tombola as tb
from tombola.experiments import estimate as module
from tombola.experiments.bound import Bound
from tombola.experiments.estimate import RunEstimate, duration_text
from tombola.lab.job import Job, all_needed
from tombola.lab.store import Store
from tombola.lab.training_progress import TrainingProgress

# Digits: 1,198 train and 599 test images, a test image counting a third.
IMAGES = 2 * (1198 + 599 / 3)


@pytest.fixture
def chain() -> tuple[Bound, list[Job]]:
    experiment = tb.Experiment(
        "chain", ["convnet"], ["digits"], tb.Recipe(epochs=2, batch_size=32), rounds=3, seeds=[0]
    )
    (jobs,) = experiment.chains()
    return experiment.at(), list(jobs)


def test_images_are_those_of_the_data() -> None:
    data = tb.load_data("digits")
    assert 2 * (len(data.train) + len(data.test) / 3) == pytest.approx(IMAGES)


def test_measured_speeds_give_the_time_before_the_first_epoch(
    chain: tuple[Bound, list[Job]], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    estimate = RunEstimate([chain[0]], store, speed={("convnet", 32): 100.0}, slots=8)
    # A chain is no faster for more slots: four trainings, one after the other.
    assert estimate.epochs == 8
    assert estimate.hours == pytest.approx(4 * IMAGES / 100 / 3600)
    line = estimate.line()
    assert line is not None
    assert line.startswith("estimate: 8 epochs, about 112 seconds by the speeds of tombola bench, ")
    assert " on disk (" in line
    assert line.endswith(" free)")
    training = {chain[1][0].name: TrainingProgress("train", 0.5, 2.0, 1.0, 50.0)}
    assert estimate.from_first_steps(training) is None  # said already


def test_without_speeds_the_first_steps_tell_once(
    chain: tuple[Bound, list[Job]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    estimate = RunEstimate([chain[0]], store, speed=None, slots=1)
    assert str(estimate.line()).endswith(" free); the time follows from the first steps")
    name = chain[1][0].name
    assert estimate.from_first_steps({}) is None
    assert estimate.from_first_steps({"other": TrainingProgress("train", 0.5, 2.0, 1.0, 50.0)}) is None
    assert estimate.from_first_steps({name: TrainingProgress("train", 0.0, 2.0)}) is None
    steps = {name: TrainingProgress("train", 0.5, 2.0, 1.0, 2 * IMAGES)}
    assert estimate.from_first_steps(steps) is None  # others may begin, too
    monkeypatch.setattr(module, "_STEADY", 0.0)
    line = estimate.from_first_steps(steps)
    assert line == "estimate from the first steps: about 2 seconds for all of it"
    assert estimate.from_first_steps({name: TrainingProgress("train", 0.5, 2.0, 1.0, 1.0)}) is None


def test_nothing_missing_needs_no_estimate(chain: tuple[Bound, list[Job]], tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in all_needed(chain[1]):
        store.folder(name).mkdir(parents=True)
    assert RunEstimate([chain[0]], store, slots=1).line() is None


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0, "about 1 second"), (40 / 3600, "about 40 seconds"), (119 / 3600, "about 119 seconds"),
        (12 / 60, "about 12 minutes"), (1, "about 1.0 hours"), (3.21, "about 3.2 hours"),
        (108, "about 4.5 days"),
    ],
)  # fmt: skip
def test_times_are_told_in_words(hours: float, text: str) -> None:
    assert duration_text(hours) == text
