"""Descriptions of jobs: validated before anything in them is followed, named, walked, and told in few words.

A description is a call as JSON, ``{"function": ..., "version": ..., "arguments": ...}``, and may come from an
untrusted file. Among its arguments, also within lists, ``{"job": name}`` is the result of a stored job,
``{"job": name, "call": description}`` that of a call described in full, whose result no store keeps,
``{"data": name}`` a data set, and ``{"value": fingerprint, "type": "Ticket" or "Run"}`` the caller's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

TICKET_FUNCTION = "prune"
"""The function whose results are the tickets of rounds. Listings and counts leave them out unless asked."""

MOST_REFERENCES = 10_000
"""Results and data sets that a description may name, those of calls within it too. The paper's name four."""

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
# Bytes of a data name: with a prefix and a suffix a file name stays below the 255 of most file systems.
_LONGEST = 200


def check_description(description: object) -> None:
    """Raises ValueError unless this is a call whose references are fingerprints or names of files.

    Nor may they be more than :data:`MOST_REFERENCES`.
    """
    pending = _checked_arguments(description)
    references = 0
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            _check_reference(value)
            references += is_reference(value)
            if references > MOST_REFERENCES:
                raise ValueError(f"it names more than {MOST_REFERENCES:,} results and data sets")
            if _is_full(value):
                pending.extend(_checked_arguments(value["call"]))
            elif "call" not in value:  # the arguments of a call may have any name, "data" too
                pending.extend(value.values())


def _checked_arguments(call: object) -> list[Any]:
    """The arguments of a described call; ValueError if it is none."""
    if not isinstance(call, dict):
        raise ValueError(f"{call!r:.60} is no call")
    for key, kind in (("function", str), ("version", int), ("arguments", dict)):
        if not isinstance(call.get(key), kind):
            raise ValueError(f"its {key} is {call.get(key)!r:.60}")
    return list(call["arguments"].values())


def is_reference(value: Mapping[str, Any]) -> bool:
    """Whether an object among arguments names a result, data, or a ticket or run of the caller's own."""
    return "job" in value or value.keys() == {"data"} or value.keys() == {"value", "type"}


def _check_reference(value: dict[str, Any]) -> None:
    """Raises ValueError for a reference that could lead outside the store."""
    if "job" in value:
        if not is_fingerprint(value["job"]):
            raise ValueError(f"{value['job']!r:.60} is no job")
    elif value.keys() == {"data"} and not is_data_name(value["data"]):
        raise ValueError(f"{value['data']!r:.60} is no data set")
    elif value.keys() == {"value", "type"} and not (
        is_fingerprint(value["value"]) and value["type"] in ("Ticket", "Run")
    ):
        raise ValueError(f"{value['value']!r:.60} is no ticket or run")


def is_fingerprint(name: object) -> bool:
    """Whether a name is 64 hexadecimal digits, as those of jobs and tensors are."""
    return isinstance(name, str) and _FINGERPRINT.fullmatch(name) is not None


def is_data_name(name: object) -> bool:
    """Whether data may have this name: a printable file name without a folder."""
    return (
        isinstance(name, str)
        and name != ""
        and name == os.path.basename(name)
        and len(name.encode(errors="replace")) <= _LONGEST
        and name.isprintable()
    )


def name_of(description: Mapping[str, Any]) -> str:
    """The name of the job with this description; parents described in full count by their names alone."""
    arguments = {key: by_name(value) for key, value in description["arguments"].items()}
    return call_name(description["function"], description["version"], arguments)


def call_name(function: object, version: object, arguments: Mapping[str, object]) -> str:
    """The name of the job that is this call; the jobs among its arguments stand by their names."""
    text = _canonical.encode({"function": function, "version": version, "arguments": arguments})
    return hashlib.sha256(text.encode()).hexdigest()


_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def by_name(value: object) -> object:
    """An argument of a description with names in place of calls described in full."""
    if isinstance(value, list):
        return [by_name(item) for item in value]
    return {"job": value["job"]} if isinstance(value, dict) and _is_full(value) else value


def describes(description: Mapping[str, Any], name: str) -> bool:
    """Whether a description has this name, and all calls that are described in full within it have theirs."""
    pending: list[tuple[str, Mapping[str, Any]]] = [(name, description)]
    while pending:
        expected, call = pending.pop()
        if name_of(call) != expected:
            return False
        pending.extend((value["job"], value["call"]) for value in full_calls(call))
    return True


def parents(description: Mapping[str, Any]) -> set[str]:
    """Names of the stored jobs whose results a described call takes."""
    return {value["job"] for value in _references(description) if "job" in value}


def data_names(description: Mapping[str, Any]) -> set[str]:
    """Names of the data sets that a described call takes."""
    return {value["data"] for value in _references(description) if value.keys() == {"data"}}


def own_values(description: Mapping[str, Any]) -> set[str]:
    """Fingerprints of the caller's own tickets and runs that a described call takes."""
    return {value["value"] for value in _references(description) if value.keys() == {"value", "type"}}


def described_in_full(description: Mapping[str, Any]) -> set[str]:
    """Names of the calls described in full within a call; older stores have their tickets only so."""
    return {value["job"] for call in calls(description) for value in full_calls(call)}


def calls(description: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields a described call and all calls described in full within it, at any depth."""
    pending = [description]
    while pending:
        call = pending.pop()
        yield call
        pending.extend(value["call"] for value in full_calls(call))


def full_calls(description: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the references among a call's own arguments that describe another call in full."""
    return (value for value in objects_in(list(description["arguments"].values())) if _is_full(value))


def _references(description: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields all other objects among the arguments of a call and of those described in full within it."""
    for call in calls(description):
        arguments = list(call["arguments"].values())
        yield from (value for value in objects_in(arguments) if not _is_full(value))


def _is_full(value: Mapping[str, Any]) -> bool:
    return {"job", "call"} <= value.keys()


def objects_in(value: object) -> Iterator[dict[str, Any]]:
    """Yields the objects in an argument: itself or those in its lists, without those within objects."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            yield item


def shared_start(details: Mapping[str, Any]) -> str | None:
    """The fingerprint of the dense start that a packed ticket or run leaves to the store, if it does."""
    ticket = details.get("ticket", details)
    return ticket["start"] if ticket.get("start_kept") == "none" else None


def arguments_line(description: Mapping[str, Any]) -> str:
    """The arguments of a call on one line."""
    return ", ".join(f"{key} {brief(value)}" for key, value in description["arguments"].items())


def brief(value: Any) -> str:
    """A JSON value in few words; a reference as its job, data or function."""
    if isinstance(value, dict):
        if "job" in value:
            call = value.get("call")
            return f"{call.get('function')}(...)" if isinstance(call, dict) else str(value["job"])[:12]
        if value.keys() == {"data"}:
            return str(value["data"])
        return "{" + ", ".join(f"{key} {brief(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        items = [brief(item) for item in value]
        return "[" + ", ".join(items if len(items) <= 6 else [*items[:3], "...", items[-1]]) + "]"
    return str(value)
