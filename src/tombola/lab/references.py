"""What finished jobs refer to: other jobs, data sets and the caller's own values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tombola.errors import StoreError
from tombola.lab.store import Store

TICKETS = "prune"
"""The function whose results are the tickets of rounds. Listings and counts leave them out unless asked."""


def parents(description: Mapping[str, Any]) -> set[str]:
    """Names of the stored jobs whose results a described call takes."""
    return {value["job"] for value in _leaves(description) if "job" in value}


def described_in_full(description: Mapping[str, Any]) -> set[str]:
    """Names of the calls that are described within a call; a store of before has tickets only so."""
    names: set[str] = set()
    pending: list[Any] = list(description["arguments"].values())
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict) and "call" in value and "job" in value:
            names.add(value["job"])
            pending.extend(value["call"]["arguments"].values())
    return names


def data_names(description: Mapping[str, Any]) -> set[str]:
    """Names of the data sets that a described call takes."""
    return {value["data"] for value in _leaves(description) if value.keys() == {"data"}}


def own_values(description: Mapping[str, Any]) -> set[str]:
    """Fingerprints of the caller's own tickets and runs that a described call takes."""
    return {value["value"] for value in _leaves(description) if value.keys() == {"value", "type"}}


def calls(description: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A described call, and those described in full within it."""
    pending: list[Any] = [{"job": "", "call": description}]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict) and {"job", "call"} <= value.keys():
            yield value["call"]
            pending.extend(value["call"]["arguments"].values())


def everything_behind(store: Store, names: Iterable[str]) -> set[str]:
    """These jobs and all finished ones behind them; what is behind a damaged one is not known."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in found and store.has(name):
            found.add(name)
            try:
                description = store.description(name)
                pending.extend(parents(description) | described_in_full(description))
            except StoreError:
                continue
    return found


def shared_start(details: Mapping[str, Any]) -> str | None:
    """The fingerprint of the dense start that a packed ticket or run leaves to the store, if it does."""
    ticket = details.get("ticket", details)
    return ticket["start"] if ticket.get("start_kept") == "none" else None


def _leaves(description: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects among the arguments of a described call and of those described in full within it."""
    pending: list[Any] = list(description["arguments"].values())
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            if "call" in value and "job" in value:
                pending.extend(value["call"]["arguments"].values())
            else:
                yield value
