"""Equal trainings by one lab over several GPUs of a machine: how much faster, and where the rest goes.

    python benchmarks/scaling.py --gpus 1 2 4 8 --output scaling.jsonl
    python benchmarks/scaling.py --device cpu --processes 1 2

Every row is a process of its own with a fresh store: a lab that trains one start so many times under other
noise, as ``tombola run`` would, over the first N of the visible GPUs. Data are CIFAR-10 if it is in the
cache, else made-up images of its shape. Rows are printed, and appended to the output, as soon as they are
there; before the first, one short training compiles the kernels. ``--epochs`` and ``--trainings`` shorten
the rows. On a CPU the trainings are tiny and test this script.

What a row says, of the time from the call of the lab to its return; "from first step" of that from the first
step of any training to the end of the last:

- efficiency: images/s for each GPU, divided by those of the row with the fewest;
- first step: seconds from the call until each process had launched its first steps, so with its own start,
  imports, data and captures;
- idle: share of the time from the first step in which each GPU ran no kernel, by NVML (its utilisation ten
  times a second), or, where NVML does not tell, in which none of its jobs was under way, by the provenances;
- slots idle: the same for the slots of each process, always by the provenances;
- same bits: whether all runs have the fingerprints of the first row.

Target: an efficiency of 0.95 over 2 GPUs and of 0.90 over 8, and the same bits.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  # before its configuration is set
import torch
import tyro
from measure import report

import tombola as tb
from tombola.data import cache
from tombola.lab.execute import Settings
from tombola.lab.slots import _drivers_name, available_gpus
from tombola.training.device import hardware_name, resolve_device
from tombola.version import __version__

# Seconds between two samples of the GPUs' utilisation, and that a row may take.
_EVERY, _PATIENCE = 0.1, 900.0
# What every worker process runs first: each training notes when it had launched its first steps.
_NOTING = """
import os, time
from tombola.lab.supervision import LabWatch

def noting(self, *place, stepped=LabWatch.stepped):
    if not hasattr(self, "noted"):
        self.noted = True
        line = f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES') or '-'} {time.time()}\\n"
        notes = os.open(os.environ["SCALING_STEPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(notes, line.encode())
        os.close(notes)
    stepped(self, *place)

LabWatch.stepped = noting
"""


@dataclass(frozen=True)
class Work:
    """What every row trains."""

    device: str
    trainings: int
    epochs: int
    batch_size: int
    network: str
    data: str
    slots: int | None


def training_data(name: str) -> tb.Data:
    """A data set by name, or made-up images of CIFAR-10's shape."""
    if name != "made-up":
        return tb.load_data(name)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60_000, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels = torch.arange(60_000) % 10
    train, test = slice(50_000), slice(50_000, None)
    return tb.data_from_tensors((pixels[train], labels[train]), (pixels[test], labels[test]), name="made-up")


def one_row(work: Work, processes: int, place: Path) -> dict[str, Any]:
    """Train everything by one lab in a fresh store; what its provenances and the notes of its workers say."""
    data = training_data(work.data)
    source: Any = data if work.data == "made-up" else work.data
    start = tb.job(tb.initialize, work.network, source, seed=0)
    recipe = tb.Recipe(epochs=work.epochs, batch_size=work.batch_size)
    runs = [tb.job(tb.train, start, source, recipe, noise=noise) for noise in range(work.trainings)]
    settings = Settings(device=work.device, slots=work.slots)
    lab = tb.Lab(place / "store", workers=processes, settings=settings)
    (place / "noting.py").write_text(_NOTING)
    os.environ["SCALING_STEPS"] = str(place / "steps.txt")
    called, before = time.time(), resource.getrusage(resource.RUSAGE_SELF)
    with dask.config.set({"distributed.worker.preload": [str(place / "noting.py")]}):
        lab.run(runs).raise_failures()
    ended, after = time.time(), resource.getrusage(resource.RUSAGE_SELF)

    first_steps: dict[str, float] = {}
    gpus: dict[str, str] = {}
    for line in (place / "steps.txt").read_text().splitlines():
        pid, gpus[pid], noted = line.split()
        first_steps[pid] = min(first_steps.get(pid, float("inf")), float(noted) - called)
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        provenance = lab.store.provenance(run.name)
        begun = datetime.fromisoformat(provenance["started"]).timestamp()
        spans[str(provenance["pid"])].append((begun, begun + provenance["seconds"]))
    # In the order of the GPUs, so that rows can be compared.
    pids = sorted(spans, key=lambda pid: (gpus.get(pid, "-"), first_steps.get(pid, 0.0)))
    since, until = called + min(first_steps.values()), max(end for some in spans.values() for _, end in some)
    images, seconds = work.trainings * work.epochs * len(data.train), ended - called
    return {
        "processes": processes,
        "seconds": seconds,
        "images/s": images / seconds,
        "seconds from first step": until - since,
        "images/s from first step": images / (until - since),
        "first step": [round(first_steps[pid], 2) for pid in pids if pid in first_steps],
        "trainings of each": [len(spans[pid]) for pid in pids],
        "jobs idle": [round(1 - covered(spans[pid], since, until), 3) for pid in pids],
        "slots idle": [round(1 - filled(spans[pid], since, until), 3) for pid in pids],
        "driver's processor seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "since": since,
        "until": until,
        "fingerprints": [lab.result(run).fingerprint for run in runs],
    }


def covered(spans: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Share of a time in which any of some spans lasts."""
    total, reached = 0.0, since
    for begun, ended in sorted(spans):
        total += max(0.0, min(ended, until) - max(begun, reached))
        reached = max(reached, ended)
    return total / (until - since)


def filled(spans: Sequence[tuple[float, float]], since: float, until: float) -> float:
    """Share of a time that spans fill, of as many lanes as ever lasted at once."""
    most = max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans)
    return sum(max(0.0, min(ended, until) - max(begun, since)) for begun, ended in spans) / (
        most * (until - since)
    )


@contextmanager
def sampled_utilisation(gpus: Sequence[str]) -> Iterator[list[tuple[float, list[float]]]]:
    """Times, and the share of a moment before in which each GPU ran a kernel; empty where NVML does not tell.

    By a thread of this process, which is not the driver's.
    """
    samples: list[tuple[float, list[float]]] = []
    names = [_drivers_name(gpu) for gpu in gpus]
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        known = bool(gpus) and None not in names and library.nvmlInit_v2() == 0
    except (OSError, AttributeError):
        known = False
    if not known:
        yield samples
        return
    handles = [ctypes.c_void_p() for _ in names]
    failed = [
        library.nvmlDeviceGetHandleByUUID(str(name).encode(), ctypes.byref(handle))
        for name, handle in zip(names, handles, strict=True)
    ]
    over = threading.Event()

    def sample() -> None:
        rates = (ctypes.c_uint * 2)()  # of kernels and of memory, in percent
        while not any(failed) and not over.wait(_EVERY):
            shares = []
            for handle in handles:
                if library.nvmlDeviceGetUtilizationRates(handle, rates):
                    return
                shares.append(rates[0] / 100)
            samples.append((time.time(), shares))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
        library.nvmlShutdown()


def measured(work: Work, count: int, gpus: Sequence[str]) -> dict[str, Any]:
    """A row of a new process, with the idle shares of the GPUs meanwhile."""
    command = [sys.executable, str(Path(__file__).absolute()), "--one", str(count)]
    for option, value in asdict(work).items():
        command += [] if value is None else [f"--{option.replace('_', '-')}", str(value)]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
    with (
        tempfile.TemporaryDirectory(prefix="tombola-scaling-") as place,
        sampled_utilisation(gpus) as samples,
    ):
        ended = subprocess.run(
            [*command, "--place", place], stdout=subprocess.PIPE, text=True, check=False, env=environment,
            timeout=_PATIENCE,
        )  # fmt: skip
    if ended.returncode:
        raise SystemExit(f"the row of {count} failed with exit code {ended.returncode}")
    row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    since, until, idle = row.pop("since"), row.pop("until"), row.pop("jobs idle")
    within = [shares for moment, shares in samples if since <= moment <= until]
    row["idle"] = [
        round(1 - sum(shares[number] for shares in within) / len(within), 3) for number in range(len(gpus))
    ] if within else idle  # fmt: skip
    row["idle by"] = "NVML" if within else "gaps between jobs"
    return row


def compared(row: dict[str, Any], first: Mapping[str, Any], fingerprints: Sequence[str]) -> dict[str, Any]:
    """A row with its efficiency against the first, and whether its runs have the same bits."""
    more = row["processes"] / first["processes"]
    same = row.pop("fingerprints") == fingerprints
    return {
        **row,
        "efficiency": row["images/s"] / first["images/s"] / more,
        "efficiency from first step": row["images/s from first step"]
        / first["images/s from first step"]
        / more,
        "same bits": same,
    }


def main(
    gpus: tuple[int, ...] = (1, 2),
    processes: tuple[int, ...] = (1, 2),
    device: str = "cuda",
    trainings: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    network: str | None = None,
    data: str | None = None,
    slots: int | None = None,
    output: Path | None = None,
    one: int | None = None,
    place: Path | None = None,
) -> None:
    """Measure a row for each number of GPUs; fails if bits differ.

    gpus: numbers of GPUs, the fewest first. processes: on a CPU, numbers of worker processes instead.
    trainings: by default 24, on a CPU 8. epochs: by default 10, on a CPU 3.
    batch_size, network, data: by default 256, ResNet-18 and CIFAR-10 or "made-up"; on a CPU 100, the small
        network and the digits.
    slots: trainings at once on each GPU; by default as a lab chooses them.
    output: file that each row is appended to, as a line of JSON.
    one: be the process of the row with that many, in the folder ``place``.
    """
    tiny = resolve_device(device).type == "cpu"
    if data is None and not tiny:
        data = "made-up" if cache.read(cache.entry_of("cifar10", "cifar10", None)) is None else "cifar10"
    work = Work(
        device, trainings or (8 if tiny else 24), epochs or (3 if tiny else 10),
        batch_size or (100 if tiny else 256), network or ("convnet" if tiny else "resnet18"),
        data or "digits", slots,
    )  # fmt: skip
    if one is not None:
        assert place is not None
        print(json.dumps(one_row(work, one, place)))
        return
    visible = () if tiny else available_gpus()
    counts = processes if tiny else gpus
    if not tiny and max(counts) > len(visible):
        raise SystemExit(
            f"{max(counts)} GPUs asked for, and {len(visible)} are visible; give fewer by --gpus"
        )
    head = {
        **asdict(work), "hardware": hardware_name(resolve_device(device)), "torch": torch.__version__,
        "dask": version("distributed"), "tombola": __version__,
    }  # fmt: skip
    if not tiny:  # kernels are compiled once, and in no row
        measured(replace(work, trainings=1, epochs=1), 1, visible[:1])
    rows: list[dict[str, Any]] = []
    fingerprints: list[str] = []
    for count in counts:
        row = measured(work, count, visible[:count])
        fingerprints = fingerprints or row["fingerprints"]
        rows.append(compared(row, rows[0] if rows else row, fingerprints))
        line = json.dumps({**head, **rows[-1]})
        print(line, flush=True)  # it may be cut off before the table
        if output is not None:
            with output.open("a") as file:
                file.write(f"{line}\n")
    short = (
        "processes",
        "seconds",
        "images/s",
        "efficiency",
        "efficiency from first step",
        "idle",
        "same bits",
    )
    report(
        f"{work.trainings} trainings of {work.network} by one lab",
        [{key: row[key] for key in short} for row in rows],
    )
    if not all(row["same bits"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
