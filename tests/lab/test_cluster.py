"""A cluster that somebody else started: a scheduler and two plain workers on loopback."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import torch
from PIL import Image

import tombola as tb
from tombola.errors import ClusterError, DeviceError, RecipeError, StoreUnwritable
from tombola.lab import cluster, environment, task, workers
from tombola.lab.chains import imp_jobs
from tombola.lab.driver import Progress
from tombola.lab.execute import Settings
from tombola.lab.store import Store

Same = Callable[..., bool]

PRELOADED = """
import os, time
import tombola as tb

@tb.declare("who")
def who(number: int) -> int:
    return os.getpid()

@tb.declare("linger")
def linger() -> int:
    time.sleep(600)
"""


class Started:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, place: Path) -> None:
        self.file = place / "scheduler.json"
        self._place = place
        (place / "preloaded.py").write_text(PRELOADED)
        self.processes = [self._start("scheduler", "--port", "0", "--scheduler-file", str(self.file))]

    def worker(self, *options: str) -> forked.Process | subprocess.Popen[str]:
        process = self._start(
            "worker", "--scheduler-file", str(self.file), "--nthreads", "1", "--memory-limit", "0",
            "--no-nanny", "--preload", str(self._place / "preloaded.py"), *options,
        )  # fmt: skip
        self.processes.append(process)
        return process

    @property
    def address(self) -> str:
        return str(cluster._address_in(self.file))

    def _start(self, what: str, *options: str) -> forked.Process | subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": forked.SOURCES, "CUDA_VISIBLE_DEVICES": ""}
        return forked.start(
            "-m", "dask", what, "--host", "127.0.0.1", "--no-dashboard", *options,
            env=environment, cwd=self._place, output=self._place / f"{what}.log",
        )  # fmt: skip

    def end(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    one = Started(tmp_path_factory.mktemp("cluster"))
    for _ in range(2):
        one.worker()
    yield one
    one.end()


@pytest.fixture(scope="module")
def preloaded() -> dict[str, object]:
    """The functions that the workers know besides those of the library."""
    names: dict[str, object] = {}
    exec(PRELOADED, names)
    return names


def test_the_same_graph_gives_the_same_bits_on_a_cluster(
    started: Started, tmp_path: Path, same_run: Same, recorder
) -> None:
    recipe = tb.Recipe(epochs=2, batch_size=100, momentum=0.9)
    chains = [imp_jobs("convnet", "digits", recipe, rounds=1, seed=seed) for seed in (0, 1)]
    line = tb.job(tb.barrier, chains[0][1], chains[1][1], "digits", points=3)
    here, there = tb.Lab(tmp_path / "here"), tb.Lab(tmp_path / "there", scheduler=started.address)
    here.run(line).raise_failures()
    outcome = there.run([*chains[0], line], progress=recorder)
    outcome.raise_failures()
    tickets = {chain[1].parents[0].name for chain in chains}  # which are not counted
    assert set(outcome.computed) | tickets == set(here.store.names()) == set(there.store.names())
    assert tickets.isdisjoint(outcome.computed)
    for chain in chains:
        for made in chain:
            assert same_run(here.result(made), there.result(made))
    assert here.result(line) == there.result(line)
    pids = {there.store.provenance(name)["pid"] for name in there.store.names()}
    assert pids <= {process.pid for process in started.processes[1:]}
    assert there.store.provenance(line.name)["threads"] == 1
    # The cluster outlives its driver, and a second one finds everything there.
    assert tb.Lab(tmp_path / "there", scheduler_file=started.file).run(line).computed == []


def test_settings_travel_with_the_task(started: Started, tmp_path: Path) -> None:
    settings = Settings(threads=2, checkpoint_every=0.0)
    lab = tb.Lab(tmp_path / "store", scheduler_file=started.file, settings=settings)
    job = tb.job(tb.initialize, "convnet", "digits")
    lab.run(job).raise_failures()
    assert lab.store.provenance(job.name)["threads"] == 2


def test_a_failure_on_a_cluster_is_told_as_anywhere(started: Started, tmp_path: Path) -> None:
    start = tb.job(tb.initialize, "resnet18", "digits")
    bad = tb.job(tb.train, start, "digits", tb.Recipe(epochs=1, batch_size=63))
    outcome = tb.Lab(tmp_path / "store", scheduler=started.address).run(
        tb.job(tb.barrier, bad, bad, "digits")
    )
    assert outcome.failed[bad.name].startswith("1198 images in batches of 63 leave a last batch of 1")
    assert outcome.computed == [start.name]
    assert len(outcome.failed) == 2


def test_two_drivers_of_two_stores_do_not_mistake_each_others_jobs(started: Started, tmp_path: Path) -> None:
    job = tb.job(tb.initialize, "convnet", "digits")
    labs = [tb.Lab(tmp_path / name, scheduler=started.address) for name in ("one", "two")]
    with cluster.remote_cluster(started.address, labs[0].store):  # somebody else's client is there, too
        for lab in labs:
            assert lab.run(job).computed == [job.name]
    assert all(lab.has(job) for lab in labs)


def test_a_worker_that_is_killed_and_one_that_comes_later(
    started: Started, tmp_path: Path, preloaded: dict
) -> None:
    os.kill(started.processes[1].pid, signal.SIGKILL)
    started.processes[1].wait()
    late = started.worker()
    jobs = [tb.job(preloaded["who"], number) for number in range(4)]
    lab = tb.Lab(tmp_path / "store", scheduler=started.address)
    lab.run(jobs).raise_failures()
    assert {lab.result(job) for job in jobs} <= {started.processes[2].pid, late.pid}


def test_a_gpu_that_no_worker_has_is_told(started: Started, tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "store", scheduler=started.address, settings=Settings(device="cuda"))
    with pytest.raises(DeviceError, match=r"device 'cuda' asked for, but no worker of tcp://.* sees a GPU"):
        lab.run(tb.job(tb.initialize, "convnet", "digits"))


@pytest.mark.parametrize(
    ("what", "there", "words"),
    [
        ("tombola", "0.0.7", r"^the worker on .* has tombola .*, here is 0\.0\.7; install the same versions"),
        ("torch", "1.0", r"has torch .*, here is 1\.0; "),
        ("python", "2.7", r"has python 3\..*, here is 2\.7; "),
    ],
)
def test_a_worker_of_another_environment_is_refused_in_one_line(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, there: str, words: str
) -> None:
    # Differs here: the workers keep theirs.
    really = workers.worker_state

    def worker_state(token: str) -> dict:
        return {**really(token), what: there}

    worker_state.__module__, worker_state.__qualname__ = "tombola.lab.workers", "worker_state"
    lab = tb.Lab(tmp_path / "store", scheduler=started.address)
    monkeypatch.setattr(workers, "worker_state", worker_state)
    with pytest.raises(ClusterError, match=words) as told:
        lab.run(tb.job(tb.initialize, "convnet", "digits"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"store": False},
            r"^the worker on node7 \(tcp://there\) does not see the store at .*share, under the",
        ),
        (
            {"trouble": "the file system of /x on node7 cannot link"},
            r"^the worker at tcp://there cannot use the",
        ),
        (
            ModuleNotFoundError("No module named 'tombola'"),
            r"^the worker at tcp://there cannot run tombola: .*; ",
        ),
    ],
)
def test_a_worker_that_cannot_use_the_store_or_run_tombola_is_refused_in_one_line(
    store: Store, answer: object, words: str
) -> None:
    def run(function: Callable, token: str, on_error: str) -> dict:
        assert Path(token).exists()  # what the worker looks for
        here = {**function(token), "host": "node7"}
        return {"tcp://there": answer if isinstance(answer, Exception) else {**here, **answer}}

    with pytest.raises(ClusterError, match=words) as told:
        cluster._checked_workers(SimpleNamespace(run=run), store)
    assert "\n" not in str(told.value)
    assert list((store.root / "work").iterdir()) == []


def test_a_machine_without_the_data_is_told_before_anything_is_computed(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "shapes"
    for kind, value in (("dark", 0), ("light", 255)):
        (pictures / kind).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (8, 8), value).save(pictures / kind / f"{number}.png")
    lab = tb.Lab(tmp_path / "store", scheduler=started.address)
    really = cluster.check_data

    def elsewhere(*arguments: object) -> None:
        pictures.rename(tmp_path / "moved")  # as if it lay on the driver's disk only
        really(*arguments)

    monkeypatch.setattr("tombola.lab.lab.check_data", elsewhere)
    words = (
        rf"^the worker at tcp://.* lacks data: data 'shapes' is not at hand on {socket.gethostname()}: no "
    )
    with pytest.raises(ClusterError, match=words) as told:
        lab.run(tb.job(tb.initialize, "convnet", str(pictures)))
    assert "; load it there once, or keep it where all machines see it" in str(told.value)
    assert "\n" not in str(told.value)
    assert list(lab.store.names()) == []


def test_one_worker_of_each_machine_is_asked_for_the_data(store: Store) -> None:
    asked = []

    def run(function: Callable, *arguments: object, workers: list[str] | None = None) -> dict:
        if workers is None:
            return {"tcp://a:1": "a", "tcp://a:2": "a", "tcp://b:1": "b"}
        asked.append(workers)
        return dict.fromkeys(workers)

    cluster.check_data(SimpleNamespace(run=run), store, [])
    assert asked == []
    cluster.check_data(SimpleNamespace(run=run), store, ["digits"])
    ((first, second),) = asked
    assert first.startswith("tcp://a:")
    assert second == "tcp://b:1"


def test_a_worker_that_comes_later_and_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ClusterError, match=rf"^the worker on {socket.gethostname()} does not see the store at"
    ):
        task.run_task(str(tmp_path / "none"), "{}", Settings(), environment.versions(), [])


@pytest.mark.parametrize(
    "error",
    [StoreUnwritable("cannot write to x: full; make room"), DeviceError("PyTorch sees no GPU; use cpu")],
)
def test_what_a_worker_lacks_is_told_with_its_machine(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise error

    monkeypatch.setattr(task, "run_when_free", fail)
    settings = Settings(threads=torch.get_num_threads())
    with pytest.raises(type(error), match=rf"^{error} \(on {socket.gethostname()}\)$"):
        task.run_task(str(store.root), "{}", settings, environment.versions(), [])


def test_a_worker_that_comes_later_with_another_version_fails_its_job(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = tb.Lab(tmp_path / "store", scheduler=started.address)
    job = tb.job(tb.initialize, "convnet", "digits")
    monkeypatch.setattr(cluster, "_checked_workers", lambda client, store: False)
    monkeypatch.setattr(environment, "__version__", "9.9")
    assert "has tombola" in lab.run(job).failed[job.name]


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    job = tb.job(tb.initialize, "convnet", "digits")
    for options, words in (
        ({"scheduler": "tcp://127.0.0.1:9"}, r"^no Dask scheduler answers at tcp://127\.0\.0\.1:9: "),
        ({"scheduler": "carrier-pigeon://here"}, r"^no Dask scheduler answers at carrier-pigeon://here: "),
        ({"scheduler_file": tmp_path / "none.json"}, r"^no scheduler named in .*none\.json: No such file"),
    ):
        with pytest.raises(ClusterError, match=words) as told:
            tb.Lab(tmp_path / "store", **options).run(job)
        assert "\n" not in str(told.value)


def test_a_damaged_scheduler_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 0.2)
    (tmp_path / "file.json").write_text(json.dumps(["tcp://"]))
    with pytest.raises(ClusterError, match=r"no scheduler named in .*file\.json"):
        tb.Lab(tmp_path / "store", scheduler_file=tmp_path / "file.json").run(
            tb.job(tb.initialize, "convnet", "digits")
        )


def test_workers_and_a_scheduler_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="exclude each other"):
        tb.Lab(tmp_path, workers=2, scheduler="tcp://127.0.0.1:9")


@pytest.mark.filterwarnings("ignore:no workers at")
def test_a_scheduler_that_dies_under_a_run_is_told_at_once(tmp_path: Path, preloaded: dict) -> None:
    one = Started(tmp_path)
    one.worker()

    class Killer(Progress):
        def done(self, job: tb.Job, failed: str | None) -> None:
            one.processes[0].kill()

    jobs = [tb.job(preloaded["who"], 1), tb.job(preloaded["linger"])]
    try:
        with pytest.raises(
            ClusterError, match=r"^the scheduler or its connection is gone; run the same again"
        ):
            tb.Lab(tmp_path / "store", scheduler_file=one.file).run(jobs, progress=Killer())
    finally:
        one.end()
