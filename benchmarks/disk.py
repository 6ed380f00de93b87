"""Disk that a 98.85% sparse ResNet-18 ticket takes, against a dense checkpoint.

Run: python benchmarks/disk.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from measure import report


def main() -> None:
    """Write one ticket in each form and compare."""
    images = torch.zeros(10, 3, 32, 32, dtype=torch.uint8)
    data = tb.data_from_tensors((images, torch.arange(10)), (images, torch.arange(10)), name="benchmark")
    dense = tb.initialize("resnet18", data)
    draws = torch.Generator().manual_seed(0)
    mask = {name: torch.rand(keep.shape, generator=draws) < 0.8**20 for name, keep in dense.mask.items()}
    ticket = dense.with_mask(mask)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        torch.save(dict(dense.start), place / "dense.pt")
        ticket.save(place / "ticket")
        ticket.save(place / "whole", with_start=True)
        sizes = {path.name: path.stat().st_size for path in place.iterdir()}
    rows = [
        {"what": what, "MB": sizes[name] / 1e6, "share of dense": sizes[name] / sizes["dense.pt"]}
        for name, what in (
            ("dense.pt", "dense checkpoint (torch.save of the state)"),
            (
                "ticket",
                f"ticket, {100 * ticket.sparsity:.2f}% sparse, with the surviving weights of its start",
            ),
            ("whole", "the same with its whole dense start"),
        )
    ]
    report("a ResNet-18 ticket on disk", rows)


if __name__ == "__main__":
    main()
