import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import distributed
import psutil
import pytest

import tombola as tb
from tombola.cores import available_cores
from tombola.errors import JobError, StoreError
from tombola.lab import lease as leases
from tombola.lab.chains import imp_jobs
from tombola.lab.deadline import Stop
from tombola.lab.driver import Outcome, Progress, run_on_cluster
from tombola.lab.execute import Settings
from tombola.lab.job import Job, all_needed
from tombola.lab.results import Packed
from tombola.lab.store import Store
from tombola.registry import declaration

Same = Callable[..., bool]

# Sixty-three to a batch leave one image over, on which resnet18 has no batch norm at 8x8 pixels.
IMPOSSIBLE = tb.Recipe(epochs=1, batch_size=63)


@pytest.fixture
def calls() -> list[str]:
    """The declared functions of these tests, and every call that was made of them."""
    made: list[str] = []

    @tb.declare("leaf")
    def leaf(word: str) -> str:
        made.append(word)
        if word == "assertion":
            raise AssertionError("that was\nwrong")
        if word == "custom":
            raise Strange("odd")
        if word == "missing":
            raise FileNotFoundError(errno.ENOENT, "No such file", "some.txt")
        return word

    @tb.declare("join")
    def join(first: str, second: str = "-") -> str:
        made.append(f"{first}+{second}")
        return first + second

    return made


class Strange(Exception):
    pass


def leaf(word: str) -> Job:
    return tb.job(declaration("leaf").function, word)


def join(*parts: Job) -> Job:
    return tb.job(declaration("join").function, *parts)


# In this process


def test_jobs_run_in_the_order_of_their_needs_and_once(lab: tb.Lab, calls: list[str]) -> None:
    a, b = leaf("a"), leaf("b")
    top = join(join(a, b), join(b, a))
    outcome = lab.run([top, top, a])
    assert sorted(calls) == sorted(["a", "b", "a+b", "b+a", "ab+ba"])
    assert (outcome.finished_before, outcome.failed) == ([], {})
    assert outcome.computed == list(all_needed([top]))
    assert lab.result(top) == "abba"


def test_a_second_run_computes_nothing(lab: tb.Lab, calls: list[str], recorder) -> None:
    top = join(leaf("a"))
    lab.run(top)
    calls.clear()
    outcome = lab.run(top, progress=recorder)
    assert calls == []
    assert (outcome.computed, sorted(outcome.finished_before)) == ([], sorted([leaf("a").name, top.name]))
    assert (recorder.begun, recorder.finished) == ([(2, 0)], [])


def test_a_failing_job_takes_only_its_dependents_with_it(lab: tb.Lab, calls: list[str], recorder) -> None:
    bad, good = leaf("assertion"), leaf("good")
    needing, above = join(bad, good), join(join(bad, good))
    outcome = lab.run([above, join(good)], progress=recorder)
    assert outcome.computed == [good.name, join(good).name]
    assert outcome.failed == {
        bad.name: "AssertionError: that was wrong",
        needing.name: f"needs job {bad.name[:12]}, which failed",
        above.name: f"needs job {needing.name[:12]}, which failed",
    }
    assert recorder.begun == [(0, 5)]
    assert dict(recorder.finished) == {**dict.fromkeys(outcome.computed), **outcome.failed}
    with pytest.raises(
        JobError, match=rf"^job {bad.name[:12]} failed \(and 2 more\): AssertionError: that was wrong$"
    ):
        outcome.raise_failures()


@pytest.mark.parametrize(
    ("word", "cause"),
    [("custom", "Strange: odd"), ("missing", "FileNotFoundError: [Errno 2] No such file: 'some.txt'")],
)
def test_a_function_may_fail_in_any_way(lab: tb.Lab, calls: list[str], word: str, cause: str) -> None:
    outcome = lab.run([leaf(word), leaf("good")])
    assert outcome.failed == {leaf(word).name: cause}
    assert outcome.computed == [leaf("good").name]


def test_a_job_that_failed_is_tried_again(lab: tb.Lab, calls: list[str]) -> None:
    for _ in range(2):
        assert lab.run(leaf("custom")).failed
    assert calls == ["custom", "custom"]


def test_one_failure_alone_is_told_without_a_count() -> None:
    with pytest.raises(JobError, match=r"^job abcdefabcdef failed: no luck$"):
        Outcome(failed={"abcdef" * 10: "no luck"}).raise_failures()
    Outcome().raise_failures()


def test_a_full_disk_ends_the_whole_run(
    lab: tb.Lab, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.run(leaf("done"))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(StoreError, match=r"cannot write .*: No space left"):
        lab.run([leaf("a"), leaf("b")])
    assert list(lab.store.names()) == [leaf("done").name]


def test_a_job_that_another_works_on_is_waited_for_with_growing_pauses(
    lab: tb.Lab, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = leaf("a")
    workplace = lab.store.workplace(job.name)
    lease = leases.acquire(workplace)
    assert lease is not None
    pauses: list[float] = []

    def pause(stop: Stop, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:  # the other one is done
            lab.store.publish(job.name, job.description(), Packed({"value": "theirs"}, {}, {}), {})
            lease.release()

    monkeypatch.setattr(Stop, "wait", pause)
    assert lab.run(job).failed == {}
    assert calls == []
    assert lab.result(job) == "theirs"
    assert pauses[0] < 0.25
    assert 8 <= pauses[-1] <= 12
    assert pauses[10] > 2 * pauses[0]


def test_a_job_whose_owner_gives_up_is_taken_on(
    lab: tb.Lab, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leases.acquire(lab.store.workplace(leaf("a").name))
    assert lease is not None
    monkeypatch.setattr(Stop, "wait", lambda *_: lease.release())
    lab.run(leaf("a")).raise_failures()
    assert calls == ["a"]


def test_two_drivers_at_once_compute_every_job_once(tmp_path: Path, calls: list[str]) -> None:
    top = join(join(leaf("a"), leaf("b")), leaf("c"))
    gate = threading.Barrier(2, timeout=60)
    outcomes: list[Outcome] = []

    def drive() -> None:
        lab = tb.Lab(tmp_path / "store")
        gate.wait()
        outcomes.append(lab.run(top))

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == ["a", "a+b", "ab+c", "b", "c"]
    assert [outcome.failed for outcome in outcomes] == [{}, {}]
    assert tb.Lab(tmp_path / "store").result(top) == "abc"


def test_there_is_at_least_one_core() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


# Worker processes


@pytest.fixture(scope="module")
def graph() -> list[Job]:
    """Two chains of three trainings each, and the line between their ends."""
    recipe = tb.Recipe(epochs=4, batch_size=100, momentum=0.9)
    chains = [imp_jobs("convnet", "digits", recipe, rounds=2, seed=seed, rewind=1) for seed in (0, 1)]
    return [*chains[0], *chains[1], tb.job(tb.barrier, chains[0][2], chains[1][2], "digits", points=5)]


@pytest.fixture(scope="module")
def undisturbed(graph: list[Job], tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    """The graph, run in this process."""
    lab = tb.Lab(tmp_path_factory.mktemp("undisturbed") / "store")
    lab.run(graph).raise_failures()
    return lab


def assert_same_results(graph: list[Job], first: tb.Lab, second: tb.Lab, same_run: Same) -> None:
    for made in graph[:-1]:
        assert same_run(first.result(made), second.result(made))
    assert first.result(graph[-1]) == second.result(graph[-1])
    assert list(first.store.names()) == list(second.store.names())


@pytest.mark.usefixtures("forked_workers")
def test_worker_processes_give_the_same_bits_and_failures_stay_where_they_are(
    graph: list[Job], undisturbed: tb.Lab, tmp_path: Path, same_run: Same, recorder
) -> None:
    lab = tb.Lab(tmp_path / "store", workers=2)
    start = tb.job(tb.initialize, "resnet18", "digits")
    bad = tb.job(tb.train, start, "digits", IMPOSSIBLE)
    needing = tb.job(tb.barrier, bad, bad, "digits")
    outcome = lab.run([*graph, needing], progress=recorder)
    assert set(outcome.failed) == {bad.name, needing.name}
    assert outcome.failed[bad.name].startswith(
        "1198 images in batches of 63 leave a last batch of 1, on which "
    )
    assert outcome.failed[needing.name] == f"needs job {bad.name[:12]}, which failed"
    # Two initialisations, two pretrainings, six trainings, a barrier and the other initialisation.
    assert len(outcome.computed) == len(set(outcome.computed)) == 12
    assert recorder.begun == [(0, 14)]
    assert dict(recorder.finished) == {**dict.fromkeys(outcome.computed), **outcome.failed}
    lab.store.folder(start.name).rename(tmp_path / "aside")
    assert_same_results(graph, undisturbed, lab, same_run)
    pids = {lab.store.provenance(made.name)["pid"] for made in graph}
    assert os.getpid() not in pids
    assert not any(map(psutil.pid_exists, pids))
    assert lab.run(graph).computed == []


class FailedFuture:
    """A future of a job that failed; counts how often the status of any is read."""

    reads = 0

    def __init__(self, key: str) -> None:
        self.key = key

    @property
    def status(self) -> str:
        FailedFuture.reads += 1
        return "error"

    def exception(self) -> Exception:
        return JobError("out of luck")


def test_the_driver_of_a_cluster_does_not_look_at_all_jobs_for_each_that_failed(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = leaf("first")
    needing = [tb.job(declaration("join").function, first, f"{number}") for number in range(300)]
    client = SimpleNamespace(
        get=lambda graph, keys, **_: [FailedFuture(key) for key in keys],
        subscribe_topic=lambda *_: None,
        unsubscribe_topic=lambda *_: None,
    )
    monkeypatch.setattr(distributed, "as_completed", list)
    outcome = Outcome()
    settings = Settings(device="cpu")
    run_on_cluster(client, Store(tmp_path), all_needed(needing), settings, Progress(), outcome)  # type: ignore[arg-type]
    blocked = dict.fromkeys((job.name for job in needing), f"needs job {first.name[:12]}, which failed")
    assert outcome.failed == {first.name: "out of luck"} | blocked
    assert FailedFuture.reads <= 10 * len(outcome.failed)


DRIVER = """
import sys
import tombola as tb
from tombola.lab.chains import imp_jobs
from tombola.lab.driver import Progress

class Tell(Progress):
    def done(self, job, failed):
        print(job.name, failed, flush=True)

if __name__ == "__main__":
    recipe = tb.Recipe(epochs=4, batch_size=100, momentum=0.9)
    chains = [imp_jobs("convnet", "digits", recipe, rounds=2, seed=seed, rewind=1) for seed in (0, 1)]
    line = tb.job(tb.barrier, chains[0][2], chains[1][2], "digits", points=5)
    tb.Lab(sys.argv[1], workers=2).run([*chains[0], *chains[1], line], progress=Tell())
"""


def test_a_run_whose_driver_is_killed_goes_on_where_it_was(
    graph: list[Job], undisturbed: tb.Lab, tmp_path: Path, same_run: Same
) -> None:
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    command = [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as driver:
        assert driver.stdout is not None
        told = [driver.stdout.readline().split() for _ in range(3)]
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signal.SIGKILL)
    assert [cause for _, cause in told] == ["None"] * 3
    assert len(family) >= 2
    _, left = psutil.wait_procs(family, timeout=60)
    assert left == []
    lab = tb.Lab(tmp_path / "store")
    there = set(lab.store.names())
    assert there >= {name for name, _ in told}
    outcome = lab.run(graph)
    outcome.raise_failures()
    assert set(outcome.computed) == {
        name for name, job in all_needed(graph).items() if job.counted and name not in there
    }
    assert_same_results(graph, undisturbed, lab, same_run)
    assert list((lab.store.root / "work").iterdir()) == []
