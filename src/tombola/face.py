"""The public face: what every public function does with its arguments before it is called.

A name or folder stands for its data, a wrong type is refused in one line, and numpy's numbers become
Python's. What computes on a CPU does so with one thread, or as many as :func:`set_num_threads` says. A
function gets this where it is looked up as ``tombola.name``; within the package the bare functions call
each other. A job of a public function is refused where its call would be, before anything is computed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from numbers import Real
from typing import Any, Literal, get_args, get_origin

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
    "Data": ("tombola.data.imageset", "Data"),
    "Lab": ("tombola.lab.lab", "Lab"),
    "Alignment": ("tombola.measures.alignment", "Alignment"),
    "ExampleScores": ("tombola.measures.example_scores", "ExampleScores"),
    "Selection": ("tombola.measures.selection", "Selection"),
    "FirstStable": ("tombola.measures.first_stable", "FirstStable"),
    "ForgettingRecorder": ("tombola.exchange.callbacks", "ForgettingRecorder"),
    "ConnectingCurve": ("tombola.measures.curves", "ConnectingCurve"),
    "Job": ("tombola.lab.job", "Job"),
    "Point": ("tombola.training.trunk", "Point"),
    "Stop": ("tombola.lab.deadline", "Stop"),
    "Progress": ("tombola.lab.driver", "Progress"),
    "torch.device": ("torch", "device"),
    "os.PathLike[str]": ("os", "PathLike"),
}
_IN_WORDS = {
    "DataLike": "a Data, a name such as 'digits', or a folder",
    "Ticket": "a Ticket",
    "Run": "a Run",
    "Recipe": "a Recipe",
    "ForgettingRecord": "a ForgettingRecord, such as a recorder's .record",
    "Data": "a Data, such as load_data('digits')",
    "Lab": "a Lab",
    "Alignment": "an Alignment, such as align(...) gives",
    "ExampleScores": "ExampleScores, such as example_scores(...) gives",
    "Selection": "a Selection, such as random_selection(...) gives",
    "FirstStable": "a FirstStable, such as first_stable_epoch(...) gives",
    "ForgettingRecorder": "a ForgettingRecorder",
    "ConnectingCurve": "a ConnectingCurve, such as curve(...) gives",
    "Job": "a Job",
    "Point": "a Point, such as trunk(...) gives",
    "Stop": "a Stop",
    "Progress": "a Progress",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a text",
    "os.PathLike[str]": "a path",
    "torch.device": "a torch.device",
    "Length": "epochs, such as 2 or '2ep', or iterations, such as '500it'",
    "None": "None",
}

_NUMBERS = frozenset({"int", "float", "Length"})
_SETTINGS = _NUMBERS | {"bool", "str"}

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
    if name == "job":
        return _checking_job(function)
    signature = inspect.signature(function)
    names = inspect.unwrap(function).__globals__
    checks = {key: check for key, entry in signature.parameters.items() if (check := _check_of(entry, names))}
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
    loaded = {key for key, entry in signature.parameters.items() if "DataLike" in str(entry.annotation)}
    _checked_calls[called] = name, signature, checks, loaded
    return called


# The public functions: name, signature, checks, and the parameters whose names are loaded.
_checked_calls: dict[Callable[..., Any], tuple[str, inspect.Signature, Mapping[str, Check], set[str]]] = {}


def _checking_job(job: Callable[..., Any]) -> Callable[..., Any]:
    """``job``, which refuses arguments that the public function would refuse, but loads no data."""

    @functools.wraps(job)
    def described(function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Any:
        written = job(function, *arguments, **options)
        if inspect.isfunction(function) and function in _checked_calls:
            name, signature, checks, loaded = _checked_calls[function]
            for key, value in signature.bind(*arguments, **options).arguments.items():
                named = key in loaded and isinstance(value, str | os.PathLike)
                if key in checks and not named and not _has_job(value):
                    checks[key](f"{name}: {key}", value)
        return written

    described.__module__ = "tombola"
    return described


def _has_job(value: Any) -> bool:
    """Whether an argument is a job, or a list with one: what it will be is not known yet."""
    return isinstance(value, _class("Job")) or (isinstance(value, list | tuple) and any(map(_has_job, value)))


def _check_of(parameter: inspect.Parameter, names: Mapping[str, Any]) -> Check | None:
    """What is done with an argument, by its type hint; None for nothing.

    Hints are read as text, since some name what is imported for type checkers only. One of several words (a
    ``Literal`` among the names of the function's module) is a text; the function says which ones there are.
    """
    hint = re.sub(r"Literal\[[^]]*\]", "str", str(parameter.annotation))
    if parameter.kind is parameter.VAR_KEYWORD:
        return None
    listed = re.fullmatch(r"(?:Sequence\[([\w |]+)\]|tuple\[(int), int\])( \| None)?", hint)
    words = ((listed[1] or listed[2]) if listed else hint).split(" | ")
    if (alternatives := _words_beside_bool(names.get(hint))) is not None:
        return functools.partial(_one_of, alternatives)
    kinds = tuple("str" if get_origin(names.get(word)) is Literal else word for word in words)
    if not _IN_WORDS.keys() >= set(kinds):
        return None
    if listed:
        return functools.partial(_each_checked, kinds, bool(listed[3]))
    return functools.partial(_checked, kinds)


def _words_beside_bool(alias: Any) -> tuple[str, ...] | None:
    """The words that a type takes beside True and False; None of one that does not take these."""
    members = get_args(alias)
    if bool not in members:
        return None
    return tuple(word for member in members if get_origin(member) is Literal for word in get_args(member))


def _one_of(words: tuple[str, ...], place: str, value: Any) -> Any:
    """An argument that is True, False or one of some words."""
    if _is_bool(value):
        return bool(value)
    if isinstance(value, str) and value in words:
        return value
    raise RecipeError(
        f"{place} is {_seen(value)}; it must be {_listed(['False', 'True', *map(repr, words)])}"
    )


def _checked(kinds: tuple[str, ...], place: str, value: Any) -> Any:
    """An argument that is of one of some kinds: data loaded, a number as Python's."""
    if value is None and "None" in kinds:
        return None
    if not _NUMBERS.isdisjoint(kinds) and (number := _number("float" in kinds, value)) is not None:
        return number
    if "bool" in kinds and _is_bool(value):
        return bool(value)
    if isinstance(value, str) and not {"str", "Length"}.isdisjoint(kinds):
        return value
    if isinstance(value, tuple(_class(kind) for kind in kinds if kind in _CLASSES)):
        return value
    if "DataLike" in kinds and isinstance(value, str | os.PathLike):
        from tombola.data.load import load_data

        return load_data(value)
    raise _refusal(kinds, place, value)


def _number(real: bool, value: Any) -> int | float | None:
    """A number as Python's: a whole one as int, any other as float where reals are taken; else None."""
    if _is_bool(value):
        return None
    with contextlib.suppress(TypeError):
        return operator.index(value)
    if not real or isinstance(value, str):
        return None
    # Tensors and arrays of one number are no Real; of one that is complex or a text there is no float.
    if isinstance(value, Real) or (getattr(value, "ndim", None) == 0 and _is_floating(value)):
        return float(value)
    return None


def _is_floating(value: Any) -> bool:
    """Whether the type of an array or tensor is one of real numbers."""
    return "float" in str(getattr(value, "dtype", ""))


def _is_bool(value: Any) -> bool:
    """Whether a value is a truth value, Python's or an array's, whose packages a look must not load."""
    single = getattr(value, "ndim", None) == 0
    return isinstance(value, bool) or (single and str(getattr(value, "dtype", "")) in ("bool", "torch.bool"))


def _each_checked(kinds: tuple[str, ...], optional: bool, place: str, values: Any) -> Any:
    """A list of arguments; an iterator as it is, whose items can be seen once only."""
    if values is None and optional:
        return None
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        example = f", such as [{values!r:.60}]" if isinstance(values, str) and "str" in kinds else ""
        raise _error(kinds, f"{place} is {_seen(values)}; it takes a list{example}")
    if isinstance(values, Iterator):
        return values
    return [_checked(kinds, f"{place}[{index}]", value) for index, value in enumerate(values)]


@functools.cache
def _class(kind: str) -> type:
    module, name = _CLASSES[kind]
    expected: type = getattr(import_module(module), name)
    return expected


def _refusal(kinds: tuple[str, ...], place: str, value: Any) -> TombolaError:
    line = f"{place} is {_seen(value)}; it takes {_listed([_IN_WORDS[kind] for kind in kinds])}"
    if type(value).__name__ == "Job" and "Job" not in kinds:
        line += ". A job is not computed yet: write this call down too, with tombola.job, or run it in a lab"
    elif type(value).__name__ == "Run" and "Ticket" in kinds:
        line += ", such as the run's .ticket"
    return _error(kinds, line)


def _error(kinds: tuple[str, ...], line: str) -> TombolaError:
    return ArgumentError(line) if _SETTINGS.isdisjoint(kinds) else RecipeError(line)


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
