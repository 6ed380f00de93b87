"""Image sets from the Hugging Face hub, by name, and from local folders in the layouts the hub knows.

Both are read with the library ``datasets``; what it raises comes out as one line that says what to do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from tombola.data import decode
from tombola.data.catalogue import CATALOGUE, Origin, no_data_set
from tombola.data.catalogue import find as find
from tombola.data.imageset import Data, ImageSet
from tombola.data.split import stratified_split
from tombola.errors import DataError

# Share of the images that becomes the test split of a set that has none.
TEST_FRACTION = 0.2

_TEST_SPLITS = ("test", "valid", "validation", "val")

# How long the hub may take to answer whether it has a data set, in seconds.
_PATIENCE = 5.0


def load(origin: Origin) -> Data:
    """Fetch and decode a data set, without any cache of tensors.

    Raises :class:`~tombola.errors.DataError` if it cannot be reached or read, lacks an image or label column,
    mixes image sizes, or has a class that one split lacks.
    """
    known, name = origin.known, origin.name
    with tempfile.TemporaryDirectory(prefix="tombola-", ignore_cleanup_errors=True) as scratch, _quiet():
        # A folder's intermediate tables are thrown away; those of the hub stay in the hub's own cache, which
        # serves machines that work offline.
        splits = _from_folder(origin.folder, scratch) if origin.folder else _from_hub(origin)
        tables = [table for table in _chosen(splits, known.pooled, name) if len(table)]
        if not tables:
            raise DataError(f"{name}: no images in it")
        features = tables[0].features
        image = decode.image_column(features, name)
        label = decode.label_column(features, name, preferred=known.label)
        labels, class_names = decode.class_indices(tables, label, name)
        images = decode.stacked([decode.decoded(table, image, name) for table in tables], name)
        del tables, splits
    if len(images) == 2 and not known.pooled:
        train, test = map(ImageSet, images, labels)
    else:
        everything, classes = torch.cat(images), torch.cat(labels)
        parts = stratified_split(classes, TEST_FRACTION)
        train, test = (ImageSet(everything[part], classes[part]) for part in parts)
    return Data(name, train, test, class_names, mirrored=known.mirrored, source=origin.source)


def _chosen(splits: dict[str, Any], pooled: bool, name: str) -> list[Any]:
    """The tables of the train and the test split, or those that are to be split anew."""
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


def _from_hub(origin: Origin) -> dict[str, Any]:
    """The tables of a hub data set by split; from the hub's local cache if the hub does not answer."""
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    repository = origin.known.repository
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
    """Without the progress bars of the Hugging Face libraries."""
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
    """Let the Hugging Face libraries look only at what is on this machine, rather than retry."""
    import datasets.config
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before
