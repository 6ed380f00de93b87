"""The embedded data set: 1,797 real handwritten digits of 8x8 pixels that come with scikit-learn.

They need no download and train in seconds, so they are the default everywhere. The images are the test part
of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), grey values 0 to 16.
"""

from __future__ import annotations

import numpy as np
import torch

from tombola.data.imageset import Data, ImageSet
from tombola.data.split import stratified_split


def digits() -> Data:
    """The digits in a fixed stratified split: 1,198 train and 599 test images, uint8 ``(N, 1, 8, 8)``."""
    # Imported here, because scikit-learn takes longer to import than all of tombola's data code.
    from sklearn.datasets import load_digits

    table = load_digits()
    images = torch.from_numpy(np.rint(table.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(table.target.astype(np.int64))
    train, test = (ImageSet(images[part], labels[part]) for part in stratified_split(labels, 1 / 3))
    names = tuple(str(digit) for digit in range(10))
    return Data("digits", train, test, class_names=names, mirrored=False, source="digits")
