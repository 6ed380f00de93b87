"""Teachers of distillation in chains and experiments: by name, as a job, of late rewinding, and refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.errors import ExperimentError, JobError, RecipeError
from tombola.experiments.experiment import Experiment
from tombola.lab.chains import imp_jobs
from tombola.lab.costs import Costs
from tombola.lab.job import Job, all_needed
from tombola.lab.teacher import named_teacher

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 400}
DISTILLED = {**QUICK, "loss": "distillation"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    return tb.Lab(tmp_path_factory.mktemp("teacher") / "store", workers=0)


@pytest.fixture(scope="module")
def teacher(lab: tb.Lab) -> Job:
    """A finished training of two epochs, from a start of one epoch."""
    [run] = imp_jobs("convnet", "digits", tb.Recipe(**QUICK), rounds=0, rewind=1)
    lab.run(run).raise_failures()
    return run


def names(chains: list[list[Job]]) -> list[list[str]]:
    return [[run.name for run in chain] for chain in chains]


def test_a_teacher_found_by_its_name_is_the_job_that_was_described(lab: tb.Lab, teacher: Job) -> None:
    found = named_teacher(lab.store, teacher.name[:10])
    assert isinstance(found, Job)
    assert list(all_needed([found])) == list(all_needed([teacher]))
    described, named = (
        Experiment("mine", recipe=DISTILLED, rounds=1, rewind=1, teacher=subject)
        for subject in (teacher, teacher.name[:10])
    )
    assert names(named.chains(lab.store)) == names(described.chains())
    [first, second] = named.chains(lab.store)[0]
    start = first.arguments["ticket"]
    assert [job.arguments["teacher"].name for job in (start, first, second)] == 3 * [teacher.name]
    # What is behind it is known too: epochs of the teacher's own training and pretraining.
    costs = Costs()
    assert [costs.of(job).epochs for job in all_needed([found]).values()] == [0, 1, 1]


def test_a_chain_of_distillation_is_that_of_the_library(
    lab: tb.Lab, teacher: Job, digits: tb.Data, same_run: Any
) -> None:
    recipe = tb.Recipe(**DISTILLED)
    [chain] = Experiment("mine", recipe=recipe, rounds=1, rewind="2it", teacher=teacher).chains()
    lab.run(chain[-1]).raise_failures()
    by_hand = lab.result(teacher)
    start = tb.pretrain(tb.initialize("convnet", digits), digits, recipe, epochs="2it", teacher=by_hand)
    *_, last = tb.imp(start, digits, recipe, rounds=1, teacher=by_hand)
    assert same_run(lab.result(chain[-1]), last)
    assert last.engine == "eager, distillation"
    [key] = {number.key for number in lab.table(chain[-1]) if number.key.metric == "val_accuracy"}
    # Told once, though both the pretraining and the training had it.
    assert dict(key.more) == {"loss": "distillation", "rewind": "2it", "teacher": "convnet"}
    other = imp_jobs("convnet", "digits", recipe, rounds=1, rewind="2it", teacher=teacher.arguments["ticket"])
    keys = {number.key for number in lab.table([chain[-1], other[-1]]) if number.key.metric == "val_accuracy"}
    assert {key.get("teacher_job") for key in keys} == {
        teacher.name[:12], teacher.arguments["ticket"].name[:12]
    }  # fmt: skip


def test_a_pretraining_with_a_teacher_is_the_beginning_of_its_training(
    start: tb.Ticket, run: tb.Run, digits: tb.Data, same_bits: Any
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=200, momentum=0.0, loss="distillation")
    ticket = tb.pretrain(start, digits, recipe, epochs="7it", noise=2, teacher=run)
    rest, whole = (tb.train(begun, digits, recipe, noise=2, teacher=run) for begun in (ticket, start))
    assert same_bits(rest.weights, whole.weights)
    with pytest.raises(RecipeError, match="loss 'distillation' needs a teacher"):
        tb.pretrain(start, digits, recipe, epochs=1)
    copy = next(tb.noise_copies(start, digits, recipe, noises=[2, 3], teacher=run))
    assert same_bits(copy.weights, whole.weights)


def test_only_configurations_that_distil_have_the_teacher_and_their_keys_tell_it(teacher: Job) -> None:
    experiment = Experiment(
        "mine", recipe={**QUICK, "loss": ["cross-entropy", "distillation"]}, teacher=teacher,
        between={"copies": ["barrier"]}, copies=2,
    )  # fmt: skip
    plain = Experiment("mine", recipe=QUICK)
    assert names(experiment.chains())[0] == names(plain.chains())[0]
    items = experiment.at().items
    told = {"teacher": "convnet", "teacher_job": teacher.name[:12]}
    assert [dict(item.key.more) for item in items if not item.measure] == [
        {"loss": "cross-entropy"}, {"loss": "distillation", **told}
    ]  # fmt: skip
    copies = [run for item in items if item.measure for pair in item.jobs for run in pair.needs]
    assert ["teacher" in run.arguments for run in copies] == [False, False, True, True]
    assert f"The teacher of distillation is {teacher.name[:12]}, a convnet." in experiment.about


def test_a_run_of_ones_own_and_a_file_are_teachers_too(
    run: tb.Run, tmp_path: Path, lab: tb.Lab, teacher: Job
) -> None:
    run.save(tmp_path / "teacher")
    saved, own = (
        Experiment("mine", recipe=DISTILLED, teacher=subject) for subject in (str(tmp_path / "teacher"), run)
    )
    assert names(saved.chains()) == names(own.chains())
    [item] = own.at().items
    assert (item.key.get("teacher"), item.key.get("teacher_job")) == ("own", run.fingerprint[:12])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"recipe": DISTILLED},
            "loss 'distillation' needs a teacher; give a finished run or ticket, teacher=",
        ),
        (
            {"recipe": DISTILLED, "teacher": 3},
            "mine: teacher is 3; give a run, a ticket, the job of one, or the",
        ),
        (
            {"recipe": QUICK, "teacher": "3f2a"},
            "mine: a teacher is given, but loss is cross-entropy; use loss",
        ),
        (
            {"recipe": DISTILLED, "teacher": "3f2a"},
            "teacher '3f2a' is no file, and a finished job is found by",
        ),
    ],
    ids=str,
)
def test_what_teaches_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises((ExperimentError, RecipeError, JobError), match=words):
        Experiment("mine", **fields).at()


def test_a_teacher_of_other_classes_or_of_none_is_refused_before_any_training(
    lab: tb.Lab, teacher: Job, run: tb.Run, colour: tb.Data
) -> None:
    distilled = tb.Recipe(**DISTILLED)
    words = "the teacher convnet@?[0-9]* is for 10 classes, the data have 4; they must agree"
    for subject in (teacher, run, named_teacher(lab.store, teacher.name)):
        with pytest.raises(RecipeError, match=words):
            imp_jobs("convnet", colour, distilled, rounds=0, teacher=subject)
    with pytest.raises(JobError, match=r"no job in .* with a name that begins with 'beef'"):
        Experiment("mine", recipe=DISTILLED, teacher="beef").at(lab.store)
    barrier = tb.job(tb.barrier, teacher, teacher, "digits")
    with pytest.raises(
        RecipeError, match=r"teacher is <job barrier .*>; it must be the job of a run or ticket"
    ):
        imp_jobs("convnet", "digits", distilled, rounds=0, teacher=barrier)
    with pytest.raises(RecipeError, match="a teacher is given, but loss is 'cross-entropy'"):
        imp_jobs("convnet", "digits", replace(distilled, loss="cross-entropy"), rounds=0, teacher=teacher)


def test_controls_and_tickets_of_other_searches_learn_from_the_teacher_too(teacher: Job) -> None:
    experiment = Experiment(
        "mine", recipe=DISTILLED, rounds=1, teacher=teacher, controls=["permuted"],
        searches={"prune-at-initialization": {"score": "snip"}},
    )  # fmt: skip
    chains = experiment.chains()
    assert len(chains) == 4
    assert {run.arguments["teacher"].name for chain in chains for run in chain} == {teacher.name}
