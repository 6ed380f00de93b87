"""The public face: what every public function does with its arguments before it is called.

A name or folder stands for its data, a wrong type is refused in one line, and numpy's integers become
Python's. What computes on a CPU does so with one thread, or as many as :func:`set_num_threads` says. A
function gets this where it is looked up as ``tombola.name``; within the package the bare functions call
each other.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

from tombola.cores import check_per_core, intra_op_threads
from tombola.errors import ArgumentError, RecipeError, TombolaError

# What is checked, by its name in type hints, and the class that the function gets, by where it is defined.
# Imported when a function is called: to look up a public name must not load torch.
_CLASSES = {
    "DataLike": ("tombola.data.imageset", "Data"),
    "Ticket": ("tombola.ticket", "Ticket"),
    "Run": ("tombola.training.run", "Run"),
    "Recipe": ("tombola.training.recipe", "Recipe"),
    "ForgettingRecord": ("tombola.training.run", "ForgettingRecord"),
}
_IN_WORDS = {
    "DataLike": "a Data, a name such as 'digits', or a folder",
    "Ticket": "a Ticket",
    "Run": "a Run",
    "Recipe": "a Recipe",
    "ForgettingRecord": "a ForgettingRecord, such as a recorder's .record",
    "int": "a whole number",
    "Length": "epochs, such as 2 or '2ep', or iterations, such as '500it'",
    "None": "None",
}

_NUMBERS = frozenset({"int", "Length"})

Check = Callable[[str, Any], Any]
"""Takes where an argument stands, and it; returns what the function gets, or refuses it."""

_threads = 1


def set_num_threads(threads: int) -> None:
    """Set how many threads functions of tombola compute with on a CPU, in this process; the default is 1.

    Small networks are slower with more, and another number gives other last bits. PyTorch's own setting is
    not read, and is as before when a function returns. Jobs of a lab have its ``Settings.threads``.

    Raises :class:`~tombola.errors.RecipeError` for less than one, or far more than the machine has cores.
    """
    global _threads
    if threads < 1:
        raise RecipeError(f"threads is {threads}; it must be at least 1")
    check_per_core("threads", threads)
    _threads = threads


def public(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that the package shows under a public name: itself, if nothing precedes its call."""
    signature = inspect.signature(function)
    checks = {key: check for key, entry in signature.parameters.items() if (check := _check_of(entry))}
    computes = "device" in signature.parameters
    if not checks and not computes:
        return function

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError:
            return function(*arguments, **options)  # which says what is missing or too much
        for key in checks.keys() & bound.arguments.keys():
            bound.arguments[key] = checks[key](f"{name}: {key}", bound.arguments[key])
        if not computes or not _is_cpu(bound.arguments.get("device", "cpu")):
            return function(*bound.args, **bound.kwargs)
        with intra_op_threads(_threads):
            result = function(*bound.args, **bound.kwargs)
        return _each_with_threads(result) if isinstance(result, Iterator) else result

    # As if it were defined where users find it, so that it can be pickled.
    called.__module__, called.__qualname__, called.__name__ = "tombola", name, name
    return called


def _check_of(parameter: inspect.Parameter) -> Check | None:
    """What is done with an argument, by its type hint; None for nothing.

    Hints are read as text, since some name what is imported for type checkers only.
    """
    hint = str(parameter.annotation)
    listed = hint.startswith("Sequence[") and hint.endswith("]")
    kinds = (hint[len("Sequence[") : -1] if listed else hint).split(" | ")
    if not kinds or not _IN_WORDS.keys() >= set(kinds) or parameter.kind is parameter.VAR_KEYWORD:
        return None
    check = functools.partial(_checked, tuple(kinds))
    return functools.partial(_each_checked, check) if listed else check


def _checked(kinds: tuple[str, ...], place: str, value: Any) -> Any:
    """An argument that is of one of some kinds: data loaded, an integer as Python's."""
    if value is None and "None" in kinds:
        return None
    if "Length" in kinds and isinstance(value, str):
        return value
    if not _NUMBERS.isdisjoint(kinds):
        try:
            return operator.index(value)
        except TypeError:
            raise _refusal(kinds, place, value) from None
    if isinstance(value, tuple(_class(kind) for kind in kinds if kind in _CLASSES)):
        return value
    if "DataLike" in kinds and isinstance(value, str | os.PathLike):
        from tombola.data.load import load_data

        return load_data(value)
    raise _refusal(kinds, place, value)


def _each_checked(check: Check, place: str, values: Any) -> Any:
    """A list of arguments; an iterator as it is, whose items can be seen once only."""
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise ArgumentError(f"{place} is {_seen(values)}; it takes a list")
    if isinstance(values, Iterator):
        return values
    return [check(f"{place}[{index}]", value) for index, value in enumerate(values)]


@functools.cache
def _class(kind: str) -> type:
    module, name = _CLASSES[kind]
    expected: type = getattr(import_module(module), name)
    return expected


def _refusal(kinds: tuple[str, ...], place: str, value: Any) -> TombolaError:
    line = f"{place} is {_seen(value)}; it takes {_listed([_IN_WORDS[kind] for kind in kinds])}"
    if type(value).__name__ == "Job":
        line += ". A job is not computed yet: write this call down too, with tombola.job, or run it in a lab"
    elif type(value).__name__ == "Run" and "Ticket" in kinds:
        line += ", such as the run's .ticket"
    return ArgumentError(line) if _NUMBERS.isdisjoint(kinds) else RecipeError(line)


def _listed(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _seen(value: Any) -> str:
    """A value as errors show it: a plain one itself, any other by its type."""
    if value is None or isinstance(value, str | bool | int | float):
        return f"{value!r:.60}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _is_cpu(device: Any) -> bool:
    """Whether a call with this device computes on a CPU; what is no device is for the function to refuse."""
    import torch

    if device is None or device == "auto":
        return not torch.cuda.is_available()
    return str(device).partition(":")[0] == "cpu"


def _each_with_threads(items: Iterator[Any]) -> Iterator[Any]:
    """The items of an iterator that computes each when it is asked for."""
    end = object()
    while True:
        with intra_op_threads(_threads):
            item = next(items, end)
        if item is end:
            return
        yield item
