"""Subsets of a data set by difficulty: how often a run forgot each image (Appendices A.1 and F.1).

The subsets are data sets like any other, normalised as the full set; see :mod:`tombola.data.subsets`. All
are taken from one ranking of the images (:func:`~tombola.measures.learning.forgetting_ranking`), whose ties
are broken by a keyed draw, so that of the same run and seed smaller subsets lie within larger ones.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from tombola.cost import Cost, Size
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.data.subsets import class_counts, rounded_half_up, size_text, with_images
from tombola.errors import DataError, unknown
from tombola.measures.learning import forgetting_ranking
from tombola.registry import declare
from tombola.training.run import Run

Forgotten = Literal["least", "most"]
Difficulty = Literal["easiest", "hardest"]


def _forgotten_cost(data: Size, share: float | None, shots: int | None) -> Cost:
    return Cost(result=data.part(share, shots))


@declare("forgotten-subset", stored=False, cost=_forgotten_cost)
def forgotten_subset(
    data: DataLike,
    run: Run,
    *,
    which: Forgotten,
    share: float | None = None,
    shots: int | None = None,
    seed: int = 0,
) -> Data:
    """The least or the most forgotten train images of each class (Appendix F.1).

    data: what the run was trained on.
    run: whose forgetting record decides.
    which: ``"least"`` or ``"most"`` forgotten; never-learned images count as forgotten most.
    share, shots: how many of each class, as for :func:`~tombola.data.subsets.subset`.
    seed: number of the draw among images that were forgotten equally often.

    Raises :class:`~tombola.errors.DataError` as ``subset`` does, and for a run on other images.
    """
    data = load_data(data)
    _check_ranking(which, get_args(Forgotten), data, run)
    counts = class_counts(data, share, shots)
    order = forgetting_ranking(run, seed=seed)
    if which == "most":
        order = order.flip(0)
    labels = data.train.labels[order]
    chosen = [order[labels == index][:count] for index, count in enumerate(counts)]
    return _chosen_images(data, torch.cat(chosen), f"{which}-forgotten-{size_text(share, shots)}", run, seed)


def _drop_cost(data: Size, share: float) -> Cost:
    return Cost(result=data.part(1.0 - share))


@declare("drop-by-difficulty", stored=False, cost=_drop_cost)
def drop_by_difficulty(data: DataLike, run: Run, *, which: Difficulty, share: float, seed: int = 0) -> Data:
    """The data without the easiest or the hardest of all its train images, of any class (Fig. 7).

    data, run, seed: as for :func:`forgotten_subset`.
    which: drop the ``"easiest"`` (least forgotten) or the ``"hardest"`` (most forgotten) images.
    share: of all train images, between 0 and 1, both excluded, rounded to whole images, half up.

    Raises :class:`~tombola.errors.DataError` for another share or one that drops no image or all, for a class
    that would be left without an image, and for a run on other images.
    """
    data = load_data(data)
    _check_ranking(which, get_args(Difficulty), data, run)
    if not 0 < share < 1:
        raise DataError(f"share is {share}; of the images to drop it must lie between 0 and 1, both excluded")
    total = len(data.train)
    count = rounded_half_up(share * total)
    if count in (0, total):
        raise DataError(
            f"share is {share}, which drops {count} of {total} images; it must drop some and leave some"
        )
    order = forgetting_ranking(run, seed=seed)
    kept = order[count:] if which == "easiest" else order[:-count]
    return _chosen_images(data, kept, f"without-{which}-share{share}", run, seed)


def _check_ranking(which: str, ends: tuple[str, ...], data: Data, run: Run) -> None:
    """Raises DataError for an unknown end of the ranking, and for a run that was trained on other images."""
    if which not in ends:
        raise DataError(unknown("choice", which, ends))
    presented = len(run.forgetting.events)
    if presented != len(data.train):
        raise DataError(
            f"the run was trained on {presented} images, but {data.name} has {len(data.train)} train images; "
            "give the data that it was trained on"
        )


def _chosen_images(data: Data, chosen: Tensor, what: str, run: Run, seed: int) -> Data:
    """The chosen images as a data set whose name tells what they are, and by which run."""
    return with_images(data, chosen, f"{data.name}-{what}-of-{run.fingerprint[:12]}-seed{seed}")
