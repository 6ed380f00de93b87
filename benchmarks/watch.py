"""What an open page of ``tombola watch`` costs a training.

A chain of a network trains in a process of its own, in turn without and with a watching process whose page
is asked for its state every two seconds, as a browser does. Two figures count. The processor time of the
watching process over that of the training meanwhile, and over the clock: the share of a core that a training
would lose if there were no other. And the chain's own processor time with a watch over that without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CHAIN = """
import json, sys, time
from pathlib import Path
import tombola as tb
from tombola.experiments.compute import run_experiments
from tombola.experiments.from_file import read_all_experiments
from tombola.lab.execute import Settings
(file,) = read_all_experiments([Path(sys.argv[2])])
lab = tb.Lab(sys.argv[1], settings=Settings(device="cpu"))
before, started = time.process_time(), time.perf_counter()
run_experiments(lab, [one.at() for one in file.experiments]).outcome.raise_failures()
print(json.dumps([time.process_time() - before, time.perf_counter() - started]))
"""
EXPERIMENT = """
name = "watched"
networks = ["{network}"]
data = ["{data}"]
rounds = {rounds}
seeds = [0]
[recipe]
epochs = {epochs}
batch_size = 64
lr = 0.1
"""
_POLL = 2.0


def processor_seconds(pid: int) -> float:
    """The processor time that a process took so far."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def chain(folder: Path, experiment: Path, *, watched: bool) -> tuple[float, ...]:
    """Seconds of a chain, of processor and clock; of its watch the same; of the chain meanwhile; reports."""
    store = folder / "store"
    training = subprocess.Popen(
        [sys.executable, "-c", CHAIN, str(store), str(experiment)], stdout=subprocess.PIPE, text=True
    )
    cost = watching = trained = 0.0
    reports = 0
    if watched:
        while not (store / "tombola.json").exists():
            time.sleep(0.1)
        command = [sys.executable, "-m", "tombola.cli", "watch", str(experiment), "--store", str(store)]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert watch.stdout is not None
        address = next(line.split()[1] for line in watch.stdout if line.startswith("open "))
        urllib.request.urlopen(address).read()
        before, since = processor_seconds(watch.pid), time.perf_counter()
        training_before = processor_seconds(training.pid)
        while training.poll() is None:
            state = json.loads(urllib.request.urlopen(f"{address}state").read())
            reports = int(state["report"].split()[0])
            cost = processor_seconds(watch.pid) - before
            watching = time.perf_counter() - since
            trained = processor_seconds(training.pid) - training_before
            time.sleep(_POLL)
        watch.terminate()
        watch.wait()
    printed, _ = training.communicate()
    processor, clock = json.loads(printed.splitlines()[-1])
    return processor, clock, cost, watching, trained, reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="convnet")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    plain, seen, shares = [], [], []
    for _ in range(options.repeats):
        for watched in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                experiment = Path(folder) / "watched.toml"
                experiment.write_text(EXPERIMENT.format(**vars(options)))
                measured = chain(Path(folder), experiment, watched=watched)
            processor, clock, cost, watching, trained, reports = measured
            (seen if watched else plain).append(processor)
            text = f"{processor:7.1f} s of processor, {clock:7.1f} s"
            if watched:
                shares.append(cost / trained)
                text += f", its watch {cost:.2f} s of processor in {watching:.0f} s ({cost / watching:.2%}), "
                text += f"{shares[-1]:.2%} of the {trained:.0f} s of the training, with {reports:.0f} reports"
            print("watched  " if watched else "unwatched", text, flush=True)
    ratio = statistics.median(seen) / statistics.median(plain)
    share = statistics.median(shares)
    print(f"watch {share:.2%} of the training's processor time, the chain's own {ratio:.3f} of that without")
    print(json.dumps({"share": share, "ratio": ratio, **vars(options)}))


if __name__ == "__main__":
    main()
