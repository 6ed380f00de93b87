"""Fetches image sets from the Hugging Face hub or a local folder, and decodes them to tensors.

Both are read with the library ``datasets``, whose errors are turned into one line that says what to do. The
tables' columns are then recognised by name or type, images decoded with PIL, and labels made class indices.
The makers of the data are not trusted: :mod:`tombola.data.inside` says what may be read, and
:mod:`tombola.data.bounds` how much memory that may take.
"""

from __future__ import annotations

import io
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tombola.data.bounds import check_pixels, check_size, too_many_pixels
from tombola.data.catalogue import CATALOGUE, DataOrigin, no_data_set
from tombola.data.imageset import Data, ImageSet
from tombola.data.inside import check_descriptions, check_file, check_options, only_inside
from tombola.data.splits import stratified_split
from tombola.data.tables import check_files
from tombola.errors import DataError
from tombola.untrusted import printable

# Share of the images that becomes the test split of a set that has none.
TEST_FRACTION = 0.2

TEST_SPLITS = ("test", "valid", "validation", "val")

# How long the hub may take to answer whether it has a data set, in seconds.
_PATIENCE = 5.0

# What hub data sets call the label; the fine one where there is a coarse one too.
LABEL_COLUMNS = ("label", "labels", "fine_label")
IMAGE_COLUMNS = ("image", "img")

# The formats of nearly all data sets, tried first: PIL tries many others before WebP, a third of the time.
_USUAL_FORMATS = ("PNG", "JPEG", "WEBP")

# PIL modes that are stored as one channel.
_GREY_MODES = ("1", "L", "LA", "La")

# The settings of the libraries, which reading changes for a while, are those of the whole process.
_reading = threading.Lock()


def load(origin: DataOrigin) -> Data:
    """Fetch and decode a data set, without any cache of tensors.

    Raises :class:`~tombola.errors.DataError` if it cannot be reached or read, names files outside of it,
    takes more memory than a data set may, lacks an image or label column, mixes image sizes, or has a class
    that one split lacks.
    """
    entry, name = origin.entry, origin.name
    with (
        _reading,
        tempfile.TemporaryDirectory(prefix="tombola-", ignore_cleanup_errors=True) as scratch,
        _quiet(),
    ):
        # A folder's intermediate tables are thrown away; those of the hub stay in the hub's own cache, which
        # serves machines that work offline.
        splits = _from_folder(origin.folder, name, scratch) if origin.folder else _from_hub(origin)
        tables = [table for table in _tables(splits, entry.pooled, name) if len(table)]
        if not tables:
            raise DataError(f"{name}: no images in it")
        folder = origin.folder or _repository_folder(entry.repository)
        images, labels, class_names = images_and_labels(tables, name, folder, entry.label)
        del tables, splits
    if len(images) == 2 and not entry.pooled:
        train, test = map(ImageSet, images, labels)
    else:
        everything, classes = torch.cat(images), torch.cat(labels)
        del images  # three copies would not be within the memory that is promised
        parts = stratified_split(classes, TEST_FRACTION)
        train, test = (ImageSet(everything[part], classes[part]) for part in parts)
    return Data(name, train, test, class_names, mirrored=entry.mirrored, source=origin.source)


def images_and_labels(
    tables: Sequence[Any], name: str, folder: Path, preferred: str | None = None
) -> tuple[list[Tensor], list[Tensor], tuple[str, ...]]:
    """Images and labels of each split, and the class names; errors as for :func:`load`.

    tables: one ``datasets.Dataset`` for each split, none of them empty. name: of the data set, for errors.
    folder: where files must lie that a table names. preferred: the label's column, where it has that.
    """
    features = tables[0].features
    image = image_column(features, name)
    label = label_column(features, name, preferred)
    labels, class_names = class_indices(tables, label, name)
    return decoded(tables, image, name, folder), labels, class_names


def _tables(splits: dict[str, Any], pooled: bool, name: str) -> list[Any]:
    """The tables of the train and the test split; those of all splits if they are pooled or there is one."""
    if pooled:
        return [splits[split] for split in sorted(splits)]
    if len(splits) == 1:
        return list(splits.values())
    if "train" not in splits:
        raise DataError(f"{name}: no split 'train'; splits seen: {', '.join(map(repr, splits))}")
    return [splits["train"], *[splits[split] for split in TEST_SPLITS if split in splits][:1]]


def _from_folder(folder: Path, name: str, scratch: str) -> dict[str, Any]:
    """The tables of a local folder by split."""
    check_descriptions(folder, name)
    try:
        with _offline():
            return _splits(str(folder), str(folder), name, cache_dir=scratch)
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError):  # which EmptyDatasetError is, too
            raise DataError(
                f"folder {str(folder)!r} has no images; it may hold parquet tables, or pictures in one "
                "folder for each class"
            ) from error
        raise DataError(f"folder {str(folder)!r} cannot be read: {_first_line(error)}") from error


def _splits(source: str, root: str, name: str, **options: Any) -> dict[str, Any]:
    """The tables by split of what ``datasets`` calls ``source``, from checked files below ``root`` only."""
    import datasets

    with only_inside(root, name):
        builder = datasets.load_dataset_builder(source, **options)
        check_options(builder.config, name)
        if not Path(builder.cache_dir).exists():  # of the hub, an earlier load may have left the tables
            files = [file for split in (builder.config.data_files or {}).values() for file in split]
            if not Path(root).is_absolute():
                files = datasets.DownloadManager(record_checksums=False).download(files)
            else:
                for file in files:
                    check_file(file, Path(root), f"{name}: {file}")
            separator = getattr(builder.config, "sep", ",")
            check_files(files, name, separator=separator, features=builder.info.features)
        builder.download_and_prepare()
    return dict(builder.as_dataset())


def _repository_folder(repository: str) -> Path:
    """Where the hub's library keeps the files of a data set on this machine."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")


def _from_hub(origin: DataOrigin) -> dict[str, Any]:
    """The tables of a hub data set by split; from its local cache if the hub does not answer."""
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
            return _splits(repository, f"hf://datasets/{repository}", origin.name)
    except DataError:
        raise
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
    from datasets.exceptions import DatasetGenerationError

    cause = (error.__cause__ or error) if isinstance(error, DatasetGenerationError) else error
    return printable((str(cause).strip() or type(cause).__name__).splitlines()[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the progress bars of the Hugging Face libraries, and their log, which repeats untrusted names."""
    import datasets.utils
    import huggingface_hub.utils

    libraries: list[Any] = [datasets.utils, huggingface_hub.utils]
    loud = [library for library in libraries if not library.are_progress_bars_disabled()]
    levels = [(library.logging, library.logging.get_verbosity()) for library in libraries]
    for library in loud:
        library.disable_progress_bars()
    for logging, _ in levels:
        logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        for library in loud:
            library.enable_progress_bars()
        for logging, level in levels:
            logging.set_verbosity(level)


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


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Turn what PIL warns of, pictures of too many pixels, into errors."""
    import PIL.Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        yield


@_bombs_are_errors()
def decoded(tables: Sequence[Any], column: str, name: str, folder: Path) -> list[Tensor]:
    """The images of each split as uint8 ``(N, C, H, W)``.

    All are greyscale (C = 1) if every image of every split is; otherwise grey images become RGB (C = 3).

    tables: one ``datasets.Dataset`` for each split, none of them empty.
    folder: where files must lie that cells name instead of having an image in them.

    Raises :class:`~tombola.errors.DataError`, naming the row, for an image that is missing, cannot be read or
    asks for more memory than a data set may take; naming the sizes, if not all are of one size.
    """
    rows = [len(table) for table in tables]
    splits: list[NDArray[np.uint8]] = []
    sizes: Counter[tuple[int, ...]] = Counter()
    # One thread: of the 0.1 ms that a 32x32 image takes, Python holds its lock for nearly all.
    for split, table in enumerate(tables):
        for row, cell in enumerate(_cells(table, column)):
            with _opened(cell, f"{name}: image {row}", folder) as picture:
                if len(sizes) > 1:  # refused anyway, so no other needs decoding
                    sizes[picture.size[::-1]] += 1
                    continue
                if not splits or _planes(picture) > splits[0].shape[1]:
                    _check_memory(picture, sum(rows), f"{name}: {sum(rows):,} images like image {row}", cell)
                width, height = picture.size
                pixels = picture_pixels(picture)
                if sorted(pixels.shape[1:]) != sorted((height, width)):  # turned around it may be
                    raise ValueError("its header says another size")
            sizes[pixels.shape[1:]] += 1
            if not splits:
                splits = [np.empty((count, *pixels.shape), dtype=np.uint8) for count in rows]
            if len(pixels) > splits[0].shape[1]:
                for index in range(len(splits)):
                    splits[index] = np.repeat(splits[index], 3, axis=1)
            if len(sizes) == 1:
                splits[split][row] = pixels
    if len(sizes) > 1:
        common = ", ".join(f"{width}x{height} ({n})" for (height, width), n in sizes.most_common(4))
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        raise DataError(f"{name}: images of {len(sizes)} sizes, {common}{more}; all must be of one size")
    return [torch.from_numpy(pixels) for pixels in splits]


def _cells(table: Any, column: str) -> Iterator[Any]:
    """The stored cells of a column, still encoded."""
    for batch in table.select_columns([column]).with_format("arrow").iter(batch_size=1000):
        for cell in batch[column]:
            yield cell.as_py()


@contextmanager
def _opened(cell: Any, what: str, folder: Path) -> Iterator[Any]:
    """The PIL image of a cell, with nothing but its header read; what fails with it becomes a DataError."""
    import PIL.Image

    what = f"{what} ({_place(cell)})"
    try:
        if cell["bytes"] is None:
            check_file(cell["path"], folder, what)
        with _header(cell["path"] if cell["bytes"] is None else io.BytesIO(cell["bytes"])) as picture:
            if picture.format == "EPS":
                raise DataError(f"{what} is an EPS file, a program and no picture; draw it as PNG")
            check_pixels(picture, what)
            yield picture
    except DataError:
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise too_many_pixels(what) from error
    except Exception as error:
        raise DataError(f"{what} cannot be read; mend or remove it") from error


def _header(source: str | io.BytesIO) -> Any:
    """The PIL image in a file, not yet decoded."""
    import PIL.Image

    try:
        return PIL.Image.open(source, formats=_USUAL_FORMATS)
    except PIL.UnidentifiedImageError:
        return PIL.Image.open(source)


def _place(cell: Any) -> str:
    """The path that a stored image names, for errors."""
    return printable(str((cell or {}).get("path") or "no path"))


def _check_memory(picture: Any, images: int, what: str, cell: Any) -> None:
    """Raises DataError, about ``what``, if so many images like this take more memory than allowed."""
    planes, (width, height) = _planes(picture), picture.size
    colour = " in colour" if planes == 3 else ""
    label = torch.int64.itemsize
    check_size(
        images * (planes * height * width + label), f"{what} ({_place(cell)}), {width}x{height}{colour},"
    )


def _planes(image: Any) -> int:
    """Number of channels that a PIL image is stored in: 1 if its mode is a grey one, else 3."""
    return 1 if image.mode in _GREY_MODES or image.mode == "I" or image.mode.startswith("I;16") else 3


def picture_pixels(image: Any) -> NDArray[np.uint8]:
    """The pixels of a PIL image as uint8 ``(1, H, W)`` if its mode is a grey one, else ``(3, H, W)``."""
    from PIL import ExifTags, ImageOps

    image.load()  # which may find the orientation, and another mode
    if ExifTags.Base.Orientation in image.getexif():
        image = ImageOps.exif_transpose(image)
    if _planes(image) == 1 and image.mode not in _GREY_MODES:
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


def class_indices(tables: Sequence[Any], column: str, name: str) -> tuple[list[Tensor], tuple[str, ...]]:
    """Labels of each split as int64 ``(N,)``, and the class names.

    The names of a class column keep their official order. Plain numbers and texts become classes in
    sorted order over all splits, named as they are.

    Raises :class:`~tombola.errors.DataError` if a label is missing or is neither a number nor a text.
    """
    from datasets import ClassLabel

    feature = tables[0].features[column]
    columns = [table.with_format("arrow")[:][column] for table in tables]
    seen = {_label_kind(labels) for labels in columns} | {
        "missing" for labels in columns if labels.null_count
    }
    if seen - {"int", "str", "bool"}:
        kinds = ", ".join(sorted(seen))
        raise DataError(f"{name}: labels in {column!r} must be whole numbers or texts; seen: {kinds}")
    if isinstance(feature, ClassLabel):
        return [torch.tensor(labels.to_numpy()) for labels in columns], tuple(feature.names)
    # Every value becomes an object of Python once, not once a row.
    codes = [labels.dictionary_encode().combine_chunks() for labels in columns]
    values = [code.dictionary.to_pylist() for code in codes]
    classes = sorted({value for split in values for value in split})
    index = {value: number for number, value in enumerate(classes)}
    tensors = [
        torch.tensor([index[value] for value in split])[torch.tensor(code.indices.to_numpy()).long()]
        for split, code in zip(values, codes, strict=True)
    ]
    return tensors, tuple(map(str, classes))


def _label_kind(labels: Any) -> str:
    """What errors call the type of a pyarrow column of labels: as Python does, where it may be one."""
    from pyarrow import types

    if types.is_integer(labels.type):
        return "int"
    if types.is_boolean(labels.type):
        return "bool"
    if types.is_string(labels.type) or types.is_large_string(labels.type):
        return "str"
    return "float" if types.is_floating(labels.type) else str(labels.type)
