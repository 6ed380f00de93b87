"""Options in help by what they take: INT, not {None}|INT, where it may be left out; lengths as LENGTH."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

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
    if not _is_length(info.type):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="LENGTH",
        instance_from_str=lambda words: _read_length(words[0]),
        is_instance=lambda value: isinstance(value, int | str),
        str_from_instance=lambda value: [str(value)],
    )


@OPTIONAL.primitive_rule
def _lengths(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if get_origin(info.type) is not tuple or not _is_length(get_args(info.type)[0]):
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[LENGTH [LENGTH ...]]",
        instance_from_str=lambda words: tuple(map(_read_length, words)),
        is_instance=lambda value: isinstance(value, tuple) and all(isinstance(v, int | str) for v in value),
        str_from_instance=lambda value: [str(length) for length in value] or ["none"],
    )


def _is_length(hint: Any) -> bool:
    # A Length as tyro hands it on: its iterations, a new type of text, are annotated text.
    kinds = [getattr(kind, "__origin__", getattr(kind, "__supertype__", kind)) for kind in get_args(hint)]
    return kinds == [int, str, str]


def _read_length(word: str) -> int | str:
    return int(word) if word.lstrip("-").isdecimal() else word
