"""Class-balanced subsets of a data set (section 5.2 and Appendix F of the paper), and the train/test split.

A subset is a data set like any other: some of the train images in their old order, and the test split and
normalisation of the full set, so that its images are the very same inputs. Every class is shuffled once a
seed, and a subset takes the first images of each: smaller subsets lie within larger ones (reading H3).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from tombola.cost import Cost, Size
from tombola.data.imageset import Data, ImageSet
from tombola.errors import DataError
from tombola.registry import declare
from tombola.seeds import generator


def _subset_cost(data: Size, share: float | None, shots: int | None) -> Cost:
    """Nothing but the size of the subset."""
    return Cost(result=data.part(share, shots))


@declare("subset", stored=False, cost=_subset_cost)
def subset(data: Data, *, share: float | None = None, shots: int | None = None, seed: int = 0) -> Data:
    """A class-balanced random subset of the train split.

    share: of each class this share of its images, above 0 and at most 1, rounded to whole images, half up. As
        balanced as the data: on sets with equally many images a class, equally many are taken.
    shots: of each class this number of images; give either ``share`` or ``shots``.
    seed: number of the draw. Each class draws from its own stream ``("subset", seed, class)``.

    Raises :class:`~tombola.errors.DataError` for a share outside (0, 1], one so small that a class would
    be left without an image, or more shots than a class has.
    """
    counts = class_counts(data, share, shots)
    chosen = []
    for index, count in enumerate(counts):
        members = (data.train.labels == index).nonzero().flatten()
        # Ranks of raw words rather than a permutation: numpy promises the bit stream, but not its methods.
        words = generator("subset", seed, index).bit_generator.random_raw(len(members))
        chosen.append(members[np.argsort(words, kind="stable")[:count]])
    return with_images(data, torch.cat(chosen), f"{data.name}-{size_text(share, shots)}-seed{seed}")


def class_counts(data: Data, share: float | None, shots: int | None) -> list[int]:
    """How many train images of each class a class-balanced subset has; errors as for :func:`subset`."""
    if (share is None) == (shots is None):
        raise DataError(f"share is {share} and shots is {shots}; give one of them")
    totals = torch.bincount(data.train.labels, minlength=data.classes).tolist()
    fewest = min(totals)
    scarce = data.class_names[totals.index(fewest)]
    if shots is not None:
        if not isinstance(shots, int | np.integer) or shots < 1:
            raise DataError(f"shots is {shots}; it must be a whole number of images, at least 1")
        if shots > fewest:
            raise DataError(
                f"shots is {shots}, but class {scarce!r} of {data.name} has {fewest} train images; "
                f"ask for at most {fewest}"
            )
        return [int(shots)] * data.classes
    if share is None or not 0 < share <= 1:
        raise DataError(f"share is {share}; it must lie above 0 and be at most 1")
    counts = [rounded_half_up(share * total) for total in totals]
    if min(counts) == 0:
        raise DataError(
            f"share is {share}, which leaves no image of class {scarce!r} of {data.name} with its {fewest} "
            f"train images; ask for {1 / fewest:.2g}, or give shots"
        )
    return counts


def with_images(data: Data, chosen: Tensor, name: str) -> Data:
    """The data with only the chosen train images, in their old order and normalised as the full set.

    chosen: int64 ``(n,)``, indices of train images.
    name: of the new data set, by which jobs tell it from the full one.
    """
    kept = chosen.sort().values
    train = ImageSet(data.train.images[kept], data.train.labels[kept])
    moments = tuple(data.mean.tolist()), tuple(data.std.tolist())
    return replace(data, name=name, train=train, source=None, normalization=moments)


def size_text(share: float | None, shots: int | None) -> str:
    """The size of a subset as text, for its name."""
    return f"share{share}" if shots is None else f"shots{shots}"


def rounded_half_up(count: float) -> int:
    """The nearest integer; halves are rounded up."""
    return math.floor(count + 0.5)


def stratified_split(labels: Tensor, test_fraction: float, stream: str = "split") -> tuple[Tensor, Tensor]:
    """Indices of the train and of the test split, both sorted, as int64.

    labels: int64 ``(N,)``, class indices.
    test_fraction: share of each class that goes to the test split, between 0 and 1. A class gives that share
        rounded to whole images, but at least one, and never its last.
    stream: name of the random stream. Each class draws from its own, ``(stream, class)``, so images
        added to one class move no image of another.
    """
    is_test = np.zeros(len(labels), dtype=bool)
    classes = labels.numpy()
    for index in np.unique(classes):
        members = np.flatnonzero(classes == index)
        count = max(min(max(round(test_fraction * len(members)), 1), len(members) - 1), 0)
        # Ranks of raw words rather than a permutation: numpy promises the bit stream, but not its methods.
        words = generator(stream, int(index)).bit_generator.random_raw(len(members))
        is_test[members[np.argsort(words, kind="stable")[:count]]] = True
    return torch.from_numpy(np.flatnonzero(~is_test)), torch.from_numpy(np.flatnonzero(is_test))
