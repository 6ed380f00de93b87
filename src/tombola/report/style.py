"""How a configuration looks, in every picture: its colour comes from the batch size, its line from momentum.

Colours are those of Okabe and Ito (2008), told apart with any kind of colour vision and on white and on dark
ground. Momentum 0.0 is solid and 0.9 dotted, as in the paper's figures. Nothing here touches matplotlib's
global state for longer than a `with` block, and nothing of a user's own matplotlib settings comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tombola.views.layout import momentum_text
from tombola.views.picture import Line, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The page gives these four the colours of its own light or dark scheme; no data is drawn in them.
INK = "#1f2328"
PAPER = "#ffffff"
RULE = "#d5d9de"
SOFT = "#59636e"

# Upper limits of batch size: the paper's 8, 32, 100, 256, 1024 and 2048 each have a colour of their own.
_BATCH_COLORS = (
    (16, "#CC79A7"),
    (48, "#D55E00"),
    (80, "#E69F00"),
    (180, "#0072B2"),
    (360, "#009E73"),
    (1440, "#56B4E9"),
)
_LARGER_BATCH_COLOR = "#7a7a7a"

Dashes = str | tuple[float, tuple[float, ...]]
DOTTED: Dashes = (0.0, (0.1, 1.7))


class ConfigurationStyle(NamedTuple):
    """How the lines and bars of a momentum and batch size look."""

    momentum: float
    batch_size: int

    @property
    def label(self) -> str:
        return f"μ = {momentum_text(self.momentum)}, batch {self.batch_size}"

    @property
    def color(self) -> str:
        for limit, color in _BATCH_COLORS:
            if self.batch_size <= limit:
                return color
        return _LARGER_BATCH_COLOR

    @property
    def dashes(self) -> Dashes:
        """Solid without momentum, dotted at 0.9, between them dashes that shorten with momentum."""
        if self.momentum == 0:
            return "-"
        if self.momentum == 0.9:
            return DOTTED
        if self.momentum < 0.9:
            return (0.0, (1.5 + 6 * (0.9 - self.momentum), 2.0))
        return (0.0, (3.0, 1.7, 0.1, 1.7))

    @property
    def marker(self) -> str:
        """A second sign of momentum, for those points where no line can be seen."""
        return "o" if self.momentum == 0 else "D"

    def line(self, **properties: Any) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot`` that draw this configuration."""
        return stroke(self.color, self.dashes, **properties)

    def bar(self) -> dict[str, Any]:
        """Keyword arguments of ``Axes.bar``: filled without momentum, else pale with this line as edge."""
        return filling(self.color, self.dashes, solid=self.momentum == 0)


def stroke(color: str, dashes: Dashes, **properties: Any) -> dict[str, Any]:
    """Keyword arguments of ``Axes.plot``."""
    return {
        "color": color,
        "linestyle": dashes,
        "linewidth": 2.6 if dashes == DOTTED else 2.0,
        "dash_capstyle": "round",
        "solid_capstyle": "round",
        **properties,
    }


def filling(color: str, dashes: Dashes, *, solid: bool) -> dict[str, Any]:
    """Keyword arguments of ``Axes.bar``: solid, or pale with the line as edge."""
    from matplotlib.colors import to_rgba

    return {
        "facecolor": to_rgba(color, 1.0 if solid else 0.35),
        "edgecolor": color,
        "linestyle": dashes,
        "linewidth": 2.0,
        "capstyle": "round",
    }


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's defaults and the settings below, for the time of a picture's making and saving."""
    import matplotlib.style

    with matplotlib.style.context(["default", _SETTINGS]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches. Call within :func:`drawing`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that a picture is the same everywhere
    "font.size": 13,
    "axes.titlesize": 13,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.6,
    "legend.borderaxespad": 0.1,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.scale_dashes": True,
    # A dollar sign in the name of a network or a data set is one, and no formula.
    "text.parse_math": False,
    # Without a fixed salt the names inside an SVG are random, and equal summaries would give unequal files.
    "svg.hashsalt": "tombola",
    "svg.fonttype": "path",
}


_NEUTRAL = "#7a7a7a"
_FREE_COLORS = (_NEUTRAL, "#CC79A7", "#E69F00", "#56B4E9", "#D55E00", "#0072B2", "#009E73")
_FREE_DASHES: tuple[Dashes, ...] = ("-", (0.0, (4.5, 2.2)), (0.0, (4.5, 2.2, 0.1, 2.2)))
_PALEST = 0.6
"""Share of white in the first of several lines of one configuration."""


@dataclass(frozen=True)
class Look:
    """Colour, dashes and marker of a line; of a bar, edge and filling."""

    color: str
    dashes: Dashes
    marker: str
    filled: bool

    @property
    def dash_array(self) -> str:
        """The dashes of a line of two units in an SVG; empty for a solid one."""
        return (
            "" if isinstance(self.dashes, str) else " ".join(f"{2 * length:g}" for length in self.dashes[1])
        )

    def line(self, **properties: Any) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot``."""
        return stroke(self.color, self.dashes, **properties)

    def bar(self) -> dict[str, Any]:
        """Keyword arguments of ``Axes.bar``."""
        return filling(self.color, self.dashes, solid=self.filled)


Looking = Callable[[Line], Look]
"""Tells the look of a line."""

STABLE_LINE: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": (0, (5, 3))}
"""The line below which a barrier counts as stable."""


def looks(picture: Picture) -> Looking:
    """What tells the look of each line of a picture.

    A configuration has its colour and dashes. Where a picture shows several lines of one, by block or by
    subset, they go from pale to its full colour in their order. Lines without a configuration take free
    colours by label; so do all lines where the whole picture is about a single configuration, which then
    tells nothing apart.
    """
    lines = [line for panel in picture.panels for line in panel.lines]
    variants: dict[tuple[Any, ...], list[str]] = {}
    for line in lines:
        labels = variants.setdefault((*_key(line), line.pretrained), [])
        if line.label not in labels:
            labels.append(line.label)
    configured = {_key(line) for line in lines if _is_configured(line)}
    single = len(configured) == 1 and any(len(labels) > 1 for labels in variants.values())
    free = list(dict.fromkeys(line.label for line in lines if single or not _is_configured(line)))

    def look(line: Line) -> Look:
        if single or not _is_configured(line):
            free_line = free_look(free.index(line.label))
            if configured and not single:
                return replace(free_line, dashes=_FREE_DASHES[1])  # a baseline beside configurations
            return free_line
        configuration = ConfigurationStyle(line.momentum or 0.0, line.batch_size or 0)
        color = configuration.color if line.batch_size is not None else _NEUTRAL
        labels = variants[(*_key(line), line.pretrained)]
        return Look(
            _paler(color, labels.index(line.label), len(labels)),
            configuration.dashes,
            configuration.marker,
            filled=configuration.momentum == 0,
        )

    return look


def free_look(place: int) -> Look:
    """The place-th look of lines without a configuration."""
    dashes = _FREE_DASHES[place // len(_FREE_COLORS) % len(_FREE_DASHES)]
    return Look(_FREE_COLORS[place % len(_FREE_COLORS)], dashes, "s", filled=True)


def grey(place: int, count: int) -> str:
    """The place-th of so many greys, for what lines of every configuration share."""
    return _paler(_NEUTRAL, place, count)


def _is_configured(line: Line) -> bool:
    return line.momentum is not None or line.batch_size is not None


def _key(line: Line) -> tuple[float | None, int | None]:
    return line.momentum, line.batch_size


def _paler(color: str, place: int, count: int) -> str:
    """The place-th of so many shades of a colour, the last one being the colour itself."""
    from matplotlib.colors import to_hex, to_rgb

    white = _PALEST * (count - 1 - place) / (count - 1) if count > 1 else 0.0
    red, green, blue = (channel + white * (1 - channel) for channel in to_rgb(color))
    return to_hex((red, green, blue))
