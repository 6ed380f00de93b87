"""Jobs that kill their worker, and those that were in it with them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask
import distributed  # before its configuration is set
import pytest
import torch

import tombola as tb
from tombola.errors import ClusterError, DeviceError, JobError, MemoryShort
from tombola.lab import cluster
from tombola.lab.cluster import local_cluster
from tombola.lab.driver import Outcome, Progress, run_on_cluster
from tombola.lab.execute import Settings, execute
from tombola.lab.job import all_needed
from tombola.lab.lease import acquire
from tombola.lab.slots import Crew
from tombola.lab.store import Store
from tombola.lab.supervision import (
    Solitude,
    apart_from_suspects,
    append_to_log,
    count_attempt,
    deaths,
    device_is_lost,
    forget_attempts,
    last_lines,
)

DEADLY = """
import faulthandler, os, time
from pathlib import Path
import torch
import tombola as tb

def wait_for(*files):
    while not all(Path(file).exists() for file in files):
        time.sleep(0.01)

@tb.declare("innocent")
def innocent(place: str, number: int) -> int:
    mark = Path(place) / f"innocent-{number}"
    if not mark.exists():
        mark.touch()
        time.sleep(600)  # until somebody kills the process
    time.sleep(0.3)  # long enough to be killed again, if the culprit were here too
    return os.getpid()

@tb.declare("deadly")
def deadly(place: str) -> int:
    wait_for(f"{place}/innocent-0", f"{place}/innocent-1")
    faulthandler._sigsegv()

class Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("stays here")

@tb.declare("unsendable")
def unsendable() -> int:
    raise Unsendable("an error of\\ntwo lines")

@tb.declare("sticky")
def sticky(place: str) -> int:
    mark = Path(place) / "lost"
    if mark.exists():
        return os.getpid()
    wait_for(f"{place}/innocent-0", f"{place}/innocent-1")
    mark.write_text(str(os.getpid()))
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
"""


HUNG = """
@tb.declare("hangs")
def hangs(place: str, watch: tb.Watch | None = None) -> int:
    # Alive until the others have begun: whoever begins after its last end sleeps with nobody to kill it.
    while not all(Path(place, f"innocent-{number}").exists() for number in range(2)):
        watch.beat()
        time.sleep(0.01)
    while True:
        time.sleep(600)
"""


@pytest.fixture
def deadly() -> dict:
    names: dict = {}
    exec(DEADLY + HUNG, names)
    return names


@contextmanager
def one_worker_of_three_slots(place: Path, *scripts: str) -> Iterator[distributed.Client]:
    (place / "deadly_jobs.py").write_text(DEADLY + HUNG)
    with (
        dask.config.set({"distributed.worker.preload": [*scripts, str(place / "deadly_jobs.py")]}),
        local_cluster(Crew((3,))) as client,
    ):
        yield client


@pytest.mark.usefixtures("forked_workers")
def test_every_worker_of_a_crew_has_its_own_number_of_slots() -> None:
    with local_cluster(Crew((2, 1))) as client:
        threads = client.nthreads()
        names = {info["name"]: address for address, info in client.scheduler_info()["workers"].items()}
    assert {number: threads[address] for number, address in names.items()} == {0: 2, 1: 1}


def run(client: distributed.Client, store: Store, jobs: list[tb.Job], settings: Settings) -> Outcome:
    outcome = Outcome()
    run_on_cluster(client, store, all_needed(jobs), settings, Progress(), outcome)
    return outcome


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("slow", [pytest.param(False, marks=pytest.mark.long), True])
def test_only_the_culprit_fails_of_jobs_that_share_a_worker_that_dies(
    tmp_path: Path, store: Store, deadly: dict, slow: bool
) -> None:
    culprit = tb.job(deadly["deadly"], str(tmp_path))
    innocents = [tb.job(deadly["innocent"], str(tmp_path), number) for number in range(2)]
    # A worker that comes back later than Dask would wait, which is 15 s unless it is told otherwise.
    late = tmp_path / "late.py"
    late.write_text(f"import os, time; os.path.exists({str(tmp_path / 'innocent-0')!r}) and time.sleep(1.5)")
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "0.5s"} if slow else {}),
        one_worker_of_three_slots(tmp_path, *([str(late)] if slow else [])) as client,
    ):
        outcome = run(client, store, [culprit, *innocents], Settings(device="cpu", attempts=2))
    assert set(outcome.failed) == {culprit.name}
    assert set(outcome.computed) == {job.name for job in innocents}
    told = outcome.failed[culprit.name]
    assert told.startswith(f"job {culprit.name[:12]} was begun 2 times and never finished")
    assert "Fatal Python error: Segmentation fault" in told
    assert "in deadly" in told
    assert "\n" not in told


@pytest.mark.usefixtures("forked_workers")
def test_a_job_that_sleeps_for_ever_ends_its_worker_and_its_neighbours_resume(
    tmp_path: Path, store: Store, deadly: dict
) -> None:
    culprit = tb.job(deadly["hangs"], str(tmp_path))
    innocents = [tb.job(deadly["innocent"], str(tmp_path), number) for number in range(2)]
    settings = Settings(device="cpu", attempts=2, hung_after=0.5)
    with one_worker_of_three_slots(tmp_path) as client:
        outcome = run(client, store, [culprit, *innocents], settings)
    assert set(outcome.failed) == {culprit.name}
    assert set(outcome.computed) == {job.name for job in innocents}
    told = outcome.failed[culprit.name]
    assert told.startswith(f"job {culprit.name[:12]} was begun 2 times and never finished (does it kill its")
    assert "no sign of life for too long, in hangs (deadly_jobs.py:" in told
    assert "\n" not in told


@pytest.mark.usefixtures("forked_workers")
def test_a_lost_device_ends_its_process_and_everything_in_it_resumes_in_another(
    tmp_path: Path, store: Store, deadly: dict
) -> None:
    bad = tb.job(deadly["unsendable"])
    jobs = [
        tb.job(deadly["sticky"], str(tmp_path)),
        *(tb.job(deadly["innocent"], str(tmp_path), number) for number in range(2)),
    ]
    with one_worker_of_three_slots(tmp_path) as client:
        outcome = run(client, store, jobs, Settings(device="cpu", attempts=2))
        # And an error that cannot be sent reaches the driver all the same.
        failed = run(client, store, [bad], Settings(device="cpu")).failed
    assert failed == {bad.name: "Unsendable: an error of two lines"}
    assert outcome.failed == {}
    pids = {store.numbers(job.name)["value"] for job in jobs}
    assert len(pids) == 1
    assert pids != {int((tmp_path / "lost").read_text())}


@pytest.mark.usefixtures("forked_workers")
def test_a_run_ends_when_no_worker_comes_up_any_more(
    tmp_path: Path, store: Store, deadly: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_WITHOUT_WORKERS", 3.0)
    monkeypatch.setattr(cluster, "_REMARKABLE", 1.0)
    broken = tmp_path / "innocent-0"
    script = tmp_path / "startup.py"
    script.write_text(f"import os; os.path.exists({str(broken)!r}) and os._exit(3)")
    jobs = [tb.job(deadly["deadly"], str(tmp_path))]
    jobs += [tb.job(deadly["innocent"], str(tmp_path), number) for number in range(2)]
    with (
        pytest.warns(UserWarning, match="waiting for one to come up again"),
        pytest.raises(ClusterError, match=r"ended, and none came up again within 3 s; .*run the same again"),
        one_worker_of_three_slots(tmp_path, str(script)) as client,
    ):
        run(client, store, jobs, Settings(device="cpu"))


def test_a_run_ends_at_once_when_no_new_worker_can_import_the_package(
    tmp_path: Path, store: Store, deadly: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken" / "tombola").mkdir(parents=True)
    (tmp_path / "broken" / "tombola" / "__init__.py").write_text("raise ImportError('half\\ninstalled')")
    jobs = [tb.job(deadly["deadly"], str(tmp_path))]
    jobs += [tb.job(deadly["innocent"], str(tmp_path), number) for number in range(2)]
    words = r"the worker processes ended, and no new one can import tombola: installed; see what python -c"

    def run_jobs() -> None:
        with one_worker_of_three_slots(tmp_path) as client:
            monkeypatch.syspath_prepend(str(tmp_path / "broken"))  # for the next worker processes
            run(client, store, jobs, Settings(device="cpu"))

    with pytest.raises(ClusterError, match=words):
        run_jobs()
    with pytest.raises(ClusterError, match=r"^the worker processes do not start: installed"):
        local_cluster(Crew((1,))).__enter__()


def test_a_lost_device_in_this_process_ends_the_run_and_counts_as_a_death(lab: tb.Lab) -> None:
    made = []

    @tb.declare("lose")
    def lose(number: int) -> int:
        made.append(number)
        try:
            raise torch.AcceleratorError("CUDA error: misaligned address\nmore")
        except RuntimeError as error:
            raise ValueError("a measure's own words") from error

    jobs = [tb.job(lose, number) for number in range(2)]
    with pytest.raises(
        DeviceError, match=r"^the GPU failed this process for good \(ValueError.*run the same"
    ):
        lab.run(jobs)
    assert made == [0]
    workplace = lab.store.workplace(jobs[0].name)
    assert deaths(workplace) == 1
    assert last_lines(workplace).endswith("ValueError: a measure's own words")


@pytest.mark.parametrize("alone", [True, False])
def test_a_job_that_lacks_memory_by_itself_fails_after_two_attempts_and_beside_others_after_all(
    store: Store, tmp_path: Path, alone: bool
) -> None:
    begun = []

    @tb.declare("needs-all")
    def needs_all() -> int:
        begun.append(None)
        raise MemoryShort("CUDA out of memory on cuda:0")

    job = tb.job(needs_all)
    other = None if alone else acquire(tmp_path / "other")
    for _ in range(2 if alone else 5):
        with pytest.raises(MemoryShort):
            execute(store, job.description(), Settings(device="cpu"))
    words = (
        "needs more memory than its GPU has: 2 times .* memory on cuda:0; to" if alone else "begun 5 times"
    )
    with pytest.raises(JobError, match=words):
        execute(store, job.description(), Settings(device="cpu"))
    assert len(begun) == (2 if alone else 5)
    if other is not None:
        other.release()


def test_a_job_beside_which_another_began_meanwhile_was_not_alone(store: Store, tmp_path: Path) -> None:
    lease = acquire(tmp_path / "one")
    assert lease is not None
    solitude = Solitude(torch.device("cpu"))
    assert solitude.lasts()
    other = acquire(tmp_path / "two")
    assert other is not None
    other.release()
    assert not solitude.lasts()
    lease.release()


def test_a_plain_error_is_no_lost_device() -> None:
    assert device_is_lost(torch.AcceleratorError("x"))
    assert not device_is_lost(RuntimeError("CUDA out of memory"))
    assert not device_is_lost(torch.OutOfMemoryError("CUDA out of memory"))


# Suspects


def test_two_suspects_are_never_in_one_process_together(tmp_path: Path) -> None:
    inside, seen = [], []

    def enter(number: int) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        count_attempt(place, 5, "x" * 64)
        with apart_from_suspects(place, nullcontext):
            inside.append(number)
            seen.extend(len(inside) for _ in range(1000))
            inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}
    assert len(seen) == 4000


def test_whoever_is_no_suspect_waits_for_none(tmp_path: Path) -> None:
    suspect, other, second = (tmp_path / name for name in ("suspect", "other", "second"))
    for place in (suspect, other, second):
        place.mkdir()
    count_attempt(suspect, 5, "x" * 64)
    count_attempt(second, 5, "x" * 64)
    waited = threading.Event()

    @contextmanager
    def waiting() -> Iterator[None]:
        waited.set()
        yield

    def enter_second() -> None:
        with apart_from_suspects(second, waiting):
            pass

    thread = threading.Thread(target=enter_second)
    with apart_from_suspects(suspect, nullcontext):
        with apart_from_suspects(other, waiting):
            assert not waited.is_set()
        thread.start()
        assert waited.wait(60)  # gives its slot up meanwhile
    thread.join()


def test_a_job_that_is_under_way_elsewhere_is_no_suspect(tmp_path: Path) -> None:
    suspect, other = tmp_path / "suspect", tmp_path / "other"
    suspect.mkdir()
    owner = acquire(other)  # a driver beside this one
    assert owner is not None
    count_attempt(suspect, 5, "x" * 64)
    count_attempt(other, 5, "y" * 64)

    class MustNotWait(Exception):
        pass

    @contextmanager
    def waiting() -> Iterator[None]:
        raise MustNotWait
        yield

    with apart_from_suspects(suspect, nullcontext):
        with apart_from_suspects(other, waiting):
            pass
        owner.release()  # as one that died
        with pytest.raises(MustNotWait), apart_from_suspects(other, waiting):
            pass


def test_a_failure_repeats_the_last_lines_of_the_log(tmp_path: Path) -> None:
    count_attempt(tmp_path, 1, "x" * 64)
    for epoch in range(1, 9):
        append_to_log(tmp_path, f"finished epoch {epoch} of 9")
    with pytest.raises(
        JobError, match=r"its last lines: .* epoch 5 of 9 \| .* epoch 8 of 9; to try again"
    ) as told:
        count_attempt(tmp_path, 1, "x" * 64)
    assert "\n" not in str(told.value)
    forget_attempts(tmp_path)
    count_attempt(tmp_path, 1, "x" * 64)


def test_a_log_that_is_gone_or_damaged_says_nothing(tmp_path: Path) -> None:
    assert last_lines(tmp_path) == ""
    assert deaths(tmp_path) == 0
    (tmp_path / "log.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "attempts.json").write_text("{")
    assert isinstance(last_lines(tmp_path), str)
    assert deaths(tmp_path) == 0


@pytest.mark.parametrize(
    "content", [b'{"begun": null}', b'{"begun": []}', b'{"begun": 1e999}', b"[]", b"\xff", b"[" * 100_000]
)
def test_a_count_of_attempts_that_is_none_counts_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "attempts.json").write_bytes(content)
    assert deaths(tmp_path) == 0


def test_an_orderly_end_leaves_no_count_and_no_log(store: Store) -> None:
    @tb.declare("fails")
    def fails() -> int:
        raise RuntimeError("no")

    job = tb.job(fails)
    with pytest.raises(RuntimeError):
        execute(store, job.description(), Settings())
    assert {path.name for path in store.workplace(job.name).iterdir()} == {"error.txt", "under-way.json"}
