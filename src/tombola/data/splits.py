"""The split of a data set that has none into a train and a test split."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tombola.seeds import generator


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
