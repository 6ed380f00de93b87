"""The exhibits that every experiment of chains has: each metric against sparsity, as figure and table."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.experiments.bound import Bound
from tombola.table.metrics import metric_of
from tombola.table.number import Entry
from tombola.views.exhibit import Exhibit
from tombola.views.panels import over_sparsity
from tombola.views.picture import Picture


def exhibits_of(experiment: Bound, entries: Sequence[Entry]) -> list[Exhibit]:
    """An exhibit for each metric, in the order in which they come."""
    by_metric: dict[str, list[Entry]] = {}
    for entry in entries:
        by_metric.setdefault(entry.key.metric, []).append(entry)
    return [_exhibit(experiment, metric, part) for metric, part in by_metric.items()]


def _exhibit(experiment: Bound, metric: str, entries: Sequence[Entry]) -> Exhibit:
    shown = metric_of(metric)
    name = f"{experiment.name}-{metric}"
    picture = None
    if any(entry.key.sparsity for entry in entries):
        panels = over_sparsity(shown.axis or shown.label)(entries)
        picture = Picture(name, shown.label, shown.label, panels, experiment.budget, experiment.warning)
    return Exhibit(name=name, heading=shown.label, entries=tuple(entries), picture=picture)
