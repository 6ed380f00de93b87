"""The sizes of the data sets that come by name, so that planning or naming a job loads none of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from tombola.data.catalogue import CATALOGUE, find
from tombola.data.imageset import Data


@dataclass(frozen=True)
class Size:
    """Of a data set: images in its splits, and classes; share: how much of the whole its train split is."""

    train: int
    test: int
    classes: int
    share: float = 1.0

    def part(self, share: float | None = None, shots: int | None = None) -> Size:
        """The size of a subset with that share of the train images, or with ``shots`` of each class."""
        if shots is not None and self.train:
            share = shots * self.classes / self.train
        return replace(self, share=self.share * (1.0 if share is None else share))


SIZES = {
    "cifar10": Size(50_000, 10_000, 10),
    "cifar100": Size(50_000, 10_000, 100),
    "tinyimagenet": Size(100_000, 10_000, 200),
    "mnist": Size(60_000, 10_000, 10),
    "eurosat": Size(21_600, 5_400, 10),
    "digits": Size(1_198, 599, 10),
}


def train_images(data: object) -> int | None:
    """Number of train images of a data set as it is given to a call; None where only loading would tell.

    That is so for a local folder, a set of the hub that is not in the catalogue, and data that a job gives.
    """
    if isinstance(data, Data):
        return len(data.train)
    if not isinstance(data, str | os.PathLike):
        return None
    if data == "digits":
        return SIZES["digits"].train
    origin = find(data)
    if origin.folder is not None:
        return None
    return next((SIZES[name].train for name, known in CATALOGUE.items() if known is origin.known), None)
