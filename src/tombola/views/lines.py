"""Lines of figures through the entries of an exhibit, with a break where one between others is not there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tombola.measures.statistics import mean, sample_std
from tombola.table.number import Cell, Entry
from tombola.views.picture import Line


def spanned(entries: Sequence[Entry]) -> list[Entry]:
    """Those from the first entry that has a cell to the last one; none where no entry has any."""
    places = [place for place, entry in enumerate(entries) if entry.cell is not None]
    return list(entries[places[0] : places[-1] + 1]) if places else []


def line_through(label: str, entries: Sequence[Entry], x: Sequence[float]) -> Line:
    """The means of some entries at these places, NaN where one has no cell; at least one has.

    The first that has a cell says which configuration the line is of.
    """
    cells = [entry.cell for entry in entries]
    present = [cell for cell in cells if cell is not None]
    spread = all(cell.std is not None for cell in present)
    return Line(
        label, x, [math.nan if cell is None else cell.mean for cell in cells],
        present[0].key.momentum, present[0].key.batch_size,
        [_spread(cell) for cell in cells] if spread else None,
        failed=[cell is not None and cell.failed for cell in cells],
    )  # fmt: skip


def _spread(cell: Cell | None) -> float:
    return math.nan if cell is None or cell.std is None else cell.std


def mean_course(label: str, entry: Entry) -> Line | None:
    """The course that the numbers of an entry sum up, mean and spread over them; None where none has any."""
    curves = [number.curve for number in entry.numbers if number.curve is not None]
    if not curves:
        return None
    # All of one recipe, so all at the same epochs or positions.
    points = list(zip(*(curve.y for curve in curves), strict=True))
    spreads = [spread for values in points if (spread := sample_std(values)) is not None]
    return Line(
        label, curves[0].x, [mean(values) for values in points], entry.key.momentum, entry.key.batch_size,
        spreads if spreads and len(spreads) == len(points) else None,
        failed=[entry.failed] * len(points),
    )  # fmt: skip
