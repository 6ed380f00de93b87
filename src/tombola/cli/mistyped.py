"""Mistyped options and values in one line: what was wrong, and the nearest that the command has.

tyro draws a box instead, with the help of options of all commands that sound alike. What it refused it tells
a hook, which it does not promise to keep: without it, or where that tells otherwise, the box is drawn.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import tyro

from tombola.cli.optional import OPTIONAL
from tombola.errors import ExperimentError

# Commands that a line names as those that have an option.
_MOST_NAMED = 4
# Where options begin in a page of help, which has several columns where the terminal is wide.
_IN_HELP = re.compile(r"(?:^|  |│ |, )(--[a-z][\w.-]*\w)(?=[ ,]|$)", re.MULTILINE)


@contextmanager
def refused_in_one_line(
    command: str, takes: Any, arguments: Sequence[str], others: Mapping[str, Callable[..., Any]]
) -> Iterator[None]:
    """Within it, what tyro refuses of the arguments of a command ends as an ExperimentError of one line.

    takes: what tyro makes the options of the command of; None where no command was named.
    others: the commands that an option may belong to instead, by name.
    """
    try:
        from tyro._errors import on_parse_error
    except ImportError:
        yield
        return

    def tell(event: Any) -> None:
        line = None
        with suppress(AttributeError):  # of another version of tyro
            line = _refusal(event, command, takes, arguments, others)
        if line is not None:
            raise ExperimentError(f"{line} (see tombola{' ' * bool(command)}{command} --help)")

    with on_parse_error(tell):
        yield


def _refusal(
    event: Any,
    command: str,
    takes: Any,
    arguments: Sequence[str],
    others: Mapping[str, Callable[..., Any]],
) -> str | None:
    """What was wrong, by the event that tyro tells; None for one that is not known here."""
    if takes is None:
        return "no command was named; give one, such as demo, run or ls"
    own = _options(takes)
    for argument in arguments:
        option = argument.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in ("--", "--help", *own):
            return _unknown_option(option, command, own, others)
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        token = event.tokens[0]
        return (
            f"{command} has no option {token}" if token[:1] == "-" else f"{command} takes no {token!r} here"
        )
    if kind == "InvalidChoice":
        near = difflib.get_close_matches(event.value, event.choices, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        allowed = ", ".join(event.choices)
        return f"{event.argument.display_name()} is {event.value!r}; it must be one of {allowed}{hint}"
    if kind == "BadValue":
        return f"{command} lacks a value of {_name(event.argument)}"
    if kind == "MissingArgs":
        lacking = ", ".join(_name(missing.arg) for missing in event.missing_arguments)
        return f"{command} lacks {lacking}"
    if kind == "InstantiationFailure" and event.argument is not None:
        return f"{_name(event.argument)}: {_in_words(event.message)}"
    return None


def _options(takes: Any) -> set[str]:
    """The options that tyro makes of a function or dataclass, read off its help."""
    with redirect_stdout(io.StringIO()) as page, suppress(SystemExit):
        tyro.cli(takes, args=["--help"], registry=OPTIONAL)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())
    return set(_IN_HELP.findall(plain))


def _unknown_option(
    option: str, command: str, own: Iterable[str], others: Mapping[str, Callable[..., Any]]
) -> str:
    near = difflib.get_close_matches(option[2:], sorted(name[2:] for name in own), n=1)
    elsewhere = [name for name, other in others.items() if name != command and option in _options(other)]
    hints = [f"did you mean --{near[0]}?"] if near else []
    if elsewhere:
        named = elsewhere[:_MOST_NAMED]
        more = ["others"] if len(elsewhere) > len(named) else []
        *first, last = [f"tombola {named[0]}", *named[1:], *more]
        have = "have" if first else "has"
        hints.append(f"{', '.join(first)}{' and ' if first else ''}{last} {have} it")
    return "; ".join([f"{command} has no option {option}", *hints])


def _name(argument: Any) -> str:
    """An option as it is typed; what stands by position as help has it."""
    return str(argument.lowered.metavar if argument.is_positional() else argument.display_name())


def _in_words(message: str) -> str:
    """What Python says of a number that is none, in words."""
    for words, what in (
        (r"invalid literal for int\(\) with base 10: (.*)", "whole number"),
        (r"could not convert string to float: (.*)", "number"),
    ):
        if found := re.search(words, message):
            return f"{found[1]} is no {what}"
    return message.partition(": ")[2] or message
