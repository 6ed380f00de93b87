"""A small store, altered at several places at once, and every way in which a whole store is read.

An input is a script: four bytes for each alteration say what is done, where, from where, and how.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from alter import altered_json, altered_numbers, altered_tensors, altered_text
from guard import Escape, Guard
from hostile import PATHS
from rich.console import Console

import tombola as tb
from tombola.errors import TombolaError
from tombola.experiments.bound import jobs_behind
from tombola.experiments.experiment import Experiment
from tombola.experiments.last_scale import last_scale
from tombola.lab import evaluate, lease, objects, supervision
from tombola.lab.archive import import_
from tombola.lab.details import show_job
from tombola.lab.durations import _durations
from tombola.lab.export import export, export_tickets
from tombola.lab.gc import gc
from tombola.lab.job import all_needed
from tombola.lab.listing import listing
from tombola.lab.store import Store, write_json
from tombola.lab.training_progress import trainings_in_progress
from tombola.lab.user_code import put_file
from tombola.lab.verify import verify
from tombola.report.gather import gather_chains
from tombola.report.write import write_report
from tombola.training.checkpoint import Checkpoint, Checkpoints

# Alterations of one input at most.
_MOST = 8
_CANARY = b"what nobody who reads a store may see"
_NAMES = [path for path in PATHS if "/" not in path and "\0" not in path and 2 < len(path) < 256]
_NAMES += [
    "a" * 64,
    "A" * 64,
    ".hidden",
    ".tombola.json.00000000",
    "publish.00000000",
    "jobs",
    "\udcff",
    "e\u0301",
]


def forget() -> None:
    """Nothing of one input may be remembered for the next."""
    for cached in (objects._object, objects._data, evaluate._derived_data, _durations):
        cached.cache_clear()


class WholeStore:
    """A store with a file of every kind, a folder outside of it, and a copy to alter."""

    def __init__(self, room: Path, guard: Guard) -> None:
        self.guard = guard
        self.room, self.outside = room, room.with_name(f"{room.name}-outside")
        self.clean, self.copy = room / "clean", room / "copy"
        recipe = {"epochs": 1, "batch_size": 600}
        between = {"rounds": {"barrier.height": {"points": 3}}}
        experiment = Experiment("mine", ["tiny"], ["digits"], recipe, rounds=1, between=between)
        self.experiments = [experiment.at()]
        lab = tb.Lab(self.clean)
        jobs = list(all_needed(jobs_behind(self.experiments)).values())
        lab.run(jobs).raise_failures()
        export(lab.store, [jobs[0].name], room / "honest")
        lab.store.thin(jobs[0].name)
        (room / "own.py").write_text("mine = 1\n")
        put_file(lab.store, room / "own.py")
        write_json(lab.store.root / "studies.json", {"scale": "tiny", "numbers": {}})
        listing(lab.store)
        write_report(gather_chains(lab, self.experiments, {}), room / "report", files=False)
        self._workplace(lab.store.workplace("a" * 64))
        self.names = list(lab.store.names())
        self.places = sorted(str(path.relative_to(self.clean)) for path in self.clean.rglob("*"))
        (self.outside / "folder").mkdir(parents=True)
        (self.outside / "secret").write_bytes(_CANARY)
        (self.outside / "folder" / "job.json").write_text("{}")
        self.before = self._outside()

    def _workplace(self, workplace: Path) -> None:
        workplace.mkdir()
        for _ in range(2):
            Checkpoints(workplace, every=0.0).keep(Checkpoint({}, {}))
        held = lease.acquire(workplace)
        assert held is not None
        lease._held.discard(held)
        write_json(workplace / "attempts.json", {"begun": 1})
        (workplace / "log.txt").write_text("begun\n")
        (workplace / "error.txt").write_text("an error\n")
        under_way = '{"function": "train", "epoch": 1, "epochs": 2, "left": 1.0}'
        (workplace / "under-way.json").write_text(under_way)

    def _outside(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.outside.rglob("*") if path.is_file()}

    def seeds(self) -> list[bytes]:
        """Each alteration at a few places, and some together."""
        draw = Random(0)
        return [
            b"".join(bytes([what, *draw.randbytes(3)]) for _ in range(count))
            for what in range(len(self._alterations()))
            for count in (1, 1, 3)
        ]

    def altered(self, script: bytes) -> None:
        """Make the copy anew and alter it as an input says."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.clean, self.copy, symlinks=True)
        alterations = self._alterations()

        def is_within(folder: Path) -> bool:
            return Path(os.path.realpath(folder)).is_relative_to(self.copy)

        for begin in range(0, min(len(script) - 3, 4 * _MOST), 4):
            what, where, source, how = script[begin : begin + 4]
            path, other = (self.copy / self.places[number % len(self.places)] for number in (where, source))
            # What an alteration of before has linked elsewhere is not altered.
            if not all(is_within(place.parent) for place in (path, other)):
                continue
            with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                alterations[what % len(alterations)](path, other, Random(how))

    def _alterations(self) -> list[Callable[[Path, Path, Random], object]]:
        def gone(path: Path) -> Path:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return path

        def linked(path: Path, target: str | Path) -> None:
            gone(path).symlink_to(target)
            if os.geteuid() == 0:  # a stranger's, where that can be
                os.chown(path, 65534, 65534, follow_symlinks=False)

        def is_plain(path: Path) -> bool:
            return path.is_file() and not path.is_symlink() and path.stat().st_size < 2**20

        def contents(alter: Callable[[Random, bytes], bytes]) -> Callable[[Path, Path, Random], object]:
            def altered(path: Path, other: Path, draw: Random) -> None:
                if is_plain(path):
                    path.write_bytes(alter(draw, path.read_bytes()))

            return altered

        def swapped(path: Path, other: Path, draw: Random) -> None:
            aside = self.room / "aside"
            path.rename(aside)
            with suppress(OSError):
                other.rename(path)
            aside.rename(other)

        def copied(path: Path, other: Path) -> None:
            shutil.copytree(path, other, symlinks=True)

        def sealed(path: Path, other: Path, draw: Random) -> None:
            if not is_plain(path):
                return
            alter = (
                altered_tensors
                if path.suffix == ".safetensors" or "checkpoint" in path.name
                else altered_json
            )
            path.write_bytes(alter(draw, path.read_bytes()))

        def sparse(path: Path, other: Path, draw: Random) -> None:
            if is_plain(path):
                os.truncate(path, draw.choice([30_000_000_000, 2**26 + 1, 2**16 + 1]))

        def listening(path: Path, other: Path, draw: Random) -> None:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(gone(path)))

        def dated(path: Path, other: Path, draw: Random) -> None:
            seconds = draw.choice([0.0, 1e9, 4e9, 2**33])
            os.utime(path, (seconds, seconds), follow_symlinks=False)

        relative = ("secret", "folder", "nothing")
        return [
            swapped,
            lambda path, other, draw: path.rename(gone(other)),
            lambda path, other, draw: path.rename(path.with_name(draw.choice(_NAMES))),
            lambda path, other, draw: linked(path, other),
            lambda path, other, draw: linked(path, os.path.relpath(other, path.parent)),
            lambda path, other, draw: linked(path, self.outside / draw.choice(relative)),
            lambda path, other, draw: linked(path, draw.choice(["/dev/zero", ".", "..", "/"])),
            lambda path, other, draw: os.mkfifo(gone(path)),
            lambda path, other, draw: gone(path).mkdir(),
            lambda path, other, draw: gone(path),
            contents(lambda draw, content: content[: draw.randrange(len(content) + 1)]),
            lambda path, other, draw: gone(path).hardlink_to(other),
            lambda path, other, draw: is_plain(other) and shutil.copy(other, gone(path)),
            lambda path, other, draw: copied(other, path.with_name(draw.choice(_NAMES))),
            lambda path, other, draw: path.is_symlink() or (path / draw.choice(_NAMES)).write_bytes(b"x"),
            contents(altered_text), contents(altered_numbers), sealed, sealed, sealed, sparse, listening,
            dated,
        ]  # fmt: skip

    def read(self, script: bytes) -> None:
        """Read an altered store in every way; the first clean error comes out at the end."""
        self.altered(script)
        first: TombolaError | None = None
        for read in self._ways(script):
            forget()
            try:
                with self.guard.on(self.room):
                    read()
            except TombolaError as error:
                first = first or error
                if "\n" in str(error):
                    raise
        if any(self._outside().get(path) != content for path, content in self.before.items()):
            raise Escape("a file outside was altered")
        if first is not None:
            raise first

    def _ways(self, script: bytes) -> Iterator[Callable[[], Any]]:
        root = self.copy
        yield lambda: Store(root, create=False)
        try:
            lab = tb.Lab(root)
        except TombolaError:
            return  # which the way before has seen
        store = lab.store
        yield lambda: _shown(listing(store, tickets=True))
        for name in self.names:
            yield lambda name=name: _shown(show_job(store, name))
        yield lambda: [str(damage).encode() for damage in verify(store)]
        yield lambda: lab.table().csv()
        yield lambda: gc(store, "tickets", grace=0.0)
        yield lambda: last_scale(store)
        yield lambda: trainings_in_progress(store)
        yield lambda: self._report(lab, script)
        workplace = store.workplace("a" * 64)
        yield lambda: (supervision.deaths(workplace), supervision.last_lines(workplace))
        yield lambda: self._exported(store)
        yield lambda: export_tickets(store, None, self.room / "tickets")
        yield lambda: import_(store, self.room / "honest")
        yield lambda: lease.acquire(workplace)
        yield lambda: gc(store, "tickets", grace=-60.0, dry_run=False)

    def _exported(self, store: Store) -> None:
        export(store, None, self.room / "exported")
        if _CANARY in (self.room / "exported").read_bytes():
            raise Escape("a file outside was read")

    def _report(self, lab: tb.Lab, script: bytes) -> None:
        report = gather_chains(lab, self.experiments, {})
        if zlib.crc32(script) % 32 == 0:  # figures take most of the time
            write_report(report, self.room / "report", files=False)


def _shown(what: Any) -> None:
    text = io.StringIO()
    Console(file=text, width=120).print(what)
    if _CANARY.decode() in text.getvalue():
        raise Escape("a file outside was read")
