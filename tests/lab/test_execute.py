import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import tombola as tb
from tombola import registry
from tombola.errors import JobError, RecipeError, StoreError, StoreUnwritable
from tombola.lab import lease as leases
from tombola.lab import objects
from tombola.lab.chains import imp_jobs
from tombola.lab.execute import LeaseHeld, Settings, execute
from tombola.lab.finished import load_result
from tombola.lab.store import Store, read_json, write_json
from tombola.lab.supervision import LabWatch
from tombola.training.checkpoint import Checkpoint
from tombola.training.engines import EagerEngine

Same = Callable[..., bool]


@pytest.fixture
def calls() -> list[str]:
    """A declared function, and every call that was made of it."""
    made: list[str] = []

    @tb.declare("greet")
    def greet(word: str = "hello") -> str:
        made.append(word)
        if word == "no":
            raise RuntimeError("no\nword")
        if word == "stop":
            raise KeyboardInterrupt
        return word

    return made


def greeting(word: str = "hello") -> tb.Job:
    return tb.job(registry.declaration("greet").function, word)


def test_a_job_is_run_once(store: Store, calls: list[str]) -> None:
    job = greeting()
    assert execute(store, job.description(), Settings())
    assert not execute(store, job.description(), Settings())
    assert calls == ["hello"]
    assert load_result(store, job.name) == "hello"


def test_a_finished_job_leaves_no_workplace(store: Store, calls: list[str]) -> None:
    execute(store, greeting().description(), Settings())
    assert list((store.root / "work").iterdir()) == []


def test_where_a_result_comes_from_is_written_beside_it(
    store: Store, run: tb.Run, lab: tb.Lab, quick: tb.Recipe
) -> None:
    trained = tb.job(tb.train, run.ticket, "digits", quick)
    lab.run(trained).raise_failures()
    made = lab.store.provenance(trained.name)
    assert made["tombola"] == tb.__version__
    assert made["torch"] == torch.__version__
    assert (made["device"], made["threads"], made["precision"]) == ("cpu", 1, "float32")
    assert made["data"] == {"data": tb.load_data("digits").fingerprint}
    assert made["pid"] == os.getpid()
    assert made["started"].endswith("+00:00")
    assert made["seconds"] >= 0


def test_a_job_whose_lease_is_held_is_not_run(store: Store, calls: list[str]) -> None:
    job = greeting()
    assert leases.acquire(store.workplace(job.name)) is not None
    with pytest.raises(LeaseHeld):
        execute(store, job.description(), Settings())
    assert calls == []


def test_a_failure_leaves_its_cause_and_frees_the_lease(store: Store, calls: list[str]) -> None:
    job = greeting("no")
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"no\nword"):
            execute(store, job.description(), Settings(attempts=1))
    assert {path.name for path in store.workplace(job.name).iterdir()} == {"error.txt", "under-way.json"}
    text = (store.workplace(job.name) / "error.txt").read_text()
    assert text.startswith("Traceback")
    assert text.endswith("RuntimeError: no\nword\n\n")
    assert not store.has(job.name)


def test_an_interruption_by_the_user_frees_the_lease_and_counts_for_nothing(
    store: Store, calls: list[str]
) -> None:
    job = greeting("stop")
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            execute(store, job.description(), Settings(attempts=1))
    assert list(store.workplace(job.name).iterdir()) == []


def test_a_job_that_keeps_killing_its_worker_is_given_up(store: Store, calls: list[str]) -> None:
    job = greeting()
    workplace = store.workplace(job.name)
    workplace.mkdir()
    write_json(workplace / "attempts.json", {"begun": 3})  # as three deaths without a trace leave it
    for _ in range(2):
        with pytest.raises(
            JobError, match=r"was begun 3 times and never finished .*; to try again, delete .*work"
        ):
            execute(store, job.description(), Settings(attempts=3))
    assert calls == []
    assert execute(store, job.description(), Settings(attempts=4))


def test_an_attempt_is_counted_while_it_lasts(store: Store) -> None:
    seen = []

    @tb.declare("look")
    def look() -> int:
        seen.append(read_json(store.workplace(tb.job(look).name) / "attempts.json"))
        return 1

    execute(store, tb.job(look).description(), Settings())
    assert seen == [{"begun": 1}]


def test_whoever_gets_on_does_not_kill_its_worker(store: Store) -> None:
    workplace = store.root / "work" / "x"
    lease = leases.acquire(workplace)
    assert lease is not None
    write_json(workplace / "attempts.json", {"begun": 9})
    LabWatch(workplace, lease, every=0.0, hung_after=60.0).keep(Checkpoint({}, {"t": torch.ones(1)}))
    assert sorted(path.name for path in workplace.iterdir()) == ["checkpoint", "lease"]


def test_an_owner_whose_lease_was_taken_over_stops_at_its_next_checkpoint(store: Store) -> None:
    @tb.declare("slow")
    def slow(watch: tb.Watch | None = None) -> int:
        assert watch is not None
        workplace = store.workplace(tb.job(slow).name)
        (workplace / "lease").unlink()  # a minute without a heartbeat: somebody else thinks us dead
        assert leases.acquire(workplace) is not None
        write_json(workplace / "attempts.json", {"begun": 5})
        watch.advanced(lambda: Checkpoint({}, {"t": torch.ones(1)}), epoch_end=True)
        return 1

    job = tb.job(slow)
    with pytest.raises(LeaseHeld):
        execute(store, job.description(), Settings(checkpoint_every=0.0))
    assert not store.has(job.name)
    # What is the new owner's stays.
    left = sorted(path.name for path in store.workplace(job.name).iterdir())
    assert left == ["attempts.json", "lease", "log.txt", "under-way.json"]


def test_finished_work_is_published_even_if_the_lease_was_lost_meanwhile(store: Store) -> None:
    # Otherwise two drivers could go on for ever, each throwing away what the other made it lose.
    @tb.declare("long")
    def long() -> int:
        (store.workplace(tb.job(long).name) / "lease").unlink()
        assert leases.acquire(store.workplace(tb.job(long).name)) is not None
        return 1

    assert execute(store, tb.job(long).description(), Settings())
    assert load_result(store, tb.job(long).name) == 1


def test_an_owner_that_finishes_late_leaves_the_workplace_to_the_new_owner(store: Store) -> None:
    @tb.declare("long")
    def long() -> int:
        workplace = store.workplace(tb.job(long).name)
        (workplace / "lease").unlink()
        new.append(leases.acquire(workplace))
        (workplace / "checkpoint").write_text("of the new owner")
        return 1

    new: list[leases.Lease | None] = []
    assert execute(store, tb.job(long).description(), Settings())
    (lease,) = new
    assert lease is not None
    lease.check()
    assert (lease.path.parent / "checkpoint").exists()


def test_an_owner_that_finishes_after_the_new_one_leaves_no_workplace(store: Store) -> None:
    @tb.declare("longer")
    def longer() -> int:
        shutil.rmtree(store.workplace(tb.job(longer).name))  # as the new owner does that has finished
        return 1

    assert execute(store, tb.job(longer).description(), Settings())
    assert list((store.root / "work").iterdir()) == []


def test_an_owner_whose_workplace_another_cleared_away_has_lost_its_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tb.declare("overtaken")
    def overtaken() -> int:
        return 1

    def publish(self: Store, name: str, *_: object) -> bool:
        shutil.rmtree(self.workplace(name))  # by the other owner, which finished in this moment
        raise StoreUnwritable("cannot write to the workplace: No such file or directory")

    monkeypatch.setattr(Store, "publish", publish)
    with pytest.raises(LeaseHeld):
        execute(store, tb.job(overtaken).description(), Settings())
    assert list((store.root / "work").iterdir()) == []


def test_a_place_that_cannot_be_written_to_is_told_by_whoever_still_has_its_lease(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(*_: object) -> bool:
        raise StoreUnwritable("cannot write to it: No space left on device")

    monkeypatch.setattr(Store, "publish", publish)
    with pytest.raises(StoreUnwritable):
        execute(store, greeting().description(), Settings())


def test_a_job_that_somebody_finished_just_before_the_lease_leaves_no_workplace(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    description = greeting().description()
    really = leases.acquire

    def acquire(folder: Path) -> leases.Lease | None:
        monkeypatch.setattr(leases, "acquire", really)
        assert execute(store, description, Settings())  # another driver, a moment faster
        return really(folder)

    monkeypatch.setattr(leases, "acquire", acquire)
    assert not execute(store, description, Settings())
    assert calls == ["hello"]
    assert list((store.root / "work").iterdir()) == []


def test_the_process_speaks_for_work_that_cannot_be_watched(store: Store) -> None:
    seen = []

    @tb.declare("silent")
    def silent() -> int:
        seen.extend(lease.patience for lease in leases._held._leases if lease.path.is_relative_to(store.root))
        return 1

    @tb.declare("telling")
    def telling(watch: tb.Watch | None = None) -> int:
        seen.extend(lease.patience for lease in leases._held._leases if lease.path.is_relative_to(store.root))
        return 1

    for function in (silent, telling):
        execute(store, tb.job(function).description(), Settings())
    assert seen == [None, 7200.0]


def test_a_second_publication_by_a_late_owner_changes_nothing(store: Store) -> None:
    @tb.declare("race")
    def race() -> int:
        if not inner:
            inner.append(True)
            (store.workplace(tb.job(race).name) / "lease").rename(store.root / "work" / "aside")
            assert execute(store, tb.job(race).description(), Settings())
            store.workplace(tb.job(race).name).mkdir()
            (store.root / "work" / "aside").rename(store.workplace(tb.job(race).name) / "lease")
            return 2
        return 1

    inner: list[bool] = []
    execute(store, tb.job(race).description(), Settings())
    assert load_result(store, tb.job(race).name) == 1


@pytest.mark.parametrize("moment", range(4))
def test_a_full_disk_leaves_nothing_half_there(
    store: Store, calls: list[str], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    done = greeting("done")
    execute(store, done.description(), Settings())
    count = iter(range(100))
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if next(count) >= moment:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
        execute(store, greeting("more").description(), Settings())
    assert list(store.names()) == [done.name]
    assert load_result(store, done.name) == "done"
    assert {path.name for path in store.workplace(greeting("more").name).iterdir()} <= {
        "error.txt",
        "under-way.json",
    }


def test_the_threads_of_a_job_are_those_of_its_settings_and_then_as_before(tmp_path: Path) -> None:
    @tb.declare("threads")
    def threads() -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    lab = tb.Lab(tmp_path / "store", settings=Settings(threads=before + 1))
    assert lab.result(tb.job(threads)) == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threads": 0}, "threads is 0; it must be at least 1"),
        ({"attempts": 0}, "attempts is 0; it must be at least 1"),
        ({"checkpoint_every": -1.0}, "checkpoint_every is -1.0; it must be 0 seconds or more"),
        ({"hung_after": 0.0}, "hung_after is 0.0; it must be more than 0 seconds"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every is nan"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Settings(**settings)


@dataclass(frozen=True)
class Two:
    first: torch.Tensor
    second: float


def test_a_result_whose_tensors_are_gone_is_damaged(store: Store, lab: tb.Lab) -> None:
    @tb.declare("two")
    def two() -> Two:
        return Two(torch.ones(3), 2.0)

    start = tb.job(tb.initialize, "convnet", "digits")
    lab.run([start, tb.job(two)]).raise_failures()
    for job in (start, tb.job(two)):
        (lab.store.folder(job.name) / "result.safetensors").unlink()
        with pytest.raises(
            StoreError, match=f"job {job.name[:12]} is damaged: KeyError .*; to have it computed again"
        ):
            lab.result(job)


def test_a_ticket_whose_dense_start_is_gone_is_told(lab: tb.Lab) -> None:
    start = tb.job(tb.initialize, "convnet", "digits")
    (lab.store.root / "objects" / f"{lab.result(start).start_fingerprint}.safetensors").unlink()
    objects._object.cache_clear()
    with pytest.raises(
        StoreError, match=r"tensors are gone from the store at .*; delete .*, and they are made again"
    ):
        lab.result(start)


def test_a_dense_start_that_is_gone_comes_back_once_the_job_that_made_it_is_deleted(
    lab: tb.Lab, quick: tb.Recipe, same_run: Same
) -> None:
    start = tb.job(tb.initialize, "convnet", "digits")
    trained = tb.job(tb.train, start, "digits", quick)
    before = lab.result(trained)
    (lab.store.root / "objects" / f"{before.ticket.start_fingerprint}.safetensors").unlink()
    shutil.rmtree(lab.store.folder(start.name))
    objects._object.cache_clear()
    assert lab.run(trained).computed == []  # its numbers are there
    assert lab.run(trained, whole=True).computed == [start.name]
    assert same_run(lab.result(trained), before)


def test_the_dense_start_of_a_chain_is_kept_once(lab: tb.Lab, quick: tb.Recipe) -> None:
    chains = [
        run
        for rewind in (0, 1)
        for run in imp_jobs("convnet", "digits", tb.Recipe(epochs=2, batch_size=400), rounds=2, rewind=rewind)
    ]
    lab.run(chains).raise_failures()
    starts = {lab.result(run).ticket.start_fingerprint for run in chains}
    assert {path.stem for path in (lab.store.root / "objects").iterdir()} == starts
    assert len(starts) == 2
    sparse = lab.store.folder(chains[2].name) / "result.safetensors"
    # 8,456 prunable weights of 4 bytes would be 33,824 bytes; 64% of them survive.
    assert sparse.stat().st_size < 0.64 * 8456 * 4 + 8456 / 8 + 20_000


def test_two_threads_of_one_process_run_a_job_once(store: Store, calls: list[str]) -> None:
    gate = threading.Barrier(2, timeout=60)
    said: list[object] = []

    def ask() -> None:
        gate.wait()
        try:
            said.append(execute(store, greeting().description(), Settings()))
        except LeaseHeld:
            said.append("held")

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["hello"]
    assert said.count(True) == 1


def test_a_damaged_checkpoint_folder_of_another_training_is_not_resumed(
    lab: tb.Lab, quick: tb.Recipe, run: tb.Run, tmp_path: Path
) -> None:
    job = tb.job(tb.train, run.ticket, "digits", quick)
    workplace = lab.store.workplace(job.name)
    workplace.mkdir(parents=True)
    (workplace / "checkpoint").write_bytes(b"half a check")
    with pytest.warns(UserWarning, match=r"skipping a checkpoint: .*damaged"):
        lab.run(job).raise_failures()
    assert lab.result(job).history[-1].epoch == 1


# Killed and resumed

EPOCHS = 4
STEPS = 12  # in an epoch
RESUMABLE = (0, 5, 10)  # steps of an epoch before which there is a checkpoint if there is one at every chance

# Forks once for every line that it reads, so that PyTorch is loaded once, but used in the forked processes
# only: a fork knows nothing of the threads that a first use starts. A line says at which step of the
# training, or in which of its writings of a checkpoint and how far into it, the forked process kills itself.
KILLED = """
import json, os, signal, sys
import sklearn.datasets
import tombola as tb
from tombola.lab.execute import Settings
from tombola.training.checkpoint import Checkpoints
from tombola.training.engines import EagerEngine

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def arm(step, keep, replace):
    steps, keeps, replaces = iter(range(10**6)), iter(range(10**6)), iter(range(10**6))
    really_step, really_keep, really_replace = EagerEngine._train_step, Checkpoints.keep, os.replace

    def _step(self, *arguments):
        if next(steps) == step:
            die()
        really_step(self, *arguments)

    def _keep(self, checkpoint):
        if next(keeps) == keep:
            def _replace(path, target, **folders):
                if next(replaces) == replace:
                    die()
                return really_replace(path, target, **folders)
            os.replace = _replace
        really_keep(self, checkpoint)

    EagerEngine._train_step, Checkpoints.keep = _step, _keep

recipe = tb.Recipe(epochs=4, batch_size=100, momentum=0.9)
job = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", recipe)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # rather than to hang
        arm(order["step"], order["keep"], order["replace"])
        tb.Lab(order["store"], settings=Settings(checkpoint_every=0.0)).run(job)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else "survived", flush=True)
"""


@pytest.fixture(scope="module")
def killed() -> Iterator[Callable[..., None]]:
    """Runs a training in another process that is killed at the point that is said."""
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen([sys.executable, "-c", KILLED], **pipes) as process:

        def kill(place: Path, step: int = -1, keep: int = -1, replace: int = -1) -> None:
            order = {"store": str(place), "step": step, "keep": keep, "replace": replace}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{int(signal.SIGKILL)}\n"

        yield kill


@pytest.fixture(scope="module")
def training() -> tb.Job:
    recipe = tb.Recipe(epochs=EPOCHS, batch_size=100, momentum=0.9)
    return tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", recipe)


@pytest.fixture(scope="module")
def undisturbed(training: tb.Job, tmp_path_factory: pytest.TempPathFactory) -> tb.Run:
    return tb.Lab(tmp_path_factory.mktemp("undisturbed") / "store").result(training)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are trained in this process, one after the other."""
    taken: list[int] = []
    really = EagerEngine._train_step

    def step(self: EagerEngine, number: int, *arguments: torch.Tensor) -> None:
        taken.append(number)
        really(self, number, *arguments)

    monkeypatch.setattr(EagerEngine, "_train_step", step)
    return taken


POINTS = [*sorted(random.Random(9).sample(range(STEPS, EPOCHS * STEPS - 1), 4)), EPOCHS * STEPS - 1]


@pytest.mark.parametrize("point", POINTS)
def test_a_training_killed_at_any_step_resumes_to_the_same_bits(
    point: int, tmp_path: Path, killed: Callable[..., None], training: tb.Job, undisturbed: tb.Run,
    same_run: Same, steps: list[int], recorder,
) -> None:  # fmt: skip
    killed(tmp_path / "store", step=point)
    lab = tb.Lab(tmp_path / "store")
    assert not lab.has(training)
    lab.run(training, progress=recorder).raise_failures()
    assert same_run(lab.result(training), undisturbed)
    epoch, within = divmod(point, STEPS)
    last = max(step for step in RESUMABLE if step <= within)
    assert len(steps) == EPOCHS * STEPS - (epoch * STEPS + last)
    assert [number for _, number in recorder.epochs] == list(range(epoch + 1, EPOCHS + 1))
    assert list((lab.store.root / "work").iterdir()) == []


@pytest.mark.parametrize("replace", range(3))
def test_a_training_killed_while_it_writes_a_checkpoint_resumes_from_the_one_before(
    replace: int, tmp_path: Path, killed: Callable[..., None], training: tb.Job, undisturbed: tb.Run,
    same_run: Same, steps: list[int],
) -> None:  # fmt: skip
    """The eighth, at step 10 of the third epoch: before it is whole, before and after the last is moved."""
    killed(tmp_path / "store", keep=7, replace=replace)
    workplace = tb.Lab(tmp_path / "store").store.workplace(training.name)
    kept = {path.name for path in workplace.iterdir() if path.name in ("checkpoint", "checkpoint.previous")}
    assert kept == ({"checkpoint.previous"} if replace == 2 else {"checkpoint", "checkpoint.previous"})
    assert any(path.name.startswith((".checkpoint.", "checkpoint.")) for path in workplace.iterdir())
    lab = tb.Lab(tmp_path / "store")
    lab.run(training).raise_failures()
    assert same_run(lab.result(training), undisturbed)
    # There are three an epoch; the seventh was at step 5 of the third.
    assert len(steps) == EPOCHS * STEPS - (2 * STEPS + 5)


def test_a_training_killed_again_and_again_comes_to_the_same_end(
    tmp_path: Path, killed: Callable[..., None], training: tb.Job, undisturbed: tb.Run, same_run: Same,
    steps: list[int],
) -> None:  # fmt: skip
    for _ in range(3):
        killed(tmp_path / "store", step=13)
    lab = tb.Lab(tmp_path / "store")
    lab.run(training).raise_failures()
    assert len(steps) == STEPS  # each of them came an epoch further
    assert same_run(lab.result(training), undisturbed)


def test_a_checkpoint_of_another_number_of_threads_is_not_resumed(
    tmp_path: Path, killed: Callable[..., None], training: tb.Job, steps: list[int]
) -> None:
    killed(tmp_path / "store", step=20)
    lab = tb.Lab(tmp_path / "store", settings=Settings(threads=2))
    lab.run(training).raise_failures()
    assert len(steps) == EPOCHS * STEPS
