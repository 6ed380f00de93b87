"""What drivers announce is read back while they run, and nothing of it outlives them or stops a reader."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab import process
from tombola.lab.activity import Watcher
from tombola.lab.chains import imp_jobs
from tombola.lab.gc import gc
from tombola.lab.lease import acquire
from tombola.lab.queue import QueueReader, announced
from tombola.lab.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def chain() -> list[tb.Job]:
    return imp_jobs("convnet", "digits", tb.Recipe(epochs=1, batch_size=400), rounds=1)


def test_a_driver_is_listed_with_its_jobs_while_it_runs(store: Store, chain: list[tb.Job]) -> None:
    needed = [*chain, *(parent for job in chain for parent in job.parents)]
    with announced(store, needed):
        (queue,) = QueueReader(store).queues()
    assert f"process {os.getpid()} on " in queue.driver
    assert queue.jobs == {job.name: job.declaration.name for job in needed if job.counted}
    assert sorted(queue.jobs.values()) == ["initialize", "train", "train"]  # tickets are not counted
    assert QueueReader(store).queues() == []
    assert list((store.root / "work").iterdir()) == []


def test_the_queue_of_a_dead_driver_is_not_shown(store: Store) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    written = {**process.identity(), "pid": dead.pid, "begun": 5, "jobs": {"a" * 64: "train"}}
    (store.root / "work" / ".queue.0123abcd").write_text(json.dumps(written))
    assert QueueReader(store).queues() == []
    os.utime(store.root / "work" / ".queue.0123abcd", (1, 1))
    (removal,) = gc(store)
    assert removal.place == "work/.queue.0123abcd"
    with announced(store, []):  # the next driver on this machine clears it away, too
        (own,) = (store.root / "work").iterdir()
    assert own.name != ".queue.0123abcd"


def test_of_a_driver_elsewhere_the_heartbeat_tells(store: Store) -> None:
    path = store.root / "work" / ".queue.0123abcd"
    path.write_text(
        json.dumps({**process.identity(), "host": "elsewhere", "begun": 5, "jobs": {"a" * 64: "train"}})
    )
    reader = QueueReader(store)
    assert [queue.jobs for queue in reader.queues()] == [{"a" * 64: "train"}]
    for away in (-3600, 3600):  # nor is a date in the future one
        dated = time.time() + away
        os.utime(path, (dated, dated))
        assert reader.queues() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"jobs": 3}',
        '{"jobs": {}, "pid": 1}',
        '{"host": {}, "pid": "\\u001b", "begun": "x", "jobs": {}}',
        '{"host": "h", "pid": 1, "begun": 1, "jobs": {}, "made_from": {"a": 3}}',
        '{"host": "h", "pid": 1, "begun": 1, "jobs": {}, "made_from": [[]]}',
    ],
)
def test_a_queue_of_another_form_is_passed_over(store: Store, text: str) -> None:
    (store.root / "work" / ".queue.0123abcd").write_text(text)
    (store.root / "work" / ".queue.0123abce").mkdir()
    assert QueueReader(store).queues() == []


def test_a_watcher_sees_jobs_begin_and_end(store: Store, chain: list[tb.Job]) -> None:
    lab, watcher = tb.Lab(store.root), Watcher(store)
    first, second = chain
    assert (watcher.look().total, watcher.look().busy) == (0, False)
    with announced(store, [first, second]):
        lease = acquire(store.workplace(first.name))
        assert lease is not None
        seen = watcher.look()
        assert [(one.job.name, one.training) for one in seen.under_way] == [(first.name, None)]
        (line,) = seen.queue
        assert (line.function, line.waiting, line.running, line.finished) == ("train", 1, 1, 0)
        assert seen.left is None  # no training was finished, so nobody knows how long they take
        lease.clear()
        lab.run(first).raise_failures()
        seen = watcher.look()
        (line,) = seen.queue
        assert (line.waiting, line.running, line.finished) == (1, 0, 1)
        # One job is left, of a kind of which one took so long.
        assert seen.left == pytest.approx(lab.store.provenance(first.name)["seconds"])
    assert [row.name for row in seen.recent] == [first.name, first.parents[0].name]
    assert (seen.total, seen.last_hour) == (2, 2)
    (curve,) = seen.curves
    history = lab.result(first).history
    assert [point.test_accuracy for point in curve.points] == [row.test_accuracy for row in history[1:]]
    assert watcher.look().queue == []
