"""From a table of encoded images and labels to tensors, whatever the columns are called.

The tables of the Hugging Face hub agree on little: the image column is ``image`` or ``img``, the label may be
one of two columns, and grey images may stand among RGB ones. Here each of these is settled, or refused with
the columns or sizes that were seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.errors import DataError

# What hub data sets call the label, the fine one where a coarse one stands beside it.
LABEL_COLUMNS = ("label", "labels", "fine_label")
IMAGE_COLUMNS = ("image", "img")

_GREY_MODES = ("1", "L", "LA", "La")


def image_column(features: Mapping[str, Any], name: str) -> str:
    """Which column holds the images: ``image`` or ``img``, else the only one of image type.

    Raises :class:`~tombola.errors.DataError`, naming the columns seen, if there is none or a choice.
    """
    from datasets import Image

    # A table written without type information shows an image as its two stored fields.
    found = [
        column
        for column, feature in features.items()
        if isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
    ]
    named = [column for column in IMAGE_COLUMNS if column in found]
    if named or len(found) == 1:
        return (named or found)[0]
    seen = ", ".join(map(repr, features)) or "none"
    problem = "no images" if not found else "several image columns and none is called 'image' or 'img'"
    raise DataError(f"{name}: {problem}; columns seen: {seen}")


def label_column(features: Mapping[str, Any], name: str, preferred: str | None = None) -> str:
    """Which column holds the labels: the preferred, a usual name, or else the only one of class type.

    Raises :class:`~tombola.errors.DataError`, naming the columns seen, if there is none or a choice.
    """
    from datasets import ClassLabel

    for column in (preferred, *LABEL_COLUMNS):
        if column in features:
            return str(column)
    found = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    if len(found) == 1:
        return found[0]
    wanted = ", ".join(map(repr, LABEL_COLUMNS))
    seen = ", ".join(map(repr, features))
    raise DataError(f"{name}: no label column; wanted one of {wanted} or a single class column; seen: {seen}")


def decoded(table: Any, column: str, name: str) -> list[NDArray[np.uint8]]:
    """The images of one split in their own sizes and colours, each uint8 ``(1 or 3, H, W)``.

    table: a ``datasets.Dataset``.
    Raises :class:`~tombola.errors.DataError`, naming the row, for an image that is missing or cannot be read.
    """
    from datasets import Image

    reader = Image()
    images = []
    # One thread: of the 0.1 ms that a 32x32 image takes, Python holds its lock for nearly all.
    for row, cell in enumerate(_cells(table, column)):
        try:
            images.append(_pixels(reader.decode_example(cell)))
        except Exception as error:
            place = (cell or {}).get("path") or "no path"
            raise DataError(f"{name}: image {row} ({place}) cannot be read; mend or remove it") from error
    return images


def _cells(table: Any, column: str) -> Iterator[Any]:
    """The stored cells of a column, still encoded."""
    for batch in table.select_columns([column]).with_format("arrow").iter(batch_size=1000):
        yield from batch[column].to_pylist()


def _pixels(image: Any) -> NDArray[np.uint8]:
    """The pixels of a PIL image as uint8 ``(1, H, W)`` if its mode is a grey one, else ``(3, H, W)``."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # PIL clips 16-bit grey values at 255 when asked for 8 bits; they are meant to be scaled.
        return np.rint(np.asarray(image).clip(0, 65535) / 257).astype(np.uint8)[None]
    if image.mode in _GREY_MODES:
        return np.array(image.convert("L"))[None]
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range")
    if image.mode == "P":
        # By way of RGBA, because PIL prints a warning for a palette with transparent entries otherwise.
        image = image.convert("RGBA")
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def stacked(splits: Sequence[Sequence[NDArray[np.uint8]]], name: str) -> list[Tensor]:
    """One uint8 tensor ``(N, C, H, W)`` for each split.

    All are greyscale (C = 1) if every image of every split is; otherwise grey images become RGB (C = 3).
    Raises :class:`~tombola.errors.DataError`, naming the sizes, if the images are not all of one size.
    """
    images = [image for split in splits for image in split]
    if not images:
        raise DataError(f"{name}: no images in it")
    sizes = Counter(image.shape[1:] for image in images)
    if len(sizes) > 1:
        common = ", ".join(f"{width}x{height} ({n})" for (height, width), n in sizes.most_common(4))
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        raise DataError(f"{name}: images of {len(sizes)} sizes, {common}{more}; all must be of one size")
    shape = max(len(image) for image in images), *next(iter(sizes))
    tensors = []
    for split in splits:
        pixels = np.empty((len(split), *shape), dtype=np.uint8)
        for row, image in enumerate(split):
            pixels[row] = image
        tensors.append(torch.from_numpy(pixels))
    return tensors


def class_indices(tables: Sequence[Any], column: str, name: str) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels of each split as int64 ``(N,)``, and the class names.

    The names of a class column keep their official order. Plain numbers and texts become classes in
    sorted order over all splits, named as they are.
    Raises :class:`~tombola.errors.DataError` if a label is missing or is neither a number nor a text.
    """
    from datasets import ClassLabel

    feature = tables[0].features[column]
    values = [table.with_format("arrow")[:][column].to_pylist() for table in tables]
    kinds = {type(value) for split in values for value in split}
    if kinds - {int, str, bool}:
        seen = ", ".join(sorted("missing" if kind is type(None) else kind.__name__ for kind in kinds))
        raise DataError(f"{name}: labels in {column!r} must be whole numbers or texts; seen: {seen}")
    if isinstance(feature, ClassLabel):
        return [torch.tensor(split, dtype=torch.int64) for split in values], tuple(feature.names)
    classes = sorted({value for split in values for value in split})
    index = {value: number for number, value in enumerate(classes)}
    labels = [torch.tensor([index[value] for value in split], dtype=torch.int64) for split in values]
    return labels, tuple(map(str, classes))
