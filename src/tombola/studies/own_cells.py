"""The numbers of a study of one's own, as far as its jobs are finished."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.lab.job import Job, result_type
from tombola.lab.lab import Lab
from tombola.lab.results import numbers_of
from tombola.studies.own_rows import Row
from tombola.studies.results import Results
from tombola.training.run import Run


@dataclass(frozen=True)
class OwnCell:
    """A number of a row.

    quantity: its name, such as ``"untrained.loss"``. values: of the finished runs, or pairs of runs.
    starred: whether a run behind them failed.
    """

    row: Row
    quantity: str
    values: tuple[float, ...]
    starred: bool = False


def own_cells(lab: Lab, rows: Sequence[Row]) -> list[OwnCell]:
    """The numbers of rows as far as their jobs are finished; of runs the accuracy alone."""
    results = Results(lab.store)
    return [cell for row in rows for cell in _cells(lab, results, row)]


def _cells(lab: Lab, results: Results, row: Row) -> Iterator[OwnCell]:
    found: dict[str, list[float]] = {}
    starred = False
    for each in row.jobs:
        result = results.of(each) if each.stored else _unstored(lab, each)
        if result is None:
            continue
        starred = starred or any(results.of(run)["failed"] for run in _runs_of(each))
        numbers = {"": result["accuracy"]} if row.measure == "run" else numbers_of(result)
        for key, value in numbers.items():
            if not row.quantity or re.match(rf"{re.escape(row.quantity)}(?![^.\[])", key):
                found.setdefault(key, []).append(value)
    name = "accuracy" if row.measure == "run" else row.measure
    between = f" between {row.between}" if row.between else ""
    for key, values in found.items():
        quantity = f"{name}.{key}" if key else name
        yield OwnCell(row, quantity + between, tuple(values), starred)


def _runs_of(measure: Job) -> list[Job]:
    """A run itself, or the runs that a measure was taken of."""
    return [each for each in (measure, *measure.needs) if result_type(each.declaration) is Run]


def _unstored(lab: Lab, each: Job) -> Any:
    """The result of an exact and cheap measure, which no store keeps; None before it can be taken."""
    return lab.result(each) if all(map(lab.has, each.needs)) else None
