"""Rows on predictors of winning (6.2), and the control for the noise of the recipe as one of them.

The paper asks for a cheap sign that a configuration's tickets will win, and ties winning to the noise of SGD.
If lr / (batch (1 - momentum)) were all of that noise, configurations that share it would gain alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from tombola.experiments.bound import Bound
from tombola.experiments.paper.first_stable_rows import first_stable_searches
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.readers import (
    mask_distance,
    noise_scale,
    one_barrier,
    run_accuracy,
    sharpness_of,
)
from tombola.experiments.paper.rows import Listing, columns, key_after, numbers
from tombola.experiments.paper.settings import EIGHT, EQUAL_NOISE, Configuration, Pair
from tombola.lab.item import Item, Measured, Read
from tombola.table.number import Entry
from tombola.views.exhibit import Exhibit
from tombola.views.picture import Panel
from tombola.views.predictors import forecasts, predictor_exhibits, predictor_panels

_EARLY: tuple[tuple[str, Read], ...] = (
    ("gradient_noise_scale", noise_scale), ("early_sharpness", sharpness_of),
    ("mask_distance", mask_distance),
)  # fmt: skip


def early_measures(pair: Pair) -> Callable[[PaperJobs], Iterable[Item]]:
    """Measures of the first epochs of dense training, and the accuracies of the tickets of all eight.

    Also the barrier from the dense network to the first round, and the first stable epoch (Table 15).
    """

    def listed(work: PaperJobs) -> Iterator[Item]:
        for configuration in work.scale.chosen(EIGHT):
            yield from _accuracies(work, pair, configuration)
            for (metric, read), jobs in zip(
                _EARLY,
                zip(*(work.early(pair, configuration, number) for number in numbers(work)), strict=True),
                strict=True,
            ):
                yield work.measured(key_after(metric, pair, configuration, 0), jobs, read)
            first = work.between_rounds(pair, configuration)[0]
            yield work.measured(key_after("barrier_to_next", pair, configuration, 0), (first,), one_barrier)
        yield from first_stable_searches(pair)(work)

    return listed


def equal_noise(pair: Pair) -> Listing:
    """Accuracies of dense networks and tickets of configurations that share lr / (batch (1 - momentum))."""

    def listed(work: PaperJobs) -> Iterator[Measured]:
        for family in EQUAL_NOISE:
            for configuration in work.scale.chosen(family):
                yield from _accuracies(work, pair, configuration)

    return listed


def _accuracies(work: PaperJobs, pair: Pair, configuration: Configuration) -> Iterator[Measured]:
    """Accuracy of the dense network and of the tabulated tickets."""
    chains = [work.runs(pair, configuration, number) for number in numbers(work)]
    for n in (0, *columns(work, pair)):
        key = key_after("val_accuracy", pair, configuration, n)
        yield work.measured(key, tuple(chain[n] for chain in chains), run_accuracy)


def predictor_figure(entries: Sequence[Entry]) -> list[Panel]:
    """The gain of tickets against each early measure, a point a configuration."""
    return predictor_panels(forecasts(number for entry in entries for number in entry.numbers))


def with_correlations(experiment: Bound, entries: Sequence[Entry]) -> list[Exhibit]:
    """The table and figure of the study, and the rank correlations as a table of their own."""
    predictions = forecasts(number for entry in entries for number in entry.numbers)
    correlations = predictor_exhibits(f"{experiment.name}-correlations", predictions)[1:]
    return [experiment.exhibit(entries), *correlations]
