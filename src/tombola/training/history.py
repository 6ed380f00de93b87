"""What a training leaves behind of each epoch, and of each training image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from tombola.errors import TicketError

NOT_MEASURED = float("nan")


@dataclass(frozen=True)
class Epoch:
    """One row of a history. Losses are mean cross-entropies in nats, accuracies in percent.

    The first row is the state before any step: its training columns are not a number.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    forgetting_events: int
    """Over all training images, in this epoch."""
    seconds: float
    """Wall time; the one column that is not reproducible."""


class History(Sequence[Epoch]):
    """The rows of a training, one an epoch, beginning with the row before any step."""

    def __init__(self, rows: Sequence[Epoch]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def column(self, name: str) -> list[Any]:
        """One column, top to bottom."""
        return [getattr(row, name) for row in self._rows]

    def tensors(self) -> dict[str, Tensor]:
        """All columns as float64 tensors ``(rows,)``, for a file."""
        return {
            f"history.{field.name}": torch.tensor(self.column(field.name), dtype=torch.float64)
            for field in fields(Epoch)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> History:
        """The history that :meth:`tensors` wrote down."""
        columns = {field.name: tensors[f"history.{field.name}"].tolist() for field in fields(Epoch)}
        if len({len(column) for column in columns.values()}) != 1:
            raise TicketError("history columns of different lengths")
        if not columns["epoch"]:
            raise TicketError("a history without rows")
        columns["epoch"] = [int(value) for value in columns["epoch"]]
        columns["forgetting_events"] = [int(value) for value in columns["forgetting_events"]]
        return cls(
            [Epoch(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        )

    def table(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [asdict(row) for row in self._rows]


@dataclass(frozen=True, eq=False)
class ForgettingRecord:
    """What happened to each training image (Toneva et al., 2019).

    events: int16 ``(N,)``, how often it was right at one presentation and wrong at the next.
    learned: bool ``(N,)``, whether it was ever right.
    correct: bool ``(N,)``, whether it was right at its last presentation.
    """

    events: Tensor
    learned: Tensor
    correct: Tensor

    @classmethod
    def empty(cls, count: int, device: torch.device | None = None) -> ForgettingRecord:
        """The record before any presentation."""
        none = torch.zeros(count, dtype=torch.bool, device=device)
        return cls(torch.zeros(count, dtype=torch.int16, device=device), none, none.clone())

    def present(self, indices: Tensor, right: Tensor) -> int:
        """Take in one presentation of each of the images, and say how many forgetting events that were.

        indices: int64 ``(B,)``, no image twice; right: bool ``(B,)``, whether each was classified correctly.
        """
        forgotten = self.correct[indices] & ~right
        self.events[indices] += forgotten.to(torch.int16)
        self.correct[indices] = right
        self.learned[indices] |= right
        return int(forgotten.sum())

    def tensors(self) -> dict[str, Tensor]:
        """The record as CPU tensors, for a file."""
        return {
            "forgetting.events": self.events.cpu().clone(),
            "forgetting.learned": self.learned.cpu().clone(),
            "forgetting.correct": self.correct.cpu().clone(),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], device: torch.device | None = None
    ) -> ForgettingRecord:
        """The record that :meth:`tensors` wrote down."""
        names = ("events", "learned", "correct")
        return cls(*(tensors[f"forgetting.{name}"].to(device, copy=True) for name in names))
