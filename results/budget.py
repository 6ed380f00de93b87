"""ResNet-18 on CIFAR-10 at the paper's own budget of 200 epochs a training: what is run, leg by leg.

Pruning chains of all eight configurations from one seed. Of every round: its training, forgetting and
convergence, the untrained ticket in both readings (D3), and the barrier to the round before. Whatever the
store has is not computed again, so a leg on a machine that is lent for minutes continues the last one.

Run: python results/budget.py --store DIR --until 3 --configs 0.0/100 0.0/256 --stop-after 20m [--device cuda]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import tyro
from rich.console import Console

from tombola.lab.execute import Settings
from tombola.lab.job import Job
from tombola.lab.lab import Lab
from tombola.lab.progress import Bar
from tombola.studies.claims.names import R18_C10, Configuration
from tombola.studies.scales import configuration_named, overridden, scale_named
from tombola.studies.work import Work

LAST = 10
"""Prunings of the last ticket of a chain: 89.26% sparsity."""


def budget_work() -> Work:
    """The paper's scale with one seed."""
    return Work(overridden(scale_named("paper"), seeds=1, rounds=LAST, columns=(LAST // 2, LAST)))


def chain_jobs(work: Work, configuration: Configuration, until: int) -> Iterator[Job]:
    """The trainings of a chain up to a round, and what is measured of each round."""
    runs = work.runs(R18_C10, configuration, 0)
    tickets = work.tickets(R18_C10, configuration, 0)
    barriers = work.between_rounds(R18_C10, configuration, 0)
    for number in range(until + 1):
        yield runs[number]
        yield work.learning(runs[number])
        for recalibrated in (False, True):
            yield work.untrained(R18_C10, tickets[number], recalibrated=recalibrated)
        if number:
            yield barriers[number - 1]


def chosen(texts: Sequence[str]) -> list[Configuration]:
    """Configurations from the command line: momentum/batch size, with "pre" behind it if rewound."""
    named = [(text.removesuffix("pre"), text.endswith("pre")) for text in texts]
    plain = [(configuration_named(text), rewound) for text, rewound in named]
    return [each.rewound if rewound else each for each, rewound in plain]


def main(
    store: Path,
    configs: tuple[str, ...] = ("0.0/100", "0.0/256", "0.9/100", "0.9/256"),
    until: int = LAST,
    stop_after: float | None = None,
    device: str = "auto",
    slots: int | None = None,
    strict: bool = False,
) -> None:
    """Compute whatever is missing.

    configs: momentum/batch size, with "pre" behind it for late rewinding, such as 0.0/256pre.
    until: prunings of each chain. stop_after: seconds after which the leg ends. slots: trainings at once.
    """
    work = budget_work()
    jobs = [job for each in chosen(configs) for job in chain_jobs(work, each, until)]
    lab = Lab(store, workers=1, settings=Settings(device=device, slots=slots, strict=strict))
    with Bar(Console(), lab.store) as bar:
        outcome = lab.run(jobs, progress=bar, stop_after=stop_after)
    outcome.raise_failures()
    print(f"{len(outcome.computed)} computed, {len(outcome.found)} were there, {len(outcome.left)} left")


if __name__ == "__main__":
    tyro.cli(main)
