"""Fetches image sets from the Hugging Face hub or a local folder, and decodes them to tensors.

Both are read with the library ``datasets``, whose errors are turned into one line that says what to do. The
tables' columns are then recognised by name or type, images decoded with PIL, and labels made class indices.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.data.catalogue import CATALOGUE, DataOrigin, no_data_set
from tombola.data.imageset import Data, ImageSet
from tombola.data.subsets import stratified_split
from tombola.errors import DataError

# Share of the images that becomes the test split of a set that has none.
TEST_FRACTION = 0.2

_TEST_SPLITS = ("test", "valid", "validation", "val")

# How long the hub may take to answer whether it has a data set, in seconds.
_PATIENCE = 5.0

# What hub data sets call the label; the fine one where there is a coarse one too.
LABEL_COLUMNS = ("label", "labels", "fine_label")
IMAGE_COLUMNS = ("image", "img")

# PIL modes that are stored as one channel.
_GREY_MODES = ("1", "L", "LA", "La")


def load(origin: DataOrigin) -> Data:
    """Fetch and decode a data set, without any cache of tensors.

    Raises :class:`~tombola.errors.DataError` if it cannot be reached or read, lacks an image or label column,
    mixes image sizes, or has a class that one split lacks.
    """
    entry, name = origin.entry, origin.name
    with tempfile.TemporaryDirectory(prefix="tombola-", ignore_cleanup_errors=True) as scratch, _quiet():
        # A folder's intermediate tables are thrown away; those of the hub stay in the hub's own cache, which
        # serves machines that work offline.
        splits = _from_folder(origin.folder, scratch) if origin.folder else _from_hub(origin)
        tables = [table for table in _tables(splits, entry.pooled, name) if len(table)]
        if not tables:
            raise DataError(f"{name}: no images in it")
        features = tables[0].features
        image = image_column(features, name)
        label = label_column(features, name, preferred=entry.label)
        labels, class_names = class_indices(tables, label, name)
        images = stacked([decoded(table, image, name) for table in tables], name)
        del tables, splits
    if len(images) == 2 and not entry.pooled:
        train, test = map(ImageSet, images, labels)
    else:
        everything, classes = torch.cat(images), torch.cat(labels)
        parts = stratified_split(classes, TEST_FRACTION)
        train, test = (ImageSet(everything[part], classes[part]) for part in parts)
    return Data(name, train, test, class_names, mirrored=entry.mirrored, source=origin.source)


def _tables(splits: dict[str, Any], pooled: bool, name: str) -> list[Any]:
    """The tables of the train and the test split; those of all splits if they are pooled or there is one."""
    if pooled:
        return [splits[split] for split in sorted(splits)]
    if len(splits) == 1:
        return list(splits.values())
    if "train" not in splits:
        raise DataError(f"{name}: no split 'train'; splits seen: {', '.join(map(repr, splits))}")
    return [splits["train"], *[splits[split] for split in _TEST_SPLITS if split in splits][:1]]


def _from_folder(folder: Path, scratch: str) -> dict[str, Any]:
    """The tables of a local folder by split."""
    import datasets

    try:
        return dict(datasets.load_dataset(str(folder), cache_dir=scratch))
    except Exception as error:
        if isinstance(error, FileNotFoundError):  # which EmptyDatasetError is, too
            raise DataError(
                f"folder {str(folder)!r} has no images; it may hold parquet tables, or pictures in one "
                "folder for each class"
            ) from error
        raise DataError(f"folder {str(folder)!r} cannot be read: {_first_line(error)}") from error


def _from_hub(origin: DataOrigin) -> dict[str, Any]:
    """The tables of a hub data set by split; from its local cache if the hub does not answer."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    repository = origin.entry.repository
    nowhere = no_data_set(origin.source)
    reachable = True
    try:
        # Asked first, because load_dataset itself tries for half a minute before it gives up.
        HfApi().dataset_info(repository, timeout=_PATIENCE)
    except GatedRepoError:
        pass
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise DataError(f"{nowhere} (nor is it on the Hugging Face hub, or it is private)") from error
    except Exception:
        reachable = False
    try:
        with nullcontext() if reachable else _offline():
            return dict(datasets.load_dataset(repository))
    except Exception as error:
        if reachable:
            raise DataError(
                f"{origin.source}: the Hugging Face hub's {repository!r} cannot be loaded: "
                f"{_first_line(error)}"
            ) from error
        if origin.source in CATALOGUE:
            nowhere = f"data set {origin.source!r} is not on this machine yet"
        raise DataError(
            f"{nowhere} (the Hugging Face hub cannot be reached; offline, give a folder or use 'digits')"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of the Hugging Face libraries."""
    import datasets.utils
    import huggingface_hub.utils

    libraries: list[Any] = [datasets.utils, huggingface_hub.utils]
    loud = [library for library in libraries if not library.are_progress_bars_disabled()]
    for library in loud:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in loud:
            library.enable_progress_bars()


@contextmanager
def _offline() -> Iterator[None]:
    """Restrict the Hugging Face libraries to what is on this machine, rather than let them retry."""
    import datasets.config
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def image_column(features: Mapping[str, Any], name: str) -> str:
    """Name of the column with the images: ``image`` or ``img``, else the only one of image type.

    Raises :class:`~tombola.errors.DataError`, naming the columns seen, if there is none or a choice.
    """
    from datasets import Image

    # A table written without type information shows an image as its two stored fields.
    image_columns = [
        column
        for column, feature in features.items()
        if isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})
    ]
    named = [column for column in IMAGE_COLUMNS if column in image_columns]
    if named or len(image_columns) == 1:
        return (named or image_columns)[0]
    seen = ", ".join(map(repr, features)) or "none"
    problem = (
        "no images" if not image_columns else "several image columns and none is called 'image' or 'img'"
    )
    raise DataError(f"{name}: {problem}; columns seen: {seen}")


def label_column(features: Mapping[str, Any], name: str, preferred: str | None = None) -> str:
    """Name of the column with the labels: the preferred, a usual name, or else the only one of class type.

    Raises :class:`~tombola.errors.DataError`, naming the columns seen, if there is none or a choice.
    """
    from datasets import ClassLabel

    for column in (preferred, *LABEL_COLUMNS):
        if column in features:
            return str(column)
    class_columns = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    if len(class_columns) == 1:
        return class_columns[0]
    wanted = ", ".join(map(repr, LABEL_COLUMNS))
    seen = ", ".join(map(repr, features))
    raise DataError(f"{name}: no label column; wanted one of {wanted} or a single class column; seen: {seen}")


def decoded(table: Any, column: str, name: str) -> list[NDArray[np.uint8]]:
    """The images of one split in their own sizes and modes, each uint8 ``(1 or 3, H, W)``.

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
        # PIL clips 16-bit grey values at 255 when asked for 8 bits; they have to be scaled.
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
