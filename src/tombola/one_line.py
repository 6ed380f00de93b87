"""What a value says of itself: one line at a prompt, and a small table in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from html import escape

from tombola.untrusted import printable

_LONGEST = 299


class OneLine:
    """A value whose ``repr`` is one line of less than 300 printable characters; a table in a notebook."""

    @abstractmethod
    def _in_one_line(self) -> str:
        """The line, in which anything may stand that a file held."""

    @abstractmethod
    def _facts(self) -> Mapping[str, object]:
        """The rows of the table, in which anything may stand that a file held."""

    def __repr__(self) -> str:
        return _cut(self._in_one_line())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th style="text-align: left">{escape(_cut(name))}</th>'
            f'<td style="text-align: left">{escape(_cut(str(value)))}</td></tr>'
            for name, value in self._facts().items()
        )
        head = f'<thead><tr><th colspan="2">{type(self).__name__}</th></tr></thead>'
        return f"<table>{head}<tbody>{rows}</tbody></table>"


def _cut(text: str) -> str:
    line = printable(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
