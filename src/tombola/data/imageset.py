"""A data set as tensors of images, features or tokens, with labels: what every function takes as ``data``.

Where nothing else is said, "images" stands for inputs of all three kinds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tombola.errors import DataError, reason
from tombola.one_line import OneLine
from tombola.untrusted import has_control_characters

InputKind = Literal["images", "features", "tokens"]

Array = Tensor | np.ndarray[Any, Any]

_KINDS: dict[torch.dtype, InputKind] = {
    torch.uint8: "images", torch.float32: "features", torch.int64: "tokens"
}  # fmt: skip

# Whose pixels are counted in threads: a first training on a GPU waits for them.
_CHANNELS_AT_ONCE = 3
_COUNTED_AT_ONCE = 4096  # images, which are copied for it

# More than any tokenizer has: a vocabulary from a file that somebody else wrote makes an embedding.
_LARGEST_VOCABULARY = 10**7


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data set.

    images: uint8 ``(N, C, H, W)``, raw pixel values 0..255; or features, float32 ``(N, ...)``; or tokens,
        int64 ``(N, length)``.
    labels: int64 ``(N,)``, class indices.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        dtype, shape = self.images.dtype, tuple(self.images.shape)
        dimensions = {"images": len(shape) == 4, "features": len(shape) >= 2, "tokens": len(shape) == 2}
        if dtype not in _KINDS or not dimensions[self.kind]:
            remedy = ", such as features.astype('float32') of an array" if dtype == torch.float64 else ""
            raise DataError(
                "images must be uint8 (N, C, H, W), features float32 (N, ...), tokens int64 (N, length)"
                f"{remedy}; got {dtype} {shape}"
            )
        if 0 in shape[1:]:
            raise DataError(f"{self.kind} are {shape}, each of no values; give at least one")
        if self.kind == "images" and shape[3] in (1, 3) and shape[1] == shape[2] > 4:
            raise DataError(
                f"images are {shape}, which looks like (N, H, W, C); give images.permute(0, 3, 1, 2)"
            )
        if self.kind == "features" and not self.images.isfinite().all():
            raise DataError("features are infinite or NaN somewhere; leave such examples out or fill them in")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            shape = tuple(self.labels.shape)
            raise DataError(f"labels must be int64 ({len(self.images)},); got {self.labels.dtype} {shape}")
        if len(self.images) == 0:
            raise DataError("a split has no images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def kind(self) -> InputKind:
        """What the inputs are, by their type."""
        return _KINDS[self.images.dtype]


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
        Of features, of each of the first dimension, and on their own scale; None: they are taken as they are.
    vocabulary: of tokens, how many there are, so that they are 0 to one less; else None.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mirrored: bool = True
    source: str | None = None
    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    vocabulary: int | None = None

    def _in_one_line(self) -> str:
        shape = "x".join(map(str, self.shape))
        inputs = {"images": "images of", "features": "examples of features", "tokens": "texts of length"}
        counts = f"{len(self.train):,} train and {len(self.test):,} test {inputs[self.kind]} {shape}"
        vocabulary = "" if self.vocabulary is None else f", a vocabulary of {self.vocabulary:,}"
        return f"<data {self.name}: {counts}{vocabulary}, {self.classes} classes>"

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
        if train != test or self.train.kind != self.test.kind:
            raise DataError(
                f"{self.name}: train {self.train.kind} are {train}, test {self.test.kind} {test}; both must "
                "be alike"
            )
        self._check_vocabulary()
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
            lengths = (len(means), len(deviations))
            if lengths != (self.channels, self.channels) or min(deviations, default=1) <= 0:
                raise DataError(
                    f"{self.name}: normalization is {self.normalization}; it must be {self.channels} means "
                    f"and {self.channels} standard deviations above 0, one of each a channel"
                )

    def _check_vocabulary(self) -> None:
        """Raises DataError for tokens beyond the vocabulary, or a vocabulary without tokens."""
        if self.kind != "tokens":
            if self.vocabulary is not None:
                raise DataError(
                    f"{self.name}: vocabulary is {self.vocabulary}, but these are {self.kind}; leave it out"
                )
            return
        low = min(int(split.images.min()) for split in (self.train, self.test))
        high = max(int(split.images.max()) for split in (self.train, self.test))
        vocabulary = self.vocabulary
        if not isinstance(vocabulary, int) or not 0 < vocabulary <= _LARGEST_VOCABULARY:
            raise DataError(
                f"{self.name}: vocabulary is {vocabulary!r:.60}; it must be the number of tokens, at most "
                f"{_LARGEST_VOCABULARY:,}"
            )
        if low < 0 or high >= vocabulary:
            raise DataError(f"{self.name}: tokens run from {low} to {high}; allowed 0 to {vocabulary - 1}")

    @property
    def kind(self) -> InputKind:
        """What the inputs are: images, features or tokens."""
        return self.train.kind

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input: ``(C, H, W)``, that of its features, or the length of a text."""
        return tuple(self.train.images.shape[1:])

    def zeros(self, count: int) -> Tensor:
        """So many inputs as a network takes them, all 0."""
        return torch.zeros(count, *self.shape, dtype=torch.int64 if self.kind == "tokens" else torch.float32)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Number of image channels; of features the first dimension, of tokens 0."""
        return 0 if self.kind == "tokens" else self.shape[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Image height and width in pixels; of features all dimensions but the first, of texts the length."""
        return self.shape if self.kind == "tokens" else self.shape[1:]

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
        if self.kind != "images":
            return torch.zeros(self.channels), torch.ones(self.channels)
        # From the histogram of the 256 pixel values: exact, in one pass, without a float copy of the images.
        stretches = self.train.images.split(_COUNTED_AT_ONCE)  # type: ignore[no-untyped-call]

        def histogram(channel: int) -> Tensor:
            counts = [torch.bincount(some[:, channel].flatten(), minlength=256) for some in stretches]
            return torch.stack(counts).sum(dim=0)

        with ThreadPoolExecutor(_CHANNELS_AT_ONCE) as pool:
            counts = torch.stack(list(pool.map(histogram, range(self.channels))))
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

        Also over the normalization and the vocabulary where they are set; else they follow from the pixels.
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
        if self.vocabulary is not None:
            digest.update(f"vocabulary {self.vocabulary}".encode())
        return digest.hexdigest()


DataLike = Data | str | os.PathLike[str]
"""What stands for a data set where one is asked for: itself, or what :func:`~tombola.load_data` takes."""


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


def tensor_of(values: Any, what: str) -> Tensor:
    """Values as a tensor on the CPU; :class:`~tombola.errors.DataError`, saying what, if they are none."""
    try:
        if isinstance(values, np.ndarray):
            # PyTorch takes no other byte order and no negative strides, and warns of read-only arrays.
            values = np.require(values, values.dtype.newbyteorder("="), ["C", "W"])
        return torch.as_tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{what}: a {type(values).__name__} is no tensor: {reason(error)}") from None


def class_indices(labels: Tensor) -> Tensor:
    """Whole numbers ``(N,)`` as int64; :class:`~tombola.errors.DataError` for other labels."""
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise DataError(
            f"labels are {labels.dtype} {tuple(labels.shape)}; give class indices, whole numbers, as (N,)"
        )
    return labels.long()


def _split_of(place: str, pair: tuple[Array, Array]) -> ImageSet:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"{place} is no pair; give inputs and labels, such as (images, labels)")
    inputs, labels = pair
    return ImageSet(tensor_of(inputs, "inputs"), class_indices(tensor_of(labels, "labels")))


def data_from_tensors(
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    mirrored: bool = True,
    features: bool = False,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    vocabulary: int | None = None,
) -> Data:
    """A data set from the caller's own tensors or numpy arrays: images, features of any shape, or tokens.

    train, test: pairs of inputs and labels, whole numbers ``(N,)``. Inputs are uint8 images ``(N, C, H, W)``,
        which are normalised and, as a recipe says, cropped and mirrored; or features, float32 ``(N, ...)``,
        or tokens, int64 ``(N, length)``, which a network gets as they are.
    name: identifies the set in a store; by default derived from the fingerprint, so never shared by two.
    class_names: by default the class indices as text.
    mirrored: whether flipped images keep their class.
    features: say so of float32 of a shape that images have, which else are refused.
    normalization: a mean and a standard deviation for each image channel, on the scale 0..1, by default those
        of the train split; or for each of the first dimension of features, by default none.
    vocabulary: how many tokens there are; by default one more than the highest.

    Raises :class:`~tombola.errors.DataError` on wrong types or shapes, or a class that a split lacks.
    """
    splits = _split_of("train", train), _split_of("test", test)
    kind, shape = splits[0].kind, tuple(splits[0].images.shape)
    if kind == "features" and len(shape) == 4 and shape[1] in (1, 3) and not features:
        raise DataError(
            f"images are float32 {shape}; give the raw pixels as uint8, 0 to 255, or say features=True to "
            "have them as they are, neither normalised nor cropped"
        )
    if kind == "tokens" and vocabulary is None:
        vocabulary = 1 + max(int(split.images.max()) for split in splits)
    if normalization is not None:
        try:
            means, deviations = (tuple(map(float, values)) for values in normalization)
        except (TypeError, ValueError):
            raise DataError(
                f"normalization is {normalization!r:.60}; give means and deviations, such as ([0.5], [0.25])"
            ) from None
        normalization = means, deviations
    if class_names is None:
        class_names = [str(index) for index in range(int(splits[0].labels.max()) + 1)]
    data = Data(
        name or "tensors", *splits, tuple(class_names), mirrored and kind == "images",
        normalization=normalization, vocabulary=vocabulary,
    )  # fmt: skip
    return data if name else replace(data, name=f"tensors-{data.fingerprint[:12]}")
