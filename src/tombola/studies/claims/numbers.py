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
from tombola.studies.cells import Cell

Relation = Literal["<", "<=", ">", ">="]


@dataclass(frozen=True)
class Number:
    """A value with the cells that decide it.

    value: NaN where it is undefined or a cell is missing.
    cells: of a highest or lowest number only the cells of the one chosen.
    in_cell_units: whether the value has the unit of its cells, so that their spread is its noise too.
    """

    value: float
    cells: tuple[Cell, ...] = ()
    in_cell_units: bool = True

    def __sub__(self, other: Number | float) -> Number:
        return _combined(self.value - _number(other).value, self, other)

    def __mul__(self, factor: float) -> Number:
        return _combined(self.value * factor, self)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Number:
        ratio = self.value / other.value if other.value else math.nan
        return Number(ratio, self.cells + other.cells, in_cell_units=False)

    def __abs__(self) -> Number:
        return _combined(abs(self.value), self)

    def __lt__(self, other: Number | float) -> Comparison:
        return Comparison(self, "<", _number(other))

    def __le__(self, other: Number | float) -> Comparison:
        return Comparison(self, "<=", _number(other))

    def __gt__(self, other: Number | float) -> Comparison:
        return Comparison(self, ">", _number(other))

    def __ge__(self, other: Number | float) -> Comparison:
        return Comparison(self, ">=", _number(other))


@dataclass(frozen=True)
class Comparison:
    """One number held against another."""

    left: Number
    relation: Relation
    right: Number

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
        """Standard deviation of our runs, pooled over the deciding cells and in their unit.

        None where a deciding cell has fewer than two runs of ours or the gap has another unit than the cells.
        """
        if not self.cells or not (self.left.in_cell_units and self.right.in_cell_units):
            return None
        return pooled_std(self.cells)

    @property
    def within_noise(self) -> bool:
        """Whether the gap is known to be smaller than the noise."""
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


def highest(numbers: Iterable[Number]) -> Number:
    """The highest of at least one number; undefined if one of them is."""
    return max(numbers, key=lambda number: math.inf if math.isnan(number.value) else number.value)


def lowest(numbers: Iterable[Number]) -> Number:
    """The lowest of at least one number; undefined if one of them is."""
    return min(numbers, key=lambda number: -math.inf if math.isnan(number.value) else number.value)


def middle(numbers: Iterable[Number]) -> Number:
    """The median of an odd count of numbers: it is below zero where more than half of them are.

    Undefined if one of them is.
    """
    ordered = sorted(numbers, key=lambda number: -math.inf if math.isnan(number.value) else number.value)
    if len(ordered) % 2 == 0:
        raise ValueError(f"middle is asked of {len(ordered)} numbers; their count must be odd")
    return ordered[0] if math.isnan(ordered[0].value) else ordered[len(ordered) // 2]


def average(*numbers: Number) -> Number:
    """The mean of at least one number."""
    return _combined(math.fsum(number.value for number in numbers) / len(numbers), *numbers)


def spread(*numbers: Number) -> Number:
    """Pooled standard deviation of the cells behind some numbers; undefined where one has a single run."""
    cells = tuple(cell for number in numbers for cell in number.cells)
    std = pooled_std(cells) if cells else None
    return Number(math.nan if std is None else std, cells)


def derived(value: float, numbers: Iterable[Number]) -> Number:
    """A value in another unit that was worked out from some numbers; undefined if one of them is."""
    numbers = tuple(numbers)
    known = not any(math.isnan(number.value) for number in numbers)
    cells = tuple(cell for number in numbers for cell in number.cells)
    return Number(value if known else math.nan, cells, in_cell_units=False)


def starred(numbers: Iterable[Number]) -> Number:
    """How many of the cells behind some numbers have a run that stayed at chance or diverged."""
    numbers = tuple(numbers)
    return derived(sum(cell.starred for number in numbers for cell in number.cells), numbers)


def rank_correlation(first: Sequence[Number | float], second: Sequence[Number | float]) -> Number:
    """Spearman's correlation of two equally long series; ties share their mean rank.

    Undefined where one of them is constant.
    """
    series = [[_number(entry) for entry in one] for one in (first, second)]
    values = np.array([[number.value for number in one] for one in series])
    ranks = np.array([_ranks(one) for one in values])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    scale = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    # Rounded, so that a correlation of exactly 0.9 is not missed by the last bit.
    value = round(float((centred[0] * centred[1]).sum()) / scale, 12) if scale > 0 else math.nan
    cells = tuple(cell for one in series for number in one for cell in number.cells)
    return Number(value, cells, in_cell_units=False)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1 on; all undefined if a value is."""
    if np.isnan(values).any():
        return np.full_like(values, np.nan)
    below: NDArray[np.float64] = (values[:, None] > values).sum(axis=1, dtype=np.float64)
    ties: NDArray[np.float64] = (values[:, None] == values).sum(axis=1, dtype=np.float64)
    return below + (ties + 1) / 2


def _number(value: Number | float) -> Number:
    return value if isinstance(value, Number) else Number(value)


def _combined(value: float, *parts: Number | float) -> Number:
    """A number made from others in the same unit."""
    numbers = [_number(part) for part in parts]
    cells = tuple(cell for number in numbers for cell in number.cells)
    return Number(value, cells, all(number.in_cell_units for number in numbers))
