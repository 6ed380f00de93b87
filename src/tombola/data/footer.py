"""The sizes of the columns of a parquet table, from its footer.

Read here and not with ``pyarrow``, whose functions for it end the process at what they do not expect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from tombola.untrusted import LONGEST_TEXT

# A footer ends with its length in four bytes and this.
_MAGIC = b"PAR1"
_TAIL = 8

# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_VARINTS = (4, 5, 6)

# Numbers of fields of parquet's own structures.
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3
_VALUES, _SIZE, _DICTIONARY = 5, 6, 11


class ColumnChunk(NamedTuple):
    """A column of a group of rows: its values, those missing included, bytes unpacked, and whether it has a
    dictionary of values that are stored once."""

    values: int
    size: int
    has_dictionary: bool


def column_chunks(file: str) -> Iterator[ColumnChunk]:
    """Each column of each group of rows of a parquet file; what is none raises an error of another form."""
    with open(file, "rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, end - _TAIL))
        tail = opened.read(_TAIL)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or not 0 < length <= min(end - _TAIL, LONGEST_TEXT):
            raise ValueError("it has no footer")
        opened.seek(end - _TAIL - length)
        footer = _CompactReader(opened.read(length)).struct()
    for group in footer[_ROW_GROUPS]:
        for column in group[_COLUMNS]:
            sizes = column[_META_DATA]
            yield ColumnChunk(int(sizes[_VALUES]), int(sizes[_SIZE]), _DICTIONARY in sizes)


class _CompactReader:
    """Reads structures of Thrift's compact protocol from the beginning of some bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def struct(self) -> dict[int, Any]:
        """The fields of a structure by their numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            kind = head & 15
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _VARINTS:
            return self._number()
        if kind == _STRUCT:
            return self.struct()
        if kind == _BINARY:
            return self._skip(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        if kind == _DOUBLE:
            return self._skip(8)
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        raise ValueError(f"a footer has a value of type {kind}")

    def _byte(self) -> int:
        self._place += 1
        return self._content[self._place - 1]

    def _skip(self, count: int) -> None:
        self._place += count

    def _varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("a footer has a number of more than 64 bits")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
