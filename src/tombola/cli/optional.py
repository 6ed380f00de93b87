"""Options in help by what they take: INT, not {None}|INT, where it may be left out; lengths as LENGTH."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

OPTIONAL = ConstructorRegistry()
"""For tyro: how lengths, and options of one plain type or None, are read and shown."""

_NONE = "None"
_KINDS = (int, float, str, Path)


@OPTIONAL.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    kinds = [getattr(kind, "__origin__", kind) for kind in get_args(info.type) if kind is not NoneType]
    if len(kinds) != 1 or NoneType not in get_args(info.type) or kinds[0] not in _KINDS:
        return None
    (kind,) = kinds

    def read(words: list[str]) -> Any:
        (word,) = words
        return None if word == _NONE else kind(word)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.__name__.upper(),
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, kind),
        str_from_instance=lambda value: [_NONE if value is None else str(value)],
    )


@OPTIONAL.primitive_rule
def _length(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    # A Length as tyro hands it on: its iterations, a new type of text, are annotated text.
    kinds = [getattr(kind, "__origin__", kind) for kind in get_args(info.type)]
    if kinds != [int, str, str]:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="LENGTH",
        instance_from_str=lambda words: int(words[0]) if words[0].lstrip("-").isdecimal() else words[0],
        is_instance=lambda value: isinstance(value, int | str),
        str_from_instance=lambda value: [str(value)],
    )
