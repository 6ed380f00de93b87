"""Numbers a claim computes with, and the comparisons it lists.

A number remembers the cells that decide it. Arithmetic between numbers gives numbers; ``<``, ``<=``, ``>``
and ``>=`` give a comparison, which is listed and never asked for its truth: an ``if``, an ``and``, a chain
such as ``a < b < c`` and Python's own ``max`` are refused, because each would silently drop a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tombola.measures.statistics import sample_std
from tombola.table.number import Cell, sum_interval

Relation = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True)
class Quantity:
    """A value with the cells that decide it.

    value: NaN where it is undefined or a cell is missing.
    cells: of a highest or lowest number only the cells of the one chosen.
    weights: of each cell, where the value is a weighted sum of their means and perhaps a constant, so that
        their noise is its noise too; None for ratios, counts and the like.
    """

    value: float
    cells: tuple[Cell, ...] = ()
    weights: tuple[float, ...] | None = ()

    def __sub__(self, other: Quantity | float) -> Quantity:
        other = _quantity(other)
        return _combined(self.value - other.value, (1.0, self), (-1.0, other))

    def __mul__(self, factor: float) -> Quantity:
        return _combined(self.value * factor, (factor, self))

    __rmul__ = __mul__

    def __truediv__(self, other: Quantity) -> Quantity:
        ratio = self.value / other.value if other.value else math.nan
        return Quantity(ratio, self.cells + other.cells, None)

    def __abs__(self) -> Quantity:
        return _combined(abs(self.value), (-1.0 if self.value < 0 else 1.0, self))

    def __lt__(self, other: Quantity | float) -> Comparison:
        return Comparison(self, "<", _quantity(other))

    def __le__(self, other: Quantity | float) -> Comparison:
        return Comparison(self, "<=", _quantity(other))

    def __gt__(self, other: Quantity | float) -> Comparison:
        return Comparison(self, ">", _quantity(other))

    def __ge__(self, other: Quantity | float) -> Comparison:
        return Comparison(self, ">=", _quantity(other))


def of_cell(cell: Cell | None) -> Quantity:
    """The mean of a cell; undefined where it is missing."""
    return Quantity(math.nan) if cell is None else Quantity(cell.mean, (cell,), (1.0,))


@dataclass(frozen=True)
class Comparison:
    """One number held against another."""

    left: Quantity
    relation: Relation
    right: Quantity

    @property
    def holds(self) -> bool:
        """Whether it holds; an undefined number makes it False."""
        left, right = self.left.value, self.right.value
        return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[self.relation]

    @property
    def gap(self) -> float:
        """Left minus right."""
        return self.left.value - self.right.value

    @property
    def defined(self) -> bool:
        return not (math.isnan(self.left.value) or math.isnan(self.right.value))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that decide it, each once."""
        return tuple(dict.fromkeys(self.left.cells + self.right.cells))

    @property
    def noise(self) -> float | None:
        """Half the width of the 95% interval of the gap, paired where all cells are of the same seeds.

        None where a deciding cell has fewer than three runs of ours (:data:`LEAST_RUNS`), as printed ones
        have, or where the gap is no weighted sum of means.
        """
        gap = _combined(self.gap, (1.0, self.left), (-1.0, self.right))
        if gap.weights is None:
            return None
        interval = sum_interval(list(zip(gap.weights, gap.cells, strict=True)))
        return None if interval is None else (interval[1] - interval[0]) / 2

    @property
    def within_noise(self) -> bool:
        """Whether the gap is known to lie within the interval that runs with other seeds would fill."""
        return self.noise is not None and abs(self.gap) < self.noise

    def __str__(self) -> str:
        return f"{self.left.value:.4g} {self.relation} {self.right.value:.4g}"

    def __bool__(self) -> bool:
        raise TypeError("a comparison is listed, not asked; ask for its .holds where the truth is meant")


def pooled_std(cells: Sequence[Cell]) -> float | None:
    """Root of the mean variance of the cells' own runs, each weighted by its runs less one.

    None if a cell has fewer than two values: printed cells have none.
    """
    squares, freedom = 0.0, 0
    for cell in cells:
        std = sample_std(cell.values) if cell.values else None
        if std is None:
            return None
        squares += (len(cell.values) - 1) * std**2
        freedom += len(cell.values) - 1
    return math.sqrt(squares / freedom)


def highest(numbers: Iterable[Quantity]) -> Quantity:
    """The highest of at least one number; undefined if one of them is."""
    return max(numbers, key=lambda number: math.inf if math.isnan(number.value) else number.value)


def lowest(numbers: Iterable[Quantity]) -> Quantity:
    """The lowest of at least one number; undefined if one of them is."""
    return min(numbers, key=lambda number: -math.inf if math.isnan(number.value) else number.value)


def middle(numbers: Iterable[Quantity]) -> Quantity:
    """The median of an odd count of numbers: it is below zero where more than half of them are.

    Undefined if one of them is.
    """
    ordered = sorted(numbers, key=lambda number: -math.inf if math.isnan(number.value) else number.value)
    if len(ordered) % 2 == 0:
        raise ValueError(f"middle is asked of {len(ordered)} numbers; their count must be odd")
    return ordered[0] if math.isnan(ordered[0].value) else ordered[len(ordered) // 2]


def average(*numbers: Quantity) -> Quantity:
    """The mean of at least one number."""
    share = 1 / len(numbers)
    total = math.fsum(number.value for number in numbers)
    return _combined(total / len(numbers), *((share, number) for number in numbers))


def spread(*numbers: Quantity) -> Quantity:
    """Pooled standard deviation of the cells behind some numbers; undefined where one has a single run."""
    cells = tuple(cell for number in numbers for cell in number.cells)
    std = pooled_std(cells) if cells else None
    # A limit, which has no noise of its own.
    return Quantity(math.nan if std is None else std, cells, (0.0,) * len(cells))


def derived(value: float, numbers: Iterable[Quantity]) -> Quantity:
    """A value in another unit that was worked out from some numbers; undefined if one of them is."""
    numbers = tuple(numbers)
    defined = not any(math.isnan(number.value) for number in numbers)
    cells = tuple(cell for number in numbers for cell in number.cells)
    return Quantity(value if defined else math.nan, cells, None)


def starred(numbers: Iterable[Quantity]) -> Quantity:
    """How many of the cells behind some numbers have a run that stayed at chance or diverged."""
    numbers = tuple(numbers)
    return derived(sum(cell.failed for number in numbers for cell in number.cells), numbers)


def rank_correlation(first: Sequence[Quantity | float], second: Sequence[Quantity | float]) -> Quantity:
    """Spearman's correlation of two equally long series; ties share their mean rank.

    Undefined where one of them is constant.
    """
    series = [[_quantity(entry) for entry in one] for one in (first, second)]
    values = np.array([[number.value for number in one] for one in series])
    ranks = np.array([_ranks(one) for one in values])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    # Rounded, so that a correlation of exactly 0.9 is not missed by the last bit.
    value = round(float((centred[0] * centred[1]).sum()) / scale, 12) if scale > 0 else math.nan
    cells = tuple(cell for one in series for number in one for cell in number.cells)
    return Quantity(value, cells, None)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; all undefined if a value is."""
    if np.isnan(values).any():
        return np.full_like(values, np.nan)
    below: NDArray[np.float64] = (values[:, None] > values).sum(axis=1, dtype=np.float64)
    ties: NDArray[np.float64] = (values[:, None] == values).sum(axis=1, dtype=np.float64)
    return below + (ties + 1) / 2


def _quantity(value: Quantity | float) -> Quantity:
    return value if isinstance(value, Quantity) else Quantity(value)


def _combined(value: float, *parts: tuple[float, Quantity]) -> Quantity:
    """A quantity that is the weighted sum of others, and perhaps a constant."""
    cells = tuple(cell for _, part in parts for cell in part.cells)
    if any(part.weights is None for _, part in parts):
        return Quantity(value, cells, None)
    weights = tuple(weight * own for weight, part in parts for own in part.weights or ())
    return Quantity(value, cells, weights)
