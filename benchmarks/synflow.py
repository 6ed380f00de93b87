"""SynFlow in 100 rounds on a ResNet-18 at 98% sparsity. Target: at most 20 s on two cores.

Run: python benchmarks/synflow.py [--repeats 1]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
import tyro

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from measure import report


def main(repeats: int = 1) -> None:
    """Time it with one thread and with two.

    repeats: counted prunings of each.
    """
    warnings.simplefilter("ignore")  # shortcuts of 1x1 lose their weights
    images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    data = tb.data_from_tensors((images, torch.arange(10)), (images, torch.arange(10)), name="benchmark")
    ticket = tb.initialize("resnet18", data)
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        wall, processor = [], []
        for _ in range(repeats):
            started, worked = time.perf_counter(), time.process_time()
            tb.prune_at_initialization(ticket, data, score="synflow", sparsity=0.98)
            wall.append(time.perf_counter() - started)
            processor.append(time.process_time() - worked)
        rows.append(
            {
                "what": f"100 rounds, threads: {threads}",
                "median s": statistics.median(wall),
                "of the processor": statistics.median(processor),
                "repeats": repeats,
            }
        )
    report("SynFlow on ResNet-18 (target: 20 s)", rows)


if __name__ == "__main__":
    tyro.cli(main)
