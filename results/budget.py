"""ResNet-18 on CIFAR-10 at the paper's own budget of 200 epochs a training: what is run, leg by leg.

Pruning chains of all eight configurations from one seed. Of every round: its training, forgetting and
convergence, the untrained ticket in both readings (D3), and the barrier to the round before. Whatever the
store has is not computed again, so a leg on a machine that is lent for minutes continues the last one.

Run: python results/budget.py --store DIR --configs 0.0/100 0.0/256 --stop-after 1200 [--device cuda]
     python results/budget.py --store DIR --write results/budget/rounds.csv   (of what there is)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from tombola.lab.execute import Settings
from tombola.lab.job import Job
from tombola.lab.lab import Lab
from tombola.lab.progress import Bar
from tombola.lab.store import Store, write_table
from tombola.experiments.cells import Place, sparsity_after
from tombola.experiments.paper.jobs import Work
from tombola.experiments.paper.printed import printed_cells
from tombola.experiments.paper.scales import configuration_named, overridden, scale_named
from tombola.experiments.paper.settings import CONFIGURATIONS, R18_C10, REWOUND, Configuration

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


def round_rows(store: Store, work: Work) -> Iterator[dict[str, object]]:
    """What the store has of each finished round, beside the paper's accuracy; empty where it has nothing.

    Accuracies, sparsity and unforgettable images are in percent, barriers in percentage points.
    """
    for configuration in (*CONFIGURATIONS, *REWOUND):
        runs = work.runs(R18_C10, configuration, 0)
        tickets = work.tickets(R18_C10, configuration, 0)
        barriers = work.between_rounds(R18_C10, configuration, 0)
        for number, run in enumerate(runs):
            if not store.has(run.name):
                break
            trained = store.numbers(run.name)
            learned = _value(store, work.learning(run))
            forgotten = learned.get("forgetting", {})
            first, second = (
                _value(store, work.untrained(R18_C10, tickets[number], recalibrated=recalibrated))
                for recalibrated in (False, True)
            )
            errors = _value(store, barriers[number]).get("errors") if number < len(barriers) else None
            yield {
                "configuration": str(configuration),
                "round": number,
                "sparsity": _rounded(100 * trained["sparsity"]),
                "accuracy": _rounded(trained["accuracy"]),
                "paper_accuracy": _printed(configuration, number),
                "forgetting_events": _rounded(forgotten.get("events_mean"), 3),
                "forgetting_spread": _rounded(forgotten.get("events_std"), 3),
                "unforgettable": _rounded(100 * forgotten["unforgettable"] if forgotten else None),
                "convergence": _rounded(learned.get("convergence"), 4),
                "untrained_accuracy": _rounded(first.get("accuracy")),
                "untrained_accuracy_recalibrated": _rounded(second.get("accuracy")),
                "barrier_to_next": _rounded(max(errors) - (errors[0] + errors[-1]) / 2 if errors else None),
            }


def _value(store: Store, job: Job) -> Mapping[str, Any]:
    return store.numbers(job.name)["value"] if store.has(job.name) else {}


def _rounded(value: float | None, digits: int = 2) -> float | str:
    return "" if value is None else round(value, digits)


def _printed(configuration: Configuration, number: int) -> float | str:
    """The paper's mean accuracy of three runs at a round of Table 11; empty where it prints none."""
    place = Place(
        study="table11",
        metric="val_accuracy",
        network=R18_C10.network,
        dataset=R18_C10.dataset,
        momentum=configuration.momentum,
        batch_size=configuration.batch_size,
        pretrained=configuration.pretrained,
        sparsity=sparsity_after(number),
    )
    cell = printed_cells().get(place)
    return "" if cell is None else cell.mean


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
    write: Path | None = None,
) -> None:
    """Compute whatever is missing.

    configs: momentum/batch size, with "pre" behind it for late rewinding, such as 0.0/256pre.
    until: prunings of each chain. stop_after: seconds after which the leg ends. slots: trainings at once.
    write: the file to write what there is to, as CSV, instead of computing anything.
    """
    work = budget_work()
    if write is not None:
        write_table(write, list(round_rows(Store(store, create=False), work)))
        return
    jobs = [job for each in chosen(configs) for job in chain_jobs(work, each, until)]
    lab = Lab(store, workers=1, settings=Settings(device=device, slots=slots, strict=strict))
    with Bar(Console(), lab.store) as bar:
        outcome = lab.run(jobs, progress=bar, stop_after=stop_after)
    outcome.raise_failures()
    print(f"{len(outcome.computed)} computed, {len(outcome.found)} were there, {len(outcome.left)} left")


if __name__ == "__main__":
    tyro.cli(main)
