"""Runs in a store whose folders somebody exchanges with links, as fast as a processor can; Linux only.

    python benchmarks/exchange.py --seconds 60

A process puts another user's link in place of a workplace, of a folder within it or of a folder of the store,
and puts the folder back, thousands of times a second (``renameat2``), while small trainings run there, each
with a checkpoint at every opportunity. The link leads to a folder with files of all names that a store has.
None of these may be replaced, touched or removed, and none may come to them; what the runs come to does not
matter.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

import tombola as tb
from tombola.errors import TombolaError
from tombola.lab import training_progress
from tombola.lab.execute import Settings

_NAMES = (
    "attempts.json", "checkpoint", "checkpoint.previous", "error.txt", "exchanged.json", "history.csv",
    "job.json", "lease", "log.txt", "provenance.json", "result.json", "result.safetensors", "thin",
    "under-way.json",
)  # fmt: skip
_TOP = ("data", "jobs", "objects", "work")
# Of renameat2: relative to the current folder, and both names change at once.
_HERE, _EXCHANGE = -100, 2


def exchange(first: str, second: str) -> bool:
    """Whether two names were exchanged in one step."""
    system = ctypes.CDLL(None)
    return system.renameat2(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _EXCHANGE) == 0


def folders(store: Path) -> Iterator[str]:
    """The workplaces of a store and the folders in them, and at times its first folders."""
    with suppress(OSError), os.scandir(store / "work") as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            yield entry.path
            with suppress(OSError), os.scandir(entry.path) as within:
                yield from (inner.path for inner in within if inner.is_dir(follow_symlinks=False))
    if random.random() < 0.3:
        yield from (str(store / name) for name in _TOP)


def attack(store: Path, link: str, over: Event, count: Synchronized[int]) -> None:
    """Exchange folders with a link until it is over."""
    while not over.is_set():
        for folder in list(folders(store)):
            if exchange(folder, link):
                count.value += 1
                if random.random() < 0.5:
                    time.sleep(random.choice([0, 1e-5, 1e-4, 1e-3]))
                exchange(folder, link)


def everything(place: Path) -> dict[str, Any]:
    """Names, times and contents of all in a folder."""
    return {
        str(path.relative_to(place)): (path.lstat().st_mtime, path.read_bytes() if path.is_file() else b"")
        for path in place.rglob("*")
    }


def images(count: int, draws: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 256, (count, 1, 8, 8), generator=draws).to(torch.uint8), torch.arange(count) % 3


def main() -> None:
    """Runs and exchanges for so long; fails if anything was changed behind the link."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training_progress._EVERY = 0.0
    with tempfile.TemporaryDirectory(prefix="tombola-exchange-", ignore_cleanup_errors=True) as folder:
        place = Path(folder).resolve()
        (place / "private" / ("a" * 64)).mkdir(parents=True)
        for name in _NAMES:
            (place / "private" / name).write_text("mine")
            os.utime(place / "private" / name, (1e9, 1e9))
        lab = tb.Lab(place / "store", settings=Settings(device="cpu", checkpoint_every=0.0))
        (place / "store" / ".link").symlink_to(place / "private")
        if os.geteuid() == 0:
            os.chown(place / "store" / ".link", 65534, 65534, follow_symlinks=False)
        else:  # who may give no link away is another user instead
            uid = os.geteuid()
            os.geteuid = lambda: uid + 1
        before = everything(place / "private")
        outcomes, exchanges = run_and_attack(lab, str(place / "store" / ".link"), options.seconds)
        after = everything(place / "private")
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(f"{exchanges:,} exchanges; {outcomes['finished']} runs finished, {outcomes['ended']} ended early")
    if changed:
        sys.exit(f"changed behind the link: {', '.join(changed)}")
    print("nothing was changed behind the link")


def run_and_attack(lab: tb.Lab, link: str, seconds: float) -> tuple[Counter[str], int]:
    """What became of runs during an attack, and how many times folders were exchanged."""
    draws, outcomes, until = torch.Generator().manual_seed(0), Counter[str](), time.monotonic() + seconds
    data = tb.data_from_tensors(images(60, draws), images(30, draws), name="exchanged")
    over, count = multiprocessing.Event(), multiprocessing.Value("i", 0)
    attacker = multiprocessing.Process(target=attack, args=(lab.store.root, link, over, count))
    attacker.start()
    while time.monotonic() < until:
        ticket = tb.initialize("convnet", data, seed=outcomes.total())
        job = tb.job(tb.train, ticket, data, tb.Recipe(epochs=2, batch_size=20))
        try:
            lab.run(job).raise_failures()
            outcomes["finished"] += 1
        except TombolaError:
            outcomes["ended"] += 1
    over.set()
    attacker.join()
    return outcomes, count.value


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
