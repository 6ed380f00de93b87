"""Accuracy by sparsity (Figures 13 to 16 of the paper), and the course of training.

Each function takes the summary of a demo and returns a finished matplotlib figure; the two about stability
are in :mod:`tombola.report.stability`. matplotlib is imported only when a picture is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tombola.report.scales import space_by_round
from tombola.report.style import (
    INK,
    PAPER,
    configuration_of,
    configurations,
    drawing,
    legend_above,
    legend_line,
    new_figure,
    not_measured,
    start_label,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Summary = Mapping[str, Any]

_STAR = 12  # points


def accuracy_by_sparsity(summary: Summary) -> Figure:
    """Test accuracy (%) against sparsity (%), one panel for each rewinding point.

    Means over the seeds with their sample standard deviation; filled markers are winning tickets, stars are
    single failed runs. The accuracies of the runs that did not fail set the scale: a star below it stands on
    the lower edge with its accuracy written beside.
    """
    rows = summary["rows"]
    rewinds = sorted({row["rewind"] for row in rows})
    with drawing():
        figure = new_figure(10.0, 5.2)
        panels = figure.subplots(1, len(rewinds), sharey=True, squeeze=False)[0]
        for axes, rewind in zip(panels, rewinds, strict=True):
            axes.set_title(f"trained {start_label(rewind)}")
            axes.set_xlabel("sparsity (% of weights pruned)")
            _mark_rounds(axes, rows)
        panels[0].set_ylabel("test accuracy (%)")
        panels[0].set_ylim(*_accuracy_limits(rows))
        for axes, rewind in zip(panels, rewinds, strict=True):
            for configuration in configurations(rows):
                chosen = [r for r in rows if r["rewind"] == rewind and configuration_of(r) == configuration]
                _draw_chain(axes, sorted(chosen, key=lambda row: row["sparsity"]))
            _draw_failed_runs(axes, [row for row in rows if row["rewind"] == rewind])
        legend_above(figure, [legend_line(c) for c in configurations(rows)] + _mark_samples(rows))
    return figure


def training_curves(summary: Summary) -> Figure:
    """Test error (%, logarithmic) and forgetting events per image and epoch, both against the epoch."""
    training = summary["training"]
    with drawing():
        figure = new_figure(10.0, 4.4)
        left, right = figure.subplots(1, 2)
        for axes, label, key in (
            (left, "test error (%)", "test_error"),
            (right, "forgetting events\nper image in an epoch", "forgetting_events"),
        ):
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            for entry in sorted(training, key=configuration_of):
                points = [(x, y) for x, y in zip(entry["epochs"], entry[key], strict=True) if y is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), **configuration_of(entry).line())
            if not training:
                not_measured(axes)
        _scale_error(
            left, [error for entry in training for error in entry["test_error"] if error is not None]
        )
        right.set_ylim(bottom=0)
        if training:
            legend_above(figure, [legend_line(c) for c in configurations(training)])
    return figure


def _mark_rounds(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """Label the axis with the sparsities of the rounds."""
    shares: dict[int, list[float]] = {}
    for row in rows:
        shares.setdefault(row["round"], []).append(row["sparsity"])
    sparsities = [100 * sum(values) / len(values) for _, values in sorted(shares.items())]
    sparsities = sparsities[:: -(-len(sparsities) // 10)]
    space_by_round(axes, sparsities, [_percent(sparsity) for sparsity in sparsities])


def _percent(sparsity: float) -> str:
    """Whole numbers until these would no longer tell rounds apart."""
    return f"{sparsity:.0f}" if sparsity < 90 else f"{sparsity:.1f}"


def _accuracy_limits(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Room for every mean and its spread where no run failed, and for the dense networks in any case."""
    sound = [row for row in rows if not row["failed_runs"] and row["accuracy_mean"] is not None]
    if not sound:
        return 0.0, 100.0
    low = min(row["accuracy_mean"] - (row["accuracy_std"] or 0.0) for row in sound)
    high = max(row["accuracy_mean"] + (row["accuracy_std"] or 0.0) for row in sound)
    margin = max(0.06 * (high - low), 0.2)
    # More room below than above: failed runs stand there.
    return max(0.0, low - 2 * margin), min(100.0, high + margin)


def _draw_chain(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rounds of one configuration and one rewinding point."""
    rows = [row for row in rows if row["accuracy_mean"] is not None]
    if not rows:
        return
    configuration = configuration_of(rows[0])
    x = [100 * row["sparsity"] for row in rows]
    mean = [row["accuracy_mean"] for row in rows]
    axes.plot(x, mean, **configuration.line())
    # Where a run failed its star says more than a spread that would fill the panel from top to bottom.
    spread = [math.nan if row["failed_runs"] else row["accuracy_std"] or 0.0 for row in rows]
    low = [m - s for m, s in zip(mean, spread, strict=True)]
    high = [m + s for m, s in zip(mean, spread, strict=True)]
    axes.fill_between(x, low, high, color=configuration.color, alpha=0.13, linewidth=0)
    for row in rows:
        axes.plot(
            100 * row["sparsity"],
            row["accuracy_mean"],
            configuration.marker,
            markersize=6 if configuration.marker == "o" else 5.5,
            color=configuration.color,
            markerfacecolor=configuration.color if row["winning"] else PAPER,
            markeredgewidth=1.5,
            zorder=3,
        )


def _draw_failed_runs(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    """A star for each failed run of a panel, which are the runs of lowest accuracy of their row."""
    below: dict[float, dict[str, list[float]]] = {}
    for row in rows:
        for accuracy in sorted(row["accuracies"])[: row["failed_runs"]]:
            color = configuration_of(row).color
            if accuracy >= axes.get_ylim()[0]:
                axes.plot(100 * row["sparsity"], accuracy, "*", markersize=_STAR, color=color, zorder=4)
            else:
                below.setdefault(100 * row["sparsity"], {}).setdefault(color, []).append(accuracy)
    for sparsity, by_color in below.items():
        _draw_stars_on_edge(axes, sparsity, by_color)


def _draw_stars_on_edge(axes: Axes, sparsity: float, by_color: Mapping[str, Sequence[float]]) -> None:
    """Stars that the scale leaves out, side by side by colour and stacked by run: none may hide another."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.get_figure(root=True)
    assert figure is not None
    edge = axes.get_xaxis_transform()
    for column, (color, accuracies) in enumerate(by_color.items()):
        right = (column - (len(by_color) - 1) / 2) * _STAR
        for level in range(len(accuracies)):
            moved = ScaledTranslation(right / 72, (0.6 + level) * _STAR / 72, figure.dpi_scale_trans)
            axes.plot(sparsity, 0, "*", markersize=_STAR, color=color, transform=edge + moved, zorder=4)
    every = [accuracy for accuracies in by_color.values() for accuracy in accuracies]
    low, high = f"{min(every):.0f}", f"{max(every):.0f}"
    axes.annotate(
        f"{low}%" if low == high else f"{low}\N{EN DASH}{high}%",
        (sparsity, 0),
        (0, (0.4 + max(map(len, by_color.values()))) * _STAR),
        xycoords=edge,
        textcoords="offset points",
        ha="center",
        fontsize=11,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.4},
    )


def _mark_samples(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """What the markers mean, for the legend; the star only where a run failed."""
    from matplotlib.lines import Line2D

    shape: dict[str, Any] = {
        "color": INK,
        "linestyle": "",
        "marker": "o",
        "markersize": 7,
        "markeredgewidth": 1.5,
    }
    samples = [
        Line2D([], [], **shape, label="winning ticket"),
        Line2D([], [], **shape, markerfacecolor=PAPER, label="not winning, or dense"),
    ]
    if any(row["failed_runs"] for row in rows):
        samples.append(Line2D([], [], **{**shape, "marker": "*", "markersize": 12}, label="one failed run"))
    return samples


def _scale_error(axes: Axes, errors: Sequence[float]) -> None:
    """Logarithmic, so that the start at chance does not hide the end, unless an error is exactly 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    if not errors or min(errors) <= 0:
        axes.set_ylim(bottom=0)
        return
    decade = 10 ** math.floor(math.log10(min(errors)))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    # Down to the next labelled line, so that the lowest error can be read between two of them.
    axes.set_ylim(bottom=max(decade * step for step in (1, 2, 5) if decade * step <= min(errors)))
