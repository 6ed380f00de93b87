"""How much memory tables take, found out from their headers and in small pieces before they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

from tombola.data.bounds import check_columns, check_size, largest_data
from tombola.data.footer import ColumnChunk, column_chunks
from tombola.data.texts import SUFFIXES, check_text
from tombola.errors import DataError
from tombola.untrusted import OTHER_FORM

# Rows of a table that are measured at a time; fewer where a dictionary could make them large.
_ROWS = 1024
# Bytes of a number.
_CELL = 8


def check_files(files: Iterable[str], name: str, *, separator: str = ",", features: Any = None) -> None:
    """Raises DataError for data files that may take more memory than a data set may, naming the one.

    files: local paths of all files that a data set is read from.
    separator: of the cells of CSV files. features: the types of the columns, where a README says them.
    """
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    pictures, total = set(ImageFolder.EXTENSIONS), 0
    rows, width = 0, _width(features or {})
    for file in files:
        suffix, what = os.path.splitext(file)[1].lower(), f"{name}: with {file} it"
        check_size(os.stat(file).st_size, f"{name}: {file}")
        if suffix == ".parquet":
            more_rows, other_width = _extent(file, name)
            # All tables become of the types of one of them.
            rows, width = rows + more_rows, max(width, other_width)
            check_size(rows * width, what)
            total = _measured(file, total, name)
        elif suffix in SUFFIXES:
            rows += check_text(file, separator, name)
            check_size(rows * width, what)
        elif suffix not in pictures:
            raise DataError(
                f"{name}: {file} cannot be read; unpack it to a folder of pictures of your own, or write its "
                "images and labels as parquet tables"
            )


def _extent(file: str, name: str) -> tuple[int, int]:
    """The rows of a parquet table, and the bytes that each takes at least by the types of its columns."""
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            check_columns(table.metadata.num_columns, f"{name}: {file}")
            return table.metadata.num_rows, _width(Features.from_arrow_schema(table.schema_arrow))
    except (pyarrow.ArrowException, OSError, *OTHER_FORM) as error:
        raise DataError(f"{name}: {file} cannot be read; mend or remove it") from error


def _width(feature: Any) -> int:
    """Bytes that even a missing cell of a type takes: lists of a fixed length are filled up."""
    if isinstance(feature, Mapping):
        return sum(map(_width, feature.values()))
    if isinstance(feature, list):
        return sum(map(_width, feature))
    shape = [size for size in getattr(feature, "shape", ()) if size is not None]
    inner = getattr(feature, "feature", None)
    length = getattr(feature, "length", -1)
    if inner is not None and length >= 0:
        return int(length) * max(_width(inner), 1)
    text = str(getattr(feature, "dtype", ""))
    if text.startswith("fixed_size_binary["):
        return int(text.removeprefix("fixed_size_binary[").removesuffix("]"))
    return math.prod(shape) * _CELL if shape else _CELL


def _measured(file: str, total: int, name: str) -> int:
    """``total`` and the bytes of a table in memory.

    Raises DataError as soon as that is more than a data set may take.
    """
    import pyarrow
    from pyarrow import parquet

    what = f"{name}: with {file} it"
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            chunks = list(column_chunks(file))
            # A value that is missing or repeated takes no room in the file, but some in memory.
            stored = sum(max(chunk.size, chunk.values) for chunk in chunks)
            check_size(total + max(stored, table.metadata.num_rows), what)
            for batch in table.iter_batches(_rows_at_a_time(chunks), use_threads=False):
                total += max(sum(map(_unfolded, batch.columns)), batch.num_rows)
                check_size(total, what)
    except (pyarrow.ArrowException, OSError, *OTHER_FORM) as error:
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


def _rows_at_a_time(chunks: Iterable[ColumnChunk]) -> int:
    """How many rows of a table take at most a quarter of the bound, with all that its dictionaries hold."""
    largest = max((chunk.size for chunk in chunks if chunk.has_dictionary), default=0)
    return max(min(_ROWS, largest_data() // 4 // max(largest, 1)), 1)
