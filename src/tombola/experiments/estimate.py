"""What a command is about to cost, told before its first epoch: epochs, time and disk of what is missing.

The time comes from the speeds that ``tombola bench`` measured on this device. Where it measured none of these
trainings, it comes from their first steps, or from those that are over before a step was told.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tombola.counts import bytes_text
from tombola.errors import StoreError
from tombola.experiments.bound import Bound
from tombola.experiments.plan import Speed, hours_left
from tombola.lab.costs import Costs
from tombola.lab.item import Results
from tombola.lab.job import all_needed
from tombola.lab.store import Store
from tombola.lab.training_progress import TrainingProgress
from tombola.untrusted import OTHER_FORM

# Seconds after the first pace is known: others begin, and a GPU is told of many steps before it takes them.
_STEADY = 4.0

SpeedKey = tuple[str, int]
"""A network and a batch size."""


class RunEstimate:
    """The cost of what is missing of some experiments when they are begun.

    speed: as for :func:`~tombola.experiments.plan.plan`. slots: jobs at a time; None where nobody knows, as
        on a cluster: then as many as are seen to train.

    Raises :class:`~tombola.errors.DataError` for data that cannot be loaded.
    """

    def __init__(
        self,
        experiments: Sequence[Bound],
        store: Store,
        *,
        speed: Speed | None = None,
        slots: int | None = None,
    ) -> None:
        self._store, self._slots, self._costs = store, slots, Costs()
        results = Results(store)
        wanted = [
            job for one in experiments for item in one.items for job in item.planned(results, "printed")
        ]
        self._left = {name: job for name, job in all_needed(wanted).items() if not store.has(name)}
        costs = [self._costs.of(job) for job in self._left.values()]
        self.epochs = math.fsum(cost.epochs for cost in costs)
        self.disk = math.fsum(cost.disk for cost in costs)
        hours, unmeasured = hours_left(self._left, self._costs, speed, slots or 1)
        self.hours = None if slots is None or unmeasured else hours
        self._first_seen: float | None = None
        self._said = self.hours is not None or not self.epochs

    def line(self) -> str | None:
        """The estimate in one line; None if nothing is missing."""
        if not self._left:
            return None
        free = shutil.disk_usage(self._store.root).free
        disk = f"{bytes_text(self.disk)} on disk ({bytes_text(free)} free)"
        if self.disk > free:
            disk += ", which does not fit"
        count = round(self.epochs)
        epochs = f"estimate: {count:,} epoch{'s' * (count != 1)}"
        if self.hours is not None:
            return f"{epochs}, {duration_text(self.hours)} by the speeds of tombola bench, {disk}"
        later = "" if self._said else "; the time follows from the first steps"
        return f"{epochs}, {disk}{later}"

    def from_first_steps(self, trainings: Mapping[str, TrainingProgress]) -> str | None:
        """The time by the pace of the trainings in progress, once; None before, and where it was said.

        trainings: by the names of their jobs.
        """
        if self._said:
            return None
        speeds = self._speeds(trainings)
        if not speeds:
            return None
        self._first_seen = self._first_seen or time.monotonic()
        if time.monotonic() - self._first_seen < _STEADY:
            return None
        self._said = True
        hours, missing = hours_left(self._left, self._costs, speeds, self._slots or max(1, len(trainings)))
        assert hours is not None  # one of the speeds is needed
        kinds = ", ".join(f"{network} at {batch_size}" for network, batch_size in missing)
        without = f", without {kinds}, of which no step is taken yet" if missing else ""
        return f"estimate from the first steps: {duration_text(hours)} for all of it{without}"

    def _speeds(self, trainings: Mapping[str, TrainingProgress]) -> dict[SpeedKey, float]:
        """Training images a second, of each kind of training of which steps are taken."""
        speeds: dict[SpeedKey, float] = {}
        for name, training in trainings.items():
            if name in self._left and training.images > 0:
                speeds[self._costs.of(self._left[name]).speed] = training.images
        if speeds:
            return speeds
        for name, job in self._left.items():
            cost = self._costs.of(job)
            if cost.epochs and cost.speed not in speeds and self._store.has(name):
                with suppress(StoreError, *OTHER_FORM):
                    seconds = float(self._store.provenance(name)["seconds"])
                    if seconds > 0:
                        speeds[cost.speed] = cost.images / seconds
        return speeds


def duration_text(hours: float) -> str:
    """A time in words: "about 40 seconds", "about 12 minutes", "about 3.2 hours" or "about 4.5 days"."""
    for unit, length, digits in (("day", 24.0, 1), ("hour", 1.0, 1), ("minute", 1 / 60, 0)):
        if hours >= 2 * length or (unit == "hour" and hours >= length):
            return f"about {hours / length:,.{digits}f} {unit}s"
    return f"about {max(1, round(3600 * hours))} second{'s' * (round(3600 * hours) > 1)}"
