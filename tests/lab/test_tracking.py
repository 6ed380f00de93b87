"""What trackers are told of finished jobs, and how the driver tells them."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import TrackerError
from tombola.lab import tracking as tracking_module
from tombola.lab.deadline import Stop
from tombola.lab.driver import Progress
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.tracked_job import tracked_jobs
from tombola.lab.tracker import TrackedJob, open_trackers
from tombola.lab.tracking import Tracking, enter_jobs


@dataclass
class Notebook:
    """A tracker in memory.

    fail_at: raises at the job with this number. refused: names of jobs that it does not take. gate: waits
    before each job.
    """

    jobs: list[TrackedJob] = field(default_factory=list)
    fail_at: int = -1
    refused: Sequence[str] = ()
    gate: threading.Event | None = None

    def absent(self, names: Sequence[str]) -> list[str]:
        held = {job.name for job in self.jobs}
        return [name for name in names if name not in held]

    def add(self, job: TrackedJob) -> None:
        if self.gate is not None:
            self.gate.wait(60)
        if len(self.jobs) == self.fail_at:
            raise ConnectionError("no route\nto host")
        if job.name in self.refused:
            raise ValueError("a tag\nis too odd")
        self.jobs.append(job)

    def place(self) -> str:
        return "in memory"


@dataclass(frozen=True)
class Work:
    """A dense training, a ticket of it with its training, and the barrier between the two trainings.

    notebook: what was entered while they ran.
    """

    lab: tb.Lab
    dense: Job
    ticket: Job
    sparse: Job
    barrier: Job
    notebook: Notebook

    @property
    def names(self) -> set[str]:
        return {self.dense.name, self.sparse.name, self.barrier.name}


def work(folder: Path) -> Work:
    recipe = tb.Recipe(epochs=2, batch_size=600, lr=0.2)
    start = tb.job(tb.initialize, "convnet", "digits", seed=3)
    dense = tb.job(tb.train, start, "digits", recipe, noise=3)
    ticket = tb.job(tb.prune, dense, fraction=0.5)
    sparse = tb.job(tb.train, ticket, "digits", recipe, noise=3)
    barrier = tb.job(tb.barrier, dense, sparse, "digits", points=3)
    return Work(tb.Lab(folder), dense, ticket, sparse, barrier, Notebook())


def tracked(store: Store, notebook: Notebook, lines: list[str]) -> Tracking:
    """A tracking by a notebook that writes down its lines, warnings after an exclamation mark."""
    return Tracking(
        store, {"notebook": notebook}, lines.append, lambda line: lines.append(f"! {line}"), Stop()
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The work, entered as it was done."""
    begun = work(tmp_path_factory.mktemp("tracking") / "store")
    lines: list[str] = []
    with tracked(begun.lab.store, begun.notebook, lines) as tracking:
        begun.lab.run(begun.barrier, progress=tracking.progress(Progress())).raise_failures()
    assert lines == ["notebook: 3 jobs entered in memory"]
    return begun


# What is told


def told(store: Store, *jobs: Job) -> list[TrackedJob]:
    damaged: list[Exception] = []
    listed = list(tracked_jobs(store, [job.name for job in jobs], damaged.append))
    assert not damaged
    return listed


def test_a_run_is_told_with_its_curve_numbers_recipe_provenance_and_the_run_behind_its_ticket(
    done: Work,
) -> None:
    [job] = told(done.lab.store, done.sparse)
    run = done.lab.result(done.sparse)
    assert [point.step for point in job.curve] == [0, 1, 2]
    assert [point.values["test_accuracy"] for point in job.curve] == run.history.column("test_accuracy")
    assert [point.values["train_loss"] for point in job.curve[1:]] == run.history.column("train_loss")[1:]
    assert [point.values["lr"] for point in job.curve[1:]] == run.history.column("lr")[1:]
    assert not {"train_loss", "lr"} & job.curve[0].values.keys()  # the state before any step
    assert job.started <= job.curve[0].time <= job.curve[2].time
    assert job.numbers["val_accuracy"] == run.accuracy
    assert job.numbers["train.sparsity"] == run.ticket.sparsity
    assert job.title == f"train convnet digits 0.9/600 sparsity 50.0 seed 3 {job.name[:12]}"
    parameters = job.parameters
    assert (parameters["network"], parameters["dataset"], parameters["sparsity"]) == ("convnet", "digits", 50)
    assert (parameters["recipe.lr"], parameters["recipe.weight_decay"]) == (0.2, 5e-4)  # one is a default
    assert parameters["recipe.augmentation.cutout"] == 0
    assert parameters["provenance.device"] == "cpu"
    assert not any(name.startswith(("provenance.sums", "provenance.pid")) for name in parameters)
    assert job.parents == [done.dense.name]


def test_a_measure_is_told_with_its_numbers_and_the_runs_it_is_of(done: Work) -> None:
    [job] = told(done.lab.store, done.barrier)
    assert (job.function, list(job.curve)) == ("barrier", [])
    assert done.lab.result(done.barrier).height in job.numbers.values()
    assert not any("[" in name for name in job.numbers)
    assert job.parents == [done.dense.name, done.sparse.name]


def test_tickets_and_jobs_that_are_gone_are_not_told(done: Work) -> None:
    missing = tb.job(tb.barrier, done.sparse, done.dense, "digits", points=3)
    names = [job.name for job in told(done.lab.store, done.ticket, missing, done.dense)]
    assert names == [done.dense.name]


def test_steps_are_epochs_where_a_training_begins_and_ends_within_one(lab: tb.Lab) -> None:
    recipe = tb.Recipe(epochs="5it", batch_size=600)  # two steps an epoch
    start = tb.job(tb.initialize, "convnet", "digits")
    late = tb.job(tb.pretrain, start, "digits", recipe, epochs="1it")
    training = tb.job(tb.train, late, "digits", recipe)
    lab.run(training).raise_failures()
    [job] = told(lab.store, training)
    places = [point.values["epoch"] for point in job.curve]
    assert places == lab.result(training).history.column("epoch")
    assert [point.step for point in job.curve] == [0, 1, 2, 3]


def copied(done: Work, folder: Path) -> Work:
    """The same work in a store that may be damaged."""
    shutil.copytree(done.lab.store.root, folder)
    return work(folder)


def test_a_strangers_text_is_printable(done: Work, tmp_path: Path) -> None:
    other = copied(done, tmp_path / "store")
    path = other.lab.store.folder(other.dense.name) / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "\x1b[31mred", "\x07": "a\nb"}))
    [job] = told(other.lab.store, other.dense)
    assert job.parameters["provenance.host"] == "\N{REPLACEMENT CHARACTER}[31mred"
    assert all(f"{name}{value}".isprintable() for name, value in job.parameters.items())


def test_a_damaged_job_is_told_and_the_others_are_entered(done: Work, tmp_path: Path) -> None:
    other = copied(done, tmp_path / "store")
    history = other.lab.store.folder(other.dense.name) / "history.csv"
    history.write_text(history.read_text().replace("0", "1", 1))
    notebook = Notebook()
    lines: list[str] = []
    with tracked(other.lab.store, notebook, lines) as tracking:
        tracking.add([other.dense.name, other.sparse.name])
    assert [job.name for job in notebook.jobs] == [other.sparse.name]
    [line] = lines
    assert line.startswith("notebook: 1 job entered in memory; 1 left out, first job ")
    assert "history.csv was altered" in line


# The driver


def test_jobs_are_entered_as_they_finish_and_a_second_time_none(done: Work) -> None:
    notebook = done.notebook
    lines: list[str] = []
    assert sorted(job.name for job in notebook.jobs) == sorted(done.names)
    with tracked(done.lab.store, notebook, lines) as tracking:
        outcome = done.lab.run(done.barrier, progress=tracking.progress(Progress()))
        tracking.add(outcome.finished_before)
    assert len(notebook.jobs) == 3
    assert lines == ["notebook: nothing new in memory"]


def test_what_an_interruption_left_out_is_entered_once_by_the_next_call(done: Work) -> None:
    store, names = done.lab.store, sorted(done.names)
    notebook = Notebook(fail_at=1)
    with pytest.raises(ConnectionError):
        enter_jobs(store, notebook, names, print, print)
    assert len(notebook.jobs) == 1
    notebook.fail_at = -1
    for _ in range(2):
        enter_jobs(store, notebook, names, print, print)
    assert sorted(job.name for job in notebook.jobs) == names


def test_a_tracker_that_fails_is_one_warning_and_no_failure(tmp_path: Path) -> None:
    begun = work(tmp_path / "store")
    lines: list[str] = []
    with tracked(begun.lab.store, Notebook(fail_at=0), lines) as tracking:
        outcome = begun.lab.run(begun.sparse, progress=tracking.progress(Progress()))
    assert not outcome.failed
    assert begun.lab.has(begun.sparse)
    assert lines == [
        "! notebook takes no more jobs: ConnectionError: no route to host; tombola track all --to notebook "
        "enters what it lacks, and so does the same command"
    ]


def test_a_job_that_a_tracker_refuses_is_told_and_the_others_are_entered(done: Work) -> None:
    store, names = done.lab.store, sorted(done.names)
    lines: list[str] = []
    notebook = Notebook(refused=names[:1])
    with tracked(store, notebook, lines) as tracking:
        for name in names:  # one by one, as they finish
            tracking.add([name])
    assert [job.name for job in notebook.jobs] == names[1:]
    assert lines == [
        f"notebook: 2 jobs entered in memory; 1 left out, first job {names[0][:12]}: "
        "ValueError: a tag is too odd"
    ]


def test_a_tracker_that_refuses_three_jobs_in_a_row_is_at_fault_itself(done: Work) -> None:
    names = sorted(done.names)
    left_out: list[tb.TombolaError] = []
    with pytest.raises(ValueError, match="too odd"):
        enter_jobs(done.lab.store, Notebook(refused=names), names, print, left_out.append)
    assert len(left_out) == 2
    lines: list[str] = []
    with tracked(done.lab.store, Notebook(refused=names), lines) as tracking:
        for name in names:
            tracking.add([name])
    [line] = lines
    assert line.startswith("! notebook takes no more jobs: ValueError: a tag is too odd; ")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_tracker_that_does_not_answer_is_not_waited_for(
    done: Work,
    gate: threading.Event,
    stopped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking_module, "_TOLD_AFTER", 0.0)
    # Of the two only one counts; the other would keep this test for minutes.
    monkeypatch.setattr(tracking_module, "_PATIENCE", 1000.0 if stopped else 0.1)
    monkeypatch.setattr(tracking_module, "_PATIENCE_STOPPED", 0.1 if stopped else 1000.0)
    lines: list[str] = []
    with tracked(done.lab.store, Notebook(gate=gate), lines) as tracking:
        tracking.add([done.dense.name])
        if stopped:
            tracking._stop.now("by SIGTERM")
    waiting, given_up = lines
    assert waiting == "waiting for notebook to take the last jobs"
    assert given_up.startswith("! notebook does not answer; tombola track all --to notebook")


def test_trackers_do_not_write_into_the_store(done: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    root = done.lab.store.root
    with pytest.raises(TrackerError, match=r"^--track-dir is .*, within the store; give"):
        open_trackers(["tensorboard"], root / "runs", root)
    monkeypatch.chdir(root)
    with pytest.raises(TrackerError, match=r"^the working folder is .*, within the store; give"):
        open_trackers(["tensorboard"], None, root)
