"""Numbers out of finished jobs, each read once, without tensors; what is not there is None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tombola.lab.evaluate import load_result
from tombola.lab.job import Job, result_type
from tombola.lab.store import NUMBERS, Store
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.measures.learning import SUMMED_RUNS, Learning, SummedForgetting
from tombola.studies.cells import Together
from tombola.training.run import Run

_REACHED = 0.9
"""Share of the largest error on a line from which its level counts as reached (ours)."""
_LATE = 0.75
"""Share of the epochs after which forgetting counts as late (ours)."""


class Results:
    """What a store has of jobs: the numbers of a run, or the whole result of a measure."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Any] = {}

    def of(self, job: Job) -> Any:
        """The result of a measure, of a run its summary, or None if it is not there.

        Raises :class:`~tombola.errors.StoreError` if it is damaged.
        """
        if job.name not in self._known:
            if not self._store.has(job.name):
                return None
            if result_type(job.declaration) is Run:
                self._store.check(job.name, NUMBERS)
                self._known[job.name] = self._store.numbers(job.name)
            else:
                self._known[job.name] = load_result(self._store, job.name)
        return self._known[job.name]


@dataclass(frozen=True)
class Reading:
    """What one finished job says of a cell.

    values: one, or for an instability one of each pair of copies; none where it is undefined.
    failed: whether a run stayed at chance or diverged. note: what else is to be said.
    together: of a number that several runs have together.
    """

    values: tuple[float, ...]
    failed: bool = False
    note: str = ""
    together: Together | None = None


Read = Callable[[Any], Reading]
"""From the result of a job to what it says of a cell."""


def run_accuracy(run: dict[str, Any]) -> Reading:
    """Test accuracy of a run after its last epoch, in percent."""
    return Reading((run["accuracy"],), run["failed"])


def measured_accuracy(measure: Any) -> Reading:
    """Accuracy of a transferred head or of an untrained ticket, in percent."""
    return Reading((measure.accuracy,))


def block_accuracy(place: int) -> Read:
    """Accuracy of the probe at one place, counted from 0, in percent."""
    return lambda probes: Reading((probes.accuracy[place],))


def forgetting_events(run: Learning) -> Reading:
    """Mean number of forgetting events an image over the whole training."""
    return Reading((run.forgetting.events_mean,), run.failed)


def forgetting_spread(run: Learning) -> Reading:
    """Standard deviation of that number over the images."""
    return Reading((run.forgetting.events_std,), run.failed)


def summed_events(forgetting: SummedForgetting) -> Reading:
    """Forgetting events an image summed over three runs and halved, with the spread over images."""
    together = Together(SUMMED_RUNS, forgetting.events_std)
    return Reading((forgetting.events_mean,), forgetting.failed, together=together)


def unforgettable(run: Learning) -> Reading:
    """Percent of the training images that were learned and never forgotten."""
    return Reading((100 * run.forgetting.unforgettable,), run.failed)


def convergence_of(run: Learning) -> Reading:
    """Convergence (Eq. 4); left out where it is undefined."""
    if run.convergence is None:
        return Reading((), run.failed, "a run that learned nothing is left out")
    return Reading((run.convergence,), run.failed)


def late_forgetting(run: Learning) -> Reading:
    """Mean number of forgetting events an image and epoch over the last quarter of the epochs."""
    last = run.curve.events[int(_LATE * len(run.curve.events)) :]
    return Reading((sum(last) / len(last) / run.images,), run.failed)


def barrier_heights(found: Instability) -> Reading:
    """The barrier of each pair of copies, in percentage points."""
    return _of_pairs(found, found.heights)


def recalibrated_heights(found: Instability) -> Reading:
    """The same in the second reading that lines carry beside."""
    assert found.recalibrated is not None
    return barrier_heights(found.recalibrated)


def highest_errors(found: Instability) -> Reading:
    """The largest error on the line of each pair, in percent."""
    return _of_pairs(found, tuple(max(line.errors) for line in found.lines))


def levels_reached(found: Instability) -> Reading:
    """The smallest position on the line of each pair with at least 90% of its largest error."""
    return _of_pairs(found, tuple(map(_level_reached, found.lines)))


def one_barrier(found: Barrier) -> Reading:
    """A single barrier, in percentage points."""
    return Reading((found.height,))


def _of_pairs(found: Instability, values: tuple[float, ...]) -> Reading:
    return Reading(values, found.failed > 0, f"one value a pair of {len(found.noises)} noise copies")


def _level_reached(line: Barrier) -> float:
    level = _REACHED * max(line.errors)
    return next(alpha for alpha, error in zip(line.alphas, line.errors, strict=True) if error >= level)
