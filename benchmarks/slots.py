"""Whether as many trainings as a lab would start fit a GPU of which another process leaves so much memory.

A neighbour fills the GPU but for a cap (:mod:`full_memory`), slots are chosen as a lab chooses them, by the
driver's figure of free memory, and that many trainings run at once in a process of their own, whose memory
the driver tells meanwhile. All of them must end, with the bits of one that runs alone in what is free.

What it does and what each training came to is printed as it happens, with seconds. It is
no benchmark of 40 seconds: three processes import PyTorch, each training tries and captures its network, and
where Triton has compiled none of the kernels they are compiled first, half a minute for ResNet-18 on an H200.
Allow a minute for a cap where they are compiled, and two where they are not.

Run: python benchmarks/slots.py [--caps 24] [--network resnet18 --side 64 --batch-size 256]
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from full_memory import neighbour
from measure import report

import tombola as tb
from tombola.lab.slots import available_gpus, default_slots, fitting_slots, free_memory
from tombola.networks.network import Network
from tombola.training.checkpoint import Watch
from tombola.training.footprint import DataFootprint, training_bytes

_IMAGES = 2048
_GB = 1e9
_BEGAN = time.monotonic()


def say(words: str) -> None:
    """Print a line at once, with the seconds since this process had its imports; on standard error."""
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {words}", file=sys.stderr, flush=True)


def made_up(side: int) -> tb.Data:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (_IMAGES, 3, side, side), dtype=torch.uint8, generator=draws)
    labels = torch.arange(_IMAGES) % 10
    return tb.data_from_tensors((images, labels), (images[:1000], labels[:1000]), name=f"made-{side}")


class Progress(Watch):
    """Says when the first steps of a training are launched: until then its kernels are compiled."""

    def __init__(self, which: str) -> None:
        super().__init__()
        self._which, self._said = which, False

    def stepped(self, epoch: float, epochs: float, images: int) -> None:
        if not self._said:
            say(f"    {self._which}: first steps launched")
            self._said = True


def trained_at_once(network: str, side: int, batch_size: int, device: str) -> None:
    """Wait for a line with a number of trainings, train so many at once, and print what came of each."""
    data = made_up(side)
    start = tb.initialize(network, data, seed=0)
    recipe = tb.Recipe(epochs=2, batch_size=batch_size)
    outcomes: list[str] = []

    def train(which: str) -> None:
        try:
            outcome = tb.train(start, data, recipe, device=device, watch=Progress(which)).fingerprint
        except Exception as error:  # told like any other, or the others would be waited for in silence
            outcome = f"{type(error).__name__}: {error}"
        outcomes.append(outcome)
        say(f"    {which}: {outcome}")

    say("    the training process is ready")
    print("ready", flush=True)
    count = int(sys.stdin.readline())
    threads = [threading.Thread(target=train, args=(f"training {number}",)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    train("training alone")
    print(json.dumps(outcomes))


def least_free(process: subprocess.Popen[str], gpus: tuple[str, ...]) -> int | None:
    """Bytes that were free on the GPU at the least until a process ended."""
    (least,) = free_memory(gpus)
    while process.poll() is None:
        (free,) = free_memory(gpus)
        least = free if least is None or free is None else min(least, free)
        time.sleep(0.02)
    return least


def main(
    caps: tuple[float, ...] = (24.0,),
    network: str = "resnet18",
    side: int = 64,
    batch_size: int = 256,
    device: str = "cuda",
    one: bool = False,
) -> None:
    """Train in as many slots as are chosen under each cap; fails unless all trainings end with equal bits.

    caps: GB that are left of the GPU.
    side: of the images in pixels.
    one: be the process that trains.
    """
    if one:
        trained_at_once(network, side, batch_size, device)
        return
    say("choosing slots, while a neighbour and a training process begin")
    data, gpus = made_up(side), available_gpus()[:1]
    start = tb.job(tb.initialize, network, data, seed=0)
    recipe = tb.Recipe(epochs=2, batch_size=batch_size)
    jobs = [tb.job(tb.train, start, data, recipe, noise=noise) for noise in range(6)]
    described = Network.of(network, channels=3, size=(side, side), classes=10)
    estimate = training_bytes(described, batch_size, "bfloat16")
    command = [sys.executable, str(Path(__file__)), "--one", "--network", network, "--side", str(side)]
    command += ["--batch-size", str(batch_size), "--device", device]
    rows: list[dict[str, Any]] = []
    with neighbour() as leave:
        for cap in caps:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert process.stdin is not None
            assert process.stdout is not None
            left = leave(round(cap * _GB / 2**20))
            say(f"the neighbour leaves {left * 2**20 / _GB:.1f} GB of {cap:g}")
            (free,) = free_memory(gpus)
            (slots,) = fitting_slots(jobs, default_slots(jobs), [free], {data.name: DataFootprint.of(data)})
            say(f"{slots} trainings at once, then one alone")
            process.stdout.readline()
            process.stdin.write(f"{slots}\n")
            process.stdin.flush()
            least = least_free(process, gpus)
            outcomes = json.loads(process.stdout.read() or '["it died"]')
            rows.append({
                "what": f"{network} {side}x{side}, batch {batch_size}, {cap:g} GB",
                "left GB": left * 2**20 / _GB,
                "free GB": None if free is None else free / _GB,
                "slots": slots,
                "estimate GB each": estimate / _GB,
                "taken GB": None if free is None or least is None else (free - least) / _GB,
                "same bits": len(set(outcomes)) == 1 and len(outcomes) == slots + 1,
            })  # fmt: skip
            print(rows[-1], outcomes, flush=True)  # it may be cut off before the table
    report("slots that follow the free memory of a GPU", rows)
    if not all(row["same bits"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    tyro.cli(main)
