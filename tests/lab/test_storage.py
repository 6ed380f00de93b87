"""Faults of the disk under a store: full, read-only, damaged. The long form is benchmarks/storage.py."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import StoreError, StoreUnwritable
from tombola.lab import objects
from tombola.lab.chains import imp_jobs
from tombola.lab.driver import Progress
from tombola.lab.execute import Settings
from tombola.lab.gc import gc
from tombola.lab.job import Job
from tombola.lab.verify import verify
from tombola.training.run import Epoch

Same = Callable[..., bool]
OFTEN = Settings(device="cpu", checkpoint_every=0.0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"only root may mount a small file system here: {error}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    """Two trainings, a pretraining and an initialisation."""
    recipe = tb.Recipe(epochs=4, batch_size=100, momentum=0.9)
    return imp_jobs("convnet", "digits", recipe, rounds=1, rewind=1)


@pytest.fixture(scope="module")
def undisturbed(jobs: list[Job], tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    lab = tb.Lab(tmp_path_factory.mktemp("undisturbed") / "store")
    lab.run(jobs).raise_failures()
    return lab


class At(Progress):
    """Lets something happen once a job has trained its third epoch."""

    def __init__(self, job: Job, fault: Callable[[], None]) -> None:
        self._name, self._fault = job.name, fault
        self.epochs: list[tuple[str, int]] = []

    def epoch(self, job: Job, row: Epoch, epochs: int) -> None:
        self.epochs.append((job.name, row.epoch))
        if self.epochs[-1] == (self._name, 3):
            self._fault()


def assert_goes_on(lab: tb.Lab, jobs: list[Job], undisturbed: tb.Lab, same_run: Same) -> None:
    """What was finished is there and read, and the same again makes the rest, to the same bits."""
    finished = set(lab.store.names())
    assert jobs[0].name in finished
    assert same_run(lab.result(jobs[0]), undisturbed.result(jobs[0]))
    outcome = lab.run(jobs)
    outcome.raise_failures()
    assert finished.isdisjoint(outcome.computed)
    assert all(same_run(lab.result(job), undisturbed.result(job)) for job in jobs)
    gc(lab.store, dry_run=False, grace=0)
    assert list(verify(lab.store)) == []


def test_a_disk_that_fills_up_ends_the_run_and_the_next_goes_on(
    disk: Path, jobs: list[Job], undisturbed: tb.Lab, same_run: Same
) -> None:
    lab = tb.Lab(disk / "store", settings=OFTEN)

    def fill() -> None:
        with suppress(OSError):
            (disk / "ballast").write_bytes(bytes(2**23))

    with pytest.raises(StoreUnwritable, match=r"No space left on device; make room .* and run the") as told:
        lab.run(jobs, progress=At(jobs[1], fill))
    assert "\n" not in str(told.value)
    with pytest.raises(StoreUnwritable, match="No space left on device"):
        lab.run(jobs)
    (disk / "ballast").unlink()
    assert_goes_on(lab, jobs, undisturbed, same_run)


def test_a_store_that_becomes_read_only_ends_the_run_and_is_read_all_the_same(
    disk: Path, jobs: list[Job], undisturbed: tb.Lab, same_run: Same
) -> None:
    lab = tb.Lab(disk / "store", settings=OFTEN)

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    with pytest.raises(StoreUnwritable, match=r"Read-only file system; make it writable or") as told:
        lab.run(jobs, progress=At(jobs[1], lambda: remount("ro")))
    assert "\n" not in str(told.value)
    with pytest.raises(StoreUnwritable, match="Read-only file system"):
        lab.run(jobs)
    reader = tb.Lab(disk / "store")
    assert reader.run(jobs[0]).computed == []
    assert same_run(reader.result(jobs[0]), undisturbed.result(jobs[0]))
    assert list(verify(reader.store)) == []
    remount("rw")
    assert_goes_on(lab, jobs, undisturbed, same_run)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 7 // 8] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_bit])
@pytest.mark.parametrize("file", ["result.safetensors", "result.json", "job.json"])
def test_a_damaged_result_is_told_and_computed_again_once_it_is_deleted(
    jobs: list[Job], undisturbed: tb.Lab, tmp_path: Path, same_run: Same, damage: Callable, file: str
) -> None:
    shutil.copytree(undisturbed.store.root, tmp_path / "store")
    lab = tb.Lab(tmp_path / "store")
    folder = lab.store.folder(jobs[1].name)
    damage(folder / file)
    with pytest.raises(StoreError, match=f"to have it computed again, delete {folder}") as told:
        lab.result(jobs[1])
    assert "\n" not in str(told.value)
    shutil.rmtree(folder)
    assert_goes_on(lab, jobs, undisturbed, same_run)


@pytest.mark.parametrize("damage", [truncate, flip_bit])
def test_a_damaged_dense_start_is_told_and_comes_back(
    jobs: list[Job], undisturbed: tb.Lab, tmp_path: Path, same_run: Same, damage: Callable
) -> None:
    shutil.copytree(undisturbed.store.root, tmp_path / "store")
    lab = tb.Lab(tmp_path / "store")
    ticket = undisturbed.result(jobs[1]).ticket
    place = lab.store.root / "objects" / f"{ticket.start_fingerprint}.safetensors"
    damage(place)
    objects._object.cache_clear()
    with pytest.raises(StoreError, match=r"; delete it and the job that made it, and run again"):
        lab.result(jobs[1])
    place.unlink()
    (pretrained,) = (need for need in jobs[0].needs if need.declaration.name == "pretrain")
    shutil.rmtree(lab.store.folder(pretrained.name))
    assert same_run(lab.result(jobs[1]), undisturbed.result(jobs[1]))
    assert_goes_on(lab, jobs, undisturbed, same_run)


class Killed(BaseException):
    """Stands in for the death of the process: nothing is tidied up after it."""


@pytest.mark.parametrize("damage", [truncate, flip_bit])
@pytest.mark.parametrize(
    ("damaged", "warnings", "trained"),
    [
        (["checkpoint"], 1, [3, 4]),  # the previous one is of the third epoch, too
        (["checkpoint.previous"], 0, [3, 4]),
        (["checkpoint", "checkpoint.previous"], 2, [2, 3, 4]),
    ],
)
def test_a_damaged_checkpoint_costs_what_lies_behind_the_last_whole_one_and_no_bit(
    jobs: list[Job], undisturbed: tb.Lab, tmp_path: Path, same_run: Same, damage: Callable,
    damaged: list[str], warnings: int, trained: list[int], recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    lab = tb.Lab(tmp_path / "store", settings=OFTEN)

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        lab.run(jobs, progress=At(jobs[1], die))
    workplace = lab.store.workplace(jobs[1].name)
    for name in damaged:
        damage(workplace / name)
    again = At(jobs[1], lambda: None)
    lab.run(jobs, progress=again).raise_failures()
    told = [str(each.message) for each in recwarn if "skipping a checkpoint" in str(each.message)]
    assert len(told) == warnings
    assert [epoch for name, epoch in again.epochs if name == jobs[1].name] == trained
    assert all(name in "".join(told) for name in damaged if warnings)
    assert same_run(lab.result(jobs[1]), undisturbed.result(jobs[1]))
