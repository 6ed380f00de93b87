"""Mistyped options and values in one line: what was wrong, and the nearest that the command has.

tyro draws a box instead, with the help of options of all commands that sound alike. What it refused it tells
a hook, which it does not promise to keep: without it, or where that tells otherwise, the box is drawn.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import Any

import tyro

from tombola.cli.optional import OPTIONAL
from tombola.errors import ExperimentError

# Commands that a line names as those that have an option.
_MOST_NAMED = 4
# Where options begin in a page of help, which has several columns where the terminal is wide.
_IN_HELP = re.compile(r"(?:^|  |│ |, )(--[a-z][\w.-]*\w)(?=[ ,]|$)", re.MULTILINE)
# Columns of the help that options are read from: in a narrow one long names are broken.
_COLUMNS = "200"
# Options that stand in place of a command.
_WITHOUT_COMMAND = ("--help", "--version")


@contextmanager
def refused_in_one_line(
    command: str, takes: Any, arguments: Sequence[str], others: Mapping[str, object]
) -> Iterator[None]:
    """Within it, what tyro refuses of the arguments of a command ends as an ExperimentError of one line.

    takes: what tyro makes the options of the command of; None where no command was named, so that all
        arguments are given. others: likewise of the commands that an option may belong to instead, by name.
    """

    def tell(event: Any) -> None:
        line = None
        with suppress(Exception):  # whatever another version of tyro tells: it draws its box then
            line = _refusal(event, command, takes, arguments, others)
        if line is not None:
            raise ExperimentError(f"{line} (see tombola{' ' * bool(command)}{command} --help)")

    with ExitStack() as registered:
        # Private to tyro, and tested with its 1.0.17; another version may lack it or take something else.
        with suppress(Exception):
            from tyro._errors import on_parse_error

            registered.enter_context(on_parse_error(tell))
        yield


def _refusal(
    event: Any,
    command: str,
    takes: Any,
    arguments: Sequence[str],
    others: Mapping[str, object],
) -> str | None:
    """What was wrong, by the event that tyro tells; None for one that is not known here."""
    if takes is None:
        return _no_command(arguments, others)
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
        hint = f"; did you mean {near[0]!r}?" if near else ""
        allowed = ", ".join(map(repr, event.choices))
        return f"{event.argument.display_name()} is {event.value!r}; it must be one of {allowed}{hint}"
    if kind == "BadValue":
        return f"{command} lacks a value of {_name(event.argument)}"
    if kind == "MissingArgs":
        lacking = ", ".join(_name(missing.arg) for missing in event.missing_arguments)
        return f"{command} lacks {lacking}"
    if kind == "InstantiationFailure" and event.argument is not None:
        return f"{_name(event.argument)}: {_in_words(event.message, event.argument.lowered.metavar)}"
    return None


def _no_command(arguments: Sequence[str], commands: Collection[str]) -> str:
    """What stands where the command does, and what was meant by it."""
    if not arguments:
        return "no command was named; give one, such as demo, run or ls"
    first, *rest = arguments
    word = first.lstrip("-").lower()
    near = [option for option in _WITHOUT_COMMAND if word and option[2:].startswith(word)]
    near += [f"--{name}" for name in difflib.get_close_matches(word, [name[2:] for name in _WITHOUT_COMMAND])]
    command = next((argument for argument in rest if argument in commands), None)
    if command is not None:
        hint = f"; it comes first: tombola {command} {first}"
    else:
        hint = f"; did you mean {near[0]}?" if near else ", such as demo, run or ls"
    return f"{first} stands in place of a command{hint}"


def _options(takes: Any) -> set[str]:
    """The options that tyro makes of a function or dataclass, read off its help."""
    with _wide_terminal(), redirect_stdout(io.StringIO()) as page, suppress(SystemExit):
        tyro.cli(takes, args=["--help"], registry=OPTIONAL)
    return set(_IN_HELP.findall(re.sub(r"\x1b\[[0-9;]*m", "", page.getvalue())))


@contextmanager
def _wide_terminal() -> Iterator[None]:
    """Within it, a terminal counts as wide."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = _COLUMNS
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _nearest(option: str, own: Iterable[str]) -> str | None:
    """Of a command's options the one that was meant: by its last part, its beginning, or as it sounds."""
    names = sorted(name[2:] for name in own)
    word = option[2:]
    last = {name: name.rpartition(".")[2] for name in names}
    for begun in (
        [name for name in names if last[name] == word],
        [name for name in names if name.startswith(word)],
        [name for name in names if last[name].startswith(word)],
    ):
        if begun:
            return f"--{min(begun, key=len)}"
    # A prefix in common makes any two names alike, so that it is left out of what is compared.
    group = f"{word.rpartition('.')[0]}."
    alike = {name.removeprefix(group): name for name in names if name.startswith(group)}
    alike = alike or {name: name for name in names}
    near = difflib.get_close_matches(word.removeprefix(group), alike, n=1)
    return f"--{alike[near[0]]}" if near else None


def _unknown_option(option: str, command: str, own: Iterable[str], others: Mapping[str, object]) -> str:
    near = _nearest(option, own)
    elsewhere = [name for name, other in others.items() if name != command and option in _options(other)]
    if near is not None and near.endswith(f".{option[2:]}"):
        elsewhere = []  # it is that option, but for the group that it stands in
    hints = [f"did you mean {near}?"] if near else []
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


def _in_words(message: str, takes: str) -> str:
    """What Python says of a number that is none, and tyro of a list, in words; another message as it is.

    takes: what the option takes, as help has it.
    """
    for pattern, what in (
        (r"invalid literal for int\(\) with base 10: (.*)", "is no whole number"),
        (r"could not convert string to float: (.*)", "is no number"),
        (r"Could not find valid parse for arguments: \[(.*)\]", f"cannot be read as {takes}"),
    ):
        if match := re.search(pattern, message):
            return f"{match[1]} {what}"
    return message
