"""Error on the straight line between two runs, and the barriers: Figures 1, 8 and 9 of the paper.

The barrier is the largest error on the line minus the mean error of its two ends, in percentage points
(Eq. 3). Both functions take the summary of a demo and return a finished matplotlib figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tombola.measures.limits import STABLE_BELOW
from tombola.report.style import (
    INK,
    PAPER,
    Configuration,
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

Curve = Mapping[str, Any]


def interpolation(summary: Mapping[str, Any]) -> Figure:
    """Test error (%) against the position between two runs: dense networks above, sparsest tickets below."""
    curves = shown_curves(summary)
    rewinds = sorted({curve["rewind"] for curve in curves}) or [0]
    with drawing():
        figure = new_figure(10.0, 6.4)
        grid = figure.subplots(2, len(rewinds), sharex=True, sharey=True, squeeze=False)
        for kind, line in zip(("dense", "ticket"), grid, strict=True):
            for rewind, axes in zip(rewinds, line, strict=True):
                chosen = [curve for curve in curves if (curve["kind"], curve["rewind"]) == (kind, rewind)]
                _draw_lines(axes, chosen)
                axes.set_title(f"{_kind_label(kind, chosen)}, {start_label(rewind)}")
            line[0].set_ylabel("test error (%)")
        for axes in grid[-1]:
            axes.set_xlabel(r"position $\alpha$ on the line between two runs")
        grid[0, 0].set_xlim(-0.02, 1.02)
        grid[0, 0].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        grid[0, 0].set_ylim(bottom=0)
        if curves:
            legend_above(figure, [legend_line(c) for c in configurations(curves)])
    return figure


def barriers(summary: Mapping[str, Any]) -> Figure:
    """Error barriers (percentage points) of dense networks and sparsest tickets, by starting point."""
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    curves = shown_curves(summary)
    groups = sorted({(curve["kind"], curve["rewind"]) for curve in curves})
    compared = configurations(curves)
    with drawing():
        figure = new_figure(10.0, 4.8)
        axes = figure.subplots()
        axes.grid(visible=False, axis="x")
        for place, group in enumerate(groups):
            chosen = [curve for curve in curves if (curve["kind"], curve["rewind"]) == group]
            for curve in chosen:
                _draw_bar(axes, place, configuration_of(curve), compared, curve["barrier"])
        axes.set_ylabel("error barrier\n(percentage points)")
        axes.set_xticks(range(len(groups)), [_group_label(curves, *group) for group in groups])
        axes.tick_params(axis="x", length=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        _mark_stable(axes)
        if curves:
            legend_above(figure, [Patch(**c.bar(), label=c.label) for c in compared])
        else:
            not_measured(axes)
    return figure


def shown_curves(summary: Mapping[str, Any]) -> list[Curve]:
    """All dense curves, and of the tickets' those at the highest sparsity measured from the same start."""
    curves = [curve for curve in summary["curves"] if curve["barrier"] is not None]
    tickets = [curve for curve in curves if curve["kind"] == "ticket"]
    last = {
        rewind: max(curve["sparsity"] for curve in tickets if curve["rewind"] == rewind)
        for rewind in {curve["rewind"] for curve in tickets}
    }
    return [
        curve
        for curve in curves
        # Counts of pruned weights are exact, shares may differ in the last digits of a float.
        if curve["kind"] == "dense" or abs(curve["sparsity"] - last[curve["rewind"]]) < 1e-6
    ]


def _kind_label(kind: str, curves: Sequence[Curve]) -> str:
    if kind == "dense":
        return "dense networks"
    return f"tickets, {100 * curves[0]['sparsity']:.0f}% pruned" if curves else "tickets"


def _group_label(curves: Sequence[Curve], kind: str, rewind: int) -> str:
    chosen = [curve for curve in curves if (curve["kind"], curve["rewind"]) == (kind, rewind)]
    return f"{_kind_label(kind, chosen)},\n{start_label(rewind)}"


def _draw_lines(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in sorted(curves, key=configuration_of):
        axes.plot(curve["alphas"], curve["errors"], **configuration_of(curve).line())
    if not curves:
        not_measured(axes)


def _draw_bar(
    axes: Axes, group: int, configuration: Configuration, compared: Sequence[Configuration], height: float
) -> None:
    """One bar with its height written on top: the low ones could not be read off the axis."""
    width = 0.84 / len(compared)
    x = group + (compared.index(configuration) - (len(compared) - 1) / 2) * width
    axes.bar(x, height, 0.8 * width, **configuration.bar(), zorder=2)
    axes.annotate(
        f"{height:.1f}",
        (x, max(height, 0)),
        (0, 4),
        textcoords="offset points",
        ha="center",
        fontsize=11,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},  # keeps the line at 2 out of the number
    )


def _mark_stable(axes: Axes) -> None:
    axes.axhline(STABLE_BELOW, color=INK, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    low, high = axes.get_ylim()
    axes.set_ylim(low if low < 0 else 0, max(high * 1.06, 1.5 * STABLE_BELOW))
    axes.annotate(
        f"stable\nbelow {STABLE_BELOW:g}",
        (1.0, STABLE_BELOW),
        (6, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=12,
    )
