"""``tombola ls`` on a store of 10,000 finished trainings, as whole commands: wall and processor time.

    python benchmarks/listing.py [--jobs 10000] [--repeats 3]

The jobs are described as those of a study are, and their results are written through the store as by a
training, with a history of 200 epochs each, but nothing is trained. First: no index yet, every job is read.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import report

import tombola as tb
from tombola import disk
from tombola.lab.results import Packed
from tombola.lab.store import Store

_EPOCHS = 200
_INDICES = (".index.json", ".fields.json")


def make_store(root: Path, jobs: int) -> Store:
    """A store of so many trainings: configurations, seeds and noise copies of one network."""
    store = Store(root)
    # Nothing of it shall last: forcing every file to the disk would take minutes.
    disk._force = os.close
    rows = [
        {
            "epoch": epoch, "lr": 0.1, "train_loss": 2 / (1 + epoch), "train_accuracy": 90.0,
            "test_loss": 1.0, "test_accuracy": 100 - 90 / (1 + epoch), "forgetting_events": 3, "seconds": 1.5,
        }
        for epoch in range(_EPOCHS + 1)
    ]  # fmt: skip
    numbers = {
        "accuracy": 94.54, "best_accuracy": 94.6, "sparsity": 0.0, "round": 0, "failed": False,
        "diverged": False, "nonfinite_at_pruning": 0,
    }  # fmt: skip
    configurations = [(momentum, batch) for momentum in (0.0, 0.9) for batch in (32, 100, 256, 1024)]
    for number in range(jobs):
        momentum, batch_size = configurations[number % len(configurations)]
        seed, noise = divmod(number // len(configurations), 25)
        start = tb.job(tb.initialize, "convnet", "digits", seed=seed)
        recipe = tb.Recipe(epochs=_EPOCHS, momentum=momentum, batch_size=batch_size)
        job = tb.job(tb.train, start, "digits", recipe, noise=noise)
        provenance = {
            "tombola": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6", "python": "3.11.7", "platform": "linux",
            "host": "node", "device": "cuda", "hardware": "NVIDIA H200", "precision": "bfloat16",
            "engine": "graphed, fused", "engine_version": 1, "seconds": 422.4, "pid": 4711,
            "started": f"2026-01-{1 + number % 28:02}T{number % 24:02}:00:00.000+00:00",
            "data": {"data": "0" * 64},
        }  # fmt: skip
        for each, packed in (
            (start, Packed({"sparsity": 0.0, "epoch": 0}, {}, {})),
            (job, Packed(numbers, {}, {}, rows)),
        ):
            if not store.has(each.name):
                store.publish(each.name, each.description(), packed, provenance)
                store.workplace(each.name).rmdir()  # as its lease does after a training
    return store


def timed(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a whole command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "tombola.cli", *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Make the store, and print what each way of listing it takes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--store", type=Path, help="Keep the store here, and take one that is here already.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tombola-listing-") as place:
        root = options.store or Path(place) / "store"
        if not (root / "tombola.json").exists():
            make_store(root, options.jobs)
        ways: dict[str, list[str]] = {
            "tombola --version": ["--version"],
            "ls, first": ["ls"],
            "ls": ["ls"],
            "ls --last 20 --sort seconds": ["ls", "--last", "20", "--sort", "seconds"],
            "ls --json": ["ls", "--json"],
            "ls --where momentum=0.9, first": ["ls", "--where", "momentum=0.9"],
            "ls --where momentum=0.9 --last 20": ["ls", "--where", "momentum=0.9", "--last", "20"],
        }
        rows: list[dict[str, Any]] = []
        for what, arguments in ways.items():
            times = []
            for _ in range(options.repeats):
                for index in _INDICES if what.endswith("first") else ():
                    (root / index).unlink(missing_ok=True)
                store_of = [] if what.endswith("--version") else ["--store", str(root)]
                times.append(timed([*arguments, *store_of]))
            wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
            rows.append({"what": what, "wall s": wall, "processor s": processor, "repeats": options.repeats})
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        load = os.getloadavg()[0]
        report(
            f"a store of {options.jobs:,} trainings (target: ls in 2 s); {cores} cores, load {load:.1f}", rows
        )


if __name__ == "__main__":
    main()
