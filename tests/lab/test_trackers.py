"""TensorBoard, MLflow and W&B read back by their own readers, or for W&B by its form of a log.

Nothing here asks a server: MLflow writes to a database, and W&B is offline.
"""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tombola as tb
from tombola import disk
from tombola.lab.job import Job
from tombola.lab.store import Store
from tombola.lab.tracker import TrackedJob, open_trackers
from tombola.lab.trackers import mlflow
from tombola.lab.tracking import enter_jobs

COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass
class Held:
    """What a tracker shows of a job. curve: values by step and column, each as often as it is there."""

    job: str
    curve: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    numbers: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    links: str = ""


# TensorBoard


def read_tensorboard(folder: Path) -> list[Held]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    shown = []
    for run in sorted(folder.iterdir()):
        events = EventAccumulator(str(run)).Reload()
        scalars = events.Tags()["scalars"]
        if not scalars:
            continue
        [text] = events.Tensors("job/text_summary")
        words = text.tensor_proto.string_val[0].decode()
        held = Held(words.split()[1], links=words)
        held.parameters = dict(line.strip().split(": ", 1) for line in words.splitlines())
        for tag in scalars:
            points = [(event.step, event.value) for event in events.Scalars(tag)]
            kind, _, name = tag.partition("/")
            if kind == "curve":
                held.curve[name] = points
            else:
                [(_, held.numbers[name])] = points
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        parameters = HParamsPluginData.FromString(content).session_start_info.hparams
        assert not any(name.startswith("provenance.") for name in parameters)
        for name, value in parameters.items():
            held.parameters[name] = getattr(value, value.WhichOneof("kind"))
        shown.append(held)
    return shown


def leave_part_of_tensorboard(folder: Path, name: str) -> None:
    """An interruption before the file is in its place; the folder is what the whole one is called."""
    run = next(run for run in folder.iterdir() if run.name.endswith(name[:12]))
    [file] = run.iterdir()
    (run / ".0123abcd.part").write_bytes(file.read_bytes()[:200])
    file.unlink()


# MLflow


def mlflow_client(folder: Path) -> Any:
    return importlib.import_module("mlflow").MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def read_mlflow(folder: Path) -> list[Held]:
    client = mlflow_client(folder)
    experiment = client.get_experiment_by_name("tombola")
    shown = []
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.status == "FINISHED"
        held = Held(run.data.tags["tombola.job"], links=run.data.tags["tombola.parents"])
        held.parameters = dict(run.data.params)
        for key in run.data.metrics:
            values = [(entry.step, entry.value) for entry in client.get_metric_history(run.info.run_id, key)]
            if key.startswith("curve/"):
                held.curve[key.removeprefix("curve/")] = sorted(values)
            else:
                [(_, held.numbers[key])] = values
        shown.append(held)
    return shown


def leave_part_of_mlflow(folder: Path, name: str) -> None:
    """An interruption before the run is whole."""
    client = mlflow_client(folder)
    experiment = client.get_experiment_by_name("tombola").experiment_id
    [run] = client.search_runs([experiment], f"tags.`tombola.job` = '{name}'")
    client.delete_run(run.info.run_id)
    begun = client.create_run(experiment, tags={"tombola.job": name})
    client.log_metric(begun.info.run_id, "curve/test_accuracy", 1.0)


# W&B


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline file: W&B's seven bytes, then a log in the form of LevelDB's."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # too little for another head in this block
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record in one part, or its last part
            yield Record.FromString(whole)
            whole = b""


def read_wandb(folder: Path) -> list[Held]:
    shown = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        held, ended = Held(""), False
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                held.job, held.links = record.run.run_id, " ".join(record.run.tags)
                for item in record.run.config.update:
                    held.parameters |= flat(item.key, json.loads(item.value_json))
            elif kind == "history":
                row = {
                    (item.key or item.nested_key[0]): json.loads(item.value_json)
                    for item in record.history.item
                }
                step = record.history.step.num
                for key, value in row.items():
                    if key.startswith("curve/"):
                        held.curve[key.removeprefix("curve/")].append((step, float(value)))
            elif kind == "summary":
                for item in record.summary.update:
                    value = json.loads(item.value_json)
                    if isinstance(value, int | float) and not item.key.startswith(("curve/", "_")):
                        held.numbers[item.key] = value
            ended |= kind == "exit"
        assert ended, file
        shown.append(held)
    return shown


def flat(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {key: value}
    return {f"{key}.{name}": item for name, item in value.items()}


def leave_part_of_wandb(folder: Path, name: str) -> None:
    """An interruption in the middle of the file."""
    [run] = folder.glob(f"wandb/offline-run-*-{name}")
    (run / "tombola-whole").unlink()
    [file] = run.glob("*.wandb")
    file.write_bytes(file.read_bytes()[:500])


def test_two_drivers_that_enter_a_job_at_once_into_tensorboard_both_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    job = TrackedJob("ab" * 32, "train", "train abab", 0.0, 1.0, [], {"accuracy": 1.0}, {}, [])
    [tracker] = open_trackers(["tensorboard"], tmp_path).values()
    replace = disk.replace

    def after_the_other(path: Path, target: Path) -> None:
        monkeypatch.setattr(disk, "replace", replace)
        tracker.add(job)
        disk.replace(path, target)

    monkeypatch.setattr(disk, "replace", after_the_other)
    tracker.add(job)
    assert [path.name for path in tmp_path.glob("*/*")] == [f"events.out.tfevents.0.{job.name}"]


# MLflow


class Pages:
    """A server with four finished runs, two a page; the last is not ours."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def search_runs(self, experiments: list[str], text: str, page_token: str | None = None) -> Page:
        assert (experiments, text) == (["7"], "attributes.status = 'FINISHED'")
        self.asked.append(page_token)
        tags = [{"tombola.job": "a"}, {"tombola.job": "b"}, {"tombola.job": "d"}, {"of": "others"}]
        first = 2 * (page_token == "more")
        page = Page(SimpleNamespace(data=SimpleNamespace(tags=tag)) for tag in tags[first : first + 2])
        page.token = None if first else "more"
        return page


class Page(list[SimpleNamespace]):
    token: str | None = None


def test_what_an_experiment_of_mlflow_holds_is_asked_for_once() -> None:
    tracker, pages = mlflow.MLflowTracker(None), Pages()
    vars(tracker).update(_client=pages, _experiment="7")
    assert tracker.absent(["a", "b", "c", "d"]) == ["c"]
    assert tracker.absent(["d", "e"]) == ["e"]
    assert pages.asked == [None, "more"]


# All three


@dataclass(frozen=True)
class Reader:
    name: str
    read: Callable[[Path], list[Held]]
    leave_part: Callable[[Path, str], None]


READERS = (
    Reader("tensorboard", read_tensorboard, leave_part_of_tensorboard),
    Reader("mlflow", read_mlflow, leave_part_of_mlflow),
    Reader("wandb", read_wandb, leave_part_of_wandb),
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs, which takes long to make."""
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_client(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(
    params=[
        pytest.param(reader, id=reader.name, marks=[pytest.mark.trackers] * (reader.name != "tensorboard"))
        for reader in READERS
    ]
)
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Reader:
    """A tracker that is installed, whose files lie in ``tmp_path``."""
    reader: Reader = request.param
    pytest.importorskip(reader.name, reason=f"pip install 'tombola[{reader.name}]' brings it")
    for name, value in (
        ("WANDB_MODE", "offline"), ("WANDB_ERROR_REPORTING", "false"), ("WANDB_SILENT", "true"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"), ("DO_NOT_TRACK", "true"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    for name in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    if reader.name == "mlflow":
        shutil.copy(request.getfixturevalue("database"), tmp_path)
    return reader


@dataclass(frozen=True)
class Work:
    lab: tb.Lab
    dense: Job
    sparse: Job
    barrier: Job

    @property
    def store(self) -> Store:
        return self.lab.store

    @property
    def names(self) -> list[str]:
        return sorted({self.dense.name, self.sparse.name, self.barrier.name})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A dense training, that of its ticket, and the barrier between the two."""
    recipe = tb.Recipe(epochs=2, batch_size=600, lr=0.2)
    start = tb.job(tb.initialize, "convnet", "digits", seed=3)
    dense = tb.job(tb.train, start, "digits", recipe, noise=3)
    sparse = tb.job(tb.train, tb.job(tb.prune, dense, fraction=0.5), "digits", recipe, noise=3)
    barrier = tb.job(tb.barrier, dense, sparse, "digits", points=3)
    lab = tb.Lab(tmp_path_factory.mktemp("trackers") / "store")
    lab.run(barrier).raise_failures()
    return Work(lab, dense, sparse, barrier)


def enter(done: Work, reader: Reader, folder: Path, names: list[str]) -> list[str]:
    """Enters jobs as a new process would; the names of those that were entered."""
    entered: list[str] = []
    [tracker] = open_trackers([reader.name], folder).values()
    enter_jobs(done.store, tracker, names, entered.append, print)
    return entered


def test_what_was_entered_is_read_back_and_a_second_call_adds_nothing(
    done: Work, reader: Reader, tmp_path: Path
) -> None:
    assert sorted(enter(done, reader, tmp_path, done.names)) == done.names
    held = {shown.job: shown for shown in reader.read(tmp_path)}
    assert sorted(held) == done.names
    single = 1e-6 if reader.name == "tensorboard" else 0  # which keeps 32 bits
    run, shown = done.lab.result(done.sparse), held[done.sparse.name]
    for column in COLUMNS:
        expected = list(enumerate(run.history.column(column)))
        expected = [(step, value) for step, value in expected if step or not math.isnan(value)]
        assert [step for step, _ in shown.curve[column]] == [step for step, _ in expected]
        for (_, value), (_, wanted) in zip(shown.curve[column], expected, strict=True):
            assert value == pytest.approx(wanted, rel=single, abs=0)
    assert shown.numbers["val_accuracy"] == pytest.approx(run.accuracy, rel=single, abs=0)
    assert shown.numbers["train.sparsity"] == pytest.approx(run.ticket.sparsity, rel=single, abs=0)
    parameters = {name: str(value) for name, value in shown.parameters.items()}
    assert (parameters["network"], parameters["dataset"]) == ("convnet", "digits")
    assert float(parameters["recipe.lr"]) == 0.2
    assert float(parameters["recipe.weight_decay"]) == 5e-4  # a default
    assert parameters["provenance.torch"] == done.store.provenance(done.sparse.name)["torch"]
    assert done.dense.name[:12] in shown.links
    between = held[done.barrier.name]
    assert not between.curve
    height = done.lab.result(done.barrier).height
    assert any(value == pytest.approx(height, rel=single) for value in between.numbers.values())
    assert all(run.name[:12] in between.links for run in (done.dense, done.sparse))

    assert enter(done, reader, tmp_path, done.names) == []
    again = {shown.job: shown for shown in reader.read(tmp_path)}
    assert again == held


def test_after_an_interruption_the_rest_is_entered_and_nothing_twice(
    done: Work, reader: Reader, tmp_path: Path
) -> None:
    first, second, third = done.names
    enter(done, reader, tmp_path, [first, second])
    reader.leave_part(tmp_path, second)
    assert sorted(enter(done, reader, tmp_path, done.names)) == [second, third]
    shown = reader.read(tmp_path)
    assert Counter(held.job for held in shown) == dict.fromkeys(done.names, 1)
    steps = {held.job: [step for step, _ in held.curve["test_accuracy"]] for held in shown}
    assert steps[done.dense.name] == steps[done.sparse.name] == [0, 1, 2]
    assert enter(done, reader, tmp_path, done.names) == []
