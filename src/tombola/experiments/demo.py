"""The paper in miniature: eight configurations of a small network on real handwritten digits.

Momentum 0.0 and 0.9 at two batch sizes, with and without late rewinding, two seeds each: dense instability,
forgetting and convergence, then pruning chains, and the instability of their last tickets. The learning rate
is higher than the paper's, so that every configuration learns the digits in a dozen epochs.
"""

from __future__ import annotations

import itertools
import platform
from dataclasses import asdict, dataclass, field
from typing import Any

from tombola.lab.chains import imp_jobs
from tombola.lab.job import Job, all_needed, job
from tombola.lab.lab import Lab
from tombola.measures.connectivity import Barrier, barrier
from tombola.measures.learning import convergence, forgetting
from tombola.measures.statistics import is_winning, mean, sample_std
from tombola.training.loop import train
from tombola.training.recipe import Recipe
from tombola.training.run import Run


@dataclass(frozen=True)
class DemoSettings:
    """What the demo runs; every number can be changed."""

    network: str = "convnet"
    data: str = "digits"
    epochs: int = 12
    lr: float = 0.3
    momenta: tuple[float, ...] = (0.0, 0.9)
    batch_sizes: tuple[int, ...] = (32, 128)
    rewind: int = 2
    rounds: int = 10
    fraction: float = 0.2
    seeds: int = 2


@dataclass(frozen=True)
class Cell:
    """The jobs of one configuration from one kind of start.

    chains: for each seed, the trainings of its pruning chain, dense first.
    dense_barriers, ticket_barriers: for each seed, between two noise copies of the first and of the last
        ticket.
    recalibrated_barriers: the dense ones from initialisation, with batch-norm statistics measured anew.
    """

    momentum: float
    batch_size: int
    rewind: int
    chains: list[list[Job]] = field(default_factory=list)
    dense_barriers: list[Job] = field(default_factory=list)
    recalibrated_barriers: list[Job] = field(default_factory=list)
    ticket_barriers: list[Job] = field(default_factory=list)

    def jobs(self) -> list[Job]:
        """All jobs of the cell."""
        barriers = self.dense_barriers + self.recalibrated_barriers + self.ticket_barriers
        return [*itertools.chain.from_iterable(self.chains), *barriers]


def demo_cells(settings: DemoSettings) -> list[Cell]:
    """The demo as jobs."""
    grid = itertools.product((0, settings.rewind), settings.momenta, settings.batch_sizes)
    return [_cell(settings, momentum, size, rewind) for rewind, momentum, size in grid]


def _cell(settings: DemoSettings, momentum: float, batch_size: int, rewind: int) -> Cell:
    recipe = Recipe(epochs=settings.epochs, batch_size=batch_size, lr=settings.lr, momentum=momentum)
    cell = Cell(momentum, batch_size, rewind)
    for seed in range(settings.seeds):
        chain = imp_jobs(
            settings.network, settings.data, recipe,
            rounds=settings.rounds, rewind=rewind, fraction=settings.fraction, seed=seed,
            # As in the paper, the dense run from a rewinding point is a training of its own.
            pretraining_noise=2 * settings.seeds + seed,
        )  # fmt: skip
        cell.chains.append(chain)
        for run, barriers in ((chain[0], cell.dense_barriers), (chain[-1], cell.ticket_barriers)):
            # A second copy of the same ticket, under a noise number that no chain uses.
            copy = job(train, run.arguments["ticket"], settings.data, recipe, noise=settings.seeds + seed)
            barriers.append(job(barrier, run, copy, settings.data))
            if run is chain[0] and rewind == 0:
                recalibrated = job(barrier, run, copy, settings.data, recalibrate=True)
                cell.recalibrated_barriers.append(recalibrated)
    return cell


def demo_summary(
    lab: Lab, settings: DemoSettings, cells: list[Cell], computed: int, seconds: float
) -> dict[str, Any]:
    """The finished demo as the numbers of its tables and pictures."""
    unrewound = [
        (cell, [lab.result(chain[0]) for chain in cell.chains]) for cell in cells if cell.rewind == 0
    ]
    needed = all_needed(job_ for cell in cells for job_ in cell.jobs())
    made = lab.store.provenance(cells[0].chains[0][0].name)
    return {
        "settings": asdict(settings) | {"device": made["device"]},
        "units": {
            "accuracy": "percent of test images",
            "barrier": "percentage points of test error (Eq. 3)",
            "sparsity": "share of prunable weights, 0 to 1",
            "forgetting_events": "mean for each training image",
            "unforgettable": "share of training images, 0 to 1",
            "convergence": "Eq. 4, 1 is instant",
        },
        "rows": [row for cell in cells for row in _rows(lab, cell)],
        "dense": [_dense(lab, cell, runs) for cell, runs in unrewound],
        "curves": [curve for cell in cells for curve in _curves(lab, cell)],
        "training": [_training(cell, runs) for cell, runs in unrewound],
        "provenance": {
            **{key: made[key] for key in ("tombola", "torch", "hardware", "threads")},
            "python": platform.python_version(),
            "jobs": sum(job_.counted for job_ in needed.values()),
            "computed": computed,
            "seconds": round(seconds, 1),
        },
    }


def _rows(lab: Lab, cell: Cell) -> list[dict[str, Any]]:
    """Accuracy by round, over the seeds."""
    rows: list[dict[str, Any]] = []
    for round_, runs in enumerate(zip(*cell.chains, strict=True)):
        numbers = [lab.numbers(run) for run in runs]
        accuracies = [entry["accuracy"] for entry in numbers]
        rows.append(
            {
                "momentum": cell.momentum,
                "batch_size": cell.batch_size,
                "rewind": cell.rewind,
                "round": round_,
                "sparsity": mean([entry["sparsity"] for entry in numbers]),
                "accuracy_mean": mean(accuracies),
                "accuracy_std": sample_std(accuracies),
                "accuracies": accuracies,
                "winning": None if round_ == 0 else is_winning(accuracies, rows[0]["accuracies"]),
                "failed_runs": sum(entry["failed"] for entry in numbers),
            }
        )
    return rows


def _dense(lab: Lab, cell: Cell, runs: list[Run]) -> dict[str, Any]:
    """Instability, forgetting and convergence of the dense network, means over the seeds."""
    forgotten = [forgetting(run) for run in runs]
    speeds = [speed for speed in map(convergence, runs) if speed is not None]
    return {
        "momentum": cell.momentum,
        "batch_size": cell.batch_size,
        "barrier": mean([_barrier(lab, entry).height for entry in cell.dense_barriers]),
        "barrier_recalibrated": mean([_barrier(lab, entry).height for entry in cell.recalibrated_barriers]),
        "forgetting_events": mean([entry.events_mean for entry in forgotten]),
        "forgetting_std": mean([entry.events_std for entry in forgotten]),
        "unforgettable": mean([entry.unforgettable for entry in forgotten]),
        "never_learned": mean([entry.never_learned for entry in forgotten]),
        "convergence": mean(speeds) if speeds else None,
        "accuracy": mean([run.accuracy for run in runs]),
    }


def _curves(lab: Lab, cell: Cell) -> list[dict[str, Any]]:
    """Error along the line between two copies, means over the seeds."""
    curves = []
    for kind, jobs, run in (
        ("dense", cell.dense_barriers, cell.chains[0][0]),
        ("ticket", cell.ticket_barriers, cell.chains[0][-1]),
    ):
        lines = [_barrier(lab, entry) for entry in jobs]
        curves.append(
            {
                "kind": kind,
                "momentum": cell.momentum,
                "batch_size": cell.batch_size,
                "rewind": cell.rewind,
                "sparsity": lab.numbers(run)["sparsity"],
                "alphas": list(lines[0].alphas),
                "errors": [mean(errors) for errors in zip(*(line.errors for line in lines), strict=True)],
                "barrier": mean([line.height for line in lines]),
                "barriers": [line.height for line in lines],
            }
        )
    return curves


def _training(cell: Cell, runs: list[Run]) -> dict[str, Any]:
    """Test error and forgetting by epoch of the dense network, means over the seeds."""
    histories = list(zip(*(run.history for run in runs), strict=True))
    images = len(runs[0].forgetting.events)
    return {
        "momentum": cell.momentum,
        "batch_size": cell.batch_size,
        "epochs": [rows[0].epoch for rows in histories],
        "test_error": [100 - mean([row.test_accuracy for row in rows]) for rows in histories],
        "forgetting_events": [
            None if index == 0 else mean([row.forgetting_events / images for row in rows])
            for index, rows in enumerate(histories)
        ],
    }


def _barrier(lab: Lab, job_: Job) -> Barrier:
    result: Barrier = lab.result(job_)
    return result
