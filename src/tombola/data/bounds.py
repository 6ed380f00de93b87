"""How much memory a data set may take, found out from headers before anything is decoded.

A small file can ask for a great deal: a picture of one colour, a table that stores a cell once and repeats it
a million times. So tables are measured in small pieces before they are read as a whole, and pictures by the
size in their header.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

from tombola.errors import DataError

# In GiB. The largest sets of the field fit: TinyImageNet takes 1.3 GB, and ImageNet at 32x32 pixels 4.1 GB.
_LARGEST_DATA = 4.0

# Pixels of one picture, 8192x8192.
LARGEST_PICTURE = 2**26

# Rows of a table that are measured at a time; fewer where a dictionary could make them large.
_ROWS = 1024

_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".txt")


def largest_data() -> int:
    """The bytes that a data set may take, decoded or as tables; ``TOMBOLA_LARGEST_DATA`` gives them in GiB.

    Raises :class:`~tombola.errors.DataError` if that is no number above 0.
    """
    text = os.environ.get("TOMBOLA_LARGEST_DATA", str(_LARGEST_DATA))
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise DataError(f"TOMBOLA_LARGEST_DATA is {text!r}; it must be a size in GiB above 0, such as 16")
    return int(size * 2**30)


def check_size(size: int, what: str) -> None:
    """Raises DataError, about ``what``, if so many bytes are more than a data set may take."""
    largest = largest_data()
    if size > largest:
        raise DataError(
            f"{what} would take {_gib(size)} or more, and a data set may take {_gib(largest)}; if it is "
            "meant to be that large, set TOMBOLA_LARGEST_DATA to more (in GiB)"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2g} GiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


def check_pixels(picture: Any, what: str) -> None:
    """Raises DataError, about ``what``, for a PIL image, not yet decoded, that has too many pixels."""
    if picture.width * picture.height > LARGEST_PICTURE:
        raise too_many_pixels(what)


def too_many_pixels(what: str) -> DataError:
    """The error for a picture that is too large to be decoded."""
    return DataError(
        f"{what} has more than {LARGEST_PICTURE:,} pixels, the most a picture may have; scale or remove it"
    )


def check_files(files: Iterable[str], name: str) -> None:
    """Raises DataError for data files that may take more memory than a data set may, naming the one.

    files: local paths of all files that a data set is read from.
    """
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    pictures, total = set(ImageFolder.EXTENSIONS), 0
    for file in files:
        suffix = os.path.splitext(file)[1].lower()
        check_size(os.stat(file).st_size, f"{name}: {file}")
        if suffix == ".parquet":
            total = _measured(file, total, name)
        elif suffix not in pictures and suffix not in _TEXTS:
            raise DataError(
                f"{name}: {file} cannot be read; unpack it to a folder of pictures of your own, or write its "
                "images and labels as parquet tables"
            )


def _measured(file: str, total: int, name: str) -> int:
    """``total`` and the bytes of a table in memory.

    Raises DataError as soon as that is more than a data set may take.
    """
    import pyarrow
    from pyarrow import parquet

    what = f"{name}: with {file} it"
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            metadata = table.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            chunks = [group.column(column) for group in groups for column in range(group.num_columns)]
            # A value that is missing or repeated takes no room in the file, but some in memory.
            stored = sum(max(chunk.total_uncompressed_size, chunk.num_values) for chunk in chunks)
            check_size(total + max(stored, metadata.num_rows), what)
            for batch in table.iter_batches(_rows_at_a_time(chunks), use_threads=False):
                total += max(sum(map(_unfolded, batch.columns)), batch.num_rows)
                check_size(total, what)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{name}: {file} cannot be read; mend or remove it") from error
    return total


def _unfolded(array: Any) -> int:
    """Bytes of a pyarrow array once all values are repeated that a dictionary stores only once."""
    from pyarrow import compute, types

    if types.is_nested(array.type):
        parts = array.flatten()
        return sum(map(_unfolded, parts)) if isinstance(parts, list) else _unfolded(parts)
    if not types.is_dictionary(array.type):
        return int(array.nbytes)
    values = array.dictionary
    if types.is_primitive(values.type):
        return int(len(array) * values.type.bit_width // 8)
    return int(compute.sum(compute.binary_length(values).take(array.indices)).as_py() or 0)


def _rows_at_a_time(chunks: Iterable[Any]) -> int:
    """How many rows of a table take at most a quarter of the bound, with all that its dictionaries hold."""
    largest = max((chunk.total_uncompressed_size for chunk in chunks if chunk.has_dictionary_page), default=0)
    return max(min(_ROWS, largest_data() // 4 // max(largest, 1)), 1)
