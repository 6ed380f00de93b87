"""Basins: which of several runs are joined by lines without a barrier, and how many basins that makes.

Linear connectivity (:mod:`tombola.measures.connectivity`) is a relation between two runs; here it is asked of
every pair of copies, of the rounds of a chain or of any runs of one network. Two runs are joined where their
barrier is below a threshold, and a basin is a set of runs each of which a way of joined pairs leads to (the
connected components). With each pair's line that is also the table of barriers between any two rounds that
Paul et al. (2023) read the error landscape of iterative pruning from.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, unknown
from tombola.measures.connectivity import Barrier, Recalibrate, Split, barrier, check_line, lines_cost
from tombola.measures.limits import STABLE_BELOW
from tombola.registry import declare
from tombola.training.checkpoint import Watch
from tombola.training.run import Run

Height = Literal["height", "excess"]
"""Which barrier of a line counts: over the mean of its end errors (Eq. 3), or over the line between them."""


@dataclass(frozen=True)
class Basins:
    """The lines between all pairs of some runs, and the basins that they make.

    lines: first and second run, first and third, ..., second and third, ...
    of: number of the basin of each run, from 0 in the order of the runs.
    by: which barrier counts. threshold: in percentage points; two runs are joined below it.
    """

    lines: tuple[Barrier, ...]
    of: tuple[int, ...]
    by: Height = "height"
    threshold: float = STABLE_BELOW

    @property
    def count(self) -> int:
        """How many basins there are."""
        return len(set(self.of))

    @property
    def largest(self) -> int:
        """How many runs the largest basin has."""
        return max(self.of.count(basin) for basin in set(self.of))

    @property
    def heights(self) -> tuple[float, ...]:
        """The barrier of each pair that counts, in percentage points."""
        return tuple(getattr(line, self.by) for line in self.lines)

    @property
    def joined(self) -> float:
        """The share of the pairs that are joined, 0 to 1."""
        return sum(height < self.threshold for height in self.heights) / len(self.lines)

    @property
    def closed(self) -> bool:
        """Whether all pairs within each basin are joined, so that no basin rests on ways over other runs."""
        pairs = itertools.combinations(self.of, 2)
        within = zip(pairs, self.heights, strict=True)
        return all(height < self.threshold for (first, second), height in within if first == second)


def basins_of(heights: Sequence[float], runs: int, threshold: float = STABLE_BELOW) -> tuple[int, ...]:
    """The number of the basin of each run, from 0 in the order of the runs.

    heights: barriers of all pairs in percentage points: first and second run, first and third, ...; NaN for
        one that is undefined, which joins nothing.
    """
    basin = list(range(runs))
    for (first, second), height in zip(itertools.combinations(range(runs), 2), heights, strict=True):
        if height < threshold and basin[first] != basin[second]:
            merged, gone = sorted((basin[first], basin[second]))
            basin = [merged if number == gone else number for number in basin]
    order = list(dict.fromkeys(basin))
    return tuple(order.index(number) for number in basin)


def _basins_cost(runs: Sequence[Outline], data: Size, points: int, recalibrate: Recalibrate) -> Cost:
    """Evaluations on the lines between all pairs."""
    return lines_cost(runs[0], data, points, recalibrate, lines=math.comb(len(runs), 2))


@declare("basins", cost=_basins_cost)
def basins(
    runs: Sequence[Run],
    data: DataLike,
    *,
    by: Height = "height",
    threshold: float = STABLE_BELOW,
    points: int = 11,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Basins:
    """The basins of some runs of one network, by the barriers between all pairs of them.

    runs: at least two: copies of one training, the rounds of a chain, or any others. Tickets may differ.
    by: the barrier that counts: ``"height"``, the largest error on the line minus the mean of the two end
        errors (Frankle et al., 2020), or ``"excess"``, the largest error above the line between the two end
        errors (Paul et al., 2023; Entezari et al., 2022), which is 0 where the error only rises: so it is on
        most ways to a run at chance, too, which lies in no basin. Between rounds of very different error the
        first is at least half their difference.
    threshold: in percentage points. points, recalibrate, split: as for :func:`~tombola.barrier`.

    A run to which a line has no finite loss is joined to none by it.

    Raises :class:`~tombola.errors.RecipeError` for fewer than two runs, and what ``barrier`` raises.
    """
    data = load_data(data)
    check_line(points, recalibrate, split)
    if by not in get_args(Height):
        raise RecipeError(unknown("barrier", str(by), get_args(Height)))
    if len(runs) < 2:
        raise RecipeError(f"basins of {len(runs)} run(s); give at least two")
    lines = tuple(
        barrier(
            first, second, data, points=points, recalibrate=recalibrate, split=split, device=device,
            watch=watch,
        )
        for first, second in itertools.combinations(runs, 2)
    )  # fmt: skip
    heights = [getattr(line, by) for line in lines]
    return Basins(lines, basins_of(heights, len(runs), threshold), by, threshold)
