"""What a value says of itself in one line, at a prompt and in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from html import escape

from tombola.untrusted import printable

_LONGEST = 299


class OneLine:
    """A value whose ``repr`` is one line of less than 300 printable characters, in a notebook too."""

    @abstractmethod
    def _in_one_line(self) -> str:
        """The line, in which anything may stand that a file held."""

    def __repr__(self) -> str:
        line = printable(self._in_one_line())
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
