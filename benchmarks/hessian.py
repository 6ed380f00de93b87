"""The trace of the Hessian of ResNet-18 over 10,000 images of 3x32x32. Target on an H200: at most 60 s.

Also Lanczos for its largest eigenvalue, and one product. On a CPU 250 images of ResNet-20, for a first look.

Run: python benchmarks/hessian.py [--device cuda] [--network resnet18] [--images 10000] [--draws 4]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import tombola as tb
from tombola.training.device import resolve_device

sys.path.insert(0, str(Path(__file__).parent))
from measure import report


def main(
    device: str = "cuda",
    network: str | None = None,
    images: int | None = None,
    draws: int = 4,
    eigenvalue: bool = True,
) -> None:
    """Train for one epoch, so that running statistics are of the images, and measure.

    device: where to measure. network: resnet18 on a GPU, resnet20 on a CPU.
    images: 10,000 on a GPU, 250 on a CPU.
    draws: of the trace, for each batch of 250 images.
    eigenvalue: whether to look for the largest eigenvalue too.
    """
    torch.set_num_threads(1)
    where = resolve_device(device)
    on_gpu = where.type == "cuda"
    network = network or ("resnet18" if on_gpu else "resnet20")
    data = _random_images(images or (10_000 if on_gpu else 250))
    run = tb.train(
        tb.initialize(network, data), data, tb.Recipe(epochs=1, batch_size=125, lr=0.01), device=where
    )
    what = f"{network}, {len(data.train):,} images"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(where)
    begun = time.perf_counter()
    trace = tb.hessian_trace(run, data, draws=draws, device=where)
    rows: list[dict[str, Any]] = [
        {
            "what": f"trace, {what}",
            "seconds": time.perf_counter() - begun,
            "value": trace.trace,
            "error": trace.standard_error,
            "products": draws,
            "GB": _peak(where),
        }
    ]
    if eigenvalue:
        begun = time.perf_counter()
        found = tb.hessian_eigenvalues(run, data, tolerance=0.01, device=where)
        rows.append(
            {
                "what": f"largest eigenvalue, {what}",
                "seconds": time.perf_counter() - begun,
                "value": found.largest,
                "error": found.residuals[0],
                "products": found.steps,
                "GB": _peak(where),
            }
        )
    report(f"Hessian of {what}, {where} (target for the trace: 60 s on an H200)", rows)


def _peak(device: torch.device) -> float:
    """Peak memory of the GPU in GB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def _random_images(count: int) -> tb.Data:
    """Patterns of ten classes under noise."""
    draws = np.random.default_rng(0)
    patterns = draws.integers(0, 256, (10, 3, 32, 32))
    labels = np.arange(count) % 10
    pixels = (patterns[labels] + draws.normal(0, 60, (count, 3, 32, 32))).clip(0, 255).astype(np.uint8)
    images, classes = torch.from_numpy(pixels), torch.from_numpy(labels)
    return tb.data_from_tensors((images, classes), (images[:100], classes[:100]), name="patterns")


if __name__ == "__main__":
    tyro.cli(main)
