"""Untrusted JSON and text: these functions read what others may have written, and refuse odd values."""

from __future__ import annotations

import json
from typing import Any

# Deeper than any description is, and far from Python's recursion limit.
DEEPEST = 200

# What Python raises where an untrusted file has another form than its reader expects.
OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


def json_object(text: str | bytes, what: str = "it") -> dict[str, Any]:
    """The object in a JSON text; ``what`` names the text in errors.

    Raises ValueError for anything else: no JSON, no object, nested too deeply, numbers that JSON does not
    have, or text that cannot be encoded.
    """
    decoded = text if isinstance(text, str) else text.decode()
    try:
        value = json.loads(decoded, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds no object")
    if decoded.count("[") + decoded.count("{") > DEEPEST and depth(value) > DEEPEST:
        raise ValueError(f"{what} is nested too deeply")
    if "\\ud" in decoded.lower():  # perhaps half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()
    return value


def printable(text: str) -> str:
    """An untrusted text that is safe to print on one line.

    Replaced is what :meth:`str.isprintable` excludes: control characters, which a terminal obeys; whatever
    orders text from right to left; separators of lines and spaces other than the common one; and characters
    without a shape, zero-width joiners among them. So a joined emoji falls into its parts, and no name looks
    like another that differs in what cannot be seen.
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def printable_lines(text: str) -> str:
    """The same of a text of several lines, whose ends stay."""
    return "\n".join(map(printable, text.split("\n")))


def _refuse_constant(constant: str) -> None:
    """Raises ValueError for NaN and infinities, which Python's reader takes and JSON does not have."""
    raise ValueError(f"{constant} is no JSON")


def depth(value: object) -> int:
    """Number of levels of lists and objects within each other."""
    level, depth = [value], 0
    while nests := [item for item in level if isinstance(item, dict | list)]:
        level = [item for nest in nests for item in (nest.values() if isinstance(nest, dict) else nest)]
        depth += 1
    return depth
