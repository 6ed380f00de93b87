"""Thousands of small jobs and many starts of the local cluster in one process: nothing in it may grow.

    MALLOC_ARENA_MAX=1 python benchmarks/soak.py

Each round starts a local cluster, runs half of its jobs there, ends it, and runs the other half in this
process. After each round the memory, Python objects, open descriptors and threads of this process are
measured. Once the first rounds are over, the line of least squares through each must be flat. Child processes
that outlive their round are counted, too. With the variable, which glibc reads, all threads share one heap:
otherwise every start's new threads spread over up to eight a core, and each keeps what was freed in it.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from measure import report

import tombola as tb
from tombola.lab.execute import Settings
from tombola.lab.user_code import import_file, put_file

# The most by which each may rise a round, after the warm-up. One scheduler that stays is 430 objects, and the
# names of one round's jobs are 0.05 MB.
_BOUNDS = {"MB": 0.03, "objects": 3.0, "descriptors": 0.05, "threads": 0.05, "children": 0.05}
if sys.version_info[:2] == (3, 12):
    # Python 3.12 interns each part of a path for ever, 142 bytes for a job's name; 3.11 and 3.13 free it.
    _BOUNDS["MB"] += 400 * 142e-6

_OWN = '''
import tombola as tb


@tb.declare("cube")
def cube(number: int) -> int:
    """A job that costs nothing but what every job costs."""
    return number**3
'''


def sizes(process: psutil.Process) -> dict[str, float]:
    """What this process holds now, garbage apart."""
    gc.collect()
    return {
        "MB": process.memory_info().rss / 1e6,
        "objects": len(gc.get_objects()),
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
    }


def soak(place: Path, jobs: int, rounds: int, workers: int) -> list[dict[str, Any]]:
    """Run the jobs in so many rounds; the sizes of this process after each."""
    own = place / "cube.py"
    own.write_text(_OWN)
    cube = import_file(own).cube
    here, cluster = tb.Lab(place / "store", workers=0), tb.Lab(place / "store", workers=workers)
    here.settings = cluster.settings = Settings(device="cpu", files=(put_file(here.store, own),))
    process, rows, begun = psutil.Process(), [], time.perf_counter()
    for number in range(rounds):
        first, end = jobs * number // rounds, jobs * (number + 1) // rounds
        middle = (first + end) // 2
        for lab, half in ((cluster, range(first, middle)), (here, range(middle, end))):
            outcome = lab.run([tb.job(cube, value) for value in half])
            outcome.raise_failures()
            assert len(outcome.computed) == len(half)
        rows.append({"what": f"round {number + 1}", "jobs": end, "s": time.perf_counter() - begun})
        rows[-1] |= sizes(process)
    assert sum(1 for _ in here.store.names()) == jobs
    return rows


def slopes(rows: list[dict[str, Any]]) -> dict[str, float]:
    """By how much each size rises a round, by the line of least squares."""
    return {
        size: statistics.linear_regression(range(len(rows)), [row[size] for row in rows]).slope
        for size in _BOUNDS
    }


def main() -> None:
    """Run the rounds, print what this process held after every tenth part of them, and check the slopes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=50, help="starts of the local cluster")
    parser.add_argument("--warm-up", type=int, default=10, help="rounds that are not counted")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if os.environ.get("MALLOC_ARENA_MAX") != "1":
        parser.error("start it with MALLOC_ARENA_MAX=1, or the heaps of ended threads look like a leak")
    place = Path(tempfile.mkdtemp(prefix="tombola-soak-"))
    rows = soak(place, options.jobs, options.rounds, options.workers)
    shutil.rmtree(place)
    rises = slopes(rows[options.warm_up :])
    every = max(1, options.rounds // 10)
    table = [rows[0], *rows[every - 1 :: every]] if every > 1 else rows
    last = {"what": "rise a round", "jobs": "", "s": ""} | rises
    report(f"{options.jobs:,} jobs, {options.rounds} starts of {options.workers} workers", [*table, last])
    for size, bound in _BOUNDS.items():
        assert rises[size] <= bound, f"{size} rise by {rises[size]:.3g} a round; at most {bound:g} is flat"


if __name__ == "__main__":
    main()
