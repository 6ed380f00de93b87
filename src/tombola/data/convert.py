"""Data from what others hold images in: arrays and tensors, data sets of PyTorch and of Hugging Face.

Pixels are taken over exactly or not at all: what would need a guess, such as floats on an unknown scale,
is refused with what to do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from tombola.data import hub
from tombola.data.imageset import Data, DataLike, class_indices, data_from_tensors, tensor_of
from tombola.data.load import load_data
from tombola.data.splits import stratified_split
from tombola.errors import DataError
from tombola.registry import declare

Pair = tuple[Any, Any]
"""Images and labels, as tensors or arrays."""

# By how much a float may miss k/255 and still be that pixel: far more than float32's rounding, or half's.
_EXACT = 1e-3


class MapDataset(Protocol):
    """A data set as ``torch.utils.data.Dataset`` has it, each item an image and its label."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def data_from(
    train: str | os.PathLike[str] | Data | Pair | MapDataset | Mapping[str, Any],
    test: Pair | MapDataset | None = None,
    *,
    name: str | None = None,
    class_names: Sequence[str] | None = None,
    mirrored: bool = True,
) -> Data:
    """A data set from an object that holds its images.

    train, test: each one of

    - a pair of images and labels, as tensors or numpy arrays: uint8 ``(N, C, H, W)``, or ``(N, H, W)`` for
      grey ones, and whole numbers ``(N,)``;
    - a ``torch.utils.data.Dataset`` with a length, whose items are an image and its label: PIL images, uint8
      tensors ``(C, H, W)``, or float ones as ``ToTensor`` makes them of whole pixel values. It is read once,
      without augmentation and normalisation, which tombola does itself;
    - a ``datasets.Dataset`` of Hugging Face with an image and a label column.

    ``train`` may also hold both splits, as a mapping such as ``datasets.DatasetDict``, or be what
    :func:`~tombola.load_data` takes. Without a test split a fifth of each class becomes one, always the same.

    name: identifies the set in a store; by default derived from the fingerprint, so never shared by two.
    class_names: by default those of the data set, or the class indices as text.
    mirrored: whether flipped images keep their class.

    Raises :class:`~tombola.errors.DataError` for pixels that cannot be taken over exactly, images of several
    shapes, labels that are no class indices, and a class that a split lacks.
    """
    if isinstance(train, str | os.PathLike | Data):
        if test is not None:
            raise DataError("a name, a folder or a Data has its test split already; leave test out")
        return load_data(train)
    own_names: object
    splits = _both_splits(train) if isinstance(train, Mapping) else [train] if test is None else [train, test]
    if all(map(_is_table, splits)):
        # Anywhere, since whoever holds the table read its files already.
        images, labels, own_names = hub.images_and_labels(splits, name or "the table", Path("/"))
        pairs = list(zip(images, labels, strict=True))
    else:
        pairs = [_from_pair(*split) if _is_pair(split) else _from_items(split) for split in splits]
        own_names = getattr(splits[0], "classes", None)
    if len(pairs) == 1:
        ((everything, classes),) = pairs
        pairs = [(everything[part], classes[part]) for part in stratified_split(classes, hub.TEST_FRACTION)]
    if class_names is None and _are_names(own_names):
        class_names = own_names
    return data_from_tensors(pairs[0], pairs[1], name=name, class_names=class_names, mirrored=mirrored)


@declare("normalized", stored=False)
def normalized(data: DataLike, *, mean: Sequence[float], std: Sequence[float]) -> Data:
    """The same data, normalised by given statistics instead of its own, as a network trained elsewhere was.

    mean, std: of each channel, on the scale 0..1.

    Raises :class:`~tombola.errors.DataError` for other numbers of channels, or deviations not above 0.
    """
    data = load_data(data)
    moments = tuple(map(float, mean)), tuple(map(float, std))
    other = replace(data, source=None, normalization=moments)
    return replace(other, name=f"{data.name}-normalized-{other.fingerprint[:12]}")


def _both_splits(splits: Mapping[str, Any]) -> list[Any]:
    """The train and the test split of a mapping, which may lack the latter."""
    if "train" not in splits:
        raise DataError(f"no split 'train'; splits seen: {', '.join(map(repr, splits))}")
    return [splits["train"], *[splits[key] for key in hub.TEST_SPLITS if key in splits][:1]]


def _is_table(split: Any) -> bool:
    """Whether this is a ``datasets.Dataset`` of Hugging Face."""
    return all(hasattr(split, name) for name in ("features", "column_names", "select_columns", "num_rows"))


def _is_pair(split: Any) -> TypeGuard[Pair]:
    return isinstance(split, tuple | list) and len(split) == 2


def _are_names(names: object) -> TypeGuard[Sequence[str]]:
    return isinstance(names, tuple | list) and all(isinstance(name, str) for name in names) and bool(names)


def _from_pair(images: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """A pair of tensors or arrays as uint8 ``(N, C, H, W)`` and int64 ``(N,)``."""
    pixels = tensor_of(images, "images")
    if pixels.dtype != torch.uint8:
        raise DataError(
            f"images are {pixels.dtype}; give uint8 pixel values from 0 to 255, such as "
            "(images * 255).round().to(torch.uint8) of floats from 0 to 1; features "
            "and tokens go to tombola.data_from_tensors"
        )
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4 or (pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3)):
        remedy = "such as torch.as_tensor(images).permute(0, 3, 1, 2)"
        if pixels.ndim != 4:
            remedy = "or (N, H, W) for grey ones"
        raise DataError(f"images are {tuple(pixels.shape)}; give (N, C, H, W), {remedy}")
    return pixels.contiguous(), class_indices(tensor_of(labels, "labels"))


def _from_items(split: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a data set that is read item by item."""
    kind = type(split).__name__
    if not (hasattr(split, "__len__") and hasattr(split, "__getitem__")):
        raise DataError(
            f"a {kind} cannot be read; give a pair of images and labels, a torch.utils.data.Dataset with a "
            "length, a datasets.Dataset, a name or a folder"
        )
    if not len(split):
        raise DataError(f"{kind} has no images")
    images, labels = [], []
    for index in range(len(split)):
        item = split[index]
        if not _is_pair(item):
            raise DataError(f"item {index} of {kind} is no pair of an image and its label")
        images.append(_item_pixels(item[0], f"image {index} of {kind}"))
        labels.append(item[1])
        if images[-1].shape != images[0].shape:
            first, other = tuple(images[0].shape), tuple(images[-1].shape)
            raise DataError(f"images of {kind} are {first} and, of index {index}, {other}; all must be alike")
    if not torch.equal(images[0], _item_pixels(split[0][0], f"image 0 of {kind}")):
        raise DataError(
            f"{kind} gives another image each time it is asked; give it without augmentation, which is the "
            "recipe's (tombola.Augmentation)"
        )
    return torch.stack(images), class_indices(tensor_of(labels, f"labels of {kind}"))


def _item_pixels(image: Any, what: str) -> Tensor:
    """One image as uint8 ``(C, H, W)``."""
    if hasattr(image, "getexif"):  # PIL's
        return torch.from_numpy(hub.picture_pixels(image))
    pixels = tensor_of(image, what)
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3):
        raise DataError(f"{what} is {tuple(pixels.shape)}; tensors must be (C, H, W) with 1 or 3 channels")
    if pixels.is_floating_point():
        rounded = (pixels.double() * 255).round()
        if not bool(
            ((pixels.double() * 255 - rounded).abs() < _EXACT).all()
            and 0 <= rounded.min() <= rounded.max() <= 255
        ):
            raise DataError(
                f"{what} is float and not whole pixel values over 255, as ToTensor makes them; give it "
                "without normalisation, which tombola does itself, or as uint8"
            )
        pixels = rounded.to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise DataError(f"{what} is {pixels.dtype}; it must be uint8 pixel values from 0 to 255")
    return pixels
