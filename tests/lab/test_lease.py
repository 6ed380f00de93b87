import errno
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
from tombola import disk
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


def elsewhere(place: Path) -> Lease:
    """A lease that a process of another machine holds."""
    lease = held(place)
    lease.owner["host"] = "elsewhere"
    lease.path.write_text(json.dumps(lease.owner))
    return lease


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
        ({"started": "1"}, True),
        ({"boot": "before"}, False),
        ({"boot": "that of a machine of the same name", "pid": 2**22 + 1}, False),
        ({"pid": 2**22 + 1}, True),
        ({"pid": 10**30}, True),
        ({"pid": -1}, False),
        ({"host": "elsewhere", "pid": 1, "started": "1"}, False),
        ({"pid": None}, False),
        ({"processes": "another container", "started": "1"}, False),
    ],
)
def test_a_process_is_dead_at_once_only_if_this_machine_knows_it(
    place: Path, change: dict, dead: bool
) -> None:
    lease = held(place)
    lease.path.write_text(json.dumps(lease.owner | change))
    assert (acquire(place) is not None) == dead


def test_a_lease_from_before_a_reboot_is_taken_over_when_it_is_stale(place: Path) -> None:
    lease = held(place)
    lease.path.write_text(json.dumps(lease.owner | {"boot": "before"}))
    age(lease, STALE + 1)
    held(place).check()


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch, owner: subprocess.Popen[str]) -> None:
    """A machine whose /proc shows nobody what others run."""
    really = Path.read_text

    def read_text(path: Path, *arguments: str, **named: str) -> str:
        if path == Path(f"/proc/{owner.pid}/stat"):
            raise FileNotFoundError(2, "No such file or directory")
        return really(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read_text)


def test_a_process_that_is_hidden_keeps_its_lease_as_long_as_its_heart_beats(
    place: Path, hidden: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert acquire(place) is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Not permitted")))
        assert acquire(place) is None
    then = time.time() - STALE - 1
    os.utime(place / "lease", (then, then))
    held(place).check()


def test_a_dead_process_is_known_to_be_dead_where_others_are_hidden(
    place: Path, hidden: None, owner: subprocess.Popen[str]
) -> None:
    owner.kill()
    owner.wait()
    held(place).check()


def test_a_lease_whose_heart_stopped_is_taken_over_and_its_old_owner_notices(place: Path) -> None:
    old = elsewhere(place)
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
        age(elsewhere(place), STALE + 1)
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
    old = elsewhere(place)
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


def test_a_third_owner_gives_way_to_a_lease_that_is_about_to_be_put_back(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = elsewhere(place)
    age(old, STALE + 1)
    really, third = disk.rename, []

    def rename(path: Path, target: Path) -> None:
        monkeypatch.setattr(disk, "rename", really)
        os.utime(old.path)  # it was suspended, and beats again
        really(path, target)
        third.append(acquire(place))

    monkeypatch.setattr(disk, "rename", rename)
    assert acquire(place) is None
    assert third == [None]
    old.check()
    assert [path.name for path in place.iterdir()] == ["lease"]


def test_whoever_is_suspended_while_it_gives_its_lease_back_leaves_its_successors_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = elsewhere(place)
    age(old, STALE + 1)
    really, got = disk.rename, []

    def rename(path: Path, target: Path) -> None:
        monkeypatch.setattr(disk, "rename", really)
        got.append(acquire(place))  # it has looked, and now another takes over
        really(path, target)
        got.append(acquire(place))

    monkeypatch.setattr(disk, "rename", rename)
    old.release()
    new, third = got
    assert third is None
    assert [path.name for path in place.iterdir()] == ["lease"]
    new.check()


def test_a_lease_that_was_put_back_and_stayed_aside_too_is_given_back_under_both_names(place: Path) -> None:
    lease = held(place)
    os.link(lease.path, place / ".stale.drawn")  # the process that put it back died before it removed this
    lease.release()
    assert list(place.iterdir()) == []
    held(place).check()


def test_an_owner_that_names_a_path_is_read_as_any_other(place: Path) -> None:
    planted = elsewhere(place)
    planted.path.write_text(json.dumps(planted.owner | {"lease": "a/../b"}))
    planted.path.rename(place / ".stale.a")
    assert acquire(place) is None  # its heart beats: it is put back
    assert (place / "lease").exists()


def test_a_lease_that_is_given_back_is_free_before_its_file_is_gone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = held(place)
    really, got = disk.rename, []

    def rename(path: Path, target: Path) -> None:
        monkeypatch.setattr(disk, "rename", really)
        really(path, target)
        got.append(acquire(place))

    monkeypatch.setattr(disk, "rename", rename)
    old.release()
    got[0].check()
    assert [path.name for path in place.iterdir()] == ["lease"]


def test_a_workplace_that_is_cleared_away_at_this_moment_is_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_create", lambda path, owner: Path(path.parent / "gone" / "x").touch())
    assert acquire(place) is None


def test_a_workplace_that_is_removed_while_it_is_made_is_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(parents=True)
    really = os.mkdir

    def mkdir(path: str | Path, mode: int = 0o777, **folder: int | None) -> None:
        try:
            really(path, mode, **folder)
        except FileExistsError:
            place.rmdir()  # its last owner finishes before it is seen what is in the way
            raise

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        assert acquire(place) is None
    place.write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*: File exists"):
        acquire(place)


def test_looking_whether_a_lease_is_stale_leaves_its_workplace_as_old_as_it_was(place: Path) -> None:
    age(elsewhere(place), STALE + 1)
    os.utime(place, (1e9, 1e9))
    assert leases.free(place)
    assert place.stat().st_mtime == 1e9  # which gc goes by


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to .*file/sub: Not a directory"):
        acquire(tmp_path / "file" / "sub")


class Turns:
    """Stands in for the clock of the heartbeat: a few beats without waiting, and then the end."""

    def __init__(self, turns: int) -> None:
        self.slept, self.end = 0.0, turns * leases.HEARTBEAT

    def sleep(self, seconds: float) -> None:
        if self.slept >= self.end:
            raise StopIteration
        self.slept += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.slept


def beat(lease: Lease, monkeypatch: pytest.MonkeyPatch, turns: int = 1, clock: Turns | None = None) -> None:
    """Let the heart beat for that many turns, by a clock of their own or another."""
    heart = leases._Held()
    heart._leases.add(lease)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "time", clock or Turns(turns))
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
    lease.watch(1800.0)
    lease.alive -= 1801
    beat(lease, monkeypatch)
    assert lease.path.stat().st_mtime == before
    lease.beat()
    beat(lease, monkeypatch)
    assert lease.path.stat().st_mtime > before


def test_the_heartbeat_notices_that_a_lease_is_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = elsewhere(place)
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


# What a stranger, a power cut or an accident may leave in place of a lease.
NO_LEASES = [
    b"\xff",
    b"[" * 100_000,
    b"[]",
    b'{"lease": []}',
    b'{"lease": NaN}',
    b'{"pid": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", NO_LEASES)
def test_the_heart_goes_on_whatever_lies_in_place_of_a_lease(
    place: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    lease = held(place)
    lease.path.write_bytes(content)
    beat(lease, monkeypatch)
    with pytest.raises(LeaseLost):
        lease.beat()


def test_the_heart_goes_on_when_a_hung_process_cannot_be_ended(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, called = held(place), []

    def cannot() -> None:
        called.append(lease)
        raise RuntimeError("no")

    lease.hung = cannot
    lease.watch(0.5)
    beat(lease, monkeypatch)
    assert len(called) == leases.HEARTBEAT  # a look each second


def test_work_may_say_at_any_moment_that_it_gives_no_more_signs(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(place)
    lease.watch(1e6)

    class Ends(Turns):
        def monotonic(self) -> float:
            lease.patience = None  # while somebody asks whether it hangs
            return super().monotonic()

    monkeypatch.setattr(leases, "time", Ends(1))
    assert not lease.is_hung()


@pytest.mark.parametrize("content", NO_LEASES)
def test_what_is_no_lease_is_stale_in_time(place: Path, content: bytes) -> None:
    old = held(place)
    old.path.write_bytes(content)
    assert not leases.free(place)
    assert acquire(place) is None
    age(old, STALE + 1)
    assert leases.free(place)
    held(place).check()


def test_a_folder_in_place_of_a_lease_is_stale_in_time(place: Path) -> None:
    (place / "lease").mkdir(parents=True)
    assert not leases.free(place)
    then = time.time() - STALE - 1
    os.utime(place / "lease", (then, then))
    assert leases.free(place)


def test_a_lease_that_cannot_be_read_is_somebodys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age(elsewhere(place), STALE + 1)
    monkeypatch.setattr(
        leases, "_read_lease", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    )
    assert not leases.free(place)
    with pytest.raises(StoreError, match="Input/output error"):
        acquire(place)


def test_whoever_hangs_is_called_once_it_does_and_not_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, called = held(place), []
    lease.hung = lambda: called.append(lease.is_hung())
    beat(lease, monkeypatch)  # nothing is expected of it
    lease.watch(1e6)
    beat(lease, monkeypatch)
    assert called == []
    lease.watch(5.0)
    beat(lease, monkeypatch)  # ten seconds, a look each
    assert called
    assert all(called)


@pytest.mark.parametrize(("silent", "hung"), [(1700.0, False), (1900.0, True)])
def test_the_time_for_which_a_process_was_suspended_does_not_count(
    place: Path, monkeypatch: pytest.MonkeyPatch, silent: float, hung: bool
) -> None:
    class Suspended(Turns):
        def sleep(self, seconds: float) -> None:
            super().sleep(86400.0)

    lease, called = held(place), []
    lease.hung = lambda: called.append(lease)
    lease.watch(1800.0)
    lease.alive -= silent
    beat(lease, monkeypatch, clock=Suspended(1))
    assert bool(called) == hung


def test_whoever_was_suspended_owes_a_sign_from_when_it_wakes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, called = held(place), []

    class Wakes(Turns):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds if self.slept else 86400.0)

    clock = Wakes(1)
    clock.end = 86400.0 + 60.0
    lease.hung = lambda: called.append(clock.slept - 86400.0)
    lease.watch(30.0)
    beat(lease, monkeypatch, clock=clock)
    assert 28 <= called[0] <= 31


def stale_handle(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file that was opened be gone on its server when it is asked for its time, so many times."""
    really, left = os.fstat, iter(range(times))

    def fstat(descriptor: int) -> os.stat_result:
        if next(left, None) is not None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return really(descriptor)

    monkeypatch.setattr(leases.os, "fstat", fstat)


def test_a_lease_that_goes_on_its_server_while_it_is_read_is_looked_at_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = held(place)
    stale_handle(1, monkeypatch)
    assert acquire(place) is None
    stale_handle(1, monkeypatch)
    lease.check()
    stale_handle(2, monkeypatch)  # the whole file system, then
    with pytest.raises(StoreError, match=r"cannot write to .*: Stale file handle"):
        acquire(place)


@pytest.mark.parametrize("operation", ["rename", "remove"])
def test_a_lease_that_could_not_be_removed_is_free_again_when_it_can(
    place: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    lease = held(place)
    with monkeypatch.context() as patch:
        patch.setattr(disk, operation, lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only")))
        lease.release()
    assert len(list(place.iterdir())) == 1
    held(place).check()


# Clocks that jump


class SteadyClock:
    """Stands in for the clock of whoever watches a lease."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.time = time.time

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SteadyClock:
    steady = SteadyClock()
    monkeypatch.setattr(leases, "time", steady)
    return steady


def test_a_clock_that_jumps_forwards_takes_no_lease_from_a_process_that_runs(
    place: Path, clock: SteadyClock
) -> None:
    lease = held(place)
    age(lease, 86400)
    for _ in range(20):  # its heart goes on beating
        assert acquire(place) is None
        clock.now += leases.HEARTBEAT
        os.utime(lease.path)
        age(lease, 86400 + clock.now)
    lease.check()


@pytest.mark.parametrize("seconds", [86400.0, -86400.0])
def test_a_heart_that_is_seen_not_to_beat_has_stopped_whatever_the_clocks_say(
    place: Path, clock: SteadyClock, seconds: float
) -> None:
    lease = held(place) if seconds > 0 else elsewhere(place)
    age(lease, seconds)
    assert acquire(place) is None
    clock.now += STALE - 1
    assert acquire(place) is None
    clock.now += 2
    held(place).check()
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_heart_that_beats_between_the_look_and_the_rename_keeps_its_lease(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = elsewhere(place)
    age(old, STALE + 1)
    really = leases._server_time

    def beats(folder: Path) -> float:
        os.utime(old.path)
        return really(folder)

    monkeypatch.setattr(leases, "_server_time", beats)
    assert acquire(place) is None
    old.check()
    assert [path.name for path in place.iterdir()] == ["lease"]


def test_times_told_in_whole_seconds_are_enough(place: Path, clock: SteadyClock) -> None:
    lease = held(place)
    for beats in range(20):
        os.utime(lease.path, (1000 + beats * leases.HEARTBEAT // 2 * 2,) * 2)
        clock.now += leases.HEARTBEAT
        assert acquire(place) is None


def test_a_place_that_can_only_be_read_says_whether_its_lease_is_dead(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = elsewhere(place)
    monkeypatch.setattr(disk, "touch", lambda _: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    assert not leases.free(place)
    age(lease, STALE + 1)
    assert leases.free(place)
