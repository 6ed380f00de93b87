"""Values over a plane of weights as filled contours, with the runs that span it and a curve between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tombola.report.style import INK, PAPER
from tombola.views.picture import Panel, Relief

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = 14
_FLAT = 3  # ratio of the sides from which a plane of equal scales would be a stripe
_COLORS = "cividis_r"  # told apart with any kind of colour vision, and dark where values are high
_LOGARITHMIC_FROM = 30  # ratio of the highest value to the lowest


def draw_relief(axes: Axes, panel: Panel, relief: Relief) -> None:
    """The contours, a scale of their colours, the path, and the points with their numbers."""
    import numpy as np
    from matplotlib.colors import LogNorm

    values = np.array(relief.values, dtype=float)
    finite = values[np.isfinite(values)]
    lowest, highest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    logarithmic = lowest > 0 and highest > _LOGARITHMIC_FROM * lowest
    levels = (
        np.geomspace(lowest, highest, _LEVELS)
        if logarithmic
        else np.linspace(lowest, max(highest, lowest + 1e-9), _LEVELS)
    )
    drawn = axes.contourf(
        relief.horizontal, relief.vertical, np.ma.masked_invalid(values), levels=levels, cmap=_COLORS,
        norm=LogNorm(lowest, highest) if logarithmic else None,
    )  # fmt: skip
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(drawn, ax=axes, label=relief.label, format="%.3g")
    bar.set_ticks(list(levels[:: max(1, _LEVELS // 5)]))
    bar.ax.minorticks_off()
    if relief.path:
        axes.plot(*zip(*relief.path, strict=True), color=INK, linewidth=2, zorder=2)
    for number, (x, y) in enumerate(relief.points, start=1):
        axes.plot(x, y, "o", markersize=15, color=PAPER, markeredgecolor=INK, zorder=3)
        axes.annotate(str(number), (x, y), ha="center", va="center", fontsize=11, color=INK, zorder=4)
    axes.grid(visible=False)
    wide, high = (abs(places[-1] - places[0]) for places in (relief.horizontal, relief.vertical))
    if wide <= _FLAT * high and high <= _FLAT * wide:
        axes.set_aspect("equal", adjustable="box")
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
