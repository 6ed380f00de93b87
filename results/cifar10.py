"""The jobs behind this folder: ResNet-18 on CIFAR-10.

``full``: dense trainings of 200 epochs in the four configurations, three seeds (Table 8, Fig. 6a), and one
under the other weight decay of reading A1.
``copies``: second noise copies of the two extremes, and the barriers to them (part of Fig. 3).
``tenth``: six pruning chains of 20 epochs a training to 89.26% sparsity, one seed, and what the paper
measures there (Tables 6, 11, 17, 21 and Figs. 3, 10, 13, 18, 21).
``second``: three of these chains, which tell most, from a second seed.

Whatever is finished in the store is not computed again, so each can be stopped and called again at any time.

Run: python results/cifar10.py full|copies|tenth|second... --store DIR [--device cuda] [--scheduler tcp://...]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from tombola.lab.execute import Settings
from tombola.lab.job import Job, job
from tombola.lab.lab import Lab
from tombola.lab.progress import Bar
from tombola.experiments.paper.studies import studies_named
from tombola.experiments.cells import Place, sparsity_after
from tombola.experiments.paper.jobs import Work
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.settings import CONFIGURATIONS, R18_C10, STABLE, UNSTABLE, Configuration
from tombola.training.loop import train

OTHER_DECAY, LESS = Configuration(0.9, 256), 1e-4
"""The configuration that was trained at another weight decay too (reading A1), and that weight decay."""
NETWORK = "resnet18@1"
"""What these results are of: ResNet-18 as the first reading of B4 started it, Kaiming-normal."""
LAST = 10
"""Prunings of the last ticket of a chain."""
CHAINS = (*CONFIGURATIONS, STABLE.rewound, UNSTABLE.rewound)
AGAIN = (STABLE, UNSTABLE, Configuration(0.9, 256))
"""The chains of the second seed."""
TENTH = ("table11", "fig13", "fig3", "fig10", "table17", "fig18", "table21", "fig21", "table6")
BESIDE = ("untrained-accuracy", "ticket-convergence")


Part = Literal["full", "copies", "tenth", "second"]
_SEEDS = {"full": 3, "copies": 1, "tenth": 1, "second": 2}


def work_of(part: Part, until: int = LAST, **numbers: Any) -> Work:
    """The scale of a part; probes and few-shot training in three rounds of a chain."""
    chained = part in ("tenth", "second")
    if chained:
        numbers |= {"rounds": until, "columns": (until // 2, until), "stride": until // 2}
    scale = overridden(scale_named("short" if chained else "paper"), seeds=_SEEDS[part], copies=2, **numbers)
    subject = replace(scale.subjects[R18_C10], network=NETWORK)
    return Work(replace(scale, subjects={**scale.subjects, R18_C10: subject}))


def full(work: Work) -> Iterator[Job]:
    """What is trained at the paper's budget."""
    for number in range(work.scale.seeds):
        for each in work.scale.chosen(CONFIGURATIONS):
            yield work.learning(work.runs(R18_C10, each, number)[0])
    yield work.learning(other_decay(work))


def other_decay(work: Work) -> Job:
    """The dense training under the other weight decay."""
    recipe = replace(work.recipe(R18_C10, OTHER_DECAY), weight_decay=LESS)
    return job(train, work.start(R18_C10, 0), work.subject(R18_C10).data, recipe, noise=0)


def copies(work: Work) -> Iterator[Job]:
    """The instability of the two extremes at that budget."""
    for each in work.scale.chosen((STABLE, UNSTABLE)):
        yield from _both_readings(work, each, prunings=0)


def tenth(work: Work) -> Iterator[Job]:
    """What is trained and measured at a tenth of it."""
    yield from _chains(work, CHAINS, 0)


def second(work: Work) -> Iterator[Job]:
    """The same of the second seed."""
    yield from _chains(work, AGAIN, 1)


def _chains(work: Work, chains: Sequence[Configuration], number: int) -> Iterator[Job]:
    """Chains of a run of that number, and what is measured of them."""
    until = work.subject(R18_C10).rounds
    for study in studies_named((*TENTH, *BESIDE)):
        for entry in study.entries(work):
            # Barriers are of the first run alone in the paper, and have no second job.
            if _wanted(entry.place, chains, until, baselines=number == 0) and number < len(entry.jobs):
                yield entry.jobs[number]
    yield work.probe(R18_C10, work.start(R18_C10, number), number)
    for each in work.scale.chosen(chains):
        yield work.probe(R18_C10, work.permuted(work.tickets(R18_C10, each, number)[until], number), number)
        yield from work.between_rounds(R18_C10, each, number)[:until]
        for prunings in (0, until):
            yield from _both_readings(work, each, prunings, number)


def _both_readings(work: Work, configuration: Configuration, prunings: int, number: int = 0) -> Iterator[Job]:
    """Instability with batch-norm statistics interpolated, and measured anew beside it (reading D3)."""
    for recalibrated in (False, True):
        yield work.instability(R18_C10, configuration, prunings, number, recalibrated=recalibrated)


def _wanted(place: Place, chains: Sequence[Configuration], until: int, *, baselines: bool) -> bool:
    """Whether a place of a study is among what is run here; baselines are of no configuration."""
    last = sparsity_after(until - 1 if place.metric == "barrier_to_next" else until)
    chosen = {(each.momentum, each.batch_size, each.pretrained) for each in chains}
    of_chains = (place.momentum, place.batch_size, place.pretrained) in chosen
    return (
        place.network == R18_C10.network
        and (place.dataset == R18_C10.dataset or place.baseline == "retrained_dense")
        and (baselines if place.momentum is None else of_chains)
        and (place.sparsity or 0.0) <= last
        and "MNIST" in (place.target or "MNIST", place.dataset)
        and place.subset_percent in (None, 1, 10)
    )


def main(
    parts: tyro.conf.Positional[tuple[Part, ...]],
    store: Path,
    device: str = "auto",
    slots: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    epochs: int | None = None,
    until: int = LAST,
    configs: tuple[str, ...] | None = None,
) -> None:
    """Compute whatever is missing.

    slots: trainings at once on each GPU.
    scheduler: of a Dask cluster, instead of worker processes of this machine.
    epochs: another budget, for a trial. until: prunings of each chain. configs: only these, such as 0.0/256.
    """
    listed = {"full": full, "copies": copies, "tenth": tenth, "second": second}
    jobs = [
        job for part in parts for job in listed[part](work_of(part, until, epochs=epochs, configs=configs))
    ]
    lab = Lab(
        store, workers=0 if scheduler else workers, scheduler=scheduler,
        settings=Settings(device=device, slots=slots),
    )  # fmt: skip
    with Bar(Console(), lab.store) as bar:
        lab.run(jobs, progress=bar).raise_failures()


if __name__ == "__main__":
    tyro.cli(main)
