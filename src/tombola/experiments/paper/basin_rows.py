"""Rows on where dense trainings end: how narrow the basin is (6.1), how many margins are small (4.1).

The paper measures neither. It supposes the first, and takes the second from Jelassi & Li (2022).
"""

from __future__ import annotations

from collections.abc import Iterator

from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import sharpness_of, small_margins, trace_of
from tombola.experiments.paper.rows import Listing, key_after, numbers
from tombola.experiments.paper.settings import CONFIGURATIONS, Pair
from tombola.lab.item import Measured


def dense_basins(*pairs: Pair) -> Listing:
    """Trace of the Hessian and adaptive sharpness of dense networks without late rewinding."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                runs = [work.runs(pair, configuration, number)[0] for number in numbers(work)]
                traces, steps = zip(*(work.flatness(pair, run) for run in runs), strict=True)
                yield work.measured(key_after("hessian_trace", pair, configuration, 0), traces, trace_of)
                yield work.measured(
                    key_after("adaptive_sharpness", pair, configuration, 0), steps, sharpness_of
                )

    return listed


def dense_margins(*pairs: Pair) -> Listing:
    """Test images of small margin in dense networks without late rewinding."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for pair in pairs:
            for configuration in work.scale.chosen(CONFIGURATIONS):
                runs = [work.runs(pair, configuration, number)[0] for number in numbers(work)]
                jobs = tuple(work.margins(pair, run) for run in runs)
                yield work.measured(
                    key_after("small_margin_percent", pair, configuration, 0), jobs, small_margins
                )

    return listed
