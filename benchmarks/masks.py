"""Learned masks of untrained networks against the published accuracies: edge-popup and supermasks.

Edge-popup (Ramanujan et al., 2020) on CIFAR-10: Conv-2, 4, 6 and 8 with signed constants, scores by SGD at
rate 0.1, momentum 0.9, weight decay 1e-4, batches of 128, 100 epochs of a cosine, crops and flips. The paper
has curves only; the numbers beside ours are read off its figure (within a point).

Supermasks (Zhou et al., 2019): LeNet-300-100 on MNIST, Conv-2, 4 and 6 on CIFAR-10, signed constants and
dynamic scaling, scores by SGD at rate 100, momentum 0.9, batches of 250, no augmentation; the mean over ten
drawn masks. The paper trains 2,000 epochs on MNIST.

Minutes a network on a GPU, hours on a CPU. Nothing is asserted.

Run: python benchmarks/masks.py edge-popup --device cuda [--networks conv4 conv6] [--sparsities 0.5 0.7]
     python benchmarks/masks.py supermask --device cuda [--networks lenet300] [--epochs 2000] [--seeds 3]
     python benchmarks/masks.py edge-popup --data digits --networks lenet300 --epochs 4    # in seconds
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from measure import report

PUBLISHED = {
    "edge-popup": {"conv2": 77.5, "conv4": 86.0, "conv6": 88.0, "conv8": 88.5},
    "supermask": {"lenet300": 98.0, "conv2": 66.0, "conv4": 72.5, "conv6": 76.5},
}
"""Test accuracy in percent: of edge-popup the peak over sparsities; of supermasks the best variant."""

RECIPES = {
    "edge-popup": tb.Recipe(epochs=100, batch_size=128, lr=0.1, momentum=0.9, weight_decay=1e-4),
    "supermask": tb.Recipe(
        epochs=200, batch_size=250, lr=100.0, momentum=0.9, weight_decay=0.0, schedule="constant",
        augmentation=tb.Augmentation(pad=0, flip=False),
    ),
}  # fmt: skip


def main(
    method: tyro.conf.Positional[Literal["edge-popup", "supermask"]],
    networks: Sequence[str] = (),
    sparsities: Sequence[float] = (0.5,),
    seeds: int = 1,
    epochs: int | None = None,
    lr: float | None = None,
    data: str | None = None,
    device: str = "auto",
) -> None:
    """Learn masks and print their test accuracy beside the published.

    networks: by default those of the paper. sparsities: of edge-popup, of each layer.
    seeds: how many draws of the weights, each with noise of its own.
    epochs, lr: of the scores, by default those above.
    data: by default MNIST for lenet300 and CIFAR-10 for all else.
    """
    fields = {key: value for key, value in {"epochs": epochs, "lr": lr}.items() if value is not None}
    recipe = tb.Recipe(**{**vars(RECIPES[method]), **fields})
    rows: list[dict[str, Any]] = []
    for network in networks or PUBLISHED[method]:
        source = tb.load_data(data or ("mnist" if network == "lenet300" else "cifar10"))
        for sparsity in sparsities if method == "edge-popup" else (None,):
            started = time.perf_counter()
            accuracies, kept = [], []
            for seed in range(seeds):
                accuracy, density = _accuracy(method, network, source, recipe, sparsity, seed, device)
                accuracies.append(accuracy)
                kept.append(density)
            rows.append(
                {
                    "what": f"{method}, {network}, {source.name}, {recipe.epochs} epochs",
                    "kept": statistics.fmean(kept),
                    "seeds": seeds,
                    "accuracy": statistics.fmean(accuracies),
                    "sample sd": statistics.stdev(accuracies) if seeds > 1 else "",
                    "published": PUBLISHED[method].get(network, "") if data is None else "",
                    "seconds a seed": (time.perf_counter() - started) / seeds,
                }
            )
            print(rows[-1], flush=True)
    report("untrained networks under learned masks, test accuracy in percent", rows)


def _accuracy(
    method: str,
    network: str,
    data: tb.Data,
    recipe: tb.Recipe,
    sparsity: float | None,
    seed: int,
    device: str,
) -> tuple[float, float]:
    """Test accuracy in percent, and the share of the weights that is on."""
    if sparsity is not None:
        start = tb.initialize(network, data, seed=seed, init="signed-constant")
        popped = tb.edge_popup_accuracy(start, data, recipe, sparsity=sparsity, noise=seed, device=device)
        return popped.accuracy, 1 - sparsity
    start = tb.signed_constant(tb.initialize(network, data, seed=seed))
    drawn = tb.supermask_accuracy(start, data, recipe, dynamic_scaling=True, noise=seed, device=device)
    return drawn.accuracy, drawn.density


if __name__ == "__main__":
    tyro.cli(main)
