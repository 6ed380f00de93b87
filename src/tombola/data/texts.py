"""How many cells a text table has, found out before it is read: short rows are filled up to the widest.

A CSV file of one long row and many short ones, or JSON objects each with a key of its own, would otherwise
take memory by the product of the two.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from tombola.data.bounds import MOST_COLUMNS, check_columns, check_size, largest_data
from tombola.errors import DataError
from tombola.untrusted import LONGEST_TEXT, open_regular, read_regular

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".txt")

# Bytes in which the first two rows of a CSV file lie.
_HEAD = 2**16
# Bytes that are read at a time.
_PART = 2**20
# No text has them, but compressed files do, which ``datasets`` would unpack whatever their name.
_CONTROL = bytes(set(range(32)) - set(b"\t\n\f\r"))
# What else a compressed file begins with.
_PACKED = (b"BZh", b"Rar!")
_CELL = 8  # bytes


def check_text(file: str, separator: str, name: str) -> tuple[int, int]:
    """The rows and columns of a text table, at most; DataError if it would take more memory than allowed.

    separator: of the cells of a CSV file.
    """
    suffix = os.path.splitext(file)[1].lower()
    try:
        rows = _lines(file)
        columns = 1
        if suffix in (".csv", ".tsv"):
            columns = _csv_columns(file, separator)
        elif suffix in (".json", ".jsonl"):
            rows, columns = _json_extent(file)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {file} cannot be read as text; mend or remove it") from error
    check_columns(columns, f"{name}: {file}")
    check_size(rows * columns * _CELL, f"{name}: {file}")
    return rows, columns


def _lines(file: str) -> int:
    """The number of lines of a text; ValueError for what is none, such as a compressed file."""
    lines = 1
    with open_regular(file, largest_data(), follow=True) as opened:
        part = opened.read(_PART)
        if part.startswith(_PACKED):
            raise ValueError("it is compressed")
        while part:
            if len(part.translate(None, _CONTROL)) < len(part):
                raise ValueError("it has control characters")
            lines += part.count(b"\n") + part.count(b"\r")
            part = opened.read(_PART)
    return lines


def _csv_columns(file: str, separator: str) -> int:
    """The number of columns that a CSV file has for pandas, which reads it."""
    import pandas

    with open(file, "rb") as opened:
        head = opened.read(_HEAD)
    is_whole = len(head) < _HEAD
    if not is_whole:  # a row within quotes that is cut off is an error of pandas
        head = head[: head.rfind(b"\n") + 1]
    table = pandas.read_csv(io.BytesIO(head), sep=separator, nrows=1)
    if not (is_whole or len(table)):
        raise ValueError(f"its first two rows are longer than {_HEAD:,} bytes")
    return len(table.columns) + int(table.index.nlevels)


def _json_extent(file: str) -> tuple[int, int]:
    """Upper bounds of the rows and columns of a JSON file, those within others included.

    Raises ValueError for no JSON.
    """
    text = read_regular(Path(file), LONGEST_TEXT, follow=True).decode()
    rows, columns = 0, _Columns()
    for value in _values(text):
        pending: list[tuple[Any, int]] = [(value, columns.root)]
        while pending:
            part, place = pending.pop()
            if isinstance(part, list):
                rows += len(part)
                inner = columns.within(place, None)
                pending += ((item, inner) for item in part if isinstance(item, list | dict))
            elif isinstance(part, dict):
                rows += 1
                for key, item in part.items():
                    inner = columns.within(place, key)
                    if isinstance(item, list | dict):
                        pending.append((item, inner))
        if len(columns) > MOST_COLUMNS:
            break  # refused anyway
    return rows, len(columns)


class _Columns:
    """The places of values in JSON, numbered as they are met: keys within keys, and items of lists."""

    root = 0

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, str | None], int] = {}

    def within(self, place: int, key: str | None) -> int:
        """The number of a place within another; key: None for the items of a list."""
        return self._numbers.setdefault((place, key), len(self._numbers) + 1)

    def __len__(self) -> int:
        return len(self._numbers)


def _values(text: str) -> Iterator[Any]:
    """The JSON values of a text, one after the other, with or without lines between them."""
    decoder, place = JSONDecoder(), 0
    while place < len(text):
        if text[place].isspace() or text[place] == "\ufeff":
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except JSONDecodeError as error:
            raise ValueError(f"it is no JSON: {error}") from error
        yield value
