"""Readers: what the result of a job says of a key of the paper, as values, failures and curves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tombola.lab.item import Read, Reading
from tombola.measures.axial import AxialProjection
from tombola.measures.connectivity import Barrier
from tombola.measures.curvature import HessianTrace
from tombola.measures.early_bird import EarlyBird
from tombola.measures.gradient_noise import GradientNoise
from tombola.measures.instability import Instability
from tombola.measures.learning import SUMMED_RUNS, Learning, SummedForgetting
from tombola.measures.margins import Margins
from tombola.measures.sharpness import SamSharpness
from tombola.table.number import Curve, Together

_REACHED = 0.9
"""Share of the largest error on a line from which its level counts as reached (ours)."""
_LATE = 0.75
"""Share of the epochs after which forgetting counts as late (ours)."""


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


def trace_of(curvature: HessianTrace) -> Reading:
    """Trace of the Hessian."""
    return Reading((curvature.trace,))


def sharpness_of(step: SamSharpness) -> Reading:
    """Rise of the loss by one step, in nats."""
    return Reading((step.sharpness,))


def noise_scale(noise: GradientNoise) -> Reading:
    """The gradient noise scale in images; left out where the gradient has vanished."""
    if not math.isfinite(noise.scale):
        return Reading((), note="the gradient has vanished")
    return Reading((noise.scale,))


def mask_distance(settled: EarlyBird) -> Reading:
    """The distance of the masks of two epochs, relative to chance; left out where there is a single one."""
    if not settled.distances:
        return Reading((), note="a single mask has no distance")
    return Reading((settled.latest,))


def small_margins(margins: Margins) -> Reading:
    """Percent of the images that are wrong, or right by a small margin only."""
    return Reading((100 * (margins.wrong + margins.small),))


def late_forgetting(run: Learning) -> Reading:
    """Mean number of forgetting events an image and epoch over the last quarter of the epochs."""
    last = run.curve.events[int(_LATE * len(run.curve.events)) :]
    by_epoch = tuple(events / run.images for events in run.curve.events)
    curve = Curve(tuple(run.curve.epochs), by_epoch)
    return Reading((sum(last) / len(last) / run.images,), run.failed, curves=(curve,))


def barrier_heights(instability: Instability) -> Reading:
    """The barrier of each pair of copies, in percentage points."""
    return _of_pairs(instability, instability.heights)


def recalibrated_heights(instability: Instability) -> Reading:
    """The same in the second reading that lines carry beside."""
    assert instability.recalibrated is not None
    return barrier_heights(instability.recalibrated)


def highest_errors(instability: Instability) -> Reading:
    """The largest error on the line of each pair, in percent."""
    return _of_pairs(instability, tuple(max(line.errors) for line in instability.lines))


def levels_reached(instability: Instability) -> Reading:
    """The smallest position on the line of each pair with at least 90% of its largest error."""
    return _of_pairs(instability, tuple(map(_level_reached, instability.lines)))


def one_barrier(barrier: Barrier) -> Reading:
    """A single barrier, in percentage points."""
    return Reading((barrier.height,), curves=(_course(barrier),), failures=(barrier.failures(),))


def line_excess(barrier: Barrier) -> Reading:
    """The largest error above the line between the end errors, in percentage points."""
    return replace(one_barrier(barrier), values=(barrier.excess,))


def projection_error(projection: AxialProjection) -> Reading:
    """Error of a projection with batch norm measured anew, in percent."""
    return Reading((projection.recalibrated_error,))


def projected_excess(projection: AxialProjection) -> Reading:
    """The largest error above the line from a projection to the later run, likewise, in points."""
    line = projection.into_second.recalibrated
    assert line is not None
    return line_excess(line)


def _of_pairs(instability: Instability, values: tuple[float, ...]) -> Reading:
    """One value a pair, with the error along the line of each; none where its barrier is undefined."""
    lines = instability.lines
    note = f"one value a pair of {len(instability.noises)} noise copies"
    defined = [math.isfinite(line.height) for line in lines]
    values = tuple(value if sound else math.nan for value, sound in zip(values, defined, strict=True))
    # Which of the copies failed was not always recorded.
    failed = instability.failed > 0 and any(line.ends is None for line in lines)
    failures = instability.failures_of_pairs()
    return Reading(values, failed, note, curves=tuple(map(_course, lines)), failures=failures)


def _course(line: Barrier) -> Curve:
    """Test error in percent along a line between two runs."""
    return Curve(line.alphas, line.errors)


def _level_reached(line: Barrier) -> float:
    level = _REACHED * max(line.errors)
    return next(alpha for alpha, error in zip(line.alphas, line.errors, strict=True) if error >= level)
