"""Where chains of trainings run, and which begins first: by hand, and in worker processes."""

import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.lab.chains import imp_jobs
from tombola.lab.cluster import local_cluster
from tombola.lab.driver import Outcome, Progress, run_on_cluster
from tombola.lab.execute import Settings
from tombola.lab.job import Job, all_needed
from tombola.lab.placement import Chains
from tombola.lab.slots import Crew
from tombola.lab.store import Store
from tombola.registry import declaration

DECLARED = """
import os, time
from pathlib import Path
import tombola as tb
from tombola.cost import Cost

def odd_cost(before):
    raise ValueError("nobody knows")

@tb.declare("placed.start")
def start(number: int) -> int:
    return number

@tb.declare("placed.trained", cost=lambda images: Cost(epochs=1, images=images))
def trained(before: int, number: int, images: float) -> int:
    return os.getpid()

@tb.declare("placed.measured")
def measured(before: int) -> int:
    return os.getpid()

@tb.declare("placed.odd", cost=odd_cost)
def odd(before: int) -> int:
    return os.getpid()

@tb.declare("placed.meeting", cost=lambda images: Cost(epochs=1, images=images))
def meeting(before: int, place: str, number: int, images: float) -> int:
    (Path(place) / str(number)).touch()
    while len(list(Path(place).iterdir())) < 2:
        time.sleep(0.01)
    return os.getpid()
"""


@pytest.fixture(autouse=True)
def _declared() -> None:
    exec(DECLARED, {})


def call(name: str, *arguments: object) -> Job:
    return tb.job(declaration(f"placed.{name}").function, *arguments)


def line(start: Job, length: int, number: int = 0, images: float = 1.0) -> list[Job]:
    """So many trainings that are each made from the one before."""
    jobs = [start]
    for _ in range(length):
        jobs.append(call("trained", jobs[-1], number, images))
    return jobs[1:]


def chains_of(jobs: Sequence[Job]) -> Chains:
    needed = all_needed(jobs)
    return Chains(needed, {name: [need.name for need in job.needs] for name, job in needed.items()})


def test_what_is_made_from_one_result_is_spread_and_each_chain_stays_together() -> None:
    start = call("start", 0)
    lines = [line(start, 2, number) for number in range(5)]
    places = chains_of([job for jobs in lines for job in jobs]).places({"a": 1, "b": 1})
    assert [{places[job.name] for job in jobs} for jobs in lines] == [{"a"}, {"b"}, {"a"}, {"b"}, {"a"}]
    assert places[start.name] == "a"  # the first goes on from it


def test_the_longest_chain_is_placed_first_and_slots_count() -> None:
    # 6 to a; 5 to b, whose 5 are less than 11; 4 to b, 9 against 10; 3 to a, 9 against 12; 1 to a, the first.
    lines = [line(call("start", length), length) for length in (1, 3, 4, 5, 6)]
    jobs = [job for jobs in lines for job in jobs]
    places = chains_of(jobs).places({"a": 1, "b": 1})
    assert [places[jobs[0].name] for jobs in lines] == ["a", "a", "b", "b", "a"]
    # Of six equal ones three, two and one.
    equal = [line(call("start", number), 2) for number in range(6)]
    places = chains_of([job for jobs in equal for job in jobs]).places({"a": 3, "b": 2, "c": 1})
    assert Counter(places[jobs[0].name] for jobs in equal) == {"a": 3, "b": 2, "c": 1}


def test_the_job_with_the_most_training_left_goes_first_and_measures_do_not_wait_for_all() -> None:
    long, short = line(call("start", 0), 3), line(call("start", 1), 2)
    measures = [call("measured", long[0]), call("measured", short[1])]
    measures += [call("measured", measures[1]), call("measured", call("start", 2))]
    priorities = chains_of([*long, *short, *measures]).priorities()
    # Left are 3, 2 and 1 of the long chain, 2 and 1 of the short one.
    assert [priorities[job.name] for job in long] == [0, -1, -2]
    assert [priorities[job.name] for job in short] == [-1, -2]
    assert [priorities[job.name] for job in measures] == [0, -2, -2, 0]


def test_what_trains_nothing_or_does_not_say_is_left_to_dask() -> None:
    start = call("start", 0)
    jobs = [call("measured", start), call("odd", start)]
    chains = chains_of(jobs)
    assert chains.places({"a": 1, "b": 1}) == {}
    assert set(chains.priorities().values()) == {0}
    assert chains_of(line(start, 2)).places({}) == {}  # all processes have ended


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=12),
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=4),
)
def test_no_process_has_more_for_each_slot_than_another_would_with_one_chain_more(
    lengths: list[int], slots: list[int]
) -> None:
    start = call("start", 0)
    lines = [line(start, length, number) for number, length in enumerate(lengths)]
    threads = {str(number): count for number, count in enumerate(slots)}
    places = chains_of([job for jobs in lines for job in jobs]).places(threads)
    load: Counter[str] = Counter()
    for jobs in lines:
        (process,) = {places[job.name] for job in jobs}
        load[process] += len(jobs)
    for process, count in threads.items():
        fullest = max(load[other] / threads[other] for other in threads)
        assert fullest <= (load[process] + max(lengths)) / count


# Worker processes


@pytest.mark.usefixtures("forked_workers")
def test_trainings_from_one_start_are_spread_over_processes_that_take_nothing_from_each_other(
    tmp_path: Path,
) -> None:
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    quick = tb.Recipe(epochs=1, batch_size=400)
    runs = [tb.job(tb.train, start, "digits", quick, noise=noise) for noise in range(4)]
    lab = tb.Lab(tmp_path / "store", workers=2)
    with dask.config.set({"distributed.scheduler.work-stealing": False}):
        lab.run(runs).raise_failures()
    counts = Counter(lab.store.provenance(run.name)["pid"] for run in runs)
    assert sorted(counts.values()) == [2, 2]


class Killer(Progress):
    """Kills the process of the first training that is finished, and notes it."""

    def __init__(self, store: Store) -> None:
        self.store, self.killed = store, 0

    def done(self, job: Job, failed: str | None) -> None:
        if not self.killed and job.declaration.name == "train":
            self.killed = self.store.provenance(job.name)["pid"]
            os.kill(self.killed, signal.SIGKILL)


@pytest.mark.usefixtures("forked_workers")
def test_the_chains_of_a_process_that_is_killed_are_finished_by_others_with_the_same_bits(
    tmp_path: Path, same_run: Callable[..., bool]
) -> None:
    recipe = tb.Recipe(epochs=4, batch_size=100)
    lines = [imp_jobs("convnet", "digits", recipe, rounds=rounds, seed=rounds) for rounds in (1, 2, 3)]
    jobs = [job for jobs in lines for job in jobs]
    alone = tb.Lab(tmp_path / "alone")
    alone.run(jobs).raise_failures()
    lab = tb.Lab(tmp_path / "store", workers=2)
    killer = Killer(lab.store)
    lab.run(jobs, progress=killer).raise_failures()
    assert killer.killed
    assert all(same_run(alone.result(job), lab.result(job)) for job in jobs)
    pids = [[lab.store.provenance(job.name)["pid"] for job in jobs] for jobs in lines]
    assert any(line[0] == killer.killed != line[-1] for line in pids)


@pytest.mark.usefixtures("forked_workers")
def test_a_process_without_work_takes_what_waits_for_another(
    tmp_path: Path, store: Store, within: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Two short chains wait for each other in a process of one slot; the long one is over."""
    (tmp_path / "placed_jobs.py").write_text(DECLARED)
    (place := tmp_path / "met").mkdir()
    start = call("start", 0)
    jobs = [call("trained", start, 0, 10.0), *(call("meeting", start, str(place), n, 1.0) for n in (1, 2))]
    places = chains_of(jobs).places({"a": 1, "b": 1})
    assert len({places[job.name] for job in jobs[1:]}) == 1
    outcome = Outcome()
    with (
        within(120),
        dask.config.set({"distributed.worker.preload": [str(tmp_path / "placed_jobs.py")]}),
        local_cluster(Crew((1, 1))) as client,
    ):
        settings = Settings(device="cpu")
        run_on_cluster(client, store, all_needed(jobs), settings, Progress(), outcome, spread=True)
    assert outcome.failed == {}
    assert len({store.numbers(job.name)["value"] for job in jobs[1:]}) == 2


@pytest.mark.usefixtures("forked_workers")
def test_chains_of_different_lengths_stay_in_their_processes_and_the_longest_begins_first(
    tmp_path: Path, store: Store
) -> None:
    (tmp_path / "placed_jobs.py").write_text(DECLARED)
    lines = {length: line(call("start", length), length) for length in (1, 2, 3, 4, 5, 6)}
    jobs = [job for jobs in lines.values() for job in jobs]
    ends: defaultdict[int, list[int]] = defaultdict(list)

    class Noting(Progress):
        def done(self, job: Job, failed: str | None) -> None:
            for length, jobs in lines.items():
                if job is jobs[0]:
                    ends[store.numbers(job.name)["value"]].append(length)

    outcome = Outcome()
    with (
        dask.config.set({
            "distributed.worker.preload": [str(tmp_path / "placed_jobs.py")],
            "distributed.scheduler.work-stealing": False,
        }),
        local_cluster(Crew((1, 1, 1))) as client,
    ):  # fmt: skip
        settings = Settings(device="cpu")
        run_on_cluster(client, store, all_needed(jobs), settings, Noting(), outcome, spread=True)
    assert outcome.failed == {}
    pids = {length: {store.numbers(job.name)["value"] for job in jobs} for length, jobs in lines.items()}
    assert all(len(one) == 1 for one in pids.values())
    # 6 with 1, 5 with 2 and 4 with 3: seven trainings each.
    assert sorted(map(sorted, ends.values())) == [[1, 6], [2, 5], [3, 4]]
    assert all(order == sorted(order, reverse=True) for order in ends.values())
