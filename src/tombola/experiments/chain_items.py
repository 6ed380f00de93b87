"""One measure of the chains of an experiment: its key, its jobs, and how their results become numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tombola.lab.item import Guess, Results
from tombola.lab.job import Job, runs_behind
from tombola.lab.results import UndefinedResult, numbers_of
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.measures.learning import Learning
from tombola.measures.surfaces import Surface
from tombola.table.key import Key, Over, Scalar
from tombola.table.metrics import FACTORS, LAYER_SPARSITY, LAYERS, RECALIBRATED, metric_name
from tombola.table.number import Curve, Number, Plane


@dataclass(frozen=True)
class ChainItem:
    """One measure of the chains of one recipe at one round.

    key: of all its numbers but for the metric. measure: its declared name; empty for the runs themselves.
    jobs: one a seed; of a measure of two runs one a pair. seeds: of each job.
    epochs: budget of the trainings; 0 for one in iterations, which is an axis of the key.
    between: the runs that it was taken between, such as ``"copies"``; empty for a single one.
    over: what its values are of.
    quantity: the number of it that is wanted, such as ``"height"``; empty for all.
    options: in which it differs from the same measure beside it, as axes such as ``"probe.epochs"``.
    recalibrated: whether it measures batch-norm statistics anew; an axis where the metric does not say so.
    """

    key: Key
    measure: str
    jobs: tuple[Job, ...]
    seeds: tuple[int, ...]
    epochs: int
    between: str = ""
    over: Over = "seeds"
    quantity: str = ""
    options: tuple[tuple[str, Scalar], ...] = ()
    recalibrated: bool = False

    def numbers(self, results: Results) -> list[Number]:
        """Every number of its measure, for each run or pair in turn; a gap for what is not computed yet."""
        finished = {job.name: result for job in self.jobs if (result := results.of(job)) is not None}
        values = {name: self._values(result) for name, result in finished.items()}
        keys = list(dict.fromkeys(key for by_key in values.values() for key in by_key))
        return [
            self._number_at(key, place, results, finished.get(job.name), values.get(job.name))
            for key in keys or [self._key(self.quantity)]
            for place, job in enumerate(self.jobs)
        ]

    def _values(self, result: Any) -> dict[Key, float]:
        """The wanted numbers of a result by key; of a run its accuracy, of an undefined measure none."""
        if isinstance(result, UndefinedResult):
            return {}
        if not self.measure:
            return {self._key(""): result["accuracy"]}
        wanted = re.compile(rf"{re.escape(self.quantity)}(?![^.\[])" if self.quantity else "")
        chosen = {self._key(name): value for name, value in numbers_of(result).items() if wanted.match(name)}
        return {key: value * FACTORS.get(key.metric, 1) for key, value in chosen.items()}

    def _key(self, quantity: str) -> Key:
        if not self.measure:
            return replace(self.key, metric="val_accuracy")
        metric = metric_name(self.measure, quantity, self.between, recalibrated=self.recalibrated)
        more = (*self.key.more, *self.options)
        if self.recalibrated and not metric.startswith(RECALIBRATED):
            more = (*more, (f"{self.measure}.recalibrate", True))
        if self.measure == LAYER_SPARSITY and quantity:
            more = (*more, (LAYERS, quantity))
        return replace(self.key, metric=metric, over=self.over, more=more)

    def _number_at(
        self,
        key: Key,
        place: int,
        results: Results,
        result: Any,
        values: Mapping[Key, float] | None,
    ) -> Number:
        job = self.jobs[place]
        number = Number(
            key=key, value=None, state="missing", epochs=self.epochs, seed=self.seeds[place],
            pair=self._pair(place), jobs=(job.name,),
        )  # fmt: skip
        if values is None:
            return number
        failure = result.failures() if isinstance(result, Barrier | Instability) else ""
        if isinstance(result, UndefinedResult):
            failure = result.why
        failed = any(results.of(run)["failed"] for run in runs_behind(job) if results.has(run))
        number = replace(number, failed=failed or bool(failure), note=failure)
        if key not in values:
            return replace(number, state="undefined")
        if not math.isfinite(values[key]):
            return replace(number, state="undefined", note=failure or "not a finite number")
        curve = _course(result, key.metric) if self.measure else results.curve(job)
        return replace(
            number, state="measured", value=values[key], curve=curve, plane=_plane(result, key.metric)
        )

    def _pair(self, place: int) -> int | None:
        """Which pair of the copies of one seed a job is of."""
        if self.over != "pairs":
            return None
        return place - self.seeds.index(self.seeds[place])

    def wanted(self, results: Results) -> list[Job]:
        """Those of its jobs that are not finished."""
        return [job for job in self.jobs if not results.has(job)]

    def planned(self, results: Results | None, guess: Guess) -> tuple[Job, ...]:
        """All of its jobs; nothing is guessed."""
        return self.jobs

    def done(self, results: Results) -> list[Job]:
        """Those of its jobs that are finished."""
        return [job for job in self.jobs if results.has(job)]

    def searches(self, results: Results | None) -> tuple[int, int]:
        """None: it asks once."""
        return 0, 0


def plane_of(surface: Surface) -> Plane:
    """A surface over a plane of weights as the tables' views have it."""
    errors, losses = (
        tuple(tuple(map(float, row)) for row in values) for values in (surface.errors, surface.losses)
    )
    return Plane(surface.horizontal, surface.vertical, errors, losses, surface.runs, surface.path)


def _plane(result: Any, metric: str) -> Plane | None:
    """The plane of weights whose lowest error a number is."""
    if not isinstance(result, Surface) or not metric.endswith(".lowest") or len(result.vertical) == 1:
        return None
    return plane_of(result)


def _course(result: Any, metric: str) -> Curve | None:
    """The course that a number sums up: the error along a line, or forgetting events by epoch."""
    if isinstance(result, Barrier):
        return Curve(result.alphas, result.errors)
    if isinstance(result, Instability):
        return Curve(result.alphas, result.errors)
    if isinstance(result, Learning) and metric == "forgetting_events":
        events = tuple(count / result.images for count in result.curve.events)
        return Curve(tuple(map(float, result.curve.epochs)), events)
    return None
