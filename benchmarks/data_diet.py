"""Trainings on parts of the data that scores select, for as many steps as on all of it (Paul et al., 2021).

Published for ResNet-18 on CIFAR-10: half of the images, the highest by EL2N at epoch 20 of 200 over ten runs,
cost no accuracy; target: at most 0.5 points. The defaults are a small network on digits, where so little is
left that the hardest alone do not suffice. As published:

    python benchmarks/data_diet.py --device cuda --data cifar10 --network resnet18 --epochs 200 --at 20
        --batch-size 128 --seeds 2 --only EL2N
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import tyro

import tombola as tb

sys.path.insert(0, str(Path(__file__).parent))
from measure import report

SCORED = 1000
"""Added to the seeds of the runs that images are scored by, which are none of those that are compared."""


def main(
    device: str = "cpu",
    data: str = "digits",
    network: str = "convnet",
    epochs: int = 12,
    at: int = 2,
    batch_size: int = 32,
    share: float = 0.5,
    scored: int = 10,
    seeds: int = 5,
    only: tuple[str, ...] = (),
) -> None:
    """Score all images, train on what is selected, and print test accuracies.

    device: where to train. data, network: by name.
    epochs: on all images; at: the epoch at which EL2N and GraNd are taken.
    batch_size: Nesterov at rate 0.1, weight decay 5e-4.
    share: of the images that are selected. scored: runs that scores are a mean of. seeds: of each row.
    only: these rows; all images and a random part are always there.
    """
    torch.set_num_threads(1)
    images = tb.load_data(data)

    def recipe(length: int) -> tb.Recipe:
        return tb.Recipe(epochs=length, batch_size=batch_size, lr=0.1, momentum=0.9, optimizer="nesterov")

    def start(seed: int) -> tb.Ticket:
        return tb.initialize(network, images, seed=seed)

    numbers = range(SCORED, SCORED + scored)
    early = [
        tb.pretrain(start(n), images, recipe(epochs), epochs=at, noise=n, device=device) for n in numbers
    ]

    def mean_score(tickets: list[tb.Ticket], score: str) -> tb.ExampleScores:
        return tb.mean_scores([tb.example_scores(one, images, score=score, device=device) for one in tickets])

    def window(scores: tb.ExampleScores, **options: Any) -> Callable[[int], tb.Selection]:
        return lambda seed: tb.select_by_score(scores, images, share=share, seed=seed, **options)

    el2n = mean_score(early, "el2n")
    rows: dict[str, Callable[[], Callable[[int], tb.Selection] | None]] = {
        "all images": lambda: None,
        "random": lambda: lambda seed: tb.random_selection(images, share=share, seed=seed),
        "EL2N": lambda: window(el2n),
        "EL2N balanced": lambda: window(el2n, balanced=True),
        "EL2N after 0.1": lambda: window(el2n, skip=0.1),
        "EL2N easiest": lambda: window(el2n, keep="easy"),
        "GraNd": lambda: window(mean_score(early, "grand")),
        "GraNd at initialisation": lambda: window(mean_score([start(n) for n in numbers], "grand")),
        "entropy": lambda: window(mean_score(early, "entropy")),
        "herding balanced": lambda: (
            lambda seed: tb.herding(early[0], images, share=share, balanced=True, device=device)
        ),
        "k-center balanced": lambda: (
            lambda seed: tb.k_center(early[0], images, share=share, balanced=True, seed=seed, device=device)
        ),
    }
    lines: list[dict[str, Any]] = []
    for name, selection in rows.items():
        if only and name not in ("all images", "random", *only):
            continue
        begun, select, accuracies = time.perf_counter(), selection(), []
        for seed in range(seeds):
            part = images if select is None else tb.selected(images, select(seed))
            length = round(epochs * len(images.train) / len(part.train))
            run = tb.train(start(seed), part, recipe(length), noise=seed, device=device)
            accuracies.append(run.accuracy)
        lines.append(
            {
                "what": name,
                "accuracy %": statistics.mean(accuracies),
                "std": statistics.stdev(accuracies) if seeds > 1 else 0.0,
                "images": len(part.train),
                "epochs": length,
                "seconds": time.perf_counter() - begun,
            }
        )
        print(lines[-1], flush=True)
    report(f"{share:g} of {data}, {network}, scores of {scored} runs at epoch {at}, {seeds} seeds", lines)


if __name__ == "__main__":
    tyro.cli(main)
