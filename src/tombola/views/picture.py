"""Pictures as data: what a figure shows, before it is drawn.

The other modules of this folder fill these from entries; :mod:`tombola.report` draws them. What is not
computed yet is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    label: what the legend says; lines of one label share an entry.
    momentum, batch_size: the configuration, which decides colour and dashes; None for a baseline.
    x, y: the points. spread: sample standard deviation over runs at each point, or None for single runs.
    pretrained: whether it starts from a late rewinding point, where a panel shows both halves.
    failed: points at which a run failed. failures: the values of the runs that did, at each point.
    winning: points that are winning tickets; empty where that is no question.
    values: the values of all runs, at each point.
    printed: what the paper prints at each point, None where it does not.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    momentum: float | None = None
    batch_size: int | None = None
    spread: Sequence[float] | None = None
    pretrained: bool | None = None
    failed: Sequence[bool] = ()
    failures: Sequence[Sequence[float]] = ()
    winning: Sequence[bool] = ()
    values: Sequence[Sequence[float]] = ()
    printed: Sequence[float | None] = ()


@dataclass(frozen=True)
class Relief:
    """Values over a plane of weights, drawn as filled contours.

    horizontal, vertical: coordinates of the columns and rows. values: a row of each vertical coordinate.
    label: of the values, with their unit. points: places in it that are numbered from 1. path: a curve.
    """

    horizontal: tuple[float, ...]
    vertical: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    label: str
    points: tuple[tuple[float, float], ...] = ()
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Lines of a single point each are drawn as bars, in their order, unless x is logarithmic or by round, or
    this is a scatter.

    by_round: whether x is sparsity in percent, which is spaced evenly by round.
    limit: where a horizontal line marks what counts as stable, of barriers; None without one.
    scatter: whether each line is a point of two numbers, of which either may be negative.
    relief: values over a plane, in place of lines.
    missing: lines that should be here and are not finished, by label; of some a part may be drawn.
    marks: positions of vertical lines, such as the trained tickets on a path through all rounds.
    x_names: what the positions 0, 1, ... of the x axis are called, where they are no numbers.
    runs: whether each line is a mean that is drawn with its single runs beside it.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    missing: Sequence[str] = ()
    marks: Sequence[float] = ()
    logarithmic_x: bool = False
    logarithmic_y: bool = False
    x_names: Sequence[str] = ()
    runs: bool = False
    by_round: bool = False
    limit: float | None = None
    scatter: bool = False
    relief: Relief | None = None

    @property
    def begun(self) -> list[str]:
        """The missing lines of which a part is drawn."""
        drawn = {line.label for line in self.lines}
        return [label for label in self.missing if label in drawn]

    @property
    def absent(self) -> list[str]:
        """The missing lines of which nothing is there."""
        begun = self.begun
        return [label for label in self.missing if label not in begun]


@dataclass(frozen=True)
class Picture:
    """One figure: its panels, and what is said of it.

    name: such as ``"fig3"``. caption: what is shown, at which budget and scale, with how many runs.
    budget: the latter in short, which stands on the picture itself.
    note: a warning that stands there, too, such as that a scale proves only the machinery.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]
    budget: str = ""
    note: str = ""
