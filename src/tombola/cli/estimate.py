"""The estimate that a command tells before its first epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tombola.cli.collector import nothing_collected
from tombola.cli.console import InertConsole, say
from tombola.cli.plan import costing_on
from tombola.errors import TombolaError

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.experiments.estimate import RunEstimate
    from tombola.lab.lab import Lab


def say_estimate(console: InertConsole, lab: Lab, experiments: Sequence[Bound]) -> RunEstimate | None:
    """Print what is missing of some experiments and what it will cost, and return it for the first steps.

    None where it cannot be told, as for data that cannot be loaded: the run itself says why.
    """
    from tombola.experiments.estimate import RunEstimate

    workers, slots = (None, None) if lab.scheduler is not None else (lab.workers, lab.settings.slots)
    try:
        with nothing_collected():
            costing = costing_on(lab.device, experiments, lab.store, workers, slots)
            at_once = None if lab.scheduler is not None else costing["slots"] if lab.workers else 1
            estimate = RunEstimate(experiments, lab.store, speed=costing["speed"], slots=at_once)
    except TombolaError:
        return None
    if (line := estimate.line()) is not None:
        say(console, line)
    return estimate
