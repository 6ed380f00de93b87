"""What a value says of itself in one line, at a prompt and in a notebook."""

from __future__ import annotations

from html import escape


class OneLine:
    """A value whose ``repr`` is one short line, which a notebook shows as well."""

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"
