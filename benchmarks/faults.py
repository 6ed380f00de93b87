"""Kills parts of a cluster at random moments, restarts what a user would restart, and checks the results.

    python benchmarks/faults.py --kills 50

Two pruning chains with the barrier between them run on a scheduler and two workers with nannies, all of
them processes of their own on loopback. In the end every result must equal that of an undisturbed run to the
bit, no job may be published twice, and nothing in the store may be damaged. As many passes are made as the
kills need.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

import tombola as tb
from tombola import files
from tombola.lab.chains import imp_jobs
from tombola.lab.execute import Settings
from tombola.lab.gc import gc
from tombola.lab.job import all_needed
from tombola.lab.verify import verify

VICTIMS = ("worker", "nanny", "driver", "scheduler")
# Seconds after which a part that does not come back is a failure of the whole.
_PATIENCE = 120.0

_PRELOADED = """
from tombola.lab.store import Store

def take_in(self, name, staging):
    new = self._take_in(name, staging)
    if new:
        with open(self.root.parent / "published.txt", "a") as file:
            file.write(name + "\\n")
    return new

if not hasattr(Store, "_take_in"):  # Dask loads this more than once
    Store._take_in, Store.take_in = Store.take_in, take_in
"""


def graph(epochs: int) -> list[tb.Job]:
    """Two chains of three trainings each, and what is asked of their ends."""
    recipe = tb.Recipe(epochs=epochs, batch_size=100, momentum=0.9)
    chains = [imp_jobs("convnet", "digits", recipe, rounds=2, seed=seed, rewind=1) for seed in (0, 1)]
    line = tb.job(tb.barrier, chains[0][2], chains[1][2], "digits", points=5)
    return [*chains[0], *chains[1], line]


def essence(lab: tb.Lab, job: tb.Job) -> Any:
    """Everything about a result that must come out the same."""
    result = lab.result(job)
    if isinstance(result, tb.Run):
        rows = [{**row, "seconds": None} for row in result.history.table()]
        return files.fingerprint({**result.weights, **result.forgetting.tensors()}), repr(rows)
    return result.fingerprint if isinstance(result, tb.Ticket) else repr(result)


class Cluster:
    """A scheduler, two workers with nannies, and a driver; each can be killed and started anew."""

    def __init__(self, place: Path, epochs: int) -> None:
        self.place, self.epochs = place, epochs
        self.file = place / "scheduler.json"
        (place / "preloaded.py").write_text(_PRELOADED)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start_all()

    def start_all(self) -> None:
        self.file.unlink(missing_ok=True)
        self._start("scheduler", ["dask", "scheduler", "--port", "0", "--scheduler-file", str(self.file)])
        for number in range(2):
            self.start_nanny(number)
        self.start_driver()

    def start_nanny(self, number: int) -> None:
        options = ["--scheduler-file", str(self.file), "--nthreads", "1", "--memory-limit", "0"]
        preload = ["--preload", str(self.place / "preloaded.py"), "--death-timeout", "30"]
        self._start(f"nanny-{number}", ["dask", "worker", *options, *preload])

    def start_driver(self) -> None:
        command = [str(Path(__file__).absolute()), "--drive", str(self.place), "--epochs", str(self.epochs)]
        self._start("driver", command)

    def _start(self, name: str, command: list[str]) -> None:
        if command[0] == "dask":
            command = ["-m", *command, "--host", "127.0.0.1", "--no-dashboard"]
        with (self.place / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)

    def kill(self, victim: str, draws: random.Random) -> bool:
        """Kill -9 one part and start what a user would; False if it was not there to be killed."""
        number = draws.randrange(2)
        if victim == "worker":
            return self._kill_worker(self.processes[f"nanny-{number}"].pid)
        if victim == "scheduler":
            self.end()
            self.start_all()
            return True
        name = victim if victim == "driver" else f"nanny-{number}"
        self.processes[name].kill()
        self.processes[name].wait()
        if victim == "driver":
            self.start_driver()
        else:
            self.start_nanny(number)
        return True

    def _kill_worker(self, nanny: int) -> bool:
        """Kill the process under a nanny that runs the jobs; the nanny starts another."""
        for child in psutil.Process(nanny).children():
            if any("spawn_main" in part for part in child.cmdline()):
                child.kill()
                return True
        return False

    def over(self) -> bool:
        """Whether the driver is done; one that ended otherwise is started again, as its user would."""
        code = self.processes["driver"].poll()
        if code not in (None, 0):
            self.start_driver()
        return code == 0

    def end(self) -> None:
        """The scheduler first, as it would die, then whatever lost it."""
        for name in ("scheduler", "driver", "nanny-0", "nanny-1"):
            process = self.processes[name]
            family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            for child in family:
                if child.is_running():
                    child.kill()
            psutil.wait_procs(family)


def one_pass(
    place: Path, undisturbed: dict[str, Any], epochs: int, kills: list[str], draws: random.Random
) -> list[tuple[str, float]]:
    """Run the graph once under kills; what was killed, and the seconds until the next job was published."""
    cluster, told = Cluster(place, epochs), []
    store = tb.Lab(place / "store").store
    try:
        begun = time.monotonic()
        next_kill = begun + 5 + draws.uniform(0, 3)
        killed: tuple[str, float, int] | None = None
        while not cluster.over():
            now, finished = time.monotonic(), sum(1 for _ in store.names())
            if now - (killed[1] if killed else begun) > _PATIENCE:
                raise SystemExit(f"nothing was published for {_PATIENCE:.0f} s; see the logs in {place}")
            if killed is not None and finished > killed[2]:
                told.append((killed[0], now - killed[1]))
                killed, begun, next_kill = None, now, now + draws.uniform(0, 1)
            if killed is None and kills and now >= next_kill and cluster.kill(kills[0], draws):
                # Counted when nothing of what was killed can publish any more.
                killed = kills.pop(0), now, sum(1 for _ in store.names())
            time.sleep(0.02)
        if killed is not None:
            told.append((killed[0], time.monotonic() - killed[1]))
    finally:
        cluster.end()
    check(place, undisturbed, epochs)
    return told


def check(place: Path, undisturbed: dict[str, Any], epochs: int) -> None:
    """Everything that must be true in the end."""
    lab = tb.Lab(place / "store")
    jobs = all_needed(graph(epochs))
    assert set(lab.store.names()) == set(jobs), "a job is missing"
    assert {name: essence(lab, job) for name, job in jobs.items()} == undisturbed, "other bits"
    published = Counter((place / "published.txt").read_text().split())
    assert set(published.values()) == {1}, "a job was published twice"
    damage = [each for each in verify(lab.store) if not each.place.startswith("work/")]
    assert not damage, f"damaged: {damage[0]}"
    # What was cut off lies at workplaces of the dead or under names that nobody reads, and can be told apart.
    gc(lab.store, dry_run=False, grace=0)
    assert not list(verify(lab.store)), "half a publication is left"
    half = [
        path for path in lab.store.root.rglob("*") if ".json." in path.name or "safetensors." in path.name
    ]
    assert not half, f"half a file is left: {half[0]}"
    assert not list((lab.store.root / "work").iterdir()), "a workplace is left"


def main() -> None:
    """Kill so often, and print what was killed and how long recovery took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--epochs", type=int, default=40, help="of each training; more give more time to kill"
    )
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = Settings(device="cpu", checkpoint_every=0.2, attempts=20)
    if options.drive is not None:
        place = options.drive
        lab = tb.Lab(place / "store", scheduler_file=place / "scheduler.json", settings=settings)
        lab.run(graph(options.epochs)).raise_failures()
        return
    draws = random.Random(options.seed)
    kills = [VICTIMS[number % len(VICTIMS)] for number in range(options.kills)]
    draws.shuffle(kills)
    root, started = Path(tempfile.mkdtemp(prefix="tombola-faults-")), time.monotonic()
    lab = tb.Lab(root / "undisturbed" / "store", settings=settings)
    lab.run(graph(options.epochs)).raise_failures()
    undisturbed = {name: essence(lab, job) for name, job in all_needed(graph(options.epochs)).items()}
    print(f"undisturbed: {len(undisturbed)} jobs in {time.monotonic() - started:.0f} s", flush=True)
    told: list[tuple[str, float]] = []
    passes = 0
    while kills:
        passes += 1
        place = root / str(passes)
        place.mkdir()
        told += one_pass(place, undisturbed, options.epochs, kills, draws)
        print(f"pass {passes}: {len(told)} kills so far, everything as it should be", flush=True)
    print(f"\n{'killed':<10} {'times':>5} {'median s':>9} {'longest s':>10}")
    for victim in VICTIMS:
        took = sorted(seconds for name, seconds in told if name == victim)
        if took:
            print(f"{victim:<10} {len(took):>5} {took[len(took) // 2]:>9.1f} {took[-1]:>10.1f}")
    seconds = time.monotonic() - started
    print(f"{len(told)} kills, {passes} passes, {seconds:.0f} s; all bits equal, nothing published twice")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
