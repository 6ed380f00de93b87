"""Faults of the disk under a store: full, read-only, damaged files, clocks that jump.

    python benchmarks/storage.py

Each fault meets a small study (two pruning chains and the barrier between them) or one training. One line
must say what is wrong and what to do; what was finished must still be there and be read; once the cause is
gone the same command must go on, and every result equal that of an undisturbed run to the bit. Disks are
small file systems in memory, which only root may mount: without that those two faults are left out, and said
to be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from faults import essence
from studied import SETTINGS, Study, Training, training, wait_until

from tombola import files
from tombola.errors import StoreError
from tombola.lab.job import all_needed
from tombola.lab.lease import STALE, acquire
from tombola.lab.objects import _object
from tombola.lab.verify import verify


@contextmanager
def disk(place: Path) -> Iterator[Path]:
    """A file system of its own of 16 MB, in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def can_mount(root: Path) -> bool:
    """Whether file systems can be mounted here."""
    try:
        with disk(root / "tried"):
            return True
    except (subprocess.CalledProcessError, OSError):
        return False


def told_in_one_line(driver: subprocess.Popen[str], *words: str) -> str:
    """What a driver that met a fault says at its end."""
    text, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, f"ended with {driver.returncode}: {text}"
    told = text.strip().splitlines()
    assert len(told) == 1, f"not one line: {text}"
    assert all(word in told[0] for word in words), told[0]
    return told[0]


def some_finished(store: Path, count: int) -> set[str]:
    """Names of the finished jobs once there are so many."""

    def names() -> set[str]:
        found = set(tb.Lab(store).store.names()) if (store / "tombola.json").exists() else set()
        return found if len(found) >= count else set()

    return set(wait_until(names))


def full_disk(study: Study, place: Path) -> tuple[str, float]:
    """Something else fills the disk while the study runs."""
    with disk(place):
        driver = study.start(place / "store")
        some_finished(place / "store", 3)
        with suppress(OSError):  # until it is full
            (place / "ballast").write_bytes(bytes(2**24))
        told = told_in_one_line(driver, "No space left on device", "make room")
        study.check(place / "store", set(tb.Lab(place / "store").store.names()))
        (place / "ballast").unlink()
        return told, study.finish(place / "store")


def read_only(study: Study, place: Path) -> tuple[str, float]:
    """The store becomes read-only while the study runs, as disks with errors do."""
    with disk(place):
        driver = study.start(place / "store")
        finished = some_finished(place / "store", 3)
        remount = ["mount", "-o", "remount,ro", str(place)]
        wait_until(lambda: subprocess.run(remount, capture_output=True).returncode == 0)
        told = told_in_one_line(driver, "Read-only file system", "make it writable")
        study.check(place / "store", finished)  # everything can still be read
        again = told_in_one_line(study.start(place / "store"), "Read-only file system", "make it writable")
        assert "\n" not in again
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        return told, study.finish(place / "store")


def truncate(path: Path) -> None:
    """Cut a file in half."""
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path: Path) -> None:
    """Turn one bit in the last quarter of a file over."""
    content = bytearray(path.read_bytes())
    content[len(content) * 7 // 8] ^= 4
    path.write_bytes(content)


def refused(lab: tb.Lab, job: tb.Job) -> str:
    """What is told instead of a damaged result."""
    try:
        lab.result(job)
    except StoreError as error:
        return str(error)
    raise AssertionError("a damaged result was read")


def damaged_results(study: Study, place: Path, damage: Callable[[Path], None]) -> tuple[str, float]:
    """Files of finished jobs are damaged: found, told, deleted as told, and computed again."""
    shutil.copytree(study.root / "undisturbed", place)
    since = time.monotonic()
    lab, jobs = tb.Lab(place, settings=SETTINGS), all_needed(study.jobs)
    told = ""
    for file in ("result.safetensors", "result.json", "history.csv", "job.json"):
        run = study.jobs[2]
        folder = lab.store.folder(run.name)
        damage(folder / file)
        found = list(verify(lab.store))
        assert {each.place for each in found} == {str(folder.relative_to(place))}, f"{file}: {found}"
        if file != "history.csv":  # which nothing but a reader reads
            told = refused(lab, run)
            assert f"delete {folder}" in told, told
        assert (
            essence(lab, study.jobs[0]) == study.expected[study.jobs[0].name]
        )  # the others are as they were
        shutil.rmtree(folder)
        lab.run(run).raise_failures()
        assert essence(lab, run) == study.expected[run.name], file
    start = lab.result(study.jobs[0]).ticket.start_fingerprint
    damage(place / "objects" / f"{start}.safetensors")
    assert f"objects/{start}.safetensors" in {each.place for each in verify(lab.store)}
    (place / "objects" / f"{start}.safetensors").unlink()
    made = next(
        name
        for name, job in jobs.items()
        if job.declaration.name == "pretrain" and lab.store.numbers(name)["start"] == start
    )
    shutil.rmtree(lab.store.folder(made))  # the job that made it, as told
    _object.cache_clear()  # read before it was damaged
    assert essence(lab, study.jobs[0]) == study.expected[study.jobs[0].name]
    study.finish(place)
    return told, time.monotonic() - since


def damaged_checkpoints(
    study: Study, place: Path, damage: Callable[[Path], None], damaged: tuple[str, ...]
) -> tuple[str, float]:
    """A training is killed, and checkpoints are damaged: the previous one is taken, or it begins anew."""
    first = Training(place)
    folder = tb.Lab(place).store.workplace(training().name)
    wait_until((folder / "checkpoint.previous").exists)
    first.process.kill()
    first.process.communicate()
    kept = {path.name: files.read_description(path)["epoch"] for path in folder.glob("checkpoint*")}
    assert kept["checkpoint.previous"] < kept["checkpoint"]
    for name in damaged:
        damage(folder / name)
    whole = [epoch for name, epoch in kept.items() if name not in damaged]
    since = time.monotonic()
    epochs, warned = Training(place).epochs_to_its_end()
    seconds = time.monotonic() - since
    looked_at = damaged if "checkpoint" in damaged else ()  # nobody looks behind one that is whole
    assert warned.count("skipping a checkpoint") == len(looked_at), warned
    assert epochs == list(range(max(whole, default=0) + 1, 151)), epochs
    lab = tb.Lab(place)
    assert essence(lab, training()) == study.trained, "other bits"
    assert not list(verify(lab.store))
    warnings = [line.partition("Warning: ")[2] for line in warned.splitlines() if "skipping" in line]
    return warnings[-1] if warnings else "nothing: the newest is whole", seconds


def clock_forwards(study: Study, place: Path) -> tuple[str, float]:
    """The clock jumps a day forwards under a lease while a second driver wants its job."""
    since = time.monotonic()
    first = Training(place)
    lease = tb.Lab(place).store.workplace(training().name) / "lease"
    wait_until(lease.exists)
    os.utime(lease, (time.time() - 86400,) * 2)  # as it looks to whoever comes after the jump
    second = Training(place)
    assert first.epochs_to_its_end()[0] == list(range(1, 151)), "the owner did not train it all"
    assert second.epochs_to_its_end()[0] == [], "a living owner's lease was taken"
    assert essence(tb.Lab(place), training()) == study.trained, "other bits"
    return "nothing: the lease stays with the process that runs", time.monotonic() - since


def clock_backwards(study: Study, place: Path) -> tuple[str, float]:
    """A machine dies, and the clock jumps a day backwards: its last heartbeat lies in the future."""
    store = tb.Lab(place).store
    lease = acquire(store.workplace(training().name))
    assert lease is not None
    lease.path.write_text(json.dumps(lease.owner | {"host": "a machine that died"}))
    os.utime(lease.path, (time.time() + 86400,) * 2)
    since = time.monotonic()
    assert Training(place).epochs_to_its_end()[0] == list(range(1, 151))
    assert essence(tb.Lab(place), training()) == study.trained, "other bits"
    return f"nothing: taken over after {STALE:.0f} s without a heartbeat", time.monotonic() - since


def main() -> None:
    """Meet every fault once, and print what was told and how long the rest took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faults", nargs="*", help="only those whose name holds one of these words")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="tombola-storage-"))
    both = ("checkpoint", "checkpoint.previous")
    faults: dict[str, Callable[[Study, Path], tuple[str, float]]] = {
        "full disk": full_disk,
        "read-only store": read_only,
        "truncated results": partial(damaged_results, damage=truncate),
        "flipped bits in results": partial(damaged_results, damage=flip_bit),
        "truncated checkpoint": partial(damaged_checkpoints, damage=truncate, damaged=both[:1]),
        "flipped bit in a checkpoint": partial(damaged_checkpoints, damage=flip_bit, damaged=both[:1]),
        "previous checkpoint": partial(damaged_checkpoints, damage=flip_bit, damaged=both[1:]),
        "both checkpoints": partial(damaged_checkpoints, damage=truncate, damaged=both),
        "clock forwards": clock_forwards,
        "clock backwards": clock_backwards,
    }
    asked = {
        name: meet
        for name, meet in faults.items()
        if not options.faults or any(word in name for word in options.faults)
    }
    mounts = can_mount(root)
    study = Study(root)
    for number, (name, meet) in enumerate(asked.items()):
        if meet in (full_disk, read_only) and not mounts:
            print(f"{name}: skipped, for only root may mount a small file system", flush=True)
            continue
        told, seconds = meet(study, root / f"place{number}")
        print(f"{name}: mended in {seconds:.1f} s; told: {told.replace(str(root), '...')}", flush=True)
    shutil.rmtree(root)
    print("nothing finished was lost, and all bits are equal")


if __name__ == "__main__":
    main()
