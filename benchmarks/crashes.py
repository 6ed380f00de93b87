"""A small chain under a fault at each of its changes to the disk, one after the other.

    python benchmarks/crashes.py
    python benchmarks/crashes.py --sample 60 --seed 1

A chain is trained with a checkpoint at every opportunity, exported, thinned, made whole again and imported
into a second store. At each operation in turn the process is killed before it, or in the middle of a write;
or the operation fails for want of room, once or from then on, or with an input/output error; or the power
goes, and of what was not forced to the disk some or nothing is left; or each folder on the way to what is
changed is swapped for another user's link, for this operation or from then on. Then the same commands run
again, from the one that was interrupted. Every result must come out with the same bits, ``verify`` and ``gc``
must leave nothing to say, no finished result may be lost, no finished training be repeated, nothing be
changed where a link leads, and no error be other than a clean one.

Each case is a process forked from one that has everything loaded.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from faulty_disk import BROKEN, FULL, NEEDS_ROOM, Cut, FaultyOs, Operation, after_power_cut, error

from tombola import disk, files
from tombola.errors import TombolaError
from tombola.lab import execute, process, training_progress
from tombola.lab import lease as leases
from tombola.lab.archive import import_
from tombola.lab.chains import imp_jobs
from tombola.lab.execute import Settings
from tombola.lab.export import export, export_tickets
from tombola.lab.gc import gc
from tombola.lab.store import Store
from tombola.lab.verify import verify

# The work


def _images(count: int, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 256, (count, 1, 8, 8), generator=draws).to(torch.uint8), torch.arange(count) % 3


def _chain() -> list[tb.Job]:
    draws = torch.Generator().manual_seed(0)
    data = tb.data_from_tensors(_images(60, draws), _images(30, draws), name="crashes")
    return imp_jobs("convnet", data, tb.Recipe(epochs=2, batch_size=20), rounds=1)


JOBS = _chain()


def _lab(place: Path) -> tb.Lab:
    return tb.Lab(place / "a", settings=Settings(device="cpu", checkpoint_every=0.0))


def train(place: Path) -> None:
    _lab(place).run(JOBS).raise_failures()


def export_results(place: Path) -> None:
    export(_lab(place).store, None, place / "all.zip")


def export_masks(place: Path) -> None:
    export_tickets(_lab(place).store, None, place / "tickets.zip")


def thin(place: Path) -> None:
    gc(_lab(place).store, "tickets", dry_run=False, grace=0)


def make_whole(place: Path) -> None:
    _lab(place).run(JOBS, whole=True).raise_failures()


def import_all(place: Path) -> None:
    import_(Store(place / "b"), place / "all.zip")
    import_(Store(place / "c"), place / "tickets.zip")


COMMANDS = (train, export_results, export_masks, thin, make_whole, import_all)


def essence(place: Path) -> dict[str, Any]:
    """Everything in the three stores that must come out the same."""
    found: dict[str, Any] = {}
    for shelf in "abc":
        store = Store(place / shelf)
        for name in store.names():
            packed = None if store.is_thin(name) else store.packed(name)
            tensors = packed.tensors if packed else {}
            same = {key: value for key, value in tensors.items() if "seconds" not in key}
            found[f"{shelf} {name}"] = [store.numbers(name), files.fingerprint(same)]
    return found


# What must hold


@dataclass
class Books:
    """What has been published whole, as promised to the caller, and what was computed although it had been.

    command: the number of the command that is under way.
    """

    command: int = 0
    whole: set[str] = field(default_factory=set)
    repeated: list[str] = field(default_factory=list)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keeps books of what this process does."""
        take_in, thin_, compute = Store.take_in, Store.thin, execute._compute_and_publish

        def kept_take_in(store: Store, name: str, staging: Path) -> bool:
            whole = not (staging / "thin").exists()
            new = take_in(store, name, staging)
            if new and whole:
                self.whole.add(f"{store.root.name} {name}")
            return new

        def kept_thin(store: Store, name: str) -> None:
            self.whole.discard(f"{store.root.name} {name}")
            thin_(store, name)

        def kept_compute(store: Store, name: str, *arguments: Any) -> None:
            if f"{store.root.name} {name}" in self.whole:
                self.repeated.append(name)
            compute(store, name, *arguments)

        with (
            patch.object(Store, "take_in", kept_take_in),
            patch.object(Store, "thin", kept_thin),
            patch.object(execute, "_compute_and_publish", kept_compute),
        ):
            yield

    def lost(self, place: Path) -> list[str]:
        """What was published whole and is not there whole."""
        lost = []
        for entry in self.whole:
            shelf, name = entry.split()
            store = Store(place / shelf)
            if not store.has(name) or store.is_thin(name):
                lost.append(entry)
        return lost


def finish(place: Path, books: Books, expected: dict[str, Any]) -> str:
    """Runs the commands from the interrupted one on, and says what is wrong in the end; "" if nothing."""
    for command in COMMANDS[books.command :]:
        command(place)
        books.command += 1
    if books.repeated:
        return f"computed again: {books.repeated}"
    for shelf in "abc":
        store = Store(place / shelf)
        gc(store, dry_run=False, grace=0)
        if damages := list(verify(store)):
            return f"verify says {damages}"
        # The checkpoint of a thin job may come back with the power, and stays for its next training.
        if left := [path.name for path in (store.root / "work").iterdir() if not store.is_thin(path.name)]:
            return f"left in work: {left}"
    found = essence(place)
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"other results: {wrong}" if wrong else ""


# Cases


@dataclass(frozen=True)
class Case:
    """A fault at one operation.

    cut: of a power cut, with the seed of what it leaves. keep: bytes of a write that is torn. folder: the
    number of the one that is swapped for a link, among those on the way; their names differ in each run.
    """

    number: int
    fault: str
    cut: Cut | None = None
    seed: int = 0
    keep: int | None = None
    folder: int = 0


class Recorded:
    """An undisturbed run: its operations, and the books before each of them.

    copied: the numbers of operations before which the folder is copied.
    """

    def __init__(self, place: Path, copies: Path, copied: Collection[int] = ()) -> None:
        self.copies = copies
        self.operations: list[Operation] = []
        self.lengths: list[int] = []
        self.books: list[Books] = []
        books = Books()

        def before(number: int, operation: Operation) -> None:
            self.operations.append(operation)
            self.lengths.append(len(faulty.journal))
            self.books.append(Books(books.command, set(books.whole)))
            if number in copied:
                shutil.copytree(place, copies / str(number))

        faulty = quiet(place, before)
        with books.kept(), only_through_disk(place):
            for command in COMMANDS:
                command(place)
                books.command += 1
        self.journal = faulty.journal
        disk.os = shutil.os = os  # type: ignore[misc,attr-defined]
        self.expected = essence(place)


@contextmanager
def only_through_disk(place: Path) -> Iterator[None]:
    """Raises at a change below a folder that does not pass :mod:`tombola.disk`: no fault would meet it."""
    changes = {
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.mkdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.utime",
    }
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not watching or (event not in changes and event != "open"):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if not str(arguments[0]).startswith(f"{place}/"):
            return
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code.co_filename != disk.__file__:
            frame = frame.f_back
        if frame is None:
            raise AssertionError(f"{event} of {arguments[0]} does not pass tombola.disk")

    sys.addaudithook(hook)  # for ever: Python removes none
    try:
        yield
    finally:
        watching = False


def quiet(
    place: Path, before: Callable[[int, Operation], None], after: Callable[[int], None] = lambda number: None
) -> FaultyOs:
    """Makes the disk faulty, and its operations the same ones in the same order each time."""
    faulty = FaultyOs(place, before, after)
    disk.os = shutil.os = faulty  # type: ignore[misc,assignment,attr-defined]
    disk._sync_threads = lambda: _InTurn()  # type: ignore[assignment,return-value]
    leases._held._thread = object()  # type: ignore[assignment]  # no heartbeats
    training_progress._EVERY = math.inf
    return faulty


class _InTurn:
    """Does at once what threads would do at some time."""

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments))
        except BaseException as problem:
            done.set_exception(problem)
        return done


def cases(recorded: Recorded) -> Iterator[Case]:
    """Every fault at every operation."""
    for number, operation in enumerate(recorded.operations):
        yield Case(number, "killed before it")
        if operation.kind == "write" and len(operation.content) > 1:
            for keep in sorted({1, len(operation.content) // 2, len(operation.content) - 1}):
                yield Case(number, "killed in the middle of it", keep=keep)
        if operation.kind in NEEDS_ROOM:
            yield Case(number, "no room, once")
            yield Case(number, "no room from then on")
        yield Case(number, "input/output error")
        for cut in get_args(Cut):
            yield Case(number, "power cut", cut, seed=number)
        for folder in range(len(folders_of(operation))):
            yield Case(number, SWAPPED_ONCE, folder=folder)
            yield Case(number, SWAPPED, folder=folder)


SWAPPED_ONCE, SWAPPED = "folder swapped for a link, once", "folder swapped for a link, from then on"


def folders_of(operation: Operation) -> list[str]:
    """The folders of a store on the way to what an operation changes; not the store's own."""
    above = {str(folder) for path in (operation.path, operation.target) for folder in Path(path).parents}
    return sorted(folder for folder in above if "/" in folder)


def interrupted(case: Case, recorded: Recorded, place: Path) -> str:
    """Lets a process find what a kill or a power cut left; "" if it repairs everything."""
    books = recorded.books[case.number]
    # The process that held leases is dead, though its number is that of one that runs.
    process.runs = lambda identity: identity.get("pid") == os.getpid()
    if case.cut is not None:
        after_power_cut(recorded.journal[: recorded.lengths[case.number]], case.cut, case.seed, place)
    else:
        shutil.copytree(recorded.copies / str(case.number), place)
    if case.keep is not None:
        operation = recorded.operations[case.number]
        with (place / operation.path).open("r+b") as file:
            file.seek(operation.offset)
            file.write(operation.content[: case.keep])
    if lost := books.lost(place):
        return f"lost: {lost}"
    with books.kept():
        return finish(place, books, recorded.expected)


def failing(case: Case, recorded: Recorded, place: Path) -> str:
    """Lets an operation fail, and runs the command that it was of again when the cause is gone."""
    place.mkdir()
    books = Books()
    code = BROKEN if case.fault.startswith("input") else FULL
    met = repaired = False

    def before(number: int, operation: Operation) -> None:
        nonlocal met
        here = number == case.number
        later = case.fault == "no room from then on" and met and operation.kind in NEEDS_ROOM
        met |= here
        if not repaired and (here or later):
            raise error(code)

    quiet(place, before)
    with books.kept():
        try:
            for command in COMMANDS:
                command(place)
                books.command += 1
        except TombolaError:
            if not met:
                raise
        if not met:
            return "the operation was never reached"
        repaired = True
        if lost := books.lost(place):
            return f"lost: {lost}"
        return finish(place, books, recorded.expected)


class Swap:
    """A folder of a store, a link that another user puts in its place, and the folder that this leads to.

    There are the same names, of files that are nobody's business.
    """

    def __init__(self, place: Path) -> None:
        self.aside, self.outside = place / "aside", place / "outside"
        self.lies = False

    def make(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(self.folder, self.outside, symlinks=True)
        for path in (self.outside, *self.outside.rglob("*")):
            if path.is_file():
                path.write_text("mine")
            os.utime(path, (1e9, 1e9))
        self.before = self._everything()
        self.folder.rename(self.aside)
        self.folder.symlink_to(self.outside)
        if os.geteuid() == 0:
            os.chown(self.folder, 65534, 65534, follow_symlinks=False)
        self.lies = True

    def undo(self) -> bool:
        """Puts the folder back; whether the link was still there."""
        was_there = self.folder.is_symlink()
        if was_there:
            self.folder.unlink()
            self.aside.rename(self.folder)
        self.lies = False
        return was_there

    def harm(self) -> str:
        """What was changed where the link led; "" if nothing."""
        after = self._everything()
        harmed = [
            name for name in self.before.keys() | after.keys() if self.before.get(name) != after.get(name)
        ]
        return f"changed behind the link {self.folder.name}: {sorted(harmed)}" if harmed else ""

    def _everything(self) -> dict[str, tuple[float, bytes]]:
        return {
            str(path.relative_to(self.outside)): (
                path.stat().st_mtime,
                path.read_bytes() if path.is_file() else b"",
            )
            for path in (self.outside, *self.outside.rglob("*"))
        }


def swapping(case: Case, recorded: Recorded, place: Path) -> str:
    """Swaps a folder for a link, and runs the command that met it again when the folder is back."""
    beside = place.with_name(f"{place.name}-beside")
    place.mkdir()
    beside.mkdir()
    books = Books()
    swap = Swap(beside)

    def before(number: int, operation: Operation) -> None:
        if number == case.number:
            swap.make(place / folders_of(operation)[case.folder])

    def after(number: int) -> None:
        if number == case.number and case.fault == SWAPPED_ONCE:
            swap.undo()

    quiet(place, before, after)
    if (uid := os.geteuid()) != 0:  # who may give no file away is another user instead
        os.geteuid = lambda: uid + 1
    try:
        with books.kept():
            try:
                for command in COMMANDS:
                    command(place)
                    books.command += 1
            except TombolaError:
                if not swap.lies:
                    raise
            if harm := swap.harm():
                return harm
            if swap.lies and not swap.undo():
                return ""  # the link itself was published or removed, as its maker could have done
            if lost := books.lost(place):
                return f"lost: {lost}"
            return finish(place, books, recorded.expected) or swap.harm()
    finally:
        shutil.rmtree(beside)


def run_case(case: Case, recorded: Recorded, root: Path) -> int:
    """Starts a process for a case, which writes what is wrong beside its folder; its process id."""
    child = os.fork()
    if child:
        return child
    status, place = 1, root / f"{case.number}-{random.SystemRandom().randrange(10**12)}"
    try:
        signal.alarm(120)  # rather than to hang
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            judge = {"no": failing, "input/output": failing, "folder": swapping}.get(
                case.fault.split()[0], interrupted
            )
            wrong = judge(case, recorded, place)
        status = 0
        if wrong:
            (root / f"{os.getpid()}.txt").write_text(wrong)
    except BaseException:
        with suppress(OSError):
            (root / f"{os.getpid()}.txt").write_text(traceback.format_exc())
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os._exit(status)


def main() -> int:
    """Run all cases, or a sample of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=int, help="run so many cases only, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="cases at a time")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("warm", "copies", "cases", "undisturbed"):
            (root / name).mkdir()
        # Also so that what is loaded on first use is loaded before the forks.
        chosen = list(cases(Recorded(root / "warm", root / "copies")))
        if options.sample is not None:
            chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))
        found = {case.number for case in chosen if case.fault.startswith("killed")}
        recorded = Recorded(root / "undisturbed", root / "copies", found)
        wrong = _run_all(chosen, recorded, root / "cases", options.processes)
    counts = Counter(case.fault for case in chosen)
    figures = {
        "operations": len(recorded.operations), "faults": len(chosen), "of": counts,
        "losses": len(wrong), "seconds": round(time.monotonic() - since, 1),
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    for case, words in wrong[:20]:
        print(f"operation {case.number}, {recorded.operations[case.number]!r:.200}: {case}\n  {words}")
    print(f"{figures['operations']} operations, {figures['faults']} faults in {figures['seconds']} s")
    for fault, count in sorted(counts.items()):
        print(f"  {fault}: {count}")
    print("all bits equal, nothing lost, nothing repeated" if not wrong else f"{len(wrong)} cases went wrong")
    return 1 if wrong else 0


def _run_all(chosen: list[Case], recorded: Recorded, root: Path, processes: int) -> list[tuple[Case, str]]:
    running: dict[int, Case] = {}
    wrong: list[tuple[Case, str]] = []
    pending = list(reversed(chosen))
    while pending or running:
        while pending and len(running) < processes:
            case = pending.pop()
            running[run_case(case, recorded, root)] = case
        child, status = os.wait()
        case = running.pop(child)
        told = root / f"{child}.txt"
        if told.exists():
            wrong.append((case, told.read_text()))
            told.unlink()
        elif status:
            wrong.append((case, f"ended with status {status}"))
    return wrong


if __name__ == "__main__":
    sys.exit(main())
