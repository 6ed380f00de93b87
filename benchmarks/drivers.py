"""Two drivers on one store at the same moment: every job starts once, and a third driver starts none.

    python benchmarks/drivers.py --jobs 60 --rounds 5

The jobs write a line the moment they start, by themselves: which job, whose driver, which process. That file,
and not anything that the library counts, says how often each was started; the process in the provenance of
each result must be the one of its line. Jobs stand in layers and need each other, and every tenth is a
training. Each driver has worker processes of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tombola as tb
from tombola.lab.execute import Settings
from tombola.lab.user_code import import_file, put_file
from tombola.lab.verify import verify

_LAYER = 6
_DECLARED = """
import os, time
import tombola as tb

def started(number):
    line = f"{number} {os.environ['DRIVER']} {os.getpid()}\\n"
    place = os.open(os.environ["STARTS"], os.O_WRONLY | os.O_APPEND)
    os.write(place, line.encode())
    os.close(place)

@tb.declare("drivers.counted")
def counted(number: int, before: list[int]) -> int:
    started(number)
    time.sleep(0.02)  # so that both drivers find it under way
    return number + sum(before)

@tb.declare("drivers.trained")
def trained(number: int, before: list[int], watch: tb.Watch | None = None) -> int:
    started(number)
    data = tb.load_data("digits")
    run = tb.train(tb.initialize("convnet", data), data, tb.Recipe(epochs=1), noise=number, watch=watch)
    return len(run.history) + sum(before)
"""


def graph(code: Path, count: int) -> list[tb.Job]:
    """So many jobs in layers; each needs two of the layer before."""
    declared = import_file(code)
    jobs: list[tb.Job] = []
    for number in range(count):
        above = len(jobs) - len(jobs) % _LAYER - _LAYER
        before = [jobs[above + (number + step) % _LAYER] for step in (0, 1)] if above >= 0 else []
        function = declared.trained if number % 10 == 9 else declared.counted
        jobs.append(tb.job(function, number, before))
    return jobs


def drive(place: Path, count: int, workers: int) -> None:
    """One driver: make ready, wait for the start signal, run everything."""
    code = place / "registry.py"
    jobs = graph(code, count)
    lab = tb.Lab(place / "store", workers=workers)
    lab.settings = Settings(device="cpu", files=(put_file(lab.store, code),))
    (place / f"ready-{os.environ['DRIVER']}").touch()
    while not (place / "go").exists():
        time.sleep(0.001)
    outcome = lab.run(jobs)
    outcome.raise_failures()
    print(len(outcome.finished_before))


def started_driver(place: Path, name: str, count: int, workers: int) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    command = [sys.executable, str(Path(__file__).absolute()), "--drive", str(place), "--jobs", str(count)]
    environment = os.environ | {"DRIVER": name, "STARTS": str(place / "starts.txt")}
    return subprocess.Popen(
        [*command, "--workers", str(workers)], env=environment, stdout=subprocess.PIPE, text=True
    )


def one_round(place: Path, count: int, workers: int) -> Counter[str]:
    """Two drivers at once and a third after them; how many jobs each of them started."""
    (place / "registry.py").write_text(_DECLARED)
    (place / "starts.txt").touch()
    drivers = [started_driver(place, name, count, workers) for name in ("first", "second")]
    try:
        while len(list(place.glob("ready-*"))) < 2:
            assert all(driver.poll() is None for driver in drivers), "a driver did not come up"
            time.sleep(0.01)
        (place / "go").touch()
        assert [driver.wait() for driver in drivers] == [0, 0], "a driver failed"
    finally:
        for driver in drivers:
            driver.kill()
    check(place, count)
    third = started_driver(place, "third", count, workers)
    told, _ = third.communicate()
    assert third.returncode == 0, "the third driver failed"
    assert int(told) == count, "the third driver did not find every job"
    return check(place, count)


def check(place: Path, count: int) -> Counter[str]:
    """Every job started once, and is published by the process that started it."""
    lines = [line.split() for line in (place / "starts.txt").read_text().splitlines()]
    times = Counter(int(number) for number, _, _ in lines)
    assert times == Counter(range(count)), f"started otherwise than once: {times - Counter(range(count))}"
    lab = tb.Lab(place / "store")
    pids = {int(number): int(pid) for number, _, pid in lines}
    for number, job in enumerate(graph(place / "registry.py", count)):
        assert lab.store.provenance(job.name)["pid"] == pids[number], "published by another process"
    assert not list(verify(lab.store)), "damaged"
    assert not list((lab.store.root / "work").iterdir()), "left at a workplace"
    return Counter(driver for _, driver, _ in lines)


def main() -> None:
    """Let drivers meet so often, and print who started how many jobs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of each driver")
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive is not None:
        drive(options.drive, options.jobs, options.workers)
        return
    root, since = Path(tempfile.mkdtemp(prefix="tombola-drivers-")), time.monotonic()
    print(f"{'round':>5} {'jobs':>5} {'started by first':>17} {'by second':>10} {'by third':>9}")
    for number in range(1, options.rounds + 1):
        place = root / str(number)
        place.mkdir()
        by = one_round(place, options.jobs, options.workers)
        print(
            f"{number:>5} {options.jobs:>5} {by['first']:>17} {by['second']:>10} {by['third']:>9}", flush=True
        )
    shutil.rmtree(root)
    print(f"{options.rounds} rounds in {time.monotonic() - since:.0f} s; every job started once")


if __name__ == "__main__":
    main()
