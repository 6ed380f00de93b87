"""Linear probes after every block against a plain forward pass of the network over the same images.

Both take the train images in batches of 100, batch norm in training mode, and the test images in larger
batches in evaluation mode, both in the same precision and memory layout. The pass does nothing else: no
augmentation, no pooling, no heads. The probes' side is the whole call, building the network included.
Target: at most 1.3 times the pass.

Run: python benchmarks/probes.py [--device cuda] [--network resnet18] [--images 20000] [--repeats 5]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import tombola as tb
from tombola.measures.heads import HEAD_RECIPE
from tombola.measures.probe import probe
from tombola.training.device import repeatable, resolve_device, resolve_precision
from tombola.training.evaluation import EVALUATION_BATCH, channels_last, device_batches
from tombola.training.flat_network import FlatNetwork

sys.path.insert(0, str(Path(__file__).parent))
from measure import median_ratio, report, seconds_in_turns


def main(
    device: str = "cpu", network: str | None = None, images: int | None = None, repeats: int = 5
) -> None:
    """Time the probes of a ResNet-20 and a ResNet-18 in turns with the pass.

    device: where; one thread on a CPU.
    network: only this one.
    images: train images of an epoch, and a fifth of them for testing; by default as many as take seconds.
    repeats: counted measurements of each.
    """
    torch.set_num_threads(1)
    few = {"resnet20": 2000, "resnet18": 500} if device == "cpu" else {"resnet20": 20_000, "resnet18": 20_000}
    rows = [
        _row(name, images or count, device, repeats) for name, count in few.items() if network in (None, name)
    ]
    report(f"probes after every block against a frozen forward pass, {device} (target: 1.3)", rows)


def _row(network: str, count: int, device: str, repeats: int) -> dict[str, Any]:
    draws = np.random.default_rng(0)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = draws.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        return torch.from_numpy(pixels), torch.arange(count) % 10

    data = tb.data_from_tensors(split(count), split(count // 5), name="benchmark")
    ticket = tb.initialize(network, data)
    recipe = replace(HEAD_RECIPE, epochs=1)
    where = resolve_device(device)
    work = {
        "probes": lambda: probe(ticket, data, recipe=recipe, device=device),
        "pass": _forward_pass(ticket, data, recipe, where),
    }
    times = seconds_in_turns(work, repeats)
    return {
        "what": f"{network}, 3x32x32, {count} and {count // 5} images",
        "probes s": statistics.median(times["probes"]),
        "pass s": statistics.median(times["pass"]),
        "ratio": median_ratio(times["probes"], times["pass"]),
        "repeats": repeats,
    }


def _forward_pass(
    ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe, device: torch.device
) -> Callable[[], None]:
    body = FlatNetwork(ticket.network, device)
    body.load(ticket.weights())
    train, test = (device_batches(data, images, device) for images in (data.train, data.test))
    bfloat16 = resolve_precision(recipe, device) == "bfloat16"

    @torch.no_grad()
    def forward() -> None:
        with repeatable(device):
            body.module.train()
            for batches, size in ((train, recipe.batch_size), (test, EVALUATION_BATCH)):
                for first in range(0, len(batches), size):
                    with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
                        images = batches.unaugmented(first, min(first + size, len(batches)))
                        body.module(channels_last(images))
                body.module.eval()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    return forward


if __name__ == "__main__":
    tyro.cli(main)
