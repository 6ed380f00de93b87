"""Cells: the one form in which a number of a table or figure is kept, printed in the paper or run by us.

A cell says where it stands (its study, row and column) and what it holds: mean and spread over runs, the runs
themselves where they are ours, and the budget. Claims and comparisons read cells and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from tombola.errors import StudyError
from tombola.measures.statistics import mean, sample_std

Metric = Literal[
    "val_accuracy",  # percent
    "probe_accuracy",  # percent, of a linear probe on frozen features
    "untrained_accuracy",  # percent, of a ticket as it is, with its own linear layer
    "recalibrated_untrained_accuracy",  # the same with batch-norm statistics measured on the train images
    "forgetting_events",  # mean number an image over the whole training of a run
    "forgetting_spread",  # standard deviation of that number over the images of a run
    "summed_forgetting_events",  # mean over images of the sum over three runs, halved (reading D8)
    "late_forgetting_events",  # mean number an image and epoch over the last quarter of the epochs
    "unforgettable_percent",  # percent of the training images
    "convergence",  # Eq. 4
    "first_stable_epoch",  # epochs of pretraining
    "barrier",  # percentage points (Eq. 3), between runs that differ in their noise
    "recalibrated_barrier",  # the same with batch-norm statistics measured anew on the line
    "barrier_to_next",  # percentage points, between the trained tickets of this round and of the next
    "highest_path_error",  # percent, the largest error on the line between two runs
    "barrier_reached",  # smallest position on that line (0 to 1) with at least 90% of the largest error
]
OF_PAIRS: frozenset[Metric] = frozenset(
    {"barrier", "recalibrated_barrier", "highest_path_error", "barrier_reached"}
)
"""Those with a value for each pair of noise copies of a single run, where others have one a run."""
Criterion = Literal[
    "random_class_balanced", "least_forgotten", "most_forgotten", "easiest_removed", "hardest_removed"
]
Baseline = Literal["permuted", "random_dense", "frozen_dense", "retrained_dense", "dense"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a cell stands. None: the key does not apply or, for a baseline of the paper, is not stated.

    study: the table or figure by its name, such as ``"table2"`` or ``"fig16"``.
    dataset: what the network or ticket was trained on; with a retrained dense network the target itself.
    target: what a frozen network was transferred to.
    momentum, batch_size, pretrained: of the mask search; pretrained means two epochs of late rewinding.
    search_epochs: budget of each mask search training where it is shortened (AIMP).
    sparse_momentum, sparse_batch_size: of the sparse training where it differs from the mask search.
    block: as the paper numbers them; a probe of "block 8" of ResNet-34 is one after its last block. In the
        study "literal-blocks" as the network has them.
    sparsity: percent of the prunable weights, with two decimals as the paper heads its columns; 0.0 is dense.
    subset_percent, subset_criterion: how much of the training images was kept, and how they were chosen.
    baseline: None is the ticket or network of the row itself.
    """

    study: str
    metric: Metric
    network: str | None = None
    dataset: str | None = None
    target: str | None = None
    momentum: float | None = None
    batch_size: int | None = None
    pretrained: bool | None = None
    search_epochs: int | None = None
    sparse_momentum: float | None = None
    sparse_batch_size: int | None = None
    block: int | None = None
    sparsity: float | None = None
    subset_percent: int | None = None
    subset_criterion: Criterion | None = None
    baseline: Baseline | None = None

    def __str__(self) -> str:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return " ".join(
            value if isinstance(value, str) else f"{name}={value:g}"
            for name, value in named.items()
            if value is not None
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What stands there.

    mean: over the runs; failed runs count as they are.
    std: sample standard deviation over the runs as far as the paper says, of summed forgetting events over
        the images; None where there is none: one run, or nothing printed.
    runs: how many, or how many pairs of noise copies (:attr:`of_pairs`). epochs: full budget of the trainings
        it rests on.
    values: one number a run or pair, in their order; a single one where it is of all runs together. Empty
        for printed numbers.
    starred: at least one run stayed at chance or diverged.
    underlined: a winning ticket; as printed, where the paper's underline has survived.
    """

    place: Place
    mean: float
    std: float | None
    runs: int
    epochs: int
    values: tuple[float, ...] = ()
    starred: bool = False
    underlined: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        for value in (self.mean, *self.values):
            if not math.isfinite(value):
                raise StudyError(
                    f"the cell {self.place} holds {value}; it must be finite: "
                    "leave an undefined run out and say so in the note"
                )

    @property
    def of_pairs(self) -> bool:
        """Whether its values are of pairs of noise copies of one run."""
        return self.place.metric in OF_PAIRS

    @property
    def counted(self) -> str:
        """What its values are of: ``"3 runs"``, ``"1 pair"``."""
        return many(self.runs, "pair" if self.of_pairs else "run")


@dataclass(frozen=True)
class Together:
    """Of a number that some runs have together: how many they are, and the spread that stands with it."""

    runs: int
    spread: float | None


def many(count: int, what: str) -> str:
    """A count with its word: ``"1 run"``, ``"3 runs"``."""
    return f"{count} {what}{'s' * (count != 1)}"


def copies_of(pairs: int) -> int:
    """How many noise copies make so many pairs."""
    return (1 + math.isqrt(1 + 8 * pairs)) // 2


def measured(
    place: Place,
    values: Sequence[float],
    *,
    epochs: int,
    starred: bool = False,
    underlined: bool = False,
    note: str = "",
    together: Together | None = None,
) -> Cell:
    """A cell of our own runs: mean and sample standard deviation come from ``values``, one number a run.

    together: of a single number that several runs have together, what cannot come from ``values``.

    Raises :class:`~tombola.errors.StudyError` without a value, or for one that is not finite.
    """
    if not values:
        raise StudyError(f"the cell {place} has no runs; a cell needs at least one value")
    together = together or Together(len(values), sample_std(values))
    return Cell(
        place=place, mean=mean(values), std=together.spread, runs=together.runs, epochs=epochs,
        values=tuple(values), starred=starred, underlined=underlined, note=note,
    )  # fmt: skip


def by_place(cells: Iterable[Cell]) -> dict[Place, Cell]:
    """Cells under their places; :class:`~tombola.errors.StudyError` if two stand at one place."""
    found: dict[Place, Cell] = {}
    for cell in cells:
        if cell.place in found:
            raise StudyError(f"two cells stand at {cell.place}; each place holds one")
        found[cell.place] = cell
    return found


def by_study(cells: Mapping[Place, Cell]) -> dict[str, dict[Place, Cell]]:
    """Cells under their places, study by study."""
    found: dict[str, dict[Place, Cell]] = {}
    for place, cell in cells.items():
        found.setdefault(place.study, {})[place] = cell
    return found


def sparsity_after(prunings: int, fraction: float = 0.2) -> float:
    """Percent of the weights pruned after so many rounds, with two decimals as in the paper's columns."""
    return round(100 * (1 - (1 - fraction) ** prunings), 2)
