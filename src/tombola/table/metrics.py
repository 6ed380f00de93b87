"""The metrics by name: what each is called in a heading, its unit and its digits.

A number of an experiment of one's own may have another name, such as ``"untrained.loss"``; it is shown under
that name with four significant digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tombola.measures.limits import STABLE_BELOW

Unit = Literal["%", "points", "epochs", ""]


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    label: in headings, without the unit. unit: percent, percentage points, epochs, or none.
    digits: decimal places; None for four significant digits.
    axis: label of an axis, with the unit. limit: where a horizontal line marks a threshold of the metric.
    """

    label: str
    unit: Unit = ""
    digits: int | None = None
    axis: str = ""
    limit: float | None = None

    def text(self, value: float) -> str:
        """A value with the digits of the metric, without its unit."""
        # Adding 0.0 turns a negative zero that rounding leaves into a positive one.
        rounded = value if self.digits is None else round(value, self.digits) + 0.0
        text = f"{rounded:.4g}" if self.digits is None else f"{rounded:.{self.digits}f}"
        return text.replace("-", "\N{MINUS SIGN}")

    @property
    def suffix(self) -> str:
        """What follows a value: a percent sign, or nothing."""
        return "%" if self.unit == "%" else ""


METRICS: Mapping[str, Metric] = {
    "val_accuracy": Metric("test accuracy", "%", 2, "test accuracy (%)"),
    "test_error": Metric("test error", "%", 2, "test error (%)"),
    "probe_accuracy": Metric("probe accuracy", "%", 2, "probe accuracy (%)"),
    "untrained_accuracy": Metric("untrained accuracy", "%", 2, "test accuracy (%)"),
    # With batch-norm statistics measured on the train images (reading D3).
    "recalibrated_untrained_accuracy": Metric("recalibrated untrained accuracy", "%", 2, "test accuracy (%)"),
    "forgetting_events": Metric("forgetting events a run", "", 2, "forgetting events an image"),
    "forgetting_spread": Metric("their spread over images", "", 2, "spread of forgetting events over images"),
    # The sum over three runs, halved (reading D8).
    "summed_forgetting_events": Metric("forgetting events of three runs, halved", "", 2),
    # An image and epoch, over the last quarter of the epochs.
    "late_forgetting_events": Metric(
        "late forgetting events", "", 4, "forgetting events an\N{NO-BREAK SPACE}image"
    ),
    "unforgettable_percent": Metric("unforgettable", "%", 2, "unforgettable images (%)"),
    "convergence": Metric("convergence", "", 3, "convergence (Eq. 4)"),
    "first_stable_epoch": Metric("first stable epoch", "epochs", 1, "first stable epoch"),
    # Between runs that differ in their noise (Eq. 3).
    "barrier": Metric("barrier (points)", "points", 2, "error barrier (points)", STABLE_BELOW),
    "recalibrated_barrier": Metric(
        "recalibrated barrier (points)", "points", 2, "error barrier (points)", STABLE_BELOW
    ),
    # Between the trained tickets of a round and the next.
    "barrier_to_next": Metric(
        "barrier to the next ticket", "points", 2, "error barrier to the next round (points)", STABLE_BELOW
    ),
    # Between the trained tickets of two rounds, over the line between their errors.
    "excess_to_round": Metric("error over the line (points)", "points", 2, "error over the line (points)"),
    # Of the weights of a round, as far as a later one keeps them, batch norm measured anew.
    "projection_error": Metric("error of the projection", "%", 2, "test error (%)"),
    "projection_excess": Metric(
        "error over the line from the projection (points)", "points", 2, "error over the line (points)"
    ),
    "instability.height": Metric(
        "mean barrier of all pairs", "points", 2, "error barrier (points)", STABLE_BELOW
    ),
    # Over the line between the errors at the two ends, and not over their mean.
    "barrier.excess": Metric("error over the line (points)", "points", 2, "error over the line (points)"),
    "basins.count": Metric("number of basins", "", 0, "number of basins"),
    "axial-projection.recalibrated_error": Metric("error of the projection", "%", 2, "test error (%)"),
    "pruning-robustness.height": Metric(
        "barrier to the training from a moved start", "points", 2, "error barrier (points)"
    ),
    # The largest error on the line between two runs.
    "highest_path_error": Metric("highest path error", "%", 2, "largest test error on the line (%)"),
    # The smallest position on that line (0 to 1) with at least 90% of the largest error.
    "barrier_reached": Metric("barrier reached", "", 2),
    # Of the mean cross-entropy over the train images, batch norm fixed; of trained dense networks.
    "hessian_trace": Metric("trace of the Hessian", axis="trace of the Hessian"),
    "adaptive_sharpness": Metric("adaptive sharpness (nats)", axis="adaptive sharpness (nats)"),
    # After a few epochs of dense training (6.2 asks for a cheap sign of winning).
    "gradient_noise_scale": Metric("gradient noise scale (images)", axis="gradient noise scale (images)"),
    "early_sharpness": Metric("early adaptive sharpness (nats)", axis="early adaptive sharpness (nats)"),
    "mask_distance": Metric("early mask distance", "", 3, "mask distance relative to chance"),
    "gradient-noise.scale": Metric("gradient noise scale (images)", axis="gradient noise scale (images)"),
    "early-bird.latest": Metric("mask distance", "", 3, "mask distance relative to chance"),
    # Wrong, or right by less than half of the probability.
    "small_margin_percent": Metric("small margins", "%", 2, "test images of small margin (%)"),
    # Of predictors of winning (tombola.views.predictors).
    "gain": Metric("gain (points)", "points", 2, "gain (points)"),
    "candidate": Metric("early measure"),
    "configurations": Metric("configurations", "", 0),
    "spearman": Metric("rho", "", 2, "Spearman's rho"),
    "spearman_low": Metric("rho from", "", 2),
    "spearman_high": Metric("rho to", "", 2),
    "spearman_p": Metric("p of rho", "", 3),
    "spearman_critical": Metric("rho at p 0.05", "", 2),
    "kendall": Metric("tau", "", 2, "Kendall's tau-b"),
    "kendall_low": Metric("tau from", "", 2),
    "kendall_high": Metric("tau to", "", 2),
    "kendall_p": Metric("p of tau", "", 3),
    "kendall_critical": Metric("tau at p 0.05", "", 2),
    "layer_sparsity": Metric("sparsity of the layer", "", 3, "share of the layer's weights pruned"),
}
"""In the order in which they head columns, where they stand side by side."""
RECALIBRATED = "recalibrated_"
"""How the name of a metric begins whose batch-norm statistics were measured anew (reading D3)."""


def metric_of(name: str) -> Metric:
    """The metric of that name; of a name that is not registered one that is shown as it is."""
    if name in METRICS:
        return METRICS[name]
    interpolated = METRICS.get(name.removeprefix(RECALIBRATED))
    if interpolated:
        return replace(interpolated, label=f"recalibrated {interpolated.label}")
    label = name.replace("_", " ").replace("-", " ")
    return Metric(label, axis=label)


_ALONE = {
    "forgetting_events": "forgetting events",
    "forgetting_spread": "spread of forgetting events over images",
    "unforgettable_percent": "unforgettable images",
    "untrained_accuracy": "accuracy before training",
    "recalibrated_untrained_accuracy": "recalibrated accuracy before training",
}
"""Of metrics whose label makes sense only beside others."""


def metric_heading(name: str) -> str:
    """What a metric is called where it stands alone."""
    return _ALONE.get(name, metric_of(name).label)


def metric_order(name: str) -> int:
    """The place of a metric among others; those that are not registered come last."""
    names = list(METRICS)
    return names.index(name) if name in METRICS else len(names)


METRIC_OF_QUANTITY: Mapping[tuple[str, str, str], str] = {
    ("barrier", "height", "copies"): "barrier",
    ("barrier", "height", "rounds"): "barrier_to_next",
    ("instability", "heights", "copies"): "barrier",
    ("untrained", "accuracy", ""): "untrained_accuracy",
    ("probe", "accuracy", ""): "probe_accuracy",
    ("convergence", "", ""): "convergence",
    ("learning", "convergence", ""): "convergence",
    ("forgetting", "events_mean", ""): "forgetting_events",
    ("learning", "forgetting.events_mean", ""): "forgetting_events",
    ("forgetting", "events_std", ""): "forgetting_spread",
    ("learning", "forgetting.events_std", ""): "forgetting_spread",
    ("forgetting", "unforgettable", ""): "unforgettable_percent",
    ("learning", "forgetting.unforgettable", ""): "unforgettable_percent",
}
"""The metric of a measure by declared name, quantity, and what runs it is taken between."""

FACTORS = {"unforgettable_percent": 100}
"""From the unit of a measure to that of its metric, where they differ."""


def metrics_of(measure: str) -> set[str]:
    """The metrics that the numbers of a measure have, where they have names of their own."""
    return {metric for (name, _, _), metric in METRIC_OF_QUANTITY.items() if name == measure}


LAYER_SPARSITY = "layer-sparsity"
"""The measure whose numbers have one metric: which layer one is of is an axis of its key."""
LAYERS = "layer"
"""The name of that axis."""

_RECALIBRATED = {"barrier": "recalibrated_barrier", "untrained_accuracy": "recalibrated_untrained_accuracy"}


def metric_name(measure: str, quantity: str, between: str = "", *, recalibrated: bool = False) -> str:
    """The name of a number of a measure: of a metric, else ``measure.quantity``.

    quantity: empty for the whole result. between: ``"copies"``, ``"rounds"``, or empty for a single run.
    recalibrated: whether batch-norm statistics were measured anew.
    """
    if measure == LAYER_SPARSITY:
        return "layer_sparsity"
    metric = METRIC_OF_QUANTITY.get((measure, quantity, between))
    if metric is None:
        return f"{measure}.{quantity}" if quantity else measure
    return _RECALIBRATED.get(metric, metric) if recalibrated else metric
