"""What storage.py lets faults meet: a small study and one training, each in processes of their own.

python benchmarks/studied.py --drive STORE
python benchmarks/studied.py --train STORE
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from faults import essence, graph

from tombola.lab.driver import Progress
from tombola.lab.execute import Settings
from tombola.lab.gc import gc
from tombola.lab.job import all_needed
from tombola.lab.verify import verify

EPOCHS = 20
SETTINGS = Settings(device="cpu", checkpoint_every=0.2)


class Study:
    """The study, its undisturbed results, and a place for stores."""

    def __init__(self, root: Path) -> None:
        self.root, self.jobs = root, graph(EPOCHS)
        lab = tb.Lab(root / "undisturbed", settings=SETTINGS)
        lab.run(self.jobs).raise_failures()
        self.expected = {name: essence(lab, job) for name, job in all_needed(self.jobs).items()}
        apart = tb.Lab(root / "apart", settings=SETTINGS)
        self.trained = essence(apart, training())

    def start(self, store: Path) -> subprocess.Popen[str]:
        """A driver with two workers, in a process of its own."""
        command = [sys.executable, str(Path(__file__).absolute()), "--drive", str(store)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def check(self, store: Path, names: set[str] | None = None) -> None:
        """Finished jobs, all by default, have the bits of the undisturbed run."""
        lab, jobs = tb.Lab(store), all_needed(self.jobs)
        there = set(lab.store.names())
        assert there >= (set(jobs) if names is None else names), "a finished job was lost"
        assert all(essence(lab, jobs[name]) == self.expected[name] for name in there), "other bits"
        assert not [each for each in verify(lab.store) if not each.place.startswith("work/")], "damage"

    def finish(self, store: Path) -> float:
        """The same again, now that the cause is gone: seconds until everything is there, and right."""
        since = time.monotonic()
        told, _ = (again := self.start(store)).communicate()
        assert again.returncode == 0, told
        seconds = time.monotonic() - since
        self.check(store)
        gc(tb.Lab(store).store, dry_run=False, grace=0)
        assert not list(verify(tb.Lab(store).store)), "something half written is left"
        return seconds


def drive(store: Path) -> int:
    """What a user runs: the study on two workers; its errors as the command line shows them."""
    try:
        tb.Lab(store, workers=2, settings=SETTINGS).run(graph(EPOCHS)).raise_failures()
    except tb.TombolaError as error:
        print(error)
        return 1
    return 0


class Training:
    """One training in a process of its own, which says each epoch that it trains."""

    def __init__(self, store: Path) -> None:
        command = [sys.executable, str(Path(__file__).absolute()), "--train", str(store)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def epochs_to_its_end(self) -> tuple[list[int], str]:
        """The epochs that it trained, and what else it said."""
        told, warned = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, told + warned
        return [int(line) for line in told.split()], warned


class _Teller(Progress):
    """Says each epoch."""

    def epoch(self, job: tb.Job, row: Any, epochs: int) -> None:
        print(row.epoch, flush=True)


def training() -> tb.Job:
    """About ten seconds of it."""
    start = tb.job(tb.initialize, "convnet", "digits")
    return tb.job(tb.train, start, "digits", tb.Recipe(epochs=150, batch_size=100, momentum=0.9))


def wait_until(there: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait for something to be there."""
    give_up = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.02)
    return found


def main() -> None:
    """Run the study, or the training."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--drive", type=Path, help="the store to run the study in")
    parser.add_argument("--train", type=Path, help="the store to run the training in")
    options = parser.parse_args()
    if options.drive is not None:
        raise SystemExit(drive(options.drive))
    if options.train is not None:
        tb.Lab(options.train, settings=SETTINGS).run(training(), progress=_Teller()).raise_failures()


if __name__ == "__main__":
    main()
