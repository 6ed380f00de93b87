"""Hostile tickets, runs, checkpoints, jobs and exports: only clean errors, and nothing outside is touched.

    python benchmarks/fuzz.py --inputs 10000

Valid files are altered by hypothesis (see hostile.py), most of them sealed again so that the checksums hold,
and read in every way that the library and the command line have. An input fails if anything but a
``TombolaError`` comes out, if the reader opens, writes or lists anything outside the folder it was given,
starts a process, connects or unpickles, asks for more than a GB of memory, or takes longer than 20 seconds.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import torch
from bait import Bait, readers
from guard import Escape, Guard, bound_memory
from hostile import altered_archive, altered_file
from hypothesis import strategies as st

import tombola as tb
from tombola import files
from tombola.errors import TombolaError
from tombola.lab import evaluate, objects


def _digits_alone(source: Any) -> tb.Data:
    """What a record of data asks to be loaded is for whoever computes on it to allow."""
    if source != "digits":
        raise TombolaError(f"{source!r:.60} is not loaded here")
    return tb.load_data("digits")


def forget() -> None:
    """Nothing of one input may be remembered for the next."""
    for cached in (objects._object, objects._data, evaluate._derived_data):
        cached.cache_clear()


def fuzz(place: Path, inputs: int, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Read so many altered files; how many there were of each kind, and what went wrong, by its place."""
    told: Counter[str] = Counter()
    failures: dict[str, str] = {}
    bait, guard = Bait(place), Guard()
    ways = readers(bait)
    objects.load_data = _digits_alone
    files.safe_open = guard.opening(files.safe_open)
    for kind, path in (*bait.files.items(), ("store", bait.in_store[0])):  # whatever is imported late, now
        for read in ways[kind]:
            read(path)
    forget()
    bound_memory()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=inputs, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(st.data())
    def one(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["ticket", "run", "checkpoint", "store", "store", "export"]))
        path = bait.files[kind] if kind != "store" else data.draw(st.sampled_from(bait.in_store))
        before = path.read_bytes()
        after = (
            altered_archive(data.draw, before)
            if kind == "export"
            else altered_file(data.draw, path.name, before)
        )
        path.write_bytes(after)
        told[kind] += 1
        try:
            for read in ways[kind]:
                _read(guard, bait.room, read, path, told)
        except (Exception, Escape) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            cause = f"{type(error).__name__} in {where.name}, line {where.lineno}"
            if cause not in failures:
                failures[cause] = "".join(traceback.format_exception(error))
                place.with_name(f"{place.name}-failed-{len(failures)}-{path.name}").write_bytes(after)
        finally:
            path.write_bytes(before)
            (bait.store.root / ".index.json").unlink(missing_ok=True)
            forget()

    one()
    beside = {path.name for path in place.iterdir()}
    if (place / "outside").read_text() != "canary" or beside != {"outside", "room"}:
        failures.setdefault("written outside", f"something was written beside the room in {place}")
    return told, failures


def _read(guard: Guard, room: Path, read: Callable[[Path], Any], path: Path, told: Counter[str]) -> None:
    """Read in one way; an error that is not clean comes out."""
    with guard.on(room):
        try:
            read(path)
        except TombolaError as error:
            told["clean errors"] += 1
            if "\n" in str(error):
                raise ValueError(f"more than one line: {error!r:.300}") from error


def main() -> None:
    """Read so many altered files and print how many of each kind there were."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    place, started = Path(tempfile.mkdtemp(prefix="tombola-fuzz-")).resolve(), time.monotonic()
    told, failures = fuzz(place, options.inputs, options.seed)
    for told_of in failures.values():
        print(told_of)
    for what, count in sorted(told.items()):
        print(f"{what:<14} {count:>7,}")
    seconds = time.monotonic() - started
    count = sum(told.values()) - told["clean errors"]
    shutil.rmtree(place)
    if failures:
        found = "; ".join(failures)
        raise SystemExit(f"{count:,} inputs, {seconds:.0f} s; {len(failures)} ways through: {found}")
    print(f"{count:,} inputs, {seconds:.0f} s; only clean errors")


if __name__ == "__main__":
    main()
