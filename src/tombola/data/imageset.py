"""A data set as tensors of images and labels: what every function of tombola takes as ``data``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tombola.errors import DataError
from tombola.one_line import OneLine
from tombola.untrusted import has_control_characters


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set.

    images: uint8 ``(N, C, H, W)``, raw pixel values 0..255.
    labels: int64 ``(N,)``, class indices.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            shape = tuple(self.images.shape)
            raise DataError(f"images must be uint8 (N, C, H, W); got {self.images.dtype} {shape}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            shape = tuple(self.labels.shape)
            raise DataError(f"labels must be int64 ({len(self.images)},); got {self.labels.dtype} {shape}")
        if len(self.images) == 0:
            raise DataError("a split has no images")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False, repr=False)
class Data(OneLine):
    """A train and a test split that belong together.

    name: identifies the data set in job names; the fingerprint guards it against other pixels.
    class_names: one for each class index, in order. They are printed, so they have no control characters, nor
        has the name.
    mirrored: whether a horizontally flipped image still shows its class (False for digits), so whether
        augmentation flips by default.
    source: where a worker loads the same data from, a name or a folder; None for tensors made by the caller.
    normalization: mean and standard deviation of each channel on the scale 0..1, where they are not those of
        the train split: a subset is normalised as the full set, so that its images are the very same inputs.
        Only such a part of another set may lack images of a class in its train split.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mirrored: bool = True
    source: str | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def _in_one_line(self) -> str:
        shape = "x".join(map(str, self.train.images.shape[1:]))
        images = f"{len(self.train):,} train and {len(self.test):,} test images of {shape}"
        return f"<data {self.name}: {images}, {self.classes} classes>"

    def _facts(self) -> dict[str, object]:
        mean, std = ([round(value, 4) for value in values.tolist()] for values in (self.mean, self.std))
        return {
            "name": self.name,
            "train images": f"{len(self.train):,}",
            "test images": f"{len(self.test):,}",
            "shape": "x".join(map(str, self.train.images.shape[1:])),
            "classes": f"{self.classes}: {', '.join(self.class_names)}",
            "mean": mean,
            "standard deviation": std,
            "mirrored": self.mirrored,
        }

    def __post_init__(self) -> None:
        for text in (self.name, *self.class_names):
            if has_control_characters(text):
                raise DataError(f"data {self.name!r}: the name or class name {text!r} has control characters")
        train, test = tuple(self.train.images.shape[1:]), tuple(self.test.images.shape[1:])
        if train != test:
            raise DataError(f"{self.name}: train images are {train}, test images {test}; both must be alike")
        for split, images in (("train", self.train), ("test", self.test)):
            low, high = int(images.labels.min()), int(images.labels.max())
            if low < 0 or high >= self.classes:
                raise DataError(
                    f"{self.name}: {split} labels run from {low} to {high}; allowed 0 to {self.classes - 1}"
                )
            # What is normalised as another set is part of it, and may have no image of some classes.
            if split == "test" or self.normalization is None:
                check_every_class(self.name, split, images.labels, self.class_names)
        if self.normalization is not None:
            means, deviations = self.normalization
            if len(means) != self.channels or len(deviations) != self.channels or min(deviations) <= 0:
                raise DataError(
                    f"{self.name}: normalization is {self.normalization}; it must be {self.channels} means "
                    f"and {self.channels} standard deviations above 0, one of each a channel"
                )

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self.train.images.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """Image height and width in pixels."""
        return int(self.train.images.shape[2]), int(self.train.images.shape[3])

    @cached_property
    def mean(self) -> Tensor:
        """Per-channel mean for normalisation as float32 ``(C,)``, on the scale 0..1."""
        return self._moments[0]

    @cached_property
    def std(self) -> Tensor:
        """Per-channel standard deviation for normalisation as float32 ``(C,)``, on the scale 0..1."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        if self.normalization is not None:
            mean, std = (torch.tensor(values, dtype=torch.float32) for values in self.normalization)
            return mean, std
        # From the histogram of the 256 pixel values: exact, in one pass, without a float copy of the images.
        images = self.train.images
        counts = torch.stack(
            [torch.bincount(images[:, c].flatten(), minlength=256) for c in range(self.channels)]
        )
        weights = counts.double() / counts.sum(dim=1, keepdim=True)
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (weights * values).sum(dim=1)
        variance = (weights * (values - mean[:, None]) ** 2).sum(dim=1)
        # A channel without any contrast is only shifted, not scaled.
        std = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
        return mean.float(), std.float()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over pixels, labels and class names of both splits, as 64 hexadecimal digits.

        Also over the normalization where it is set; else it follows from the pixels.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            for tensor in (split.images, split.labels):
                array = np.ascontiguousarray(tensor.numpy())
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(array.data)
        digest.update("\0".join(self.class_names).encode())
        if self.normalization is not None:
            digest.update(json.dumps(self.normalization).encode())
        return digest.hexdigest()


def check_every_class(
    name: str, split: str, labels: Tensor, class_names: Sequence[str], *, of: Tensor | None = None
) -> None:
    """Raises DataError, with their names, for classes of which a split of a data set has no image.

    of: labels of the set that the split is part of; no image is needed of a class that is not among them.
    """
    counts = torch.bincount(labels, minlength=len(class_names))
    wanted = torch.ones_like(counts) if of is None else torch.bincount(of, minlength=len(class_names))
    missing = [class_names[i] for i in ((counts == 0) & (wanted > 0)).nonzero().flatten().tolist()]
    if missing:
        some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise DataError(f"{name}: the {split} split has no image of class {some}; every class needs some")


def data_from_tensors(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    mirrored: bool = True,
) -> Data:
    """A data set from the caller's own tensors.

    train, test: pairs of uint8 images ``(N, C, H, W)`` and int64 labels ``(N,)``.
    name: identifies the set in a store; by default derived from the fingerprint, so never shared by two.
    class_names: by default the class indices as text.
    mirrored: whether flipped images keep their class.

    Raises :class:`~tombola.errors.DataError` on wrong types or shapes, or a class that a split lacks.
    """
    splits = ImageSet(*train), ImageSet(*test)
    if class_names is None:
        class_names = [str(index) for index in range(int(splits[0].labels.max()) + 1)]
    data = Data(name or "tensors", *splits, class_names=tuple(class_names), mirrored=mirrored)
    return data if name else replace(data, name=f"tensors-{data.fingerprint[:12]}")
