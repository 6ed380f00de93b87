"""Pruning a ResNet-18: one global prune step over its 11 million weights. Target: at most 0.5 s.

Run: python benchmarks/prune.py [--repeats 9]
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch
import tyro

import tombola as tb
from tombola.training.run import Epoch, ForgettingRecord, History

sys.path.insert(0, str(Path(__file__).parent))
from measure import report, seconds_in_turns


def main(repeats: int = 9) -> None:
    """Time the first and the tenth round.

    repeats: counted prune steps of each.
    """
    torch.set_num_threads(1)
    images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    data = tb.data_from_tensors((images, torch.arange(10)), (images, torch.arange(10)), name="benchmark")
    ticket = tb.initialize("resnet18", data)
    rows = History([Epoch(0, 0.0, 0.0, 0.0, 0.0, 10.0, 0, 0.0)])
    first = tb.Run(ticket, ticket.start, rows, ForgettingRecord.empty(10), 0, "float32", "cpu")
    tenth = first
    for _ in range(9):
        tenth = replace(tenth, ticket=tb.prune(tenth))
    times = seconds_in_turns({"first": lambda: tb.prune(first), "tenth": lambda: tb.prune(tenth)}, repeats)
    report(
        "one prune step of ResNet-18, one thread (target: 0.5 s)",
        [
            {
                "what": f"round {number}, {run.ticket.kept:,} of {run.ticket.total:,} weights left",
                "median s": statistics.median(times[name]),
                "worst s": max(times[name]),
                "repeats": repeats,
            }
            for name, number, run in (("first", 1, first), ("tenth", 10, tenth))
        ],
    )


if __name__ == "__main__":
    tyro.cli(main)
