"""What is written on a panel: its axes, what is missing of it, and labels that fit."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tombola.report.style import SOFT
from tombola.views.picture import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HALVES = {None: "", False: "without late rewinding", True: "with late rewinding"}
"""Where training started, by the ``pretrained`` of a line."""

_FIXED_SPACE = "\N{NO-BREAK SPACE}"
_SHORT_LABEL = 24  # characters of a y label that fit beside a low panel
LONGEST_LABEL = 56  # characters of a label: a longer one is cut in its middle


def name_axes(axes: Axes, panel: Panel) -> None:
    axes.set_xlabel(panel.x_label)
    # A unit in brackets stays in one line.
    y_label = shortened(panel.y_label, 3 * _SHORT_LABEL)
    label = re.sub(r"\([^)]*\)", lambda unit: unit[0].replace(" ", _FIXED_SPACE), y_label)
    axes.set_ylabel(textwrap.fill(label, _SHORT_LABEL))


def title_pad(panel: Panel) -> float | None:
    """Points between a drawn panel and its title, for what is missing stands there; None as everywhere."""
    text = _missing_text(panel)
    return 10 + 13 * (text.count("\n") + 1) if text and panel.lines else None


def _missing_text(panel: Panel) -> str:
    parts = {"not complete yet: ": panel.begun, "not computed yet: ": panel.absent}
    return "\n".join(_listed(labels, 4, width=58, start=start) for start, labels in parts.items() if labels)


def name_missing(axes: Axes, panel: Panel) -> None:
    if not panel.missing:
        return
    axes.annotate(
        _missing_text(panel),
        (0, 1),
        (0, 5),
        xycoords="axes fraction",
        textcoords="offset points",
        va="bottom",
        fontsize=10,
        color=SOFT,
        style="italic",
    )


def _listed(labels: Sequence[str], at_most: int, *, width: int, start: str = "") -> str:
    """Labels in lines of so many characters that break between labels; the last ones only counted."""
    shown = [shortened(label).replace(" ", _FIXED_SPACE) for label in labels]
    if len(shown) > at_most + 1:
        shown[at_most:] = [f"and {len(shown) - at_most} more"]
    text = start + "; ".join(shown)
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def shortened(text: str, most: int = LONGEST_LABEL) -> str:
    """A text of at most so many characters, in one line: of a longer one its beginning and its end."""
    text = " ".join(text.split())
    return (
        text
        if len(text) <= most
        else f"{text[: most - most // 3 - 1]}\N{HORIZONTAL ELLIPSIS}{text[-(most // 3) :]}"
    )


def draw_gap(axes: Axes, panel: Panel) -> None:
    """A panel of which nothing is computed yet."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    name_axes(axes, panel)
    text = "not computed yet"
    if panel.missing:
        text += ":\n" + _listed(panel.missing, 8, width=44)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=SOFT)
