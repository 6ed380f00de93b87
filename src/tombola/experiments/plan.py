"""Plans: what experiments would cost, before anything is run.

A job that several experiments need counts once in the shared total, and in the total of each alone. Searches,
whose jobs follow from results, are planned as if they found what the paper prints, with the cheapest and the
dearest outcome beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tombola.counts import bytes_text
from tombola.experiments.bound import Bound
from tombola.lab.costs import Costs
from tombola.lab.item import Guess, Item, Results, jobs_of
from tombola.lab.job import Job, all_needed
from tombola.lab.store import Store
from tombola.table.number import many

Speed = Callable[[str, int], float | None] | Mapping[tuple[str, int], float]
"""Training images a second of a network at a batch size, on one slot; None or no entry where not measured."""


@dataclass(frozen=True)
class KindPlan:
    """The jobs of one kind: how many, how many of them finished, and the epochs of all."""

    kind: str
    jobs: int
    finished: int
    epochs: float


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment by itself: all jobs behind it, how many of them are finished, and their epochs.

    epochs_left: of those that are not finished.
    """

    name: str
    jobs: int
    finished: int
    epochs: float
    epochs_left: float


@dataclass(frozen=True)
class Plan:
    """What experiments cost together.

    scale: of the paper's studies, in words; empty for experiments of the user's own, which have none.
    experiments: each by itself. kinds: the jobs behind all of them.
    epochs: of training, each job once; epochs_left: of jobs that are not finished.
    cheapest, dearest: the same total for the extreme outcomes of searches.
    heads: linear heads trained on frozen bodies. disk: bytes of all results, about.
    longest: epochs of the longest chain of jobs, which no number of slots shortens.
    hours: of what is left, by the speeds given; None without a single one that is needed.
    unmeasured: networks and batch sizes that no speed was given for, whose work is missing in the hours.
    unsized: networks whose weights are missing in the disk.
    """

    scale: str
    experiments: tuple[ExperimentPlan, ...]
    kinds: tuple[KindPlan, ...]
    epochs: float
    epochs_left: float
    cheapest: float
    dearest: float
    heads: int
    disk: float
    longest: float
    hours: float | None
    unmeasured: tuple[tuple[str, int], ...]
    unsized: tuple[str, ...] = ()

    @property
    def jobs(self) -> int:
        """Number of jobs, each once."""
        return sum(kind.jobs for kind in self.kinds)

    @property
    def finished(self) -> int:
        """How many of them are in the store."""
        return sum(kind.finished for kind in self.kinds)

    @property
    def epochs_alone(self) -> float:
        """Epochs if every experiment were done by itself and nothing were shared."""
        return sum(experiment.epochs for experiment in self.experiments)

    @property
    def total(self) -> str:
        """The totals, in one line."""
        return f"total: {_epochs(self.epochs)} shared, {_epochs(self.epochs_alone)} alone"

    def to_json(self) -> dict[str, Any]:
        """The plan as an object."""
        unmeasured = [{"network": network, "batch_size": size} for network, size in self.unmeasured]
        return {
            **asdict(self), "unmeasured": unmeasured, "jobs": self.jobs, "finished": self.finished,
            "epochs_alone": self.epochs_alone,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The plan as text, its totals last."""
        lines = [self._heading, *self._table()]
        lines.append(f"{_counted(self.jobs, 'job')}, {self.finished:,} of them in the store")
        without = f", without the weights of {', '.join(self.unsized)}" if self.unsized else ""
        heads = f"{_counted(self.heads, 'linear head')}, " if self.heads else ""
        lines.append(f"{heads}{bytes_text(self.disk)} on disk, about{without}")
        lines.append(f"longest chain: {_counted(self.longest, 'epoch')} one after the other")
        if self.cheapest < self.dearest:
            lines.append(
                f"searches adapt: between {self.cheapest:,.0f} and {self.dearest:,.0f} epochs shared, "
                "planned as if they found what the paper prints"
            )
        lines.append(f"left to do: {_counted(self.epochs_left, 'epoch')}{_time(self.hours)}")
        if self.unmeasured and self.hours is not None:
            pairs = ", ".join(f"{network} at {size}" for network, size in self.unmeasured)
            lines.append(f"not in the hours, for want of a measured speed: {pairs}")
        return [*lines, self.total]

    @property
    def _heading(self) -> str:
        count = len(self.experiments)
        if not self.scale:
            return f"{many(count, 'experiment')} of your own"
        return f"{count} stud{'ies' if count != 1 else 'y'}, {self.scale}"

    def _table(self) -> list[str]:
        alone = f"{'study' if self.scale else 'experiment'} alone"
        rows: list[ExperimentPlan | KindPlan] = [*self.experiments, *self.kinds]
        names = [row.name if isinstance(row, ExperimentPlan) else row.kind for row in rows]
        wide = max(map(len, [*names, alone]))
        lines = []
        for heading, part in ((alone, self.experiments), ("kind of job", self.kinds)):
            lines.append(f"{heading:<{wide}}  {'jobs':>7} {'in store':>9} {'epochs':>10}")
            for row in part:
                name = row.name if isinstance(row, ExperimentPlan) else row.kind
                lines.append(f"{name:<{wide}}  {row.jobs:>7,} {row.finished:>9,} {row.epochs:>10,.0f}")
        return lines


def plan(
    experiments: Sequence[Bound],
    *,
    scale: str = "",
    store: Store | None = None,
    speed: Speed | None = None,
    slots: int = 1,
) -> Plan:
    """What some experiments cost.

    scale: of studies of the paper, in words. store: where finished jobs are looked up. speed: of training on
        this device. slots: jobs at a time; the hours are never below those of the longest chain.
    """
    costs = Costs()
    results = None if store is None else Results(store)
    behind = {
        experiment.name: all_needed(_planned(experiment.items, results, "printed"))
        for experiment in experiments
    }
    # As in each of them, every job comes after those that it needs.
    everything = {name: job for needed in behind.values() for name, job in needed.items()}
    counted = {name for name, job in everything.items() if job.counted}  # tickets between trainings left out
    finished = {name for name in counted if store is not None and store.has(name)}
    stated = {name: costs.of(job) for name, job in everything.items()}
    epochs = {name: cost.epochs for name, cost in stated.items()}
    alone = tuple(
        ExperimentPlan(
            name, len(counted & needed.keys()), len(finished & needed.keys()),
            math.fsum(map(epochs.__getitem__, needed)),
            math.fsum(epochs[job] for job in needed if job not in finished),
        )
        for name, needed in behind.items()
    )  # fmt: skip
    cheapest, dearest = sorted(_extremes(experiments, behind, results, costs))
    left = {name: job for name, job in everything.items() if name not in finished}
    hours, unmeasured = hours_left(left, costs, speed, slots)
    return Plan(
        scale=scale,
        experiments=alone,
        kinds=_kinds(everything, finished, epochs),
        epochs=math.fsum(epochs.values()),
        epochs_left=math.fsum(map(epochs.__getitem__, left)),
        cheapest=cheapest,
        dearest=dearest,
        heads=sum(cost.heads for cost in stated.values()),
        disk=sum(cost.disk for cost in stated.values()),
        longest=_longest(everything, lambda job: epochs[job.name]),
        hours=hours,
        unmeasured=unmeasured,
        unsized=tuple(sorted(costs.unsized)),
    )


def _counted(count: float, what: str) -> str:
    """A count, with commas between thousands, and its word."""
    text = f"{count:,.0f}"
    return f"{text} {what}{'s' * (text != '1')}"


def _epochs(count: float) -> str:
    """A number of epochs as the totals have it."""
    text = f"{count:.0f}"
    return f"{text} epoch{'s' * (text != '1')}"


def _planned(items: Iterable[Item], results: Results | None, guess: Guess) -> list[Job]:
    """The jobs that some items will have asked for if searches find what is guessed."""
    return [job for item in items for job in item.planned(results, guess)]


def _extremes(
    experiments: Sequence[Bound],
    behind: Mapping[str, Mapping[str, Job]],
    results: Results | None,
    costs: Costs,
) -> list[float]:
    """The epochs of all jobs with the cheapest and the dearest outcome of searches that is still possible.

    behind: by experiment, its jobs as they are planned.
    """
    fixed: dict[str, Job] = {}
    searches: list[Item] = []
    for experiment in experiments:
        own = [item for item in experiment.items if item.searches(None)[1]]
        searches += own
        fixed |= all_needed(jobs_of(experiment.items)) if own else behind[experiment.name]
    epochs = [costs.of(job).epochs for job in fixed.values()]

    def total(guess: Guess) -> float:
        searched = all_needed(_planned(searches, results, guess))
        return math.fsum(
            [*epochs, *(costs.of(searched[name]).epochs for name in searched.keys() - fixed.keys())]
        )

    return [total("cheapest"), total("dearest")] if searches else [math.fsum(epochs)] * 2


def _kinds(
    everything: Mapping[str, Job], finished: set[str], epochs: Mapping[str, float]
) -> tuple[KindPlan, ...]:
    """The counted jobs by kind, the commonest first; ``epochs`` of each job."""
    kinds: dict[str, list[str]] = {}
    for name, job in everything.items():
        if job.counted:
            kinds.setdefault(job.declaration.name, []).append(name)
    plans = (
        KindPlan(kind, len(jobs), len(finished.intersection(jobs)), sum(map(epochs.__getitem__, jobs)))
        for kind, jobs in kinds.items()
    )
    return tuple(sorted(plans, key=lambda plan: -plan.jobs))


def _longest(jobs: Mapping[str, Job], length: Callable[[Job], float]) -> float:
    """The greatest sum over a chain of jobs that need each other; every job comes after what it needs."""
    reached: dict[str, float] = {}
    for name, job in jobs.items():
        reached[name] = length(job) + max((reached.get(need.name, 0.0) for need in job.needs), default=0.0)
    return max(reached.values(), default=0.0)


def hours_left(
    left: Mapping[str, Job], costs: Costs, speed: Speed | None, slots: int
) -> tuple[float | None, tuple[tuple[str, int], ...]]:
    """Hours of unfinished jobs, and the speeds that were missing.

    left: in an order in which every job comes after those that it needs. slots: jobs at a time.
    """
    if speed is None:
        return None, ()
    measured = speed.get if isinstance(speed, Mapping) else lambda key: speed(*key)
    speeds = {cost.speed: measured(cost.speed) for cost in map(costs.of, left.values()) if cost.images}
    unmeasured = tuple(sorted(key for key, rate in speeds.items() if not rate))
    if speeds and len(unmeasured) == len(speeds):
        return None, unmeasured

    def seconds(job: Job) -> float:
        cost = costs.of(job)
        rate = speeds.get(cost.speed)
        return cost.images / rate if rate else 0.0

    in_turn = sum(map(seconds, left.values())) / slots
    return max(in_turn, _longest(left, seconds)) / 3600, unmeasured


def _time(hours: float | None) -> str:
    if hours is None:
        return ""
    return f", about {hours:,.1f} hours" if hours >= 1 else f", about {60 * hours:.0f} minutes"
