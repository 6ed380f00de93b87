"""How much memory tables take, found out from their headers and in small pieces before they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tombola.data.bounds import check_columns, check_size, largest_data
from tombola.data.footer import RowGroup, row_groups
from tombola.data.texts import SUFFIXES, check_text
from tombola.errors import DataError
from tombola.untrusted import OTHER_FORM

# Bytes of a table that are measured at a time, about: pyarrow has no dictionary of more than 2 GiB.
_PART = 2**27
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
        size = os.stat(file).st_size
        check_size(size, f"{name}: {file}")
        if suffix == ".parquet":
            groups = _groups(file, name)
            rows += sum(group.rows for group in groups)
            # All tables become of the types of one of them.
            least = _row_width(file, name)
            width = max(width, least)
            check_size(rows * width, what)
            total = _measured(file, groups, least, total, name)
        elif suffix in SUFFIXES:
            more_rows, columns = check_text(file, separator, name)
            rows += more_rows
            check_size(rows * width, what)
            total += size + more_rows * columns * _CELL
            check_size(total, what)
        elif suffix not in pictures:
            raise DataError(
                f"{name}: {file} cannot be read; unpack it to a folder of pictures of your own, or write its "
                "images and labels as parquet tables"
            )


def _groups(file: str, name: str) -> list[RowGroup]:
    """The groups of rows of a parquet table; DataError for one whose values have no bound."""
    try:
        groups = row_groups(file)
    except (OSError, *OTHER_FORM) as error:
        raise DataError(f"{name}: {file} cannot be read; mend or remove it") from error
    if any(column.shares_prefixes for group in groups for column in group.columns):
        raise DataError(
            f"{name}: {file} is encoded as DELTA_BYTE_ARRAY, by which a few bytes become gigabytes; write it "
            "with another encoding"
        )
    return groups


def _row_width(file: str, name: str) -> int:
    """Bytes that each row of a parquet table takes at least by the types of its columns."""
    import pyarrow
    from datasets import Features
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            check_columns(table.metadata.num_columns, f"{name}: {file}")
            return _width(Features.from_arrow_schema(table.schema_arrow))
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


def _measured(file: str, groups: Sequence[RowGroup], least: int, total: int, name: str) -> int:
    """``total`` and the bytes of a table in memory.

    least: bytes that each row takes at least.

    Raises DataError as soon as that is more than a data set may take.
    """
    import pyarrow
    from pyarrow import parquet

    what = f"{name}: with {file} it"
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            columns = [table.schema.column(index) for index in range(len(table.schema))]
        if any(len(group.columns) != len(columns) for group in groups):
            raise ValueError("its rows have other columns than its schema")
        # A value that is missing or repeated takes no room in the file, but some in memory.
        widths = [_value_width(column) for column in columns]
        stored = [
            [max(c.size, c.values * width) for c, width in zip(group.columns, widths, strict=True)]
            for group in groups
        ]
        check_size(total + max(sum(map(sum, stored)), sum(group.rows for group in groups)), what)
        folded = [
            column.path
            for index, column in enumerate(columns)
            if column.physical_type == "BYTE_ARRAY" and any(g.columns[index].has_dictionary for g in groups)
        ]
        # Values of a dictionary stay within it, of which pyarrow has up to three copies: so one column of one
        # group of rows is read at a time.
        with parquet.ParquetFile(file, pre_buffer=False, read_dictionary=folded) as table:
            for index, group in enumerate(groups):
                before = total
                for column, size in zip(columns, stored[index], strict=True):
                    row_bytes = max(size // max(group.rows, 1), least, _CELL)
                    rows = max(min(largest_data() // 4, _PART) // row_bytes, 1)
                    for batch in table.iter_batches(
                        rows, row_groups=[index], columns=[column.path], use_threads=False
                    ):
                        total += sum(map(_unfolded, batch.columns))
                        check_size(total, what)
                total = max(total, before + group.rows)
                check_size(total, what)
    except (pyarrow.ArrowException, OSError, *OTHER_FORM) as error:
        raise DataError(f"{name}: {file} cannot be read; mend or remove it") from error
    return total


def _value_width(column: Any) -> int:
    """Bytes that a value of a column of a parquet schema takes at least; of one within lists, while read."""
    length = column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 1
    return max(int(length), _CELL if column.max_repetition_level else 1)


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
