"""Subsets of a data set, class-balanced (section 5.2 and Appendix F of the paper) or any.

A subset is a data set like any other: some of the train images in their old order, and the test split and
normalisation of the full set, so that its images are the very same inputs. For a balanced one every class is
shuffled once a seed, and the first images of each are taken: smaller subsets lie within larger ones (reading
H3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tombola.cost import Cost, Size
from tombola.data.imageset import Data, DataLike, ImageSet, check_every_class
from tombola.data.load import load_data
from tombola.errors import DataError, reason
from tombola.registry import declare
from tombola.seeds import generator


def _subset_cost(data: Size, share: float | None, shots: int | None) -> Cost:
    """Nothing but the size of the subset."""
    return Cost(result=data.part(share, shots))


@declare("subset", stored=False, cost=_subset_cost)
def subset(data: DataLike, *, share: float | None = None, shots: int | None = None, seed: int = 0) -> Data:
    """A class-balanced random subset of the train split.

    share: of each class this share of its images, above 0 and at most 1, rounded to whole images, half up. As
        balanced as the data: on sets with equally many images a class, equally many are taken.
    shots: of each class this number of images; give either ``share`` or ``shots``.
    seed: number of the draw. Each class draws from its own stream ``("subset", seed, class)``.

    Raises :class:`~tombola.errors.DataError` for a share outside (0, 1], one so small that a class would
    be left without an image, or more shots than a class has.
    """
    data = load_data(data)
    counts = class_counts(data, share, shots)
    chosen = []
    for index, count in enumerate(counts):
        members = (data.train.labels == index).nonzero().flatten()
        # Ranks of raw words rather than a permutation: numpy promises the bit stream, but not its methods.
        words = generator("subset", seed, index).bit_generator.random_raw(len(members))
        chosen.append(members[np.argsort(words, kind="stable")[:count]])
    return with_images(data, torch.cat(chosen), f"{data.name}-{size_text(share, shots)}-seed{seed}")


Indices = Sequence[int] | np.ndarray[Any, Any] | Tensor


def _take_cost(data: Size, indices: Sequence[int]) -> Cost:
    """Nothing but the size of what is taken."""
    return Cost(result=data.part(len(indices) / data.train if data.train else None))


@declare("take", stored=False, cost=_take_cost)
def take(data: DataLike, indices: Indices) -> Data:
    """The data with the train images at some indices, in that order.

    indices: whole numbers from 0 to below the number of train images, or a bool for each of these; a list, an
        array or a tensor, and for a job a list. An image that is taken twice counts as two.

    Test split, class numbers and normalisation are those of the full set, so the images are the very same
    inputs; classes may be left without any. The name ends in the fingerprint of what was taken.

    Raises :class:`~tombola.errors.DataError` for indices out of range or of another type, or none.
    """
    data = load_data(data)
    part = _part(data, _checked_indices(data, indices), data.name)
    return replace(part, name=f"{data.name}-part-{part.fingerprint[:12]}")


def _checked_indices(data: Data, indices: Indices) -> Tensor:
    """Indices of train images as int64 ``(n,)``."""
    count = len(data.train)
    try:
        positions = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"indices are no list of whole numbers: {reason(error)}") from None
    if positions.dtype == torch.bool and positions.shape == (count,):
        positions = positions.nonzero().flatten()
    if not positions.numel():
        raise DataError(f"no indices, so nothing is taken of {data.name}; give at least one")
    if positions.ndim != 1 or positions.is_floating_point() or positions.dtype == torch.bool:
        raise DataError(
            f"indices are {positions.dtype} {tuple(positions.shape)}; give a list of whole numbers, or "
            f"{count:,} bools, one for each train image of {data.name}"
        )
    positions = positions.long()
    low, high = int(positions.min()), int(positions.max())
    if low < 0 or high >= count:
        raise DataError(
            f"indices run from {low:,} to {high:,}; the train images of {data.name} are 0 to {count - 1:,}"
        )
    return positions


def class_counts(data: Data, share: float | None, shots: int | None) -> list[int]:
    """How many train images of each class a class-balanced subset has; errors as for :func:`subset`.

    None of a class without train images, as a set made by :func:`take` may have.
    """
    if (share is None) == (shots is None):
        raise DataError(f"share is {share} and shots is {shots}; give one of them")
    totals = torch.bincount(data.train.labels, minlength=data.classes).tolist()
    fewest = min(total for total in totals if total)
    scarce = data.class_names[totals.index(fewest)]
    if shots is not None:
        if not isinstance(shots, int | np.integer) or shots < 1:
            raise DataError(f"shots is {shots}; it must be a whole number of images, at least 1")
        if shots > fewest:
            raise DataError(
                f"shots is {shots}, but class {scarce!r} of {data.name} has {fewest} train images; "
                f"ask for at most {fewest}"
            )
        return [int(shots) if total else 0 for total in totals]
    if share is None or not 0 < share <= 1:
        raise DataError(f"share is {share}; it must lie above 0 and be at most 1")
    counts = [rounded_half_up(share * total) for total in totals]
    if any(total and not count for total, count in zip(totals, counts, strict=True)):
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
    part = _part(data, chosen.sort().values, name)
    check_every_class(name, "train", part.train.labels, data.class_names, of=data.train.labels)
    return part


def _part(data: Data, indices: Tensor, name: str) -> Data:
    """The data with these train images, normalised as the full set."""
    train = ImageSet(data.train.images[indices], data.train.labels[indices])
    moments = tuple(data.mean.tolist()), tuple(data.std.tolist())
    return replace(data, name=name, train=train, source=None, normalization=moments)


def size_text(share: float | None, shots: int | None) -> str:
    """The size of a subset as text, for its name."""
    return f"share{share}" if shots is None else f"shots{shots}"


def rounded_half_up(count: float) -> int:
    """The nearest integer; halves are rounded up."""
    return math.floor(count + 0.5)
