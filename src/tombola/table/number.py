"""Numbers: every single measured value with what it rests on, and cells, which are the numbers of one key.

A gap is a number too: what is not computed yet is ``missing``, what has no value is ``undefined``. A cell
never hides either; means stand beside how many values they are of, and how many are missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tombola.counts import many as many  # as one of its own: every floor above counts with it
from tombola.errors import ExperimentError
from tombola.measures.statistics import is_winning, mean, sample_std
from tombola.table.key import Key

State = Literal["measured", "undefined", "missing"]


@dataclass(frozen=True)
class Curve:
    """A course that a number sums up, such as the error along a line between two runs.

    x, y: its points, equally many.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Plane:
    """A plane of weights that a number sums up.

    horizontal, vertical: coordinates of its columns and rows. errors, losses: rows of values at each.
    points: of the runs. path: of a curve between them.
    """

    horizontal: tuple[float, ...]
    vertical: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...]
    losses: tuple[tuple[float, ...], ...]
    points: tuple[tuple[float, float], ...]
    path: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Together:
    """Of a number that several runs have together: how many they are, and the spread that stands with it."""

    runs: int
    spread: float | None


@dataclass(frozen=True, kw_only=True)
class Number:
    """One value of a key, or the gap where it will stand.

    value: in the unit of the metric; None unless measured.
    epochs: budget of the full trainings that it rests on; 0 for none, and for one in iterations, which is the
        axis ``iterations`` of the key.
    seed: number of the run, where it is of one. pair: which of several pairs of noise copies, or which copy,
        from 0.
    failed: whether a run behind it diverged or stayed at chance.
    bound: what the value is a bound of, such as ``"stable only at the end"``; empty for the value itself.
    note: what else is to be said. jobs: names of the jobs that it rests on.
    together: of a number of several runs.
    curve, plane: where it sums one up.
    stand_in: what was really trained, where something stands in for the network and data of the key.
    """

    key: Key
    value: float | None
    epochs: int
    state: State = "measured"
    seed: int | None = None
    pair: int | None = None
    failed: bool = False
    bound: str = ""
    note: str = ""
    jobs: tuple[str, ...] = ()
    together: Together | None = None
    curve: Curve | None = None
    plane: Plane | None = None
    stand_in: str = ""

    def __post_init__(self) -> None:
        if (self.state == "measured") is (self.value is None):
            raise ExperimentError(f"the number {self.key} is {self.state} and has the value {self.value}")
        if self.value is not None and not math.isfinite(self.value):
            raise ExperimentError(
                f"the number {self.key} is {self.value}; it must be finite: call it undefined and say why"
            )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The values of one key at one budget.

    mean: over the values; failed runs count as they are.
    std: sample standard deviation over the runs as far as the paper says, of summed forgetting events over
        the images; None where there is none: one run, or nothing printed.
    runs: how many runs, or pairs of noise copies, the mean is of. epochs: budget of the full trainings.
    values: one number a run or pair, in their order; a single one where it is of all runs together. Empty
        for printed numbers.
    seeds: the numbers of the runs behind the values, where each is of one.
    missing: how many runs or pairs are not computed yet. undefined: how many have no value.
    failed: at least one run stayed at chance or diverged.
    winning: a ticket at least as good as its own dense network, none of the runs failed (reading C6); of
        printed cells, where the paper's underline has survived.
    clearly: of a winning ticket with three runs or more, whether it is better beyond the noise of the seeds.
    stand_in: what was really trained, where something stands in for the network and data of the key.
    """

    key: Key
    mean: float
    std: float | None
    runs: int
    epochs: int
    values: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    missing: int = 0
    undefined: int = 0
    failed: bool = False
    winning: bool = False
    clearly: bool | None = None
    note: str = ""
    stand_in: str = ""

    def __post_init__(self) -> None:
        for value in (self.mean, *self.values):
            if not math.isfinite(value):
                raise ExperimentError(
                    f"the cell {self.key} holds {value}; it must be finite: "
                    "leave an undefined run out and say so in the note"
                )

    @property
    def of_pairs(self) -> bool:
        """Whether its values are of pairs of noise copies of one run."""
        return self.key.over == "pairs"

    @property
    def counted(self) -> str:
        """What its values are of: ``"3 runs"``, ``"1 pair"``."""
        return many(self.runs, "pair" if self.of_pairs else "run")


def copies_of(pairs: int) -> int:
    """How many noise copies make so many pairs."""
    return (1 + math.isqrt(1 + 8 * pairs)) // 2


def measured(
    key: Key,
    values: Sequence[float],
    *,
    epochs: int,
    failed: bool = False,
    winning: bool = False,
    note: str = "",
    together: Together | None = None,
) -> Cell:
    """A cell of our own runs: mean and sample standard deviation come from ``values``, one number a run.

    together: of a single number that several runs have together, what cannot come from ``values``.

    Raises :class:`~tombola.errors.ExperimentError` without a value, or for one that is not finite.
    """
    if not values:
        raise ExperimentError(f"the cell {key} has no runs; a cell needs at least one value")
    together = together or Together(len(values), sample_std(values))
    return Cell(
        key=key, mean=mean(values), std=together.spread, runs=together.runs, epochs=epochs,
        values=tuple(values), failed=failed, winning=winning, note=note,
    )  # fmt: skip


def cell_of(numbers: Sequence[Number]) -> Cell | None:
    """The cell of all numbers of one key at one budget; None where none of them is measured."""
    present = [number for number in numbers if number.value is not None]
    if not present:
        return None
    values = tuple(number.value for number in present if number.value is not None)
    notes = dict.fromkeys(number.note for number in numbers if number.note)
    bounds = [number.bound for number in present if number.bound]
    bound = [f"{bounds.count(text)} of {len(values)} {text}" for text in dict.fromkeys(bounds)]
    cell = measured(
        present[0].key, values, epochs=present[0].epochs, failed=any(number.failed for number in numbers),
        note="; ".join([*notes, *bound]), together=present[0].together,
    )  # fmt: skip
    seeds = tuple(number.seed for number in present if number.seed is not None)
    return replace(
        cell,
        seeds=seeds if len(seeds) == len(values) else (),
        missing=sum(number.state == "missing" for number in numbers),
        undefined=sum(number.state == "undefined" for number in numbers),
        stand_in=present[0].stand_in,
    )


@dataclass(frozen=True)
class Entry:
    """What there is of one key in a view: its numbers, their cell, and what the paper prints.

    cell: None until all numbers are there, and where the number is undefined for every run.
    """

    key: Key
    numbers: tuple[Number, ...]
    cell: Cell | None = None
    printed: Cell | None = None

    @property
    def finished(self) -> bool:
        """Whether none of its numbers is missing."""
        return all(number.state != "missing" for number in self.numbers)

    @property
    def undefined(self) -> bool:
        """Whether its numbers are computed, and none has a value."""
        return bool(self.numbers) and all(number.state == "undefined" for number in self.numbers)

    @property
    def failed(self) -> bool:
        """Whether a run behind it diverged or stayed at chance."""
        return any(number.failed for number in self.numbers)


def entries_of(
    groups: Iterable[tuple[Key, Sequence[Number]]],
    printed: Mapping[Key, Cell] | None = None,
    *,
    partial: bool = False,
) -> list[Entry]:
    """An entry for each key with its numbers, all of one budget, in their order.

    printed: the paper's cells by key. partial: as for :func:`cells_of`.
    """
    by_key = {key: tuple(numbers) for key, numbers in groups}
    every = (number for numbers in by_key.values() for number in numbers)
    cells = longest(cells_of(every, partial=partial))
    printed = printed or {}
    return [Entry(key, numbers, cells.get(key), printed.get(key)) for key, numbers in by_key.items()]


def cells_of(numbers: Iterable[Number], *, partial: bool = False) -> dict[Key, list[Cell]]:
    """The cells of some numbers by key, each budget by itself from the shortest to the longest.

    partial: also of keys of which some runs are missing. A mean of some of the runs is a mean of others than
        the table says, so it is left out otherwise.

    Tickets at least as good as their own dense network at the same budget are winning (reading C6).
    """
    grouped: dict[tuple[Key, int], list[Number]] = {}
    for number in numbers:
        grouped.setdefault((number.key, number.epochs), []).append(number)
    cells = {
        place: cell
        for place, group in grouped.items()
        if (cell := cell_of(group)) is not None and (partial or not cell.missing)
    }
    by_key: dict[Key, list[Cell]] = {}
    for (key, epochs), cell in sorted(cells.items(), key=lambda entry: entry[0][1]):
        dense = cells.get((replace(key, sparsity=0.0), epochs)) if is_ticket(key) else None
        by_key.setdefault(key, []).append(_judged(cell, dense) if dense else cell)
    return by_key


def longest(cells: Mapping[Key, Sequence[Cell]]) -> dict[Key, Cell]:
    """Of each key the cell with the longest budget."""
    return {key: group[-1] for key, group in cells.items()}


def by_key(cells: Iterable[Cell]) -> dict[Key, Cell]:
    """Cells under their keys; :class:`~tombola.errors.ExperimentError` if two have the same."""
    under: dict[Key, Cell] = {}
    for cell in cells:
        if cell.key in under:
            raise ExperimentError(f"two cells are of {cell.key}; each key has one")
        under[cell.key] = cell
    return under


def is_ticket(key: Key) -> bool:
    """Whether this is the accuracy of a trained ticket, which may win over its own dense network."""
    return key.metric == "val_accuracy" and bool(key.sparsity) and not key.subset_percent and not key.baseline


def _judged(cell: Cell, dense: Cell) -> Cell:
    """The cell of a ticket, marked if it wins; a run that failed to train wins nothing."""
    if cell.failed or dense.failed or cell.missing or dense.missing:
        return cell
    if not is_winning(cell.values, dense.values):
        return cell
    interval = difference_interval(cell, dense)
    return replace(cell, winning=True, clearly=None if interval is None else interval[0] > 0)


LEAST_RUNS = 3
"""Runs from which a mean is given an interval: with two it would be as wide as the axis."""


def mean_interval(cell: Cell, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of a cell's own values; None for fewer than three."""
    if len(cell.values) < LEAST_RUNS:
        return None
    std = sample_std(cell.values) or 0.0
    half = student(len(cell.values) - 1, confidence) * std / math.sqrt(len(cell.values))
    return cell.mean - half, cell.mean + half


def difference_interval(first: Cell, second: Cell, confidence: float = 0.95) -> tuple[float, float] | None:
    """The interval of the mean of ``first`` minus that of ``second``; errors as for :func:`sum_interval`."""
    return sum_interval([(1.0, first), (-1.0, second)], confidence)


def sum_interval(
    weighted: Iterable[tuple[float, Cell]], confidence: float = 0.95
) -> tuple[float, float] | None:
    """The interval of a weighted sum of the means of cells; None where one has fewer than three values.

    Paired, that is of the sums seed by seed, where all cells are of the same seeds, because runs of one seed
    share their initialisation; else by the degrees of freedom of Welch and Satterthwaite. Pairs of noise
    copies share their copies and count as independent here, so their interval is somewhat too narrow.
    """
    weights: dict[Cell, float] = {}
    for weight, cell in weighted:
        weights[cell] = weights.get(cell, 0.0) + weight
    terms = [(weight, cell) for cell, weight in weights.items() if weight]
    if not terms or min(len(cell.values) for _, cell in terms) < LEAST_RUNS:
        return None
    center = math.fsum(weight * cell.mean for weight, cell in terms)
    seeds = terms[0][1].seeds
    # Several pairs of noise copies of one seed are no runs of several seeds.
    if len(set(seeds)) == len(seeds) > 0 and len({cell.seeds for _, cell in terms}) == 1:
        rows = zip(*([weight * value for value in cell.values] for weight, cell in terms), strict=True)
        sums = [math.fsum(row) for row in rows]
        half = student(len(sums) - 1, confidence) * (sample_std(sums) or 0.0) / math.sqrt(len(sums))
        return center - half, center + half
    parts = [
        (weight**2 * (sample_std(cell.values) or 0.0) ** 2 / len(cell.values), len(cell.values) - 1)
        for weight, cell in terms
    ]
    total = math.fsum(part for part, _ in parts)
    if not total:
        return center, center
    freedom = total**2 / math.fsum(part**2 / count for part, count in parts)
    half = student(freedom, confidence) * math.sqrt(total)
    return center - half, center + half


def student(freedom: float, confidence: float = 0.95) -> float:
    """How many standard errors reach as far as Student's interval of that confidence."""
    from scipy.special import stdtrit  # not before an interval is wanted

    return float(stdtrit(freedom, (1 + confidence) / 2))
