"""The exhibits that every experiment of chains has, each a table and a figure.

In order: accuracy against sparsity, barriers between noise copies and between rounds, every other metric,
learning curves, the sparsity of each layer, and the single runs beside their means. Numbers that only repeat
the course of another, such as every error along a line, have no exhibit; they are in the table all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tombola.errors import JobError
from tombola.experiments.bound import Bound
from tombola.pruning.allocation import Scope
from tombola.registry import declaration
from tombola.table.key import KEY_FIELDS
from tombola.table.metrics import LAYERS, METRICS, RECALIBRATED, metric_heading, metric_of, metrics_of
from tombola.table.number import Entry
from tombola.views.chain_panels import (
    POSITION,
    Names,
    bar_panels,
    curve_panels,
    layer_panels,
    plane_panels,
    run_panels,
    sparsity_panels,
    tells_apart,
)
from tombola.views.exhibit import Exhibit, not_drawn
from tombola.views.layout import Layout, fields_of
from tombola.views.picture import Panel, Picture
from tombola.views.predictors import EARLY, forecasts, predictor_exhibits, predictor_panels, sentences

ACCURACY, ERROR, LAYER_SPARSITY = "val_accuracy", "test_error", "layer_sparsity"
_MOST_ROUNDS_AS_BARS = 2
_ERROR_AXIS = metric_of(ERROR).axis
_LEARNING = {"forgetting_events": ("epoch", "forgetting events an image,\nin an epoch")}
"""Axes of the courses by epoch that a metric sums up."""

_ACCURACY_CAPTION = (
    "Mean test accuracy over the seeds; the band is one sample standard deviation. Rounds are evenly spaced, "
    "so equal steps to the right remove equal shares of what is left. Filled markers are winning tickets, "
    "stars single failed runs; a star on the lower edge lies below the scale, at the accuracy beside it, and "
    "a line that leaves the panel is a mean that such a run pulls down."
)
_COPIES_CAPTION = (
    "Two networks of one start, trained with different noise, are joined by a straight line in the space of "
    "weights. A flat course means that both lie in one basin of low error; a hump means that they do not. "
    "Its height, the largest error on the line minus the mean error at its two ends, is the barrier; below "
    "the dashed line training is called stable to SGD noise."
)
_ROUNDS_CAPTION = (
    "The barrier on the straight line from the network trained in a round to that of the next round."
)
_RECALIBRATED_CAPTION = (
    "Batch-norm statistics are measured anew, on the training images without augmentation."
)
_PLANE_CAPTION = (
    "Error and loss over the plane of weights through the runs of the first seed, which are numbered; "
    "distances are Euclidean, batch-norm statistics measured anew at each position."
)
_CURVES_CAPTION = (
    "Test error by epoch, before any step and after each epoch; mean over the seeds, the band is one sample "
    "standard deviation. The table has the error after the last epoch."
)
_LAYERS_CAPTION = (
    "The share of each layer's weights that are pruned after the last round, in the order of the network; "
)
_RANKED = {
    "global": "all layers are ranked together, so it differs between them.",
    "layerwise": "each layer is ranked by itself.",
    "uniform": "every layer keeps the same share, as far as it had it.",
    "erk": "shares are in proportion to the sum over the product of the layer's dimensions.",
}
"""How the weights of layers were compared, by the scope of the prunings."""
_PREDICTORS_CAPTION = (
    "Each point is a configuration: by how much its tickets gain over its dense network, against what is "
    "known of that network early. Filled points win. Above stands the rank correlation with its 95% interval "
    "(a bootstrap over configurations, too narrow for so few) and the share of all orders that are as far "
    "from none."
)
_RUNS_CAPTION = (
    "Each run as a point beside the mean of its configuration, which is the dash; a star is a run that "
    "failed."
)


@dataclass(frozen=True)
class _Shown:
    """The experiment of some exhibits, and what its configurations are called."""

    experiment: Bound
    names: Names

    def exhibit(
        self, part: str, heading: str, entries: Sequence[Entry], panels: Sequence[Panel], caption: str
    ) -> Exhibit:
        """An exhibit; part: what its files are called, after the experiment."""
        name = f"{self.experiment.name}-{re.sub(r'[^A-Za-z0-9._-]+', '-', part)}"
        drawn = [panel for panel in panels if panel.lines or panel.missing or panel.relief]
        picture = None
        if drawn:
            bound = self.experiment
            caption = f"{caption}{not_drawn(entries)}"
            picture = Picture(name, heading, caption, drawn, bound.budget, bound.warning)
        return Exhibit(
            name=name, heading=heading, experiment=self.experiment.name, entries=tuple(entries),
            picture=picture, layout=_layout(entries), names=self.experiment.names,
        )  # fmt: skip


def exhibits_of(experiment: Bound, entries: Sequence[Entry], scope: Scope | None = "global") -> list[Exhibit]:
    """What there is to see of an experiment of chains, as far as it is computed.

    scope: of its prunings, as for :func:`~tombola.prune`; None where tickets are found in several ways.
    """
    shown = _Shown(experiment, Names.of((entry.key for entry in entries), without=(LAYERS,)))
    by_metric: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if not _repeats_a_course(entry):
            by_metric.setdefault((entry.key.metric, entry.key.over), []).append(entry)
    for metric, over in [group for group in by_metric if _is_placeholder(group[0], by_metric)]:
        del by_metric[metric, over]
    accuracies = by_metric.pop((ACCURACY, "seeds"), [])
    layers = by_metric.pop((LAYER_SPARSITY, "seeds"), [])
    # Which layers there are is known once a chain is finished.
    layers = [entry for entry in layers if entry.key.get(LAYERS)] or layers
    exhibits = [_accuracy(shown, accuracies)] if accuracies else []
    # Those between copies come first, then those between rounds; the others stay in their order.
    order = {"pairs": 0, "copies": 0, "rounds": 1, "seeds": 2}
    for (metric, over), part in sorted(by_metric.items(), key=lambda group: order[group[0][1]]):
        exhibits.append(_of_metric(shown, metric, over, part))
    if accuracies:
        exhibits.append(_learning_curves(shown, accuracies))
    if layers:
        panels = layer_panels(layers, shown.names, LAYERS, metric_of(LAYER_SPARSITY).axis)
        ranked = _RANKED[scope] if scope else "tickets that are found in other ways differ in it."
        caption = f"{_LAYERS_CAPTION}{ranked}"
        exhibits.append(shown.exhibit("layers", "Sparsity of each layer", layers, panels, caption))
    exhibits += _predictors(shown, entries)
    if any(len(entry.numbers) > 1 for entry in accuracies):
        ends = first_and_last(accuracies)
        panels = run_panels(ends, shown.names, metric_of(ACCURACY).axis)
        exhibits.append(shown.exhibit("runs", "Single runs: test accuracy", ends, panels, _RUNS_CAPTION))
    return _named_apart(exhibits)


def first_and_last(entries: Sequence[Entry]) -> list[Entry]:
    """Of each configuration the entries of the dense network and of the last round, the dense ones first."""
    sparsities = [entry.key.sparsity or 0.0 for entry in entries]
    ends = dict.fromkeys([min(sparsities), max(sparsities)])
    return [entry for end in ends for entry in entries if (entry.key.sparsity or 0.0) == end]


def _accuracy(shown: _Shown, entries: Sequence[Entry]) -> Exhibit:
    y_label = metric_of(ACCURACY).axis
    if not any(entry.key.sparsity for entry in entries):
        panels, caption = bar_panels(entries, shown.names, y_label), "Mean test accuracy over the seeds."
    else:
        panels, caption = sparsity_panels(entries, shown.names, y_label), _ACCURACY_CAPTION
    return shown.exhibit("accuracy", "Test accuracy", entries, panels, caption)


def _of_metric(shown: _Shown, metric: str, over: str, entries: Sequence[Entry]) -> Exhibit:
    """The exhibit of any metric but the accuracy."""
    axis = metric_of(metric).axis
    is_barrier = metric_of(metric).limit is not None
    rounds = {entry.key.sparsity for entry in entries}
    few = len(rounds) <= _MOST_ROUNDS_AS_BARS
    panels = (bar_panels if few else sparsity_panels)(entries, shown.names, axis)
    of = {"pairs": "pairs of copies", "copies": "copies of each seed"}.get(over, "seeds")
    caption = f"{_sense(metric)}. Mean over the {of}."
    heading = metric_heading(metric).removesuffix(" (points)")
    if over in ("pairs", "copies"):
        if any(number.curve for entry in entries for number in entry.numbers):
            ends = first_and_last(entries)
            panels = [*curve_panels(ends, shown.names, POSITION, _ERROR_AXIS), *panels]
        caption, heading = _COPIES_CAPTION if is_barrier else caption, f"{heading} between noise copies"
    elif over == "rounds":
        caption = _ROUNDS_CAPTION if is_barrier else caption
        heading = f"{heading.removesuffix(' to the next ticket')} between rounds"
    elif metric in _LEARNING and any(number.curve for entry in entries for number in entry.numbers):
        ends = first_and_last(entries)
        panels = [*panels, *curve_panels(ends, shown.names, *_LEARNING[metric])]
    if planes := plane_panels(first_and_last(entries), shown.names):
        panels, caption = planes, f"{caption} {_PLANE_CAPTION}"
    if metric.startswith(RECALIBRATED):
        caption = f"{caption} {_RECALIBRATED_CAPTION}"
    part = metric if over in ("seeds", "pairs") else f"{metric}-{over}"
    return shown.exhibit(part, f"{heading[0].upper()}{heading[1:]}", entries, panels, caption)


def _predictors(shown: _Shown, entries: Sequence[Entry]) -> list[Exhibit]:
    """How early measures rank configurations beside the gains of their tickets, where there are any."""
    if not any(entry.key.get(EARLY) for entry in entries):
        return []
    predictions = forecasts(number for entry in entries for number in entry.numbers)
    exhibits = predictor_exhibits(
        f"{shown.experiment.name}-predictors", predictions, experiment=shown.experiment.name
    )
    if not exhibits:
        return []
    panels = predictor_panels(predictions)
    if not panels:
        return exhibits
    caption = " ".join([_PREDICTORS_CAPTION, *(line for one in predictions for line in sentences(one))])
    picture = Picture(
        exhibits[-1].name, exhibits[-1].heading, caption, panels, shown.experiment.budget,
        shown.experiment.warning,
    )  # fmt: skip
    return [*exhibits[:-1], replace(exhibits[-1], picture=picture)]


def _sense(metric: str) -> str:
    """What a metric is: its label, of one without a place in the table the first sentence of its measure."""
    label = metric_heading(metric)
    name = f"{label[0].upper()}{label[1:]}"
    try:
        described = "" if metric in METRICS else declaration(metric.partition(".")[0]).function.__doc__
    except JobError:
        return name
    sentence = " ".join((described or "").strip().partition("\n\n")[0].split()).removesuffix(".")
    return f"{name}: {sentence}" if sentence and "." in metric else sentence or name


def _learning_curves(shown: _Shown, accuracies: Sequence[Entry]) -> Exhibit:
    ends = first_and_last(accuracies)
    panels = curve_panels(ends, shown.names, "epoch", _ERROR_AXIS, logarithmic=True)
    errors = list(map(_error_of, ends))
    return shown.exhibit("learning-curves", "Learning curves: test error", errors, panels, _CURVES_CAPTION)


def _error_of(entry: Entry) -> Entry:
    """The test error of an entry of the test accuracy."""
    key = replace(entry.key, metric=ERROR)
    numbers = [
        replace(number, key=key, value=None if number.value is None else 100 - number.value)
        for number in entry.numbers
    ]
    cell = entry.cell and replace(
        entry.cell, key=key, mean=100 - entry.cell.mean, winning=False, clearly=None,
        values=tuple(100 - value for value in entry.cell.values),
    )  # fmt: skip
    return Entry(key, tuple(numbers), cell)


def _is_placeholder(metric: str, by_metric: Mapping[tuple[str, str], Sequence[Entry]]) -> bool:
    """Whether these are gaps of a measure some of whose numbers are there, under names of their own."""
    entries = [entry for (name, _), part in by_metric.items() if name == metric for entry in part]
    if any(number.state != "missing" for entry in entries for number in entry.numbers):
        return False
    bare = metric.removeprefix(RECALIBRATED)
    mapped = metrics_of(bare)
    others = {name.removeprefix(RECALIBRATED) for name, _ in by_metric if name != metric}
    return any(name in mapped or name.startswith(f"{bare}.") for name in others)


def _repeats_a_course(entry: Entry) -> bool:
    """Whether a number is one point of a course that stands with it."""
    return entry.key.metric.endswith("]") and any(number.curve is not None for number in entry.numbers)


def _layout(entries: Sequence[Entry]) -> Layout | None:
    """A row for each configuration, a column for each sparsity; of layers a row for each layer, too."""
    keys = [entry.key for entry in entries]
    varying = [
        name
        for name in fields_of(keys)
        if name not in ("metric", "over", "sparsity") and len({key.get(name) for key in keys}) > 1
        if name in KEY_FIELDS or tells_apart(name, keys)
    ]
    if LAYERS in varying:
        varying = [*(name for name in varying if name != LAYERS), LAYERS]
    if not varying:
        varying = ["network", "dataset"]
    sparsities = len({key.sparsity for key in keys}) > 1 or any(key.sparsity for key in keys)
    return Layout(tuple(varying), ("sparsity",) if sparsities else ("metric",))


def _named_apart(exhibits: Sequence[Exhibit]) -> list[Exhibit]:
    """The exhibits with names of their own: two metrics may differ only in characters that no file has."""
    names: set[str] = set()
    apart = []
    for exhibit in exhibits:
        name, count = exhibit.name, 2
        while name in names:
            name, count = f"{exhibit.name}-{count}", count + 1
        names.add(name)
        picture = replace(exhibit.picture, name=name) if exhibit.picture else None
        apart.append(replace(exhibit, name=name, picture=picture))
    return apart
