"""The doors through which text leaves the command line; what a stranger wrote is inert behind each of them.

Names in a store, an experiment file, a data set or an error may hold anything. On standard output all goes
through an :class:`InertConsole`, or :func:`write_out` for tables in other programs' forms; on standard error
through :func:`say_error`, or :func:`inert_errors` for what others print there.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tombola.untrusted import printable, printable_lines


class InertConsole(Console):
    """A console on which styles and movements are ours alone: no text is markup, and none is obeyed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is printed of anything, with its text made printable."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable_lines(text), style)


def progress_console(as_json: bool) -> InertConsole:
    """A console for what is said while work goes on: standard error where JSON goes to standard output."""
    return InertConsole(stderr=as_json)


def table_console(width: int = 200) -> InertConsole:
    """A console for tables; where there is no terminal, as in a file, lines have so many columns of room."""
    console = InertConsole()
    if not console.is_terminal:
        console.width = width
    return console


def say(console: Console, line: str) -> None:
    """Print a line as it is: no path is broken, no bracket is markup, no number coloured, nothing obeyed."""
    console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)


def say_error(line: str) -> None:
    """Print a line on standard error, after the name of the command."""
    print(f"tombola: {printable(line)}", file=sys.stderr)


def write_out(text: str) -> None:
    """Write a text of several lines to standard output; what it is piped into may end on a terminal."""
    sys.stdout.write(printable_lines(text))


def write_json(value: Any) -> None:
    """Write a value as JSON to standard output; numbers that are not finite stand as null.

    Characters beyond ASCII stand as escapes, so that none of them moves a terminal and nothing is lost.
    """
    write_out(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    """A value with None in place of numbers that JSON has no token for."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def inert_errors() -> Iterator[None]:
    """Makes printable, and colourless, what others print on standard error."""
    with redirect_stderr(cast(TextIO, _InertStream(sys.stderr))):
        yield


class _InertStream(io.TextIOBase):
    """A stream that passes on what is written to it, made printable."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable_lines(text))

    def flush(self) -> None:
        self._stream.flush()


def many_studies(count: int) -> str:
    """A number of studies in words."""
    return f"{count} stud{'ies' if count != 1 else 'y'}"


def check_writable(folder: Path) -> None:
    """Make a folder for results, before any work that would be lost without it."""
    from tombola.errors import StoreError, reason

    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tombola-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {reason(error)}") from error
