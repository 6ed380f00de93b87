"""A line of 21 points between two runs against 21 plain evaluations of the same images. Target: at most 1.05.

A plain evaluation is a built network with its images on the device, run over them once. The line also brings
both ends to the device, builds the network it is measured in, and interpolates.

Run: python benchmarks/interpolation.py [--device cpu] [--images 10000] [--repeats 5]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import tombola as tb
from tombola.training.device import repeatable, resolve_device, resolve_precision
from tombola.training.evaluation import device_batches, evaluate
from tombola.training.flat_network import FlatNetwork
from tombola.training.run import ForgettingRecord, History

sys.path.insert(0, str(Path(__file__).parent))
from measure import median_ratio, report, seconds_in_turns

POINTS = 21


def main(
    device: str = "cpu", images: int | None = None, repeats: int = 5, network: str | None = None
) -> None:
    """Time lines and evaluations in turns, one thread on a CPU.

    device: where to measure.
    images: test images; by default 10,000, and 500 for residual networks on a CPU, where they take long.
    repeats: counted lines of each network.
    network: only this one.
    """
    torch.set_num_threads(1)
    where = resolve_device(device)
    few = 500 if where.type == "cpu" else 10_000
    cases = {"convnet": _digits(images or 10_000), "resnet20": _colour(images or few)}
    if where.type == "cuda":
        cases["resnet18"] = cases["resnet20"]
    chosen = {name: data for name, data in cases.items() if network in (None, name)}
    rows = [_row(name, data, where, repeats) for name, data in chosen.items()]
    report(f"a line of {POINTS} points against {POINTS} plain evaluations, {where} (target: 1.05)", rows)


def _digits(count: int) -> tb.Data:
    """The digits, their test images repeated as often as it takes."""
    digits = tb.load_data("digits")
    again = torch.arange(count) % len(digits.test)
    test = digits.test.images[again], digits.test.labels[again]
    return tb.data_from_tensors((digits.train.images, digits.train.labels), test, name="digits again")


def _colour(count: int) -> tb.Data:
    """Random images of 3x32x32."""
    draws = np.random.default_rng(0)
    images = torch.from_numpy(draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    labels = torch.arange(count) % 10
    return tb.data_from_tensors((images[:500], labels[:500]), (images, labels), name="random")


def _row(network: str, data: tb.Data, device: torch.device, repeats: int) -> dict[str, Any]:
    precision = resolve_precision(tb.Recipe(), device)
    tickets = [tb.initialize(network, data, seed=seed) for seed in (0, 1)]
    first, second = (
        tb.Run(ticket, ticket.start, History([]), ForgettingRecord.empty(1), 0, precision, device.type)
        for ticket in tickets
    )
    work = {
        "line": lambda: tb.barrier(first, second, data, points=POINTS, device=device),
        "evaluations": _evaluations(first, data, device, precision),
    }
    times = seconds_in_turns(work, repeats)
    return {
        "what": f"{network}, {len(data.test):,} images of {data.channels}x{data.size[0]}x{data.size[1]}",
        "line s": statistics.median(times["line"]),
        "evaluations s": statistics.median(times["evaluations"]),
        "ratio": median_ratio(times["line"], times["evaluations"]),
        "repeats": repeats,
    }


def _evaluations(run: tb.Run, data: tb.Data, device: torch.device, precision: str) -> Callable[[], None]:
    body = FlatNetwork(run.ticket.network, device)
    body.load(run.weights)
    batches = device_batches(data, data.test, device)

    def work() -> None:
        with repeatable(device):
            for _ in range(POINTS):
                evaluate(body.module, batches, precision)

    return work


if __name__ == "__main__":
    tyro.cli(main)
