"""ResNet-18 on CIFAR-10 at the paper's own budget of 200 epochs a training: what is run, in many parts.

Pruning chains of all eight configurations from one seed. Of every round: its training, forgetting and
convergence, the untrained ticket in both readings of batch norm (D3) and under a permuted mask, and the
barrier to the round before; of rounds 5 and 10 also probes and few-shot trainings, of round 10 transfer to
MNIST; dense networks of two more seeds, their noise copies, where they end, and how distant rounds are. All
but the permuted masks are jobs of the paper's studies and of those beside them, so `tombola report` shows
them. What the store has is not computed again: each call continues where the last was cut off.

Run: python results/run.py --store DIR --chains 0.0/100 0.0/256 --stop-after 1200 [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import tyro
from rich.console import Console

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.scales import configuration_named, overridden, scale_named
from tombola.experiments.paper.settings import R18_C10, SUBSETS, Configuration
from tombola.lab.execute import Settings
from tombola.lab.job import Job
from tombola.lab.lab import Lab
from tombola.lab.progress import Bar
from tombola.lab.store import Store
from tombola.measures.instability import DIFFERENCES

LAST = 10
"""Prunings of the last ticket of a chain: 89.26% sparsity."""


def scale_jobs(head_epochs: int | None = None) -> PaperJobs:
    """The jobs of the paper's scale with one seed and ten rounds, as the report here shows them."""
    middle = LAST // 2
    scale = overridden(
        scale_named("paper"),
        seeds=1,
        copies=2,
        rounds=LAST,
        columns=(middle, LAST),
        stride=middle,
        pairs=["R18/C10"],
    )
    return PaperJobs(scale if head_epochs is None else replace(scale, head_epochs=head_epochs))


def chain_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """The trainings of a chain up to a round, and what is measured of each round.

    What needs a run whose weights are not in the store any more, a barrier or its forgetting, is left out: it
    would have that run trained again, and all before it whose tickets did not travel.
    """
    runs = work.runs(R18_C10, configuration, 0)
    tickets = work.tickets(R18_C10, configuration, 0)
    barriers = work.between_rounds(R18_C10, configuration, 0)
    for number in range(until + 1):
        yield runs[number]
        learning = work.learning(runs[number])
        if store.has(learning.name) or not _is_thin(store, runs[number]):
            yield learning
        for recalibrated in (False, True):
            yield work.untrained(R18_C10, tickets[number], recalibrated=recalibrated)
        if number and not _is_thin(store, runs[number - 1]):
            yield barriers[number - 1]


def ticket_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """What is measured of the last ticket and those that the store has: controls, probes, few-shot runs."""
    tickets = work.tickets(R18_C10, configuration, 0)[: until + 1]
    there = [n for n, ticket in enumerate(tickets) if n == until or _is_whole(store, ticket)]
    for number in there:
        yield work.untrained(R18_C10, work.permuted(tickets[number], 0), recalibrated=True)
    for number in there:
        if number in (LAST // 2, LAST):
            yield work.probe(R18_C10, tickets[number], 0)
            yield work.probe(R18_C10, work.permuted(tickets[number], 0), 0)
            for percent in SUBSETS:
                yield work.few_shot(R18_C10, configuration, number, 0, percent)


def transfer_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """A fresh head for MNIST on the frozen last ticket."""
    yield work.transfer(R18_C10, work.tickets(R18_C10, configuration, 0)[until], "MNIST", 0)


def seed_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """Dense networks of two more seeds, with their forgetting and convergence (Table 8)."""
    for number in (1, 2):
        run = work.runs(R18_C10, configuration, number)[0]
        yield run
        yield work.learning(run)


def chosen(texts: Sequence[str]) -> list[Configuration]:
    """Configurations from the command line: momentum/batch size, with "pre" behind it if rewound."""
    named = [(configuration_named(text.removesuffix("pre")), text.endswith("pre")) for text in texts]
    return [configuration.rewound if rewound else configuration for configuration, rewound in named]


def copies_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """Two noise copies of the dense network, with both treatments of batch norm (Fig. 3)."""
    yield work.instability(R18_C10, configuration)
    yield work.instability(R18_C10, configuration, recalibrated=True)


def causes_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """Copies that differ in data order or in augmentation alone, beside those of all noise (Q4 and Q5)."""
    for difference in DIFFERENCES:
        yield work.instability_by(R18_C10, configuration, difference)


def ends_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """Where the dense network ended: margins, sharpness and trace (C62 and C63)."""
    run = work.runs(R18_C10, configuration, 0)[0]
    yield work.margins(R18_C10, run)
    yield from reversed(work.flatness(R18_C10, run))


def distant_jobs(work: PaperJobs, configuration: Configuration, until: int, store: Store) -> Iterator[Job]:
    """The line from the dense network to the last round, and its projection on that ticket (Q1 and Q2)."""
    yield from work.between_distant(R18_C10, configuration, 0, 0, until)


def main(
    store: Path,
    chains: tuple[str, ...] = (),
    tickets: tuple[str, ...] = (),
    transfer: tuple[str, ...] = (),
    seeds: tuple[str, ...] = (),
    copies: tuple[str, ...] = (),
    causes: tuple[str, ...] = (),
    ends: tuple[str, ...] = (),
    distant: tuple[str, ...] = (),
    until: int = LAST,
    head_epochs: int | None = None,
    stop_after: float | None = None,
    device: str = "auto",
    slots: int | None = None,
    strict: bool = False,
) -> None:
    """Compute whatever is missing.

    chains, tickets, transfer, seeds, copies, causes, ends, distant: configurations of which each part is
    wanted, as momentum/batch size, with "pre" behind it for late rewinding, such as 0.0/256pre. A part that
    needs the weights of a run has it trained again where the export left them out.
    until: prunings of each chain. head_epochs: of transferred heads, if not the paper scale's.
    stop_after: seconds after which it ends.
    slots: trainings at once on each GPU.
    """
    work = scale_jobs(head_epochs)
    lab = Lab(store, workers=1, settings=Settings(device=device, slots=slots, strict=strict))
    parts = (
        (chain_jobs, chains), (ticket_jobs, tickets), (transfer_jobs, transfer), (seed_jobs, seeds),
        (copies_jobs, copies), (causes_jobs, causes), (ends_jobs, ends), (distant_jobs, distant),
    )  # fmt: skip
    jobs = [
        job
        for part_jobs, names in parts
        for configuration in chosen(names)
        for job in part_jobs(work, configuration, until, lab.store)
    ]
    with Bar(Console(), lab.store) as bar:
        outcome = lab.run(jobs, progress=bar, stop_after=stop_after)
    outcome.raise_failures()
    there = len(outcome.finished_before)
    print(f"{len(outcome.computed)} computed, {there} were there, {len(outcome.left)} left")


def _is_whole(store: Store, job: Job) -> bool:
    return store.has(job.name) and not store.is_thin(job.name)


def _is_thin(store: Store, job: Job) -> bool:
    return store.has(job.name) and store.is_thin(job.name)


if __name__ == "__main__":  # Dask imports this file anew in its workers
    tyro.cli(main)
