"""Selections of training images: by a score, or at random; and the data that a selection leaves.

A selection is a list of indices, which can be exported and read; :func:`selected` makes data of it.
:mod:`tombola.measures.coresets` selects by where images lie among each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from tombola.cost import Cost, Size
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.data.subsets import class_counts, rounded_half_up, take
from tombola.errors import DataError, unknown
from tombola.files import checksum
from tombola.measures.example_scores import ExampleScores
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.seeds import generator

Keep = Literal["hard", "easy"]


@dataclass(frozen=True, eq=False, repr=False)
class Selection(OneLine):
    """Some of the train images of a data set.

    method: how they were chosen, such as ``"herding"``.
    indices: int64 ``(n,)``, each once, in the order in which they were chosen.
    images: how many there are to choose from.
    """

    method: str
    indices: Tensor
    images: int

    def _in_one_line(self) -> str:
        return f"<{self.count:,} of {self.images:,} train images by {self.method}>"

    def _facts(self) -> dict[str, object]:
        return {"method": self.method, "chosen": f"{self.count:,}", "of": f"{self.images:,}"}

    @property
    def count(self) -> int:
        """How many images were chosen."""
        return len(self.indices)

    @property
    def share(self) -> float:
        """Which share of the train images that is, 0 to 1."""
        return self.count / self.images

    def csv(self) -> str:
        """The indices as CSV, a line each, in the order in which they were chosen."""
        return "\n".join(("image", *map(str, self.indices.tolist()))) + "\n"


def selected_cost(data: Size, share: float) -> Cost:
    """Nothing; what is selected has the size of that part of the data."""
    return Cost(result=data.part(share))


@declare("select-by-score", stored=False, cost=selected_cost)
def select_by_score(
    scores: ExampleScores,
    data: DataLike,
    *,
    share: float,
    keep: Keep = "hard",
    skip: float = 0.0,
    balanced: bool = False,
    seed: int = 0,
) -> Selection:
    """The hardest or easiest train images by a score, or a window of the ranking.

    scores: of the train images of ``data``, such as :func:`~tombola.example_scores` gives.
    share: how many are chosen, of all images; above 0, at most 1, rounded to whole images, half up.
    keep: ``"hard"`` begins at the hard end of the score, whichever that is, ``"easy"`` at the other.
    skip: share of the images at that end that is passed over first: the offset windows of Paul et al. (2021),
        who leave out the hardest, among which wrong labels are.
    balanced: choose within each class by itself, the same share of each, as for
        :func:`~tombola.subset`; by default no class counts as another. DeepCore balances unless told not to,
        Paul et al. do not, and DeepCore's unbalanced uncertainty keeps the most certain images.
    seed: number of the draw among images of equal scores.

    Raises :class:`~tombola.errors.DataError` for shares out of range, for a class that would be left without
    an image where balanced, for scores of images of another number or other labels, and for unknown (NaN)
    scores.
    """
    data = load_data(data)
    if keep not in get_args(Keep):
        raise DataError(unknown("end to keep", str(keep), get_args(Keep)))
    if len(scores.values) != len(data.train):
        raise DataError(
            f"the scores are of {len(scores.values):,} images, but {data.name} has {len(data.train):,} train "
            "images; give scores of these"
        )
    if scores.labels_checksum not in (None, checksum(data.train.labels)):
        raise DataError(
            f"the scores are of images whose labels are not those of the train images of {data.name}; give "
            "scores of these"
        )
    if scores.unknown:
        raise DataError(
            f"{scores.unknown:,} of the {len(scores.values):,} {scores.score} scores are not known (NaN), so "
            "images cannot be ranked; give scores of more runs"
        )
    check_share(share)
    if not 0 <= skip < 1:
        raise DataError(f"skip is {skip}; it must be at least 0 and below 1, a share of the images")
    ascending = (keep == "easy") == (scores.hard == "high")
    values = scores.values if ascending else -scores.values
    words = generator("example score ties", seed).bit_generator.random_raw(len(values))
    ranked = torch.from_numpy(np.lexsort((words, values.numpy())))

    def window(members: Tensor, count: int) -> Tensor:
        first = rounded_half_up(skip * len(members))
        if first + count > len(members):
            raise DataError(
                f"skip is {skip} and share is {share}: {first:,} and {count:,} of {len(members):,} images; "
                "together they must be at most 1"
            )
        return members[first : first + count]

    places = chosen_places(data.train.labels[ranked], data, share, balanced, window)
    text = f"{keep} {scores.score}" + f", after {skip:g}" * bool(skip) + ", balanced" * balanced
    return Selection(text, ranked[places], len(ranked))


@declare("random-selection", stored=False, cost=selected_cost)
def random_selection(data: DataLike, *, share: float, balanced: bool = False, seed: int = 0) -> Selection:
    """Train images at random, without replacement: the baseline of all selections.

    :func:`~tombola.memorization` rests on trainings on many of them.

    share, balanced: as for :func:`select_by_score`.
    seed: number of the draw; of one seed smaller selections are within larger ones.

    Raises :class:`~tombola.errors.DataError` for a share out of range.
    """
    data = load_data(data)
    check_share(share)
    words = generator("random selection", seed).bit_generator.random_raw(len(data.train))
    ranked = torch.from_numpy(np.argsort(words, kind="stable"))
    places = chosen_places(
        data.train.labels[ranked], data, share, balanced, lambda members, count: members[:count]
    )
    return Selection("random" + ", balanced" * balanced, ranked[places], len(ranked))


def check_share(share: float) -> None:
    """Raises DataError for a share of images outside (0, 1]."""
    if not 0 < share <= 1:
        raise DataError(f"share is {share}; it must lie above 0 and be at most 1")


def chosen_places(
    labels: Tensor,
    data: Data,
    share: float,
    balanced: bool,
    choose: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Places in a ranking that are chosen of all images, or where balanced in each class, in rising order.

    labels: int64 ``(N,)``, of the images in the order of the ranking.
    choose: gets places, in rising order, and how many to choose of them.

    Raises :class:`~tombola.errors.DataError` for a share that leaves nothing, or a class without an image.
    """
    if not balanced:
        count = rounded_half_up(share * len(labels))
        if not count:
            raise DataError(f"share is {share}, which leaves none of {len(labels):,} images; ask for more")
        return choose(torch.arange(len(labels)), count)
    counts = class_counts(data, share, None)
    members = [(labels == index).nonzero().flatten() for index in range(len(counts))]
    chosen = [choose(places, count) for places, count in zip(members, counts, strict=True) if count]
    return torch.cat(chosen).sort().values


def _selected_cost(selection: Size) -> Cost:
    return Cost(result=selection)


@declare("selected", stored=False, cost=_selected_cost)
def selected(data: DataLike, selection: Selection) -> Data:
    """The data with the selected train images only, in their old order; test split and normalisation stay.

    A training on it has fewer steps an epoch. Paul et al. (2021) train subsets for as many steps as all of
    the data: give the recipe as many epochs more. Classes may be left without images.

    Raises :class:`~tombola.errors.DataError` for a selection from another number of images.
    """
    data = load_data(data)
    if selection.images != len(data.train):
        raise DataError(
            f"the selection is of {selection.images:,} images, but {data.name} has {len(data.train):,} train "
            "images; give the data that it was made of"
        )
    return take(data, selection.indices.sort().values)


def members_of(selections: Sequence[Selection]) -> Tensor:
    """Which images each of some selections has, bool ``(selections, images)``.

    Raises :class:`~tombola.errors.DataError` for selections from different numbers of images.
    """
    counts = sorted({selection.images for selection in selections})
    if len(counts) != 1:
        raise DataError(
            f"the selections are of {', '.join(map(str, counts))} images; they must be of the same"
        )
    members = torch.zeros(len(selections), counts[0], dtype=torch.bool)
    for row, selection in zip(members, selections, strict=True):
        row[selection.indices] = True
    return members
