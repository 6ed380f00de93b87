"""What another library logged of a training: numbers by name and iteration, and nothing in between."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tombola.untrusted import has_control_characters

_PREFIX, _ITERATIONS, _VALUES = "logged.", ".iterations", ".values"


@dataclass(frozen=True)
class LoggedValues:
    """The log of a training elsewhere, as it is: what it does not say is absent.

    by_name: the values of each name, such as ``"test_loss"``, by iteration: the steps that were done when it
        was measured, pretraining included. Names that end in ``_accuracy`` are in percent.
    """

    by_name: Mapping[str, Mapping[int, float]]

    @classmethod
    def of(cls, entries: Iterable[tuple[str, int, float]]) -> LoggedValues:
        """The log with these names, iterations and values.

        Raises ValueError for two values of a name at one iteration, and a name that cannot be printed.
        """
        by_name: dict[str, dict[int, float]] = {}
        for name, iteration, value in entries:
            if has_control_characters(name):
                raise ValueError(f"the name {name!r:.60} has control characters")
            values = by_name.setdefault(name, {})
            if iteration in values:
                raise ValueError(f"{name} stands there twice at iteration {iteration}")
            values[iteration] = value
        return cls({name: dict(sorted(values.items())) for name, values in sorted(by_name.items())})

    def table(self) -> list[dict[str, Any]]:
        """A row for each iteration, with the names that were logged at it."""
        iterations = sorted(set().union(*self.by_name.values()))
        return [
            {"iteration": iteration}
            | {name: values[iteration] for name, values in self.by_name.items() if iteration in values}
            for iteration in iterations
        ]

    def in_words(self) -> str:
        """Which names were logged, and when."""
        rows, names = self.table(), ", ".join(self.by_name)
        return f"{names} at {len(rows)} iterations, {rows[0]['iteration']} to {rows[-1]['iteration']}"

    def tensors(self) -> dict[str, Tensor]:
        """For each name its iterations, int64, and values, float64, for a file."""
        tensors = {}
        for name, values in self.by_name.items():
            tensors[f"{_PREFIX}{name}{_ITERATIONS}"] = torch.tensor(list(values), dtype=torch.int64)
            tensors[f"{_PREFIX}{name}{_VALUES}"] = torch.tensor(list(values.values()), dtype=torch.float64)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> LoggedValues | None:
        """The log of which :meth:`tensors` returned the values among others; None without one."""
        names = [
            name.removeprefix(_PREFIX).removesuffix(_VALUES)
            for name in tensors
            if name.startswith(_PREFIX) and name.endswith(_VALUES)
        ]
        entries = [
            (name, int(iteration), float(value))
            for name in names
            for iteration, value in zip(
                tensors[f"{_PREFIX}{name}{_ITERATIONS}"].tolist(),
                tensors[f"{_PREFIX}{name}{_VALUES}"].tolist(),
                strict=True,
            )
        ]
        return cls.of(entries) if entries else None
