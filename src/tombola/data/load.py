"""Loads a data set by name or from a folder, by way of the cache (:mod:`tombola.data.cache`)."""

from __future__ import annotations

import gzip
import importlib.util
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tombola.data import cache, hub
from tombola.data.catalogue import origin_of
from tombola.data.imageset import Data, ImageSet
from tombola.data.splits import stratified_split
from tombola.errors import DataError


def load_data(source: str | os.PathLike[str] | Data) -> Data:
    """A data set with its train and test split.

    source: one of

    - ``"digits"``: real handwritten digits of 8x8 pixels, embedded, nothing to download;
    - ``"cifar10"``, ``"cifar100"``, ``"tinyimagenet"``, ``"mnist"``, ``"eurosat"``, or the name of any other
      image-classification set of parquet tables, pictures or text tables (no archives) on the Hugging Face
      hub, such as ``"owner/name"``;
    - a local folder that Hugging Face ``datasets`` reads: parquet files with an image and a label column,
      or pictures in one folder for each class, optionally below ``train`` and ``test``. It is read without
      network, and nothing outside of it: links and paths that lead out of it are refused;
    - a :class:`~tombola.data.imageset.Data`, say from :func:`~tombola.data.imageset.data_from_tensors`, which
      is returned unchanged.

    Images are uint8 ``(N, C, H, W)``, labels int64 ``(N,)``. The test split is the one called ``test``, else
    ``valid``, ``validation`` or ``val``; a set without one gets a fixed stratified split of 80% to 20%. If
    any image has colour, all become RGB. The decoded tensors are cached in the user's cache folder
    (``TOMBOLA_CACHE`` moves it), so that only the first load takes long.

    A data set may take 4 GiB decoded, and as much as tables (ImageNet at 32x32 fits);
    ``TOMBOLA_LARGEST_DATA`` gives another bound in GiB. A picture may have 2^26 pixels, 8192x8192, a table
    1,000 columns, and a JSON file 64 MiB. Parquet columns in DELTA_BYTE_ARRAY, an encoding without a bound,
    are refused.

    Raises :class:`~tombola.errors.DataError` for a name or folder that does not exist, a hub that cannot be
    reached, files outside of the data set or beyond these bounds, images of differing sizes, no image or
    label column, control characters in names, and a class that one split lacks.
    """
    if isinstance(source, Data):
        return source
    if not isinstance(source, str | os.PathLike):
        raise DataError(f"data is a name, a folder or a Data; got {type(source).__name__} {source!r:.60}")
    if source == "digits":
        return digits()
    origin = origin_of(source)
    entry = cache.entry_of(origin.name, origin.source, origin.folder)
    data = cache.read(entry)
    if data is None:
        data = hub.load(origin)
        cache.write(entry, data)
    return data


def digits() -> Data:
    """The digits of scikit-learn, uint8 ``(N, 1, 8, 8)``, in a fixed stratified split of 1,198 and 599."""
    rows = _digit_rows()
    images = torch.from_numpy(np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    train, test = (ImageSet(images[part], labels[part]) for part in stratified_split(labels, 1 / 3))
    names = tuple(str(digit) for digit in range(10))
    return Data("digits", train, test, class_names=names, mirrored=False, source="digits")


def _digit_rows() -> NDArray[np.float64]:
    """Scikit-learn's digits as ``(1797, 65)``: 64 pixels from 0 to 16, and the digit.

    Its file is read in its place: importing scikit-learn, with what it imports, takes a second of every
    worker process.
    """
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            with gzip.open(file, "rt", encoding="utf-8") as lines:
                return np.loadtxt(lines, delimiter=",")
    from sklearn.datasets import load_digits  # wherever another version keeps it

    table = load_digits()
    return np.column_stack([table.data, table.target]).astype(np.float64)
