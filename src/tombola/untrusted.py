"""JSON that anybody may have written, read so that nothing odd in it comes further than here."""

from __future__ import annotations

import json
from typing import Any

# Deeper than any description is; far from where Python's own recursion ends.
DEEPEST = 200

# What Python raises where a file of a stranger's has another form than its reader expects.
OTHER_FORM = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError)


def json_object(text: str | bytes, what: str = "it") -> dict[str, Any]:
    """The object in a JSON text; ``what`` that is, for errors.

    Raises ValueError for anything else: no JSON, no object, nested too deeply, numbers that JSON does not
    have, or text that cannot be written anywhere.
    """
    told = text if isinstance(text, str) else text.decode()
    try:
        value = json.loads(told, parse_constant=_refused)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{what} holds no object")
    if told.count("[") + told.count("{") > DEEPEST and depth(value) > DEEPEST:
        raise ValueError(f"{what} is nested too deeply")
    if "\\ud" in told.lower():  # half a character, perhaps
        json.dumps(value, ensure_ascii=False).encode()
    return value


def printable(text: str) -> str:
    """A text of a stranger's as it may go to a terminal: nothing in it moves the cursor or turns the line."""
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    )


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def depth(value: Any) -> int:
    """Levels of lists and objects within each other."""
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each)]
        depth += 1
    return depth
