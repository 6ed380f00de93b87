"""Keys: what a number was measured on, and never where it is printed.

A number that two tables show has one key, so it is computed once, printed numbers stand beside it wherever it
is shown, and a claim asks for it without knowing its table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal

from tombola.errors import ExperimentError

Over = Literal["seeds", "pairs", "copies", "rounds"]
"""What the values of a key are of: runs that differ in initialisation and noise; pairs of noise copies of one
run; noise copies of one run; consecutive rounds of one run."""
Criterion = Literal[
    "random_class_balanced", "least_forgotten", "most_forgotten", "easiest_removed", "hardest_removed",
    "by_score", "random", "herding", "k_center",
]  # fmt: skip
Baseline = Literal[
    "permuted", "randomized", "reinitialized", "random_dense", "frozen_dense", "retrained_dense", "dense"
]
"""What stands beside the tickets: a ticket with its mask permuted or drawn at random, or on another
initialisation; a dense network that was never trained, trained and frozen, or trained on the target."""
Scalar = str | int | float | bool | None

ITERATIONS = "iterations"
"""The axis of a budget in iterations, beside which the budget in epochs is 0."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What was measured on what. None: does not apply or, for a baseline of the paper, is not stated.

    metric: a name of :data:`~tombola.table.metrics.METRICS`, or ``measure.quantity`` of an experiment of
        one's own.
    over: what its values are of. reading: which reading of the paper, where there are two under one metric:
        ``"literal"`` takes the numbers of blocks as the network has them (reading B6).
    network, dataset: what the network or ticket was trained on; with a retrained dense network the target
        itself.
    target: what a frozen network was transferred to.
    momentum, batch_size, pretrained: of the mask search; pretrained means late rewinding. AdamW has no
        momentum.
    search_share: budget of each mask search training as a share of the full one, if shortened (AIMP).
    sparse_momentum, sparse_batch_size: of the sparse training where it differs from the mask search.
    block: as the paper numbers them; a probe of "block 8" of ResNet-34 is one after its last block.
    sparsity: percent of the prunable weights as :func:`sparsity_of` gives it, never a measured share;
        0.0 is dense.
    subset_percent, subset_criterion: how much of the training images was kept, and how they were chosen.
    baseline: None is the ticket or network of the row itself.
    more: further axes, sorted by name: of an experiment of one's own, or what else tells two jobs apart.

    Raises :class:`~tombola.errors.ExperimentError` for an axis named twice, or as a field of a key is,
    and for a value that is not finite: it would not equal itself.
    """

    metric: str
    over: Over = "seeds"
    reading: str = ""
    network: str | None = None
    dataset: str | None = None
    target: str | None = None
    momentum: float | None = None
    batch_size: int | None = None
    pretrained: bool | None = None
    search_share: float | None = None
    sparse_momentum: float | None = None
    sparse_batch_size: int | None = None
    block: int | None = None
    sparsity: float | None = None
    subset_percent: int | None = None
    subset_criterion: Criterion | None = None
    baseline: Baseline | None = None
    more: tuple[tuple[str, Scalar], ...] = ()

    def __post_init__(self) -> None:
        for name in _FLOATS:
            value: float | None = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ExperimentError(f"{name} of a key is {value}; it must be finite, or None if unknown")
        if self.more:
            self._check_axes()

    def _check_axes(self) -> None:
        """Sort the further axes by name, and refuse those that no table could tell apart."""
        names = [name for name, _ in self.more]
        if names != sorted(names):
            object.__setattr__(self, "more", tuple(sorted(self.more, key=lambda axis: axis[0])))
        for place, (name, value) in enumerate(self.more):
            if name in KEY_FIELDS or (place and self.more[place - 1][0] == name):
                raise ExperimentError(f"an axis of a key is called {name!r}, as another one is; rename it")
            if isinstance(value, float) and not math.isfinite(value):
                raise ExperimentError(f"axis {name!r} of a key is {value}; it must be finite")

    def __str__(self) -> str:
        named = {name: self.get(name) for name in (*KEY_FIELDS, *(name for name, _ in self.more))}
        return " ".join(
            value if isinstance(value, str) else f"{name}={value:g}"
            for name, value in named.items()
            if value not in (None, "") and (name, value) != ("over", "seeds")
        )

    def get(self, name: str) -> Scalar:
        """The value of a field or of a further axis; None for an axis that this key does not have."""
        if name not in KEY_FIELDS:
            return dict(self.more).get(name)
        value: Scalar = getattr(self, name)
        return value


_FLOATS = ("momentum", "search_share", "sparse_momentum", "sparsity")
KEY_FIELDS = tuple(field.name for field in fields(Key) if field.name != "more")
"""The names of the fields of a key, in their order, without the further axes."""


@cache
def sparsity_after(prunings: int, fraction: float = 0.2) -> float:
    """Percent of the weights pruned after so many rounds, with two decimals as in the paper's columns.

    There are more where two do not tell it from the rounds before and after and from 100%.
    """
    around = [100 * (1 - (1 - fraction) ** count) for count in (prunings - 1, prunings, prunings + 1)]
    for digits in range(2, 16):
        before, sparsity, after = (round(percent, digits) for percent in around)
        if before < sparsity < after and sparsity < 100:
            break
    return sparsity


def sparsity_of(prunings: Mapping[float, int]) -> float:
    """Percent of the weights pruned after so many rounds of each fraction, likewise.

    There are more decimals where two are less exact than a hundredth of what is left.
    """
    if len(prunings) == 1:
        [(fraction, count)] = prunings.items()
        return sparsity_after(count, fraction)
    kept = math.prod((1 - fraction) ** count for fraction, count in prunings.items())
    for digits in range(2, 16):
        sparsity = round(100 * (1 - kept), digits)
        if sparsity < 100 and abs(100 - sparsity - 100 * kept) <= kept:
            break
    return sparsity
