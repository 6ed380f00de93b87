"""Who waits for another process says for whom, in this process and from a worker of a cluster."""

from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from distributed import Client, SpecCluster
from racing import race
from rich.console import Console

import tombola as tb
from tombola.lab import process, task
from tombola.lab.driver import Outcome, Progress, run_here, run_on_cluster
from tombola.lab.execute import Settings
from tombola.lab.lease import Lease, acquire
from tombola.lab.objects import register_data
from tombola.lab.private import Scheduler, Worker
from tombola.lab.progress import Bar, RoundTable
from tombola.lab.store import Store

MINE = process.identity()


class Releasing(Progress):
    """Gives a lease back as soon as it is told that somebody waits for it."""

    def __init__(self, lease: Lease) -> None:
        self.lease, self.told = lease, list[tuple[str, str | None]]()

    def waiting(self, job: tb.Job, holder: str | None) -> None:
        self.told.append((job.name, holder))
        self.lease.release()


@pytest.mark.parametrize("in_worker", [False, True])
def test_a_job_that_another_process_holds_is_told_until_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_worker: bool
) -> None:
    monkeypatch.setattr(task, "_TOLD_AFTER", 0.0)
    store = Store(tmp_path / "store")
    job = tb.job(tb.initialize, "convnet", "digits", seed=0)
    register_data(store, "digits", "digits")
    lease = acquire(store.workplace(job.name))
    assert lease is not None
    progress, outcome = Releasing(lease), Outcome()
    if in_worker:
        # Within this process, and listening to nothing.
        ends = {"protocol": "inproc://", "dashboard": False}
        scheduler = {"cls": Scheduler, "options": ends | {"dashboard_address": "127.0.0.1:0"}}
        worker = {"cls": Worker, "options": ends | {"nthreads": 1, "memory_limit": 0}}
        with SpecCluster({0: worker}, scheduler) as cluster, Client(cluster) as client:
            run_on_cluster(client, store, {job.name: job}, Settings(), progress, outcome)
    else:
        run_here(store, {job.name: job}, Settings(), progress, outcome)
    assert (outcome.computed, outcome.failed) == ([job.name], {})
    held = f"process {MINE['pid']} on {MINE['host']}"
    assert progress.told[0] == (job.name, held)
    assert progress.told[1:] in ([(job.name, None)], [])  # from a worker it may come after the result


def screen(terminal: bool) -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(force_terminal=terminal, file=text, width=100, color_system=None), text


def test_a_wait_is_a_line_of_its_own() -> None:
    job = tb.job(tb.initialize, "convnet", "digits")
    line = f"waiting for process 123 on host, which computes job {job.name[:12]} (initialize)"
    console, text = screen(terminal=False)
    with Bar(console) as bar:
        bar.begin(0, 2)
        bar.waiting(job, "process 123 on host")
        bar.waiting(job, "process 123 on host")
        bar.done(job, None)
    assert text.getvalue() == f"2 jobs to compute\n{line}\n1 of 2 jobs done\n"
    console, text = screen(terminal=True)
    with Bar(console) as bar:
        bar.waiting(job, "process 123 on host")
        bar._bar.refresh()
        assert line in text.getvalue()
        bar.waiting(job, None)
        assert bar._waits == {}
    console, text = screen(terminal=False)
    with RoundTable(console, 3) as table:
        table.waiting(job, "process 123 on host")
    assert f"round 0 of 3, {line}\n" in text.getvalue()


def test_jobs_that_wait_and_end_in_several_threads_are_counted_once_each() -> None:
    """Dask tells of waits in a thread of its own; threads here change places as often as they can."""
    jobs = [tb.job(tb.initialize, "convnet", "digits", seed=seed) for seed in range(400)]
    console, _ = screen(terminal=False)
    bar = Bar(console)
    bar.begin(0, len(jobs))

    def wait_and_end(some: list[tb.Job]) -> None:
        for job in some:
            bar.waiting(job, "process 123 on host")
        for job in some:
            bar.done(job, None)

    race(*(partial(wait_and_end, jobs[first::4]) for first in range(4)))
    assert bar._waits == {}
    assert bar._done == len(jobs)
