import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tombola
from tombola.errors import StoreError
from tombola.lab import lease as leases
from tombola.lab.lease import STALE, Lease, LeaseLost, acquire

OWNER = """
import sys, time
from pathlib import Path
from tombola.lab.lease import acquire
print(acquire(Path(sys.argv[1])) is not None, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests set the age of a lease themselves."""
    monkeypatch.setattr(leases._held, "add", lambda lease: None)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "work" / "job"


@pytest.fixture
def owner(place: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    environment = os.environ | {"PYTHONPATH": str(Path(tombola.__file__).parents[1])}
    command = [sys.executable, "-c", OWNER, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def held(place: Path) -> Lease:
    lease = acquire(place)
    assert lease is not None
    return lease


def age(lease: Lease, seconds: float) -> None:
    """Let the last heartbeat be that long ago."""
    then = time.time() - seconds
    os.utime(lease.path, (then, then))


def test_a_lease_is_exclusive_and_free_again_when_released(place: Path) -> None:
    first = held(place)
    assert acquire(place) is None
    assert acquire(place.parent / "other") is not None
    first.release()
    assert list(place.iterdir()) == []
    held(place).check()


def test_a_lease_says_who_holds_it(place: Path) -> None:
    lease = held(place)
    written = json.loads(lease.path.read_text())
    assert written == lease.owner
    assert written["pid"] == os.getpid()
    assert set(written) == {"host", "boot", "processes", "pid", "started", "lease"}


def test_a_lease_is_not_taken_over_while_its_owner_lives_and_beats(
    place: Path, owner: subprocess.Popen[str]
) -> None:
    assert acquire(place) is None
    assert owner.poll() is None


def test_the_lease_of_a_killed_process_is_taken_over_at_once(
    place: Path, owner: subprocess.Popen[str]
) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    held(place).check()


def test_the_lease_of_a_process_that_nobody_has_buried_yet_is_taken_over(
    place: Path, owner: subprocess.Popen[str]
) -> None:
    owner.kill()
    os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
    assert acquire(place) is not None


@pytest.mark.parametrize(
    ("change", "dead"),
    [
        ({"boot": "before"}, True),
        ({"started": "1"}, True),
        ({"host": "elsewhere", "pid": 1, "started": "1"}, False),
        ({"pid": None}, False),
        ({"processes": "another container", "started": "1"}, False),
    ],
)
def test_a_process_is_dead_if_its_machine_or_its_number_began_anew(
    place: Path, change: dict, dead: bool
) -> None:
    lease = held(place)
    lease.path.write_text(json.dumps(lease.owner | change))
    assert (acquire(place) is not None) == dead


def test_a_lease_whose_heart_stopped_is_taken_over_and_its_old_owner_notices(place: Path) -> None:
    old = held(place)
    age(old, STALE - 20)
    assert acquire(place) is None
    age(old, STALE + 1)
    new = held(place)
    with pytest.raises(LeaseLost):
        old.check()
    with pytest.raises(LeaseLost):
        old.beat()
    old.release()
    new.check()


def test_an_owner_notices_that_its_workplace_is_gone(place: Path) -> None:
    lease = held(place)
    lease.path.unlink()
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()


def test_a_lease_that_a_power_cut_emptied_is_stale_in_time(place: Path) -> None:
    old = held(place)
    old.path.write_text("")
    assert acquire(place) is None
    age(old, STALE + 1)
    held(place).check()


def test_of_two_threads_exactly_one_gets_a_free_lease(tmp_path: Path) -> None:
    for place in (tmp_path / str(attempt) for attempt in range(50)):
        assert len(race(place)) == 1


def test_of_two_threads_exactly_one_gets_a_stale_lease(tmp_path: Path) -> None:
    for place in (tmp_path / str(attempt) for attempt in range(50)):
        age(held(place), STALE + 1)
        (won,) = race(place)
        won.check()
        assert [path.name for path in place.iterdir()] == ["lease"]


def race(place: Path) -> list[Lease]:
    """The leases that two threads get that ask for the same at the same moment."""
    gate = threading.Barrier(2, timeout=60)
    got: list[Lease | None] = []

    def ask() -> None:
        gate.wait()
        got.append(acquire(place))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    return [lease for lease in got if lease is not None]


def test_a_lease_that_was_taken_over_between_the_look_and_the_rename_is_put_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = held(place)
    age(old, STALE + 1)
    new: list[Lease] = []
    really = leases._server_time

    def slow(folder: Path) -> float:
        now = really(folder)
        monkeypatch.setattr(leases, "_server_time", really)
        new.append(held(place))  # somebody else is faster
        return now + STALE  # and this look is an old one

    monkeypatch.setattr(leases, "_server_time", slow)
    assert acquire(place) is None
    new[0].check()


def test_a_workplace_that_is_cleared_away_at_this_moment_is_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_create", lambda path, owner: Path(path.parent / "gone" / "x").touch())
    assert acquire(place) is None


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*file/sub: Not a directory"):
        acquire(tmp_path / "file" / "sub")


class Turns:
    """Stands in for the clock of the heartbeat: a few turns without waiting, and then the end."""

    def __init__(self, turns: int) -> None:
        self.left = turns

    def sleep(self, seconds: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise StopIteration

    @staticmethod
    def monotonic() -> float:
        return time.monotonic()


def beat(lease: Lease, monkeypatch: pytest.MonkeyPatch, turns: int = 1) -> None:
    """Let the heart beat for that many turns."""
    heart = leases._Held()
    heart._leases.add(lease)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "time", Turns(turns))
        with pytest.raises(StopIteration):
            heart._beat_on()


def test_the_heartbeat_keeps_a_lease_alive(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = held(place)
    age(lease, STALE - 1)
    beat(lease, monkeypatch)
    assert time.time() - lease.path.stat().st_mtime < STALE / 2


def test_the_heartbeat_stops_when_the_work_shows_no_sign_of_life(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(place)
    age(lease, STALE - 1)
    before = lease.path.stat().st_mtime
    lease.alive -= leases.PATIENCE + 1
    beat(lease, monkeypatch)
    assert lease.path.stat().st_mtime == before
    lease.beat()
    beat(lease, monkeypatch)
    assert lease.path.stat().st_mtime > before


def test_the_heartbeat_notices_that_a_lease_is_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = held(place)
    age(lease, STALE + 1)
    held(place)
    beat(lease, monkeypatch)
    with pytest.raises(LeaseLost):
        lease.beat()


def test_the_heartbeat_survives_a_file_server_that_hiccups(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(place)
    with monkeypatch.context() as patch:
        patch.setattr(leases.os, "utime", lambda _: (_ for _ in ()).throw(OSError("stale file handle")))
        beat(lease, monkeypatch, turns=2)
    lease.check()
