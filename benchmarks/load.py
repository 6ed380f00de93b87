"""Ten thousand trivial jobs through the engine: jobs a second, memory of the driver, and listing them.

    python benchmarks/load.py

The jobs take the way of a study's: one submission to a cluster of two workers that the lab starts and ends,
a lease for each, every result on the disk before it is published. The time is that of the whole ``Lab.run``
in a process of its own, the start and end of its cluster included. ``tombola ls`` is a whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import report

import tombola as tb
from tombola.lab.execute import Settings
from tombola.lab.user_code import import_file, put_file

_OWN = '''
import tombola as tb


@tb.declare("square")
def square(number: int) -> int:
    """A job that costs nothing but what every job costs."""
    return number * number
'''


def drive(place: Path, count: int, workers: int) -> dict[str, float]:
    """Run the jobs; seconds, and the peak memory of this process in MB."""
    own = place / "square.py"
    own.write_text(_OWN)
    square = import_file(own).square
    lab = tb.Lab(place / "store", workers=workers)
    lab.settings = Settings(device="cpu", files=(put_file(lab.store, own),))
    jobs = [tb.job(square, number) for number in range(count)]
    started = time.perf_counter()
    outcome = lab.run(jobs)
    seconds = time.perf_counter() - started
    outcome.raise_failures()
    assert len(outcome.computed) == sum(1 for _ in lab.store.names()) == count
    assert all(lab.numbers(job) == {"value": number**2} for number, job in enumerate(jobs))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"seconds": seconds, "MB": memory}


def list_store(store: Path) -> float:
    """Seconds of ``tombola ls`` as a whole command."""
    command = [sys.executable, "-m", "tombola.cli", "ls", "--store", str(store)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Drive the jobs so often, each time into a store of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive is not None:
        print(json.dumps(drive(options.drive, options.jobs, options.workers)))
        return
    rows: list[dict[str, Any]] = []
    for number in range(options.repeats):
        place = Path(tempfile.mkdtemp(prefix="tombola-load-"))
        command = [sys.executable, __file__, "--drive", str(place)]
        command += ["--jobs", str(options.jobs), "--workers", str(options.workers)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
        told = json.loads(done.stdout.splitlines()[-1])
        first, again = (list_store(place / "store") for _ in range(2))
        rows.append(
            {
                "what": f"run {number + 1}",
                "jobs/s": options.jobs / told["seconds"],
                "driver MB": told["MB"],
                "ls s": first,
                "ls again s": again,
            }
        )
        shutil.rmtree(place)
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key != "what"}
    report(f"{options.jobs:,} trivial jobs, {options.workers} workers", [*rows, {"what": "median"} | middle])


if __name__ == "__main__":
    main()
