"""tombola's training epoch on the CPU against the shortest honest PyTorch loop.

Both train the same network on the same images with the same batch size, crops, flips, weight decay, momentum
and cosine schedule, and keep loss and training accuracy. tombola also keeps its mask (half the weights are
pruned), its forgetting record and its checkpoints' opportunities; the loop keeps a mask by multiplication.
Evaluation is left out of both. Target: at most 1.10 times the loop.

Run: python benchmarks/cpu_step.py [--network resnet20] [--repeats 7]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch.nn import functional

import tombola as tb
from tombola.networks.prunable import prunable_names
from tombola.seeds import Streams
from tombola.training.device import resolve_device
from tombola.training.engines import EagerEngine
from tombola.training.loop import Training
from tombola.training.run import ForgettingRecord

sys.path.insert(0, str(Path(__file__).parent))
from measure import median_ratio, report, seconds_in_turns


@dataclass(frozen=True)
class Case:
    """A network, its images and how many of them make the epoch that is timed."""

    network: str
    batch_size: int
    images: int
    side: int
    channels: int


CASES = (
    Case("convnet", 32, 1200, 8, 1),
    Case("convnet", 128, 1200, 8, 1),
    Case("resnet20", 128, 1280, 32, 3),
    Case("resnet18", 32, 96, 32, 3),
)


def main(repeats: int = 7, network: str | None = None) -> None:
    """Time each case in turns, one thread.

    repeats: counted epochs of each.
    network: only cases of this network.
    """
    torch.set_num_threads(1)
    rows = [_row(case, repeats) for case in CASES if network in (None, case.network)]
    report("training epoch on the CPU, one thread, tombola against a plain PyTorch loop (target: 1.10)", rows)


def made_up(case: Case) -> tuple[tb.Ticket, tb.Data, tb.Recipe]:
    """A ticket with half of its weights, random images and a recipe without end."""
    draws = np.random.default_rng(0)
    shape = (case.images, case.channels, case.side, case.side)
    images = torch.from_numpy(draws.integers(0, 256, shape, dtype=np.uint8))
    labels = torch.arange(case.images) % 10
    data = tb.data_from_tensors((images, labels), (images[:450], labels[:450]), name="benchmark")
    ticket = tb.initialize(case.network, data)
    mask = {name: torch.from_numpy(draws.random(keep.shape) < 0.5) for name, keep in ticket.mask.items()}
    return ticket.with_mask(mask), data, tb.Recipe(epochs=10_000, batch_size=case.batch_size)


def tombola_training(ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe) -> Training:
    """A training on the CPU that evaluates nothing at the end of an epoch."""
    device = resolve_device("cpu")
    engine = EagerEngine(ticket.network, data, recipe, device, "float32")
    engine.flat_network.load(ticket.weights(), ticket.mask)
    engine.evaluate = lambda images: (0.0, 0.0)  # type: ignore[method-assign]
    record = ForgettingRecord.empty(len(data.train))
    streams, until = Streams.of(noise=0, round=0), (10_000, 0)
    return Training(engine, data, recipe, streams, device, "float32", {}, [], record, (0, 0), until, 0, 0)


def _row(case: Case, repeats: int) -> dict[str, Any]:
    ticket, data, recipe = made_up(case)
    training = tombola_training(ticket, data, recipe)
    epochs = {
        "tombola": lambda: training.train_epoch(tb.Watch()),
        "loop": _plain_epoch(ticket, data, recipe),
    }
    times = seconds_in_turns(epochs, repeats)
    return {
        "what": f"{case.network}, {case.channels}x{case.side}x{case.side}, batch {case.batch_size}",
        "tombola ms/step": 1e3 * statistics.median(times["tombola"]) / -(-case.images // case.batch_size),
        "loop ms/step": 1e3 * statistics.median(times["loop"]) / -(-case.images // case.batch_size),
        "ratio": median_ratio(times["tombola"], times["loop"]),
        "repeats": repeats,
    }


def _plain_epoch(ticket: tb.Ticket, data: tb.Data, recipe: tb.Recipe) -> Callable[[], None]:
    """The loop that one would write for a benchmark: tensors in memory, no loader, the fused optimizer."""
    model = ticket.network.build().to(memory_format=torch.channels_last)
    model.load_state_dict(ticket.weights())
    parameters = dict(model.named_parameters())
    masks = [(parameters[name], ticket.mask[name].float()) for name in prunable_names(model)]
    optimizer = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
    count, size, pad = len(data.train), recipe.batch_size, recipe.augmentation.padding(data)
    steps = -(-count // size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    mean, std = data.mean.view(-1, 1, 1), data.std.view(-1, 1, 1)
    padded = functional.pad(data.train.images, (pad,) * 4)
    side = data.size[0]

    def epoch() -> None:
        model.train()
        order = torch.randperm(count)
        loss_sum, right = 0.0, 0
        for batch in order.split(size):
            # One crop offset a batch would be shorter, but is not the augmentation of the field.
            rows = torch.randint(0, 2 * pad + 1, (len(batch), 1)) + torch.arange(side)
            columns = torch.randint(0, 2 * pad + 1, (len(batch), 1)) + torch.arange(side)
            flip = torch.rand(len(batch), 1) < 0.5
            columns = torch.where(flip, columns.flip(1), columns)
            pixels = padded[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(
                0, 3, 1, 2
            )
            inputs = (pixels.float() / 255 - mean) / std
            outputs = model(inputs)
            loss = functional.cross_entropy(outputs, data.train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for parameter, mask in masks:
                    parameter.mul_(mask)
            loss_sum += loss.item() * len(batch)
            right += int((outputs.argmax(1) == data.train.labels[batch]).sum())

    return epoch


if __name__ == "__main__":
    tyro.cli(main)
