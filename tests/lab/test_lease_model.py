"""Leases against a model of what docs/reliability.md promises under "Several drivers" and "Clocks".

Several owners on several machines want one job, all in this process: each has a copy of the lease's module
with an identity and clocks of its own, and runs in threads that stop before every call of the file system.
Hypothesis decides who takes the next step, who is suspended or dies, and how clocks jump. The model knows
nothing of how leases work: only who computes, when its heart last beat, and what was published.
"""

from __future__ import annotations

import errno
import io
import itertools
import os
import random
import shutil
import threading
import types
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tombola.errors import StoreUnwritable
from tombola.lab import lease, process
from tombola.lab.description import name_of
from tombola.lab.gc import gc
from tombola.lab.results import Packed
from tombola.lab.store import Store

CALL = {"function": "answer", "version": 1, "arguments": {}}
JOB = name_of(CALL)
# Times of simulated servers lie before these seconds since the epoch, those of this machine after.
_SIMULATED, _REAL = 1.0e9, 1.5e9
# Seconds in which a running owner must notice that its lease is another's: a heartbeat and a late look.
_NOTICED = lease.HEARTBEAT + 5.0

# The calls of a file system before which a simulated owner stops.
_CALLS = (
    "fstat", "link", "listdir", "lstat", "mkdir", "open", "rename", "replace", "rmdir", "scandir", "stat",
    "unlink", "utime",
)  # fmt: skip


class Killed(BaseException):
    """Unwinds a thread of a dead process, which touches nothing any more."""


class Fiber:
    """A thread that runs only while it is stepped, from one call of the file system to the next."""

    current = threading.local()

    def __init__(self, owner: Owner, work: Callable[[], object]) -> None:
        self.owner, self.over, self.killed, self.asleep_until = owner, False, False, 0.0
        self.next = ""
        self.error: Exception | None = None
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, args=[work], daemon=True).start()

    def _run(self, work: Callable[[], object]) -> None:
        self._go.acquire()
        Fiber.current.fiber = self
        try:
            if not self.killed:
                work()
        except Killed:
            pass
        except Exception as error:
            self.error = error
        self.over = True
        self._back.release()

    def pause(self, before: str) -> None:
        """Stops until the next step."""
        self.next = before
        if not self.killed:
            self._back.release()
            self._go.acquire()
        if self.killed:
            raise Killed

    def step(self) -> None:
        """Lets it do one call, and what follows up to the next one."""
        if not self.over:
            self._go.release()
            self._back.acquire()
        if self.error is not None:
            raise self.error

    def kill(self) -> None:
        self.killed = True
        self.step()


class World:
    """Time, the file server's clock, and the folder of the store on it."""

    def __init__(self, place: Path, network: bool) -> None:
        self.store, self.network = Store(place / "store"), network
        self.workplace = self.store.workplace(JOB)
        self.now = self.ahead = 0.0
        self.published = 0
        self.caller: Machine | None = None
        self.writers: dict[int, Owner] = {}
        self._stamps = itertools.count()

    def stamp(self) -> None:
        """Gives files that were written since the last call the server's time."""
        for folder in (self.workplace.parent, self.workplace):
            with suppress(FileNotFoundError), really["scandir"](folder) as entries:
                for entry in entries:
                    if entry.is_file() and entry.stat().st_mtime > _REAL:
                        # No two alike: a file system tells times in nanoseconds.
                        at = int((_SIMULATED + self.now + self.ahead) * 1e9) + next(self._stamps)
                        really["utime"](entry.path, ns=(at, at))

    def lease_of(self, owner: Owner) -> bool:
        """Whether the lease file is this owner's."""
        with suppress(FileNotFoundError), really["io.open"](self.workplace / "lease") as file:
            return owner.lease is not None and owner.lease.owner["lease"] in file.read()
        return False

    def lease_writers(self, *names: str) -> set[Owner]:
        """Whose processes wrote the files of these names, whatever is in them."""
        paths = [path for name in names for path in self.workplace.glob(name)]
        return {self.writers[path.stat().st_ino] for path in paths}


class Machine:
    """A machine: its boots, its processes by their ids, and a clock that nobody sets right."""

    def __init__(self, name: str, wall: float) -> None:
        self.name, self.wall, self.boots = name, wall, 0
        self.reboot()

    def reboot(self) -> None:
        """Starts counting anew: processes get the ids and start times that those before had."""
        self.boots += 1
        self.started: dict[int, str] = {}
        self._starts = itertools.count(1)

    def new_pid(self) -> int:
        pid = next(number for number in itertools.count(1) if number not in self.started)
        self.started[pid] = str(next(self._starts))
        return pid


class Owner:
    """A process that wants the job: :func:`tombola.lab.execute.execute`, with as good as no work in it.

    lease: while it computes. kept: whether it has left a checkpoint. beaten: when its lease last got a
    heartbeat; jumped: by how much the server's clock got ahead since, at most. robbed_since: since when it
    has been running although its lease is another's; robber: the machine whose process removed it, other than
    for a moment.
    """

    def __init__(self, world: World, machine: Machine, source: str) -> None:
        self.world, self.machine, self.pid = world, machine, machine.new_pid()
        self.suspended = self.kept = self.told_to_stop = self.finishes = False
        self.lease: Any = None
        self.beaten = self.jump = self.jumped = 0.0
        self.robbed_since: float | None = None
        self.robber: Machine | None = None
        self.leases = self._module(source)
        self.heart: Fiber | None = None
        self.main = Fiber(self, self._work)

    def _module(self, source: str) -> Any:
        """A copy of the lease's module as this process would have imported it."""
        here, module = types.ModuleType(process.__name__), types.ModuleType(lease.__name__)
        machine, world = self.machine, self.world
        exec(_compiled(Path(process.__file__).read_text()), here.__dict__)
        here.__dict__.update(
            _boot=lambda boot=machine.boots: f"{machine.name}-{boot}",
            _process_space=lambda: "",
            _start_time=machine.started.get,
            os=types.SimpleNamespace(getpid=lambda: self.pid),
            socket=types.SimpleNamespace(gethostname=lambda: machine.name),
        )
        exec(_compiled(source), module.__dict__)
        module.__dict__.update(
            process=here,
            time=types.SimpleNamespace(
                monotonic=lambda: world.now + 1000.0 * machine.boots,
                time=lambda: _SIMULATED + world.now + machine.wall,
                sleep=self._sleep,
            ),
            threading=types.SimpleNamespace(Lock=threading.Lock, Thread=self._heart),
        )
        return module

    def _heart(self, target: Callable[[], object], **_: Any) -> Any:
        """Stands in for the thread of heartbeats."""
        self.heart = Fiber(self, target)
        return types.SimpleNamespace(start=lambda: None)

    def _sleep(self, seconds: float) -> None:
        assert self.heart is not None
        self.heart.asleep_until = self.world.now + seconds
        self.heart.pause("look")

    def _work(self) -> None:
        while not self.world.store.has(JOB) and not self.told_to_stop:
            lease = self.leases.acquire(self.world.workplace)
            if lease is not None:
                self._compute(lease)
            Fiber.current.fiber.pause("try again")

    def _compute(self, lease: Any) -> None:
        store = self.world.store
        try:
            if not store.has(JOB):
                self.lease = lease
                try:
                    while not self.finishes:
                        Fiber.current.fiber.pause("work")
                        if self.told_to_stop:
                            return
                        lease.check()
                        (self.world.workplace / "checkpoint").write_text("")
                        self.kept = True
                    numbers = Packed({"pid": self.pid}, {}, {})
                    self.world.published += store.publish(JOB, CALL, numbers, {"host": self.machine.name})
                finally:
                    self.lease, self.kept, self.robbed_since = None, False, None
            lease.clear()
        except self.leases.LeaseLost:
            pass
        except (OSError, StoreUnwritable):
            if lease.is_ours() is not False:  # otherwise another owner removed the workplace
                raise
        finally:
            lease.release()

    def beats(self) -> None:
        """Its lease got a heartbeat just now."""
        self.beaten, self.jump, self.jumped = self.world.now, 0.0, 0.0

    def heart_step(self) -> bool:
        """Lets its heart do one call if any is due; whether it was."""
        due = self.heart is not None and self.heart.asleep_until <= self.world.now and not self.heart.over
        if due:
            self.heart.step()
        return due

    def die(self) -> None:
        self.machine.started.pop(self.pid, None)
        for fiber in (self.main, self.heart):
            if fiber is not None:
                fiber.kill()


@cache
def _compiled(source: str) -> types.CodeType:
    return compile(source, lease.__file__, "exec")


# Names of temporary files come out the same when a failure is repeated.
_names = random.Random()
really: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in _CALLS} | {"io.open": io.open}


def _called(name: str, *arguments: Any, **named: Any) -> Any:
    """Stands in for a call of the file system: a simulated owner stops first, and may do so for long."""
    fiber = getattr(Fiber.current, "fiber", None)
    # Whoever holds a folder for a call that follows at once stops between the two, and not before both.
    if fiber is None or (name == "open" and arguments[1] & os.O_DIRECTORY):
        return really[name](*arguments, **named)
    fiber.pause(name)
    owner = fiber.owner
    held = [named[folder] for folder in ("dir_fd", "src_dir_fd", "dst_dir_fd") if named.get(folder)]
    if owner.world.network and any(really["fstat"](folder).st_nlink == 0 for folder in held):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    owner.world.stamp()
    owner.world.caller = owner.machine
    result = really[name](*arguments, **named)
    if name == "fstat" and result.st_nlink == 0 and owner.world.network:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    if name == "scandir":
        with result:
            return nullcontext(sorted(result, key=lambda entry: entry.name))
    if name == "utime" and owner.world.lease_of(owner):
        owner.beats()
    if name == "open" and arguments[1] & os.O_EXCL:
        owner.world.writers[really["fstat"](result).st_ino] = owner
        if owner.lease is None:
            owner.beats()  # a lease is written
        try:
            fiber.pause("write")  # between an empty file and its content
        except Killed:
            os.close(result)
            raise
    return result


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets simulated owners stop before every call of the file system."""
    for name in _CALLS:
        monkeypatch.setattr(os, name, partial(_called, name))
    monkeypatch.setattr(io, "open", partial(_called, "io.open"))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=_names.getrandbits(128), version=4))


# Calls by which owners change what the others see, and the moment between two steps of the work.
_BEFORE = ("link", "rename", "unlink", "work", "write")
# How the first owner ends its work, if it does.
_ENDS = ("", "with a result", "told to stop")
# What becomes of it then. When it is replaced, it is suspended.
_FATES = ("", "suspended", "replaced", "dead")
_OWNERS = range(3)
_MOVES: list[tuple[str, dict[str, Sequence[Any]]]] = []


def move(weight: int = 1, **choices: Sequence[Any]) -> Callable[[Callable[..., None]], Any]:
    """Declares what may happen, with what each argument may be: a rule, and a step of a random walk."""

    def declare(function: Callable[..., None]) -> Any:
        _MOVES.extend([(function.__name__, choices)] * weight)
        return rule(**{name: st.sampled_from(values) for name, values in choices.items()})(function)

    return declare


class Leases(RuleBasedStateMachine):
    """Owners of one job, and what must be true of them after every step."""

    def __init__(self, place: Path, source: str) -> None:
        super().__init__()
        self.place, self.source = place, source
        self.content: dict[str, bytes] = {}
        self.leased: set[Owner] = set()

    @initialize(
        network=st.booleans(),
        draws=st.integers(0, 2**16),
        before=st.sampled_from(_BEFORE),
        ends=st.sampled_from(_ENDS),
        fate=st.sampled_from(_FATES),
    )
    def begin(self, network: bool, draws: int, before: str, ends: str, fate: str) -> None:
        """Three owners on two machines; the first is ahead, and may not get further."""
        _names.seed(draws)
        self.world = World(self.place, network)
        self.machines = [Machine("first", 0.0), Machine("second", 300.0)]
        self.owners = [Owner(self.world, self.machines[number], self.source) for number in (0, 1, 0)]
        if ends:
            self.works(0)
            self.ends_work(0, ends == "with a result")
        self.runs_up_to(0, before)
        if fate in ("suspended", "replaced"):
            self.falls_behind(0, 0)
        if fate == "replaced":
            self.works(1)
        if fate == "dead":
            self.dies(0, reboot=False)

    @move(3, owner=_OWNERS, before=_BEFORE)
    def runs_up_to(self, owner: int, before: str) -> None:
        """Runs until it is about to do something, or for long."""
        for _ in range(45):
            self.steps(owner, 1)
            if self.owners[owner].main.next == before:
                break

    @move(3, owner=_OWNERS)
    def works(self, owner: int) -> None:
        """Runs until it has left a checkpoint, or for long."""
        for _ in range(45):
            self.steps(owner, 1)
            if self.owners[owner].kept:
                break

    @move(3, owner=_OWNERS, calls=range(1, 5))
    def steps(self, owner: int, calls: int) -> None:
        for _ in range(calls):
            if not self.owners[owner].suspended:
                self.owners[owner].main.step()
                self.check()

    @move(owner=_OWNERS, after=range(5))
    def falls_behind(self, owner: int, after: int) -> None:
        """Is suspended between any two calls, for longer than a lease lasts."""
        self.steps(owner, after)
        self.owners[owner].suspended = True
        self.owners[owner].robbed_since = None
        self.time_passes(65)

    @move(3, owner=_OWNERS, calls=(0, 3, 6))
    def wakes(self, owner: int, calls: int) -> None:
        """Goes on after a suspension, its heart first."""
        self.owners[owner].suspended = False
        for _ in range(calls):
            self.owners[owner].heart_step()
            self.check()

    @move(seconds=(5, 10, 50, 65))
    def time_passes(self, seconds: int) -> None:
        for _ in range(0, seconds, 5):
            for owner in self.owners:
                while not owner.suspended and owner.heart_step():
                    pass
            self.check()
            self.world.stamp()
            self.world.now += 5.0

    @move(seconds=(-86400.0, -70.0, 45.0, 70.0))
    def server_clock_jumps(self, seconds: float) -> None:
        self.world.stamp()
        self.world.ahead += seconds
        for owner in self.owners:
            owner.jump += seconds
            owner.jumped = max(owner.jumped, owner.jump)

    @move(machine=range(2), seconds=(-70.0, 70.0))
    def machine_clock_jumps(self, machine: int, seconds: float) -> None:
        self.machines[machine].wall += seconds

    @move(owner=_OWNERS, finishes=(False, True))
    def ends_work(self, owner: int, finishes: bool) -> None:
        """With a result, or because it is told to stop."""
        self.owners[owner].finishes = finishes
        self.owners[owner].told_to_stop = not finishes

    @move(owner=_OWNERS, reboot=(False, True))
    def dies(self, owner: int, reboot: bool) -> None:
        """Or its whole machine does; others start there."""
        machine, writers = self.owners[owner].machine, self.world.lease_writers("lease")
        dead = [number for number, other in enumerate(self.owners) if other.machine is machine and reboot]
        for number in dead or [owner]:
            self.owners[number].die()
        if reboot:
            machine.reboot()
        for number in dead or [owner]:
            self.owners[number] = Owner(self.world, machine, self.source)
        if not reboot and any(writer.main.killed for writer in writers):
            assert self.owners[owner].leases.free(self.world.workplace), "a dead process keeps its lease"

    @invariant()
    def check(self) -> None:
        self.check_published()
        self.check_owners()

    def check_published(self) -> None:
        """A result appears once and whole, and never changes."""
        folder = self.world.store.folder(JOB)
        if not folder.is_dir():
            assert not self.content, "a result is gone"
            return
        content = {path.name: path.read_bytes() for path in folder.glob("*")}
        assert content == self.content or not self.content, "a result was altered"
        if not self.content:
            assert set(content) == {"job.json", "result.json", "provenance.json"}, "half a result"
        self.content = content
        assert self.world.published <= 1, "published twice"

    def check_owners(self) -> None:
        """One owner at most computes, other than after a suspension or a jump of the server's clock."""
        now, computing = self.world.now, [owner for owner in self.owners if owner.lease is not None]
        leased = self.world.lease_writers("lease", ".stale.*")
        for owner in self.owners:
            if owner in leased:
                owner.robber = None
            elif owner in self.leased:
                owner.robber = self.world.caller
        self.leased = leased
        fresh: list[Owner] = []
        for owner in computing:
            has_lease = self.world.lease_of(owner)
            if has_lease and owner.kept:
                assert (self.world.workplace / "checkpoint").exists(), "the workplace of an owner was removed"
            if owner.suspended or owner.lease.lost:
                continue
            if now - owner.beaten < lease.STALE:
                fresh.append(owner)
            if has_lease:
                owner.robbed_since = None
            elif owner.robbed_since is None:
                owner.robbed_since = now
            else:
                assert now - owner.robbed_since <= _NOTICED, "an owner does not notice that its lease is lost"
        for owner in fresh:
            robbed = owner not in leased and not self.seems_stale(owner)
            assert not robbed, "a lease was removed although its owner's heart beats"
        for first, second in itertools.combinations(fresh, 2):
            jumped = self.seems_stale(first) or self.seems_stale(second)
            assert jumped, "two owners compute"
            robbed_here = any(owner.robber is owner.machine for owner in (first, second))
            assert not robbed_here, "a clock took the lease of a process that is seen to run"

    def seems_stale(self, owner: Owner) -> bool:
        """Whether the server's clock has been as if an owner's last heartbeat were long ago."""
        return self.world.now - owner.beaten + owner.jumped >= lease.STALE

    def teardown(self) -> None:
        """Whatever happened: once all are dead another owner can finish the job within two minutes.

        In one, unless somebody died between two calls, while it put a lease aside that is from the future.
        """
        for owner in self.owners:
            owner.die()
        last = Owner(self.world, self.machines[0], self.source)
        last.finishes = True
        self.owners = [last]
        for _ in range(3):
            self.time_passes(65)
            self.steps(0, 100)
        over = last.main.over
        last.die()
        assert over, "the job cannot be finished"
        self.check()
        assert list(self.world.store.names()) == [JOB]
        gc(self.world.store, dry_run=False, grace=0)
        assert not list((self.world.store.root / "work").iterdir()), "something is left"
        shutil.rmtree(self.place)


def walk(place: Path, source: str, seed: int, steps: int) -> None:
    """A world at random; those of Hypothesis are much alike, but it makes one that fails small."""
    draws, world = random.Random(seed), Leases(place, source)
    world.begin(draws.random() < 0.5, seed, *(draws.choice(some) for some in (_BEFORE, _ENDS, _FATES)))
    try:
        for _ in range(steps):
            name, choices = draws.choice(_MOVES)
            getattr(world, name)(**{name: draws.choice(values) for name, values in choices.items()})
            world.check()
    finally:
        world.teardown()


def walks(tmp_path: Path, source: str, seeds: Iterable[int], steps: int) -> None:
    """A random walk for each seed."""
    for seed in seeds:
        walk(tmp_path / str(seed), source, seed, steps)


def test_a_job_is_published_once_whatever_happens_to_its_owners(tmp_path: Path, stepped: None) -> None:
    places = (tmp_path / str(number) for number in itertools.count())
    run_state_machine_as_test(
        lambda: Leases(next(places), _source()),
        settings=settings(max_examples=10, stateful_step_count=25),
    )


def test_a_job_is_published_once_in_random_worlds(tmp_path: Path, stepped: None) -> None:
    walks(tmp_path, _source(), range(12), 30)


def _source() -> str:
    return Path(lease.__file__).read_text()


@pytest.mark.long
def test_a_job_is_published_once_in_a_thousand_random_worlds(tmp_path: Path, stepped: None) -> None:
    walks(tmp_path, _source(), range(1000, 2000), 40)


_SINCE = """since = time.monotonic()
        _watched[path] = state, since
    return time.monotonic() - since"""
# Mistakes that the random walks must find, as replacements in the lease's source.
_MISTAKES = {
    "no lease is put back": ("    if mistaken:", "    if False:"),
    "a heartbeat since the look is ignored": ("(aside) != state", "(aside).owner != state.owner"),
    "a watcher goes by a clock that jumps": (_SINCE, _SINCE.replace("monotonic", "time")),
    "a lease is looked for and then renamed": (
        "disk.link(written, path)",
        "if path.exists():\n            raise FileExistsError\n        written.rename(path)",
    ),
    "a released lease is anybody's": (
        "_give_back(self.path, self.owner)",
        "disk.remove(self.path, missing_ok=True)",
    ),
    "the server's clock is believed for all": ("return runs is None and", "return"),
    "who cannot be seen is dead": ("if runs is False or", "if not runs or"),
    "an owner never looks": ("if _read_lease(lease.path).owner != lease.owner:", "if False:"),
    "nobody watches": ("runs is False or _seconds_unchanged(path, state) >= STALE", "runs is False"),
    "a machine's clock does for the server's": ("disk.touch(probe)", "raise OSError"),
    "a stale handle is an error": ("if error.errno != errno.ESTALE:", "if True:"),
    "a lease is written in place": (
        "disk.write_part(written, json.dumps(owner).encode())\n        disk.link(written, path)",
        "disk.write_part(path, json.dumps(owner).encode())",
    ),
    "a cleared workplace is anybody's": (
        "if self.is_ours():\n            disk.remove_tree",
        "if True:\n            disk.remove_tree",
    ),
    "an owner looks and then gives back": (
        "if _read_lease(aside).owner != owner:\n        _put_back(aside, path)\n        return\n",
        "disk.remove(aside)\n",
    ),
    "a workplace that is gone while it is made": ("if folder.is_file() or folder.is_symlink():", "if True:"),
}


@pytest.mark.long
@pytest.mark.parametrize("mistake", _MISTAKES)
def test_the_model_finds_a_mistake(tmp_path: Path, stepped: None, mistake: str) -> None:
    right, wrong = _MISTAKES[mistake]
    assert _source().count(right) == 1
    with pytest.raises((AssertionError, StoreUnwritable)):
        walks(tmp_path, _source().replace(right, wrong), range(400), 30)
