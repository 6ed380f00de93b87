"""Alignment against published barriers, its time on ResNet-18, and whether permuted tickets meet.

    python benchmarks/alignment.py time
        two networks of other seeds by weights, five starts; target: ResNet-18 in 60 s on two cores
    python benchmarks/alignment.py published --data mnist
        an MLP of 3 x 512; published: a barrier of about 0 (Ainsworth et al., 2023)
    python benchmarks/alignment.py published --data cifar10 --device cuda
        ResNet-20 with batch norm at 1x; published: ends 93.47 and 93.69%, in the middle 12.53% aligned and
        67.0% repaired (Jordan et al., 2023, in the outputs of their notebook)
    python benchmarks/alignment.py tickets --data digits
        two chains with rewinding, of other seeds

A data set is a name, a folder, or an .npz with train_images, train_labels, test_images and test_labels,
images uint8 (N, C, H, W).

The question of ``tickets`` (Sharma et al., 2024; Adnan et al., 2025), asked with rewinding. Chains A and B
start from other seeds. How high are the barriers between A's ticket and B's, as they are, in one order of B's
units that was found between the dense networks, and in one found for each round? And how well does A's
rewound start train under B's mask in that one order, beside its own mask, B's as it is, and its own permuted
in each layer?
"""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import nn

import tombola as tb
from tombola.ticket import Mask

sys.path.insert(0, str(Path(__file__).parent))
from measure import report

LINES = {
    "as they are": {},
    "as they are, repaired": {"repair": True},
    "by weights": {"align": "weights"},
    "by weights, repaired": {"align": "weights", "repair": True},
    "by activations": {"align": "activations"},
    "by activations, repaired": {"align": "activations", "repair": True},
}


@tb.declare_network("mlp-3x512")
def mlp_3x512(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    """The MLP of Ainsworth et al. on MNIST: three hidden layers of 512, without normalisation."""
    widths = [channels * size[0] * size[1], 512, 512, 512]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))


MLP_RECIPE = tb.Recipe(
    epochs=100, batch_size=500, lr=1e-3, optimizer="adamw", weight_decay=0.0, schedule="constant",
    augmentation=tb.Augmentation(pad=0, flip=False),
)  # fmt: skip
RESNET_RECIPE = tb.Recipe(epochs=200, batch_size=500, lr=0.4, warmup=1, weight_decay=5e-4)


def data_of(source: str) -> tb.Data:
    """A data set by name or folder, or from an .npz."""
    if not source.endswith(".npz"):
        return tb.load_data(source)
    arrays = np.load(source)
    splits = [
        (torch.from_numpy(arrays[f"{split}_images"]), torch.from_numpy(arrays[f"{split}_labels"]).long())
        for split in ("train", "test")
    ]
    return tb.data_from_tensors(*splits, name=Path(source).stem)


def timed() -> None:
    """Seconds to align two networks of other seeds, by weights."""
    noise = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8), torch.arange(20) % 10
    data = tb.data_from_tensors(noise, noise, name="noise")
    rows = []
    for network in ("resnet20", "resnet18"):
        starts = [tb.initialize(network, data, seed=seed).weights() for seed in (0, 1)]
        runs = [tb.run_from(start, network=network, data=data) for start in starts]
        begun = time.perf_counter(), time.process_time()
        alignment = tb.align(*runs, data)
        seconds = time.perf_counter() - begun[0], time.process_time() - begun[1]
        rows.append({
            "what": network, "seconds": seconds[0], "on the processor": seconds[1],
            "similarity": alignment.similarity,
        })  # fmt: skip
    report("alignment by weights, five starts (target for ResNet-18: 60 s)", rows)


def published(data: tb.Data, device: str, epochs: int | None) -> None:
    """Barriers between two trainings of other seeds, as they are, aligned and repaired."""
    network, recipe = ("mlp-3x512", MLP_RECIPE) if data.channels == 1 else ("resnet20", RESNET_RECIPE)
    recipe = replace(recipe, epochs=epochs or recipe.epochs)
    starts = [tb.initialize(network, data, seed=seed) for seed in (0, 1)]
    runs = [tb.train(start, data, recipe, noise=seed, device=device) for seed, start in enumerate(starts)]
    rows = []
    for name, options in LINES.items():
        line = tb.barrier(*runs, data, points=25, device=device, **options)
        middle = 100 - line.errors[12]
        rows.append({
            "what": name, "barrier": line.height, "middle accuracy": middle, "loss barrier": line.loss_height,
        })  # fmt: skip
    ends = " and ".join(f"{run.accuracy:.2f}%" for run in runs)
    report(f"{network} on {data.name}, ends {ends}", rows)


def chains_of(
    data: tb.Data, network: str, recipe: tb.Recipe, rounds: int, fraction: float, device: str
) -> list[list[tb.Run]]:
    """Two chains from other seeds, rewound to a tenth of the epochs."""
    chains = []
    for seed in (0, 1):
        start = tb.initialize(network, data, seed=seed)
        epochs = max(recipe.epochs // 10, 1)
        rewound = tb.pretrain(start, data, recipe, epochs=epochs, noise=seed, device=device)
        options = {"rounds": rounds, "fraction": fraction, "noise": seed, "device": device}
        chains.append(list(tb.imp(rewound, data, recipe, **options)))
    return chains


def tickets(
    data: tb.Data, device: str, epochs: int | None, network: str, rounds: int, fraction: float
) -> None:
    """Barriers between tickets of two chains, and accuracies under each other's masks."""
    recipe = tb.Recipe(epochs=epochs or 12, batch_size=50 if len(data.train) < 5000 else 128, lr=0.05)
    chains = chains_of(data, network, recipe, rounds, fraction, device)
    dense = tb.densify(chains[0][0].ticket)
    once = tb.align(chains[0][0], chains[1][0], data, by="activations", device=device)

    def accuracy(mask: Mask) -> float:
        tickets = [dense.with_mask(mask)] * 3
        runs = [
            tb.train(ticket, data, recipe, noise=10 + n, device=device) for n, ticket in enumerate(tickets)
        ]
        return sum(run.accuracy for run in runs) / 3

    rows = []
    for first, second in zip(*chains, strict=True):
        ordered = tb.aligned_run(second, once)
        row: dict[str, float] = {"sparsity": 100 * first.ticket.sparsity}
        for name, (run, by) in {
            "barrier": (second, None), "in one order": (ordered, None), "by weights": (second, "weights"),
            "by activations": (second, "activations"),
        }.items():  # fmt: skip
            line = tb.barrier(first, run, data, points=11, recalibrate=True, align=by, device=device)
            row[name] = line.height
        row["own mask"] = accuracy(first.ticket.mask)
        row["B's mask in order"] = accuracy(ordered.ticket.mask)
        row["B's mask"] = accuracy(second.ticket.mask)
        row["permuted mask"] = accuracy(tb.permute(first.ticket, seed=7).mask)
        rows.append(row)
    report(
        f"tickets of two chains of {network} on {data.name}; batch norm measured anew; means of three",
        rows,
    )


def main(
    what: tyro.conf.Positional[Literal["time", "published", "tickets"]],
    data: str = "digits",
    device: str = "cpu",
    epochs: int | None = None,
    network: str = "convnet",
    rounds: int = 3,
    fraction: float = 0.5,
) -> None:
    """Measure one of the three.

    data: name, folder or .npz. epochs: of each training; None for those of the source, or 12 for tickets.
    network, rounds, fraction: of the chains of tickets.
    """
    if what == "time":
        timed()
    elif what == "published":
        published(data_of(data), device, epochs)
    else:
        tickets(data_of(data), device, epochs, network, rounds, fraction)


if __name__ == "__main__":
    tyro.cli(main)
