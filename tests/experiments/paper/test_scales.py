from typing import Any

import pytest

from tombola.errors import ExperimentError
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import SCALES, overridden, scale_named
from tombola.experiments.paper.settings import PAIRS, R18_C10, R34_TIN, Configuration

PAPER = scale_named("paper")


def test_the_paper_scale_is_as_printed() -> None:
    assert (PAPER.epochs, PAPER.rewind, PAPER.seeds, PAPER.copies) == (200, 2, 3, 3)
    assert {pair.dataset: PAPER.subjects[pair].rounds for pair in PAIRS} == {
        "CIFAR-10": 25, "CIFAR-100": 25, "TinyImageNet": 20,
    }  # fmt: skip
    assert {pair.name: PAPER.subjects[pair].lr for pair in PAIRS if PAPER.subjects[pair].lr != 0.1} == {
        "R34/TIN": 0.2
    }
    assert [PAPER.search_epochs(printed) for printed in (20, 50)] == [20, 50]
    assert PAPER.note == ""
    assert str(PAPER) == "scale paper"


def test_the_short_scale_is_a_tenth_of_it() -> None:
    short = scale_named("short")
    assert (short.epochs, short.seeds, short.columns) == (20, 2, PAPER.columns)
    assert [short.search_epochs(printed) for printed in (20, 50)] == [2, 5]
    assert short.subjects == PAPER.subjects


def test_a_budget_below_the_papers_is_told_with_its_own_number() -> None:
    assert PAPER.warning == ""
    assert scale_named("short").warning == "20 of the paper's 200 epochs a training"
    assert overridden(PAPER, epochs=40).warning == "40 of the paper's 200 epochs a training"
    assert overridden(PAPER, epochs=40, seeds=1).budget == (
        "scale paper, epochs 40, seeds 1: 40 epochs a training, 1 run"
    )
    assert scale_named("tiny").warning == scale_named("tiny").note


def test_the_tiny_scale_says_what_it_is_not() -> None:
    tiny = scale_named("tiny")
    assert "proves the machinery, not the science" in tiny.note
    assert {tiny.subjects[pair].network for pair in PAIRS} == {"convnet"}
    assert tiny.targets.keys() == PAPER.targets.keys()


def test_overridden_numbers_stand_in_the_name_and_leave_the_rest() -> None:
    scale = overridden(PAPER, epochs=40, seeds=1, configs=["0.0/256", "0.9/100"], rounds=10)
    assert (scale.epochs, scale.seeds, scale.copies) == (40, 1, 3)
    assert {scale.subjects[pair].rounds for pair in PAIRS} == {10}
    assert str(scale) == "scale paper, epochs 40, seeds 1, rounds 10, configs 0.0/256,0.9/100"
    assert (PAPER.epochs, PAPER.subjects[R34_TIN].rounds) == (200, 20)
    assert overridden(PAPER, epochs=None, lr=None) == PAPER


def test_an_initialisation_is_that_of_every_pair() -> None:
    scale = overridden(PAPER, init="kaiming-normal")
    assert {scale.subjects[pair].init for pair in PAIRS} == {"kaiming-normal"}
    assert str(scale) == "scale paper, init kaiming-normal"
    start = PaperJobs(scale).start(R18_C10, 0)
    assert start.arguments["init"] == "kaiming-normal"
    assert "init" not in PaperJobs(PAPER).start(R18_C10, 0).arguments


def test_chosen_configurations_keep_their_late_rewinding() -> None:
    scale = overridden(PAPER, configs=["0.9/100"])
    rewound = Configuration(0.9, 100, pretrained=True)
    assert scale.chosen((Configuration(0.0, 100), Configuration(0.9, 100), rewound)) == (
        Configuration(0.9, 100),
        rewound,
    )


def test_rates_and_rounds_are_those_of_every_pair() -> None:
    scale = overridden(PAPER, lr=0.05, rounds=7, columns=[2, 7])
    assert {(subject.lr, subject.rounds) for subject in scale.subjects.values()} == {(0.05, 7)}
    assert scale.columns == (2, 7)
    assert list(overridden(PAPER, rounds=7, stride=3).curve_rounds(R18_C10)) == [0, 3, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be a whole number, at least 2"),
        ({"epochs": 2}, "rewind is 2 of 2 epochs; it must leave at least one to train"),
        ({"rewind": 200}, "rewind is 200 of 200 epochs"),
        ({"seeds": 0}, "seeds is 0; it must be a whole number, at least 1"),
        ({"seeds": 1.5}, "seeds is 1.5; it must be a whole number"),
        ({"copies": 1}, "copies is 1; it must be a whole number, at least 2"),
        ({"rounds": 0}, "rounds is 0; it must be a whole number, at least 1"),
        ({"lr": 0.0}, r"lr is 0.0; it must be above 0"),
        ({"columns": (5, 5)}, r"columns are \(5, 5\); give numbers of prunings, rising and above 0"),
        ({"columns": ()}, r"columns are \(\)"),
        ({"configs": []}, "configs is empty; give at least one, such as 0.0/256"),
        ({"configs": ["0.9x100"]}, "no configuration '0.9x100'; write momentum/batch size, such as 0.9/100"),
        ({"configs": ["1.0/100"]}, r"configuration '1.0/100' has a momentum outside \[0, 1\)"),
        ({"epoch": 3}, "no number of a scale 'epoch'; did you mean 'epochs'"),
    ],
)
def test_a_meaningless_override_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        overridden(PAPER, **change)


def test_an_unknown_scale_is_refused_with_the_nearest() -> None:
    with pytest.raises(ExperimentError, match="no scale 'papr'; did you mean 'paper'"):
        scale_named("papr")
    assert SCALES == ("paper", "short", "tiny")


@pytest.mark.parametrize(("epochs", "rewind", "looked_at"), [(200, 2, 5), (12, 7, 9), (2, 1, 2)])
def test_masks_are_looked_at_early_and_within_the_training(epochs: int, rewind: int, looked_at: int) -> None:
    work = PaperJobs(overridden(scale_named("tiny"), epochs=epochs, rewind=rewind))
    *_, masks = work.early(R18_C10, Configuration(0.0, 256).rewound, 0)
    assert masks.arguments["epochs"] == looked_at
