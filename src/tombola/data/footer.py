"""The sizes of the columns of a parquet table, from its footer and the headers of its pages.

Read here and not with ``pyarrow``, whose functions for it end the process at what they do not expect. What a
footer says of sizes is only said; no page is unpacked to another size than its own header has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from tombola.untrusted import LONGEST_TEXT

# A footer ends with its length in four bytes and this.
_MAGIC = b"PAR1"
_TAIL = 8

# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_I16, _I32, _I64 = 4, 5, 6
_BITS = {_I16: 16, _I32: 32, _I64: 64}

# Fields of parquet's own structures, by number and type: its readers skip those of another type.
_ROW_GROUPS, _COLUMNS, _ROWS, _META_DATA = (4, _LIST), (1, _LIST), (3, _I64), (3, _STRUCT)
_VALUES, _SIZE, _DATA, _DICTIONARY = (5, _I64), (6, _I64), (9, _I64), (11, _I64)
_PAGE, _UNPACKED, _PACKED = (1, _I32), (2, _I32), (3, _I32)
# The kinds of pages with values, and where their headers say how many and how they are encoded.
_VALUE_PAGES = {0: ((5, _STRUCT), (2, _I32)), 3: ((8, _STRUCT), (4, _I32))}
_PAGE_VALUES = (1, _I32)
_DICTIONARY_PAGE = 2
_SHARED_PREFIXES = 7

# Bytes of the header of a page, which may hold the least and the greatest value; pyarrow takes no longer one.
_HEADER, _LONGEST_HEADER = 2**12, 2**24
# Pages of a file: each takes some 20 microseconds, and a footer may name one again and again.
_MOST_PAGES = 1_000_000


class ColumnChunk(NamedTuple):
    """A column of a group of rows: its values, those missing included, bytes unpacked, and whether it has a
    dictionary of values that are stored once, or values stored by what they share with the one before."""

    values: int
    size: int
    has_dictionary: bool
    shares_prefixes: bool


class RowGroup(NamedTuple):
    """A group of rows: how many, and their columns."""

    rows: int
    columns: list[ColumnChunk]


def row_groups(file: str) -> list[RowGroup]:
    """The groups of rows of a parquet file; what is none raises an error of another form."""
    with open(file, "rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, end - _TAIL))
        tail = opened.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or not 0 < length <= min(end - _TAIL, LONGEST_TEXT):
            raise ValueError("it has no footer")
        opened.seek(end - _TAIL - length)
        footer = _CompactReader(opened.read(length)).struct()
        pages = iter(range(_MOST_PAGES))
        return [
            RowGroup(
                _count(group, _ROWS),
                [_column_chunk(opened, column[_META_DATA], pages) for column in group[_COLUMNS]],
            )
            for group in footer[_ROW_GROUPS]
        ]


def _column_chunk(file: BinaryIO, said: dict[Any, Any], pages: Iterator[int]) -> ColumnChunk:
    """A column of which a footer has said something, by its pages, as far as a reader goes.

    pages: has an item for each page that may still be read.
    """
    place, values = _count(said, _DATA), _count(said, _VALUES)
    if 0 < said.get(_DICTIONARY, 0) < place:
        place = said[_DICTIONARY]
    seen, size, kinds, encodings = 0, 0, set(), set()
    while seen < values:
        if next(pages, None) is None:
            raise ValueError(f"it has more than {_MOST_PAGES:,} pages")
        header, length = _page_header(file, place)
        packed, kind = _count(header, _PACKED), _count(header, _PAGE)
        place += length + packed
        size += max(packed, _count(header, _UNPACKED))
        kinds.add(kind)
        if kind in _VALUE_PAGES:
            within, encoding = _VALUE_PAGES[kind]
            seen += _count(header[within], _PAGE_VALUES)
            encodings.add(_count(header[within], encoding))
    return ColumnChunk(
        max(seen, values),
        max(size, _count(said, _SIZE)),
        _DICTIONARY_PAGE in kinds,
        _SHARED_PREFIXES in encodings,
    )


def _page_header(file: BinaryIO, place: int) -> tuple[dict[Any, Any], int]:
    """The header of the page at a place of a file, and its length."""
    longest = _HEADER
    while True:
        file.seek(place)
        reader = _CompactReader(file.read(longest))
        try:
            return reader.struct(), reader.place
        except IndexError:
            if longest >= _LONGEST_HEADER:
                raise
            longest = _LONGEST_HEADER


def _count(fields: dict[Any, Any], field: tuple[int, int]) -> int:
    """A number of things that a field says; ValueError for one below 0."""
    count = int(fields[field])
    if count < 0:
        raise ValueError(f"it says {count:,} where a number of things stands")
    return count


class _CompactReader:
    """Reads structures of Thrift's compact protocol from the beginning of some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self) -> dict[Any, Any]:
        """The fields of a structure by their numbers and types; ValueError if two have one number.

        Readers take the one or the other then, or parts of both.
        """
        fields: dict[Any, Any] = {}
        number, seen = 0, set()
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number(_I16)
            kind = head & 15
            if number in seen or not 0 <= number < 2**15:
                raise ValueError(f"a footer has a second or impossible field {number}")
            seen.add(number)
            fields[number, kind] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _BITS:
            return self._number(kind)
        if kind == _STRUCT:
            return self.struct()
        if kind == _BINARY:
            return self._skip(self._varint(31))
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint(31)
            return [self._value(head & 15) for _ in range(count)]
        if kind == _MAP:
            count = self._varint(31)
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        if kind == _DOUBLE:
            return self._skip(8)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        raise ValueError(f"a footer has a value of type {kind}")

    def _byte(self) -> int:
        self.place += 1
        return self._content[self.place - 1]

    def _skip(self, count: int) -> None:
        self.place += count

    def _varint(self, bits: int) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if value >> bits:
                raise ValueError(f"a footer has a number of more than {bits} bits")
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a footer has a number of more than 64 bits")

    def _number(self, kind: int) -> int:
        value = self._varint(_BITS[kind])
        return (value >> 1) ^ -(value & 1)
