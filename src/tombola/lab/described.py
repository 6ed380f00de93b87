"""What a described call must look like before anything in it is followed: a stranger may have written it."""

from __future__ import annotations

import os
import re
from typing import Any

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
# Of a file name; what is put around a name of data stays below the 255 of most file systems.
_LONGEST = 200


def check_described(description: Any) -> None:
    """Raise ValueError unless it is a call whose references can be the names of files and of nothing else."""
    if not isinstance(description, dict):
        raise ValueError(f"{description!r:.60} is no call")
    for key, kind in (("function", str), ("version", int), ("arguments", dict)):
        if not isinstance(description.get(key), kind):
            raise ValueError(f"its {key} is {description.get(key)!r:.60}")
    pending = list(description["arguments"].values())
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            _check_reference(value)
            if "call" not in value:  # whose arguments are named as they like, "data" say
                pending.extend(value.values())


def _check_reference(value: dict[str, Any]) -> None:
    """Refuse what would be followed to another place than a reference can lead to."""
    if "job" in value:
        if not is_fingerprint(value["job"]):
            raise ValueError(f"{value['job']!r:.60} is no job")
        if "call" in value:
            check_described(value["call"])
    elif value.keys() == {"data"} and not names_data(value["data"]):
        raise ValueError(f"{value['data']!r:.60} is no data set")
    elif value.keys() == {"value", "type"} and not (
        is_fingerprint(value["value"]) and value["type"] in ("Ticket", "Run")
    ):
        raise ValueError(f"{value['value']!r:.60} is no ticket or run")


def is_fingerprint(name: object) -> bool:
    """Whether this is what jobs and tensors are called by: 64 hexadecimal digits."""
    return isinstance(name, str) and _FINGERPRINT.fullmatch(name) is not None


def names_data(name: object) -> bool:
    """Whether data may be called so: a name of a file, and not of one elsewhere."""
    return (
        isinstance(name, str)
        and name != ""
        and name == os.path.basename(name)
        and len(name.encode(errors="replace")) <= _LONGEST
        and name.isprintable()
    )
