"""Drivers that are stopped, as processes of their own in groups of their own, at five moments of a run.

Each stop is a SIGTERM to the whole group, as Slurm and clouds send it, or the end of a time; moments are told
by files that the jobs leave, never by waiting.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import tombola as tb
from tombola.lab import lease as leases
from tombola.lab.chains import imp_jobs
from tombola.lab.job import all_needed
from tombola.lab.store import Store
from tombola.lab.supervision import deaths
from tombola.lab.training_progress import trainings_in_progress

Same = Callable[..., bool]

# What the drivers run. Jobs touch a file when they begin, and wait for files that tests make.
JOBS = """
import os, time
from pathlib import Path
import tombola as tb
from tombola.lab.chains import imp_jobs

def training(seed=0):
    recipe = tb.Recipe(epochs=15, batch_size=20, momentum=0.9)
    return imp_jobs("convnet", "digits", recipe, rounds=0, seed=seed)[0]

def wait_for(file):
    while not Path(file).exists():
        time.sleep(0.01)

@tb.declare("sleeper")
def sleeper(place: str, number: int = 0) -> int:
    # Knows nothing of being stopped.
    begun = Path(place, f"sleeper-{number}")
    again = begun.exists()
    begun.touch()
    while not again:
        time.sleep(600)
    return 1

@tb.declare("beating")
def beating(place: str, watch: tb.Watch | None = None) -> int:
    begun = Path(place, "beating")
    again = begun.exists()
    begun.touch()
    while not again:
        watch.beat()
        time.sleep(0.01)
    return 2

@tb.declare("publishes slowly")
def publishes_slowly(place: str) -> int:
    return 3

"""

# In drivers and workers only: moments that nothing else tells of.
HOOKS = """
from tombola.lab.deadline import Stop
from tombola.lab.store import Store

def take_in(self, name, staging):
    if (staging / "job.json").read_text().count("publishes slowly"):
        place = self.root.parent
        (place / "publishing").touch()
        wait_for(place / "told")  # that it must stop
    return plainly(self, name, staging)

def wait(self, seconds):
    Path(__file__).with_name("waiting").touch()
    waits(self, seconds)

def now(self, cause):
    says(self, cause)
    Path(__file__).with_name("stopping").touch()

says, Stop.now = Stop.now, now
plainly, Store.take_in = Store.take_in, take_in
waits, Stop.wait = Stop.wait, wait
"""

# store, workers, seconds or "none", and the jobs by name; prints what became of them.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
import dask
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started by ignores
from tombola.lab import cluster, execute, halt
from jobs import *

place, workers, seconds, names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]

if __name__ == "__main__":
    dask.config.set({"distributed.worker.preload": ["jobs"]})
    execute.PATIENCE = halt.PATIENCE = cluster._DESERTED = float(os.environ["PATIENCE"])
    made = {
        "training": training,
        "another": lambda: training(1),
        "sleeper": lambda: tb.job(sleeper, str(place)),
        "beating": lambda: tb.job(beating, str(place)),
        "publishing": lambda: tb.job(publishes_slowly, str(place)),
    }
    jobs = [made[name]() for name in names]
    settings = execute.Settings(device="cpu", attempts=int(os.environ["ATTEMPTS"]))
    file = os.environ["SCHEDULER"] or None
    lab = tb.Lab(place / "store", workers=workers, settings=settings, scheduler_file=file)
    (place / "driving").touch()
    outcome = lab.run(jobs, stop_after=None if seconds == "none" else float(seconds))
    print(json.dumps([outcome.computed, outcome.failed, outcome.left, outcome.not_begun, outcome.stopped]))
"""


def session(leader: int) -> list[psutil.Process]:
    """The processes of a session that still run."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return members


class Driven:
    """A driver that runs as a process group of its own."""

    def __init__(
        self,
        place: Path,
        workers: int,
        *names: str,
        seconds: str = "none",
        patience: float = 600.0,
        attempts: int = 5,
        scheduler: bool = False,
    ) -> None:
        (place / "jobs.py").write_text(JOBS + HOOKS)
        (place / "driver.py").write_text(DRIVER)
        (place / "tmp").mkdir(exist_ok=True)
        self.place, self.store = place, Store(place / "store")
        environment = os.environ | {
            "PYTHONPATH": f"{Path(tb.__file__).parents[1]}:{place}",
            "PATIENCE": str(patience),
            "ATTEMPTS": str(attempts),
            "TMPDIR": str(place / "tmp"),
            "SCHEDULER": str(place / "scheduler.json") if scheduler else "",
        }
        command = [sys.executable, str(place / "driver.py"), str(place), str(workers), seconds, *names]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip

    def wait_for(self, what: Callable[[], object]) -> None:
        """Wait until something is there, while the driver runs."""
        while not what():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def terminate(self) -> None:
        """What Slurm does: SIGTERM to everything in the group."""
        os.killpg(self.process.pid, signal.SIGTERM)

    def outcome(self) -> tuple[list[str], dict[str, str], list[str], dict[str, float], str]:
        """What the driver printed in the end: computed, failed, left, not begun, stopped."""
        out, err = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, err
        self.assert_nobody_is_left()
        computed, failed, left, not_begun, stopped = json.loads(out.splitlines()[-1])
        return computed, failed, left, not_begun, stopped

    def family(self) -> list[psutil.Process]:
        """The processes of its session that still run."""
        return session(self.process.pid)

    def assert_nobody_is_left(self) -> None:
        """Its workers end with it, though not before it."""
        assert psutil.wait_procs(self.family(), timeout=120)[1] == []

    def assert_nothing_is_counted_or_held(self) -> None:
        for workplace in (self.store.root / "work").iterdir():
            assert deaths(workplace) == 0, list(workplace.iterdir())
            assert leases.free(workplace)

    def end(self) -> None:
        for process in self.family():
            process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class Drive:
    """Starts drivers in one place."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: list[Driven] = []

    def __call__(self, workers: int, *names: str, **options: object) -> Driven:
        self.started.append(Driven(self.place, workers, *names, **options))
        return self.started[-1]


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    one = Drive(tmp_path)
    yield one
    for driven in one.started:
        driven.end()


@pytest.fixture
def jobs() -> dict:
    """The jobs of the drivers, as they are named in this process."""
    names: dict = {}
    exec(JOBS, names)
    return names


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tb.Run:
    """The training, without anything that happens to it."""
    recipe = tb.Recipe(epochs=15, batch_size=20, momentum=0.9)
    (job,) = imp_jobs("convnet", "digits", recipe, rounds=0)
    run = tb.Lab(tmp_path_factory.mktemp("undisturbed") / "store").result(job)
    assert isinstance(run, tb.Run)
    return run


def _each(always: int) -> pytest.MarkDecorator:
    """Without workers and with two, one of them always; each of these tests takes many seconds."""
    other = 2 - always
    return pytest.mark.parametrize("workers", [always, pytest.param(other, marks=pytest.mark.long)])


# The five moments


def test_a_stop_while_the_cluster_starts_leaves_everything(drive: Drive, jobs: dict) -> None:
    one = drive(2, "training", "sleeper")
    # Its worker processes have begun, and none is up before it has torch.
    one.wait_for(lambda: len(one.family()) > 2 and (one.place / "driving").exists())
    one.terminate()
    computed, failed, left, _, stopped = one.outcome()
    assert (computed, failed, stopped) == ([], {}, "by SIGTERM")
    assert set(left) == set(all_needed([jobs["training"](), tb.job(jobs["sleeper"], str(one.place))]))
    one.assert_nothing_is_counted_or_held()
    # Its private folder went with it, and was not made again by what was still starting.
    assert list(one.place.glob("tmp/tombola-*")) == []


def checkpoints(place: Path) -> list[Path]:
    return list(place.glob("store/work/*/checkpoint"))


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize(
    ("workers", "moment"),
    [
        (2, "mid-training"),
        pytest.param(0, "before the first step", marks=pytest.mark.long),
        pytest.param(0, "mid-training", marks=pytest.mark.long),
        pytest.param(2, "before the first step", marks=pytest.mark.long),
    ],
)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(
    drive: Drive, jobs: dict, undisturbed: tb.Run, same_run: Same, workers: int, moment: str
) -> None:
    training = jobs["training"]()
    one = drive(workers, "training")
    place = one.store.workplace(training.name)
    if moment == "mid-training":
        one.wait_for(lambda: training.name in trainings_in_progress(one.store))
    else:
        one.wait_for(lambda: (place / "log.txt").exists())
    one.terminate()
    computed, failed, left, _, stopped = one.outcome()
    assert (failed, left, stopped) == ({}, [training.name], "by SIGTERM")
    assert training.name not in computed
    one.assert_nothing_is_counted_or_held()
    assert (place / "checkpoint").exists()
    # Again, with none idle, and then to the end, which needs no process group of its own.
    again = drive(min(workers, 1), "training")
    again.wait_for(lambda: (place / "lease").exists())
    again.terminate()
    assert again.outcome()[2] == [training.name]
    again.assert_nothing_is_counted_or_held()
    lab = tb.Lab(one.store.root, workers=min(workers, 1))
    assert lab.run(training).computed == [training.name]
    assert same_run(lab.result(training), undisturbed)


@_each(always=0)
def test_a_job_that_is_being_published_is_published_still(drive: Drive, jobs: dict, workers: int) -> None:
    one = drive(workers, "publishing")
    job = tb.job(jobs["publishes_slowly"], str(one.place))
    one.wait_for(lambda: (one.place / "publishing").exists())
    one.terminate()
    (one.place / "told").touch()
    assert one.outcome()[1:3] == ({}, [])
    assert one.store.has(job.name)
    assert list((one.store.root / "work").iterdir()) == []


@_each(always=0)
def test_whoever_waits_for_another_driver_wakes_at_once(
    drive: Drive, jobs: dict, tmp_path: Path, workers: int
) -> None:
    job = tb.job(jobs["beating"], str(tmp_path))
    other = leases.acquire(Store(tmp_path / "store").workplace(job.name))
    assert other is not None
    one = drive(workers, "beating")
    one.wait_for(lambda: (tmp_path / "waiting").exists())
    one.terminate()
    assert one.outcome()[1:3] == ({}, [job.name])
    assert other.is_ours()
    other.release()


# Attempts


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_more_stops_than_attempts_under_a_job_that_takes_no_notice_count_none(
    drive: Drive, jobs: dict, workers: int
) -> None:
    job, begun = tb.job(jobs["sleeper"], str(drive.place)), drive.place / "sleeper-0"
    for _ in range(2):
        begun.unlink(missing_ok=True)
        one = drive(workers, "sleeper", attempts=1, patience=1.0)
        one.wait_for(begun.exists)
        one.terminate()
        assert one.outcome()[1:3] == ({}, [job.name])
        one.assert_nothing_is_counted_or_held()
    assert drive(workers, "sleeper", attempts=1).outcome()[0] == [job.name]  # it finds that it was begun


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_harder_and_loses_nothing(
    drive: Drive, jobs: dict, workers: int, second: signal.Signals
) -> None:
    job = tb.job(jobs["sleeper"], str(drive.place))
    one = drive(workers, "sleeper")
    one.wait_for(lambda: (one.place / "sleeper-0").exists())
    one.terminate()
    one.wait_for(lambda: (one.place / "stopping").exists())
    os.killpg(one.process.pid, second)
    out, err = one.process.communicate(timeout=300)
    if second == signal.SIGTERM:
        assert json.loads(out)[2] == [job.name]
    else:
        assert "KeyboardInterrupt" in err
    one.assert_nobody_is_left()
    one.assert_nothing_is_counted_or_held()
    assert drive(workers, "sleeper").outcome()[0] == [job.name]


@pytest.mark.long
def test_ctrl_c_under_worker_processes_counts_no_attempt(drive: Drive) -> None:
    one = drive(2, "sleeper", "training")
    one.wait_for(lambda: (one.place / "sleeper-0").exists())
    one.wait_for(lambda: trainings_in_progress(one.store))
    os.killpg(one.process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in one.process.communicate(timeout=300)[1]
    one.assert_nobody_is_left()
    one.assert_nothing_is_counted_or_held()
    assert checkpoints(one.place)


# Times


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_a_time_ends_work_in_workers_as_in_the_driver(
    drive: Drive, jobs: dict, undisturbed: tb.Run, same_run: Same, workers: int
) -> None:
    training, beating = jobs["training"](), tb.job(jobs["beating"], str(drive.place))
    one = drive(workers, "beating", "training", seconds="5")
    computed, failed, left, _, stopped = one.outcome()
    assert (failed, stopped) == ({}, "after 5s")
    assert beating.name in left  # it never ends by itself
    assert training.name in left or workers
    assert set(computed) | set(left) == {beating.name, *all_needed([training])}
    one.assert_nothing_is_counted_or_held()
    (drive.place / "beating").touch()  # now it ends, even if the time was over before it began
    assert drive(workers, "beating", "training").outcome()[2] == []
    assert same_run(tb.Lab(one.store.root).result(training), undisturbed)


# Workers of somebody else's cluster


def dask(place: Path, what: str, *options: str) -> subprocess.Popen[bytes]:
    """A scheduler, or a worker with its nanny, in a process group of its own."""
    environment = os.environ | {
        "PYTHONPATH": f"{Path(tb.__file__).parents[1]}:{place}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        sys.executable, "-m", "dask", what, "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file",
        str(place / "scheduler.json"), *options,
    ]  # fmt: skip
    with (place / f"{what}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)


@pytest.mark.long
def test_workers_of_a_cluster_hear_of_a_stop_and_keep_checkpoints_when_they_are_ended(
    drive: Drive, jobs: dict, undisturbed: tb.Run, same_run: Same
) -> None:
    training, place = jobs["training"](), drive.place
    (place / "jobs.py").write_text(JOBS + HOOKS)
    workplace = Store(place / "store").workplace(training.name)
    worker = ("--nthreads", "1", "--memory-limit", "0", "--preload", "jobs")
    processes = [dask(place, "scheduler", "--port", "0"), dask(place, "worker", *worker)]
    try:
        # The driver is stopped: the workers hear of it, and stay.
        one = drive(0, "training", scheduler=True)
        one.wait_for(lambda: training.name in trainings_in_progress(Store(place / "store")))
        one.terminate()
        assert training.name in one.outcome()[2]
        assert (workplace / "checkpoint").exists()
        assert deaths(workplace) == 0
        (workplace / "checkpoint").rename(place / "first")
        # A worker is ended by a signal to it and its nanny, as by Slurm: the next one goes on for the driver.
        two = drive(0, "training", scheduler=True)
        two.wait_for(lambda: training.name in trainings_in_progress(Store(place / "store")))
        os.killpg(processes[1].pid, signal.SIGTERM)
        assert processes[1].wait(timeout=300) == 0
        assert (workplace / "checkpoint").exists()
        assert deaths(workplace) == 0
        processes.append(dask(place, "worker", *worker))
        assert two.outcome()[1:3] == ({}, [])
        assert same_run(tb.Lab(place / "store").result(training), undisturbed)
    finally:
        for process in reversed(processes):
            for member in session(process.pid):
                member.kill()
            process.wait()
