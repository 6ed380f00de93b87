"""How the lines of a picture look: a configuration as everywhere, what has none in colours of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tombola.report.style import Configuration, Dashes, filling, stroke
from tombola.studies.picture import Line, Picture

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

    def line(self, **properties: Any) -> dict[str, Any]:
        """Keyword arguments of ``Axes.plot``."""
        return stroke(self.color, self.dashes, **properties)

    def bar(self) -> dict[str, Any]:
        """Keyword arguments of ``Axes.bar``."""
        return filling(self.color, self.dashes, solid=self.filled)


def looks(picture: Picture) -> Callable[[Line], Look]:
    """What tells the look of each line of a picture.

    A configuration has its colour and dashes. Where a picture shows several lines of one, by block or by
    subset, they go from pale to its full colour in their order. Lines without a configuration take free
    colours by label; so do all lines where the whole picture is about a single configuration, which then
    tells nothing apart.
    """
    lines = [line for panel in picture.panels for line in panel.lines]
    variants: dict[tuple[Any, ...], list[str]] = {}
    for line in lines:
        known = variants.setdefault((*_key(line), line.pretrained), [])
        if line.label not in known:
            known.append(line.label)
    configured = {_key(line) for line in lines if _is_configured(line)}
    single = len(configured) == 1 and any(len(labels) > 1 for labels in variants.values())
    free = list(dict.fromkeys(line.label for line in lines if single or not _is_configured(line)))

    def look(line: Line) -> Look:
        if single or not _is_configured(line):
            place = free.index(line.label)
            dashes = _FREE_DASHES[place // len(_FREE_COLORS) % len(_FREE_DASHES)]
            if configured and not single:
                dashes = _FREE_DASHES[1]  # a baseline beside configurations
            return Look(_FREE_COLORS[place % len(_FREE_COLORS)], dashes, "s", filled=True)
        configuration = Configuration(line.momentum or 0.0, line.batch_size or 0)
        color = configuration.color if line.batch_size is not None else _NEUTRAL
        known = variants[(*_key(line), line.pretrained)]
        return Look(
            _paler(color, known.index(line.label), len(known)),
            configuration.dashes,
            configuration.marker,
            filled=configuration.momentum == 0,
        )

    return look


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
