"""What trainings under way tell of themselves at their workplaces, for whoever watches the store."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tombola.lab.store import Store

_FILE = "under-way.json"
_EVERY = 1.0
_FORGOTTEN = 600.0
"""Seconds without a word after which a training is not shown any more."""


@dataclass(frozen=True)
class UnderWay:
    """A training: epochs done, of how many, and the seconds that the rest will take at its pace."""

    function: str
    epoch: int
    epochs: int
    left: float


class Teller:
    """Writes now and then how far a training is. What cannot be written is left: it is only told."""

    def __init__(self, workplace: Path, function: str) -> None:
        self._place = workplace / _FILE
        self._function = function
        self._told = time.monotonic()
        self._first: tuple[int, float] | None = None

    def epoch(self, epoch: int, epochs: int) -> None:
        """An epoch is finished."""
        now = time.monotonic()
        if self._first is None:
            self._first = epoch, now
        if now - self._told < _EVERY:
            return
        self._told = now
        first, since = self._first
        pace = (now - since) / max(1, epoch - first)
        try:
            told = UnderWay(self._function, epoch, epochs, pace * (epochs - epoch))
            self._place.write_text(json.dumps(asdict(told)))
        except OSError:
            pass


def forget_under_way(workplace: Path) -> None:
    """Whoever ended in an orderly way is not under way."""
    with suppress(OSError):
        (workplace / _FILE).unlink(missing_ok=True)


def under_way(store: Store) -> dict[str, UnderWay]:
    """The trainings that have told of themselves lately, by the names of their jobs."""
    found = {}
    for place in sorted((store.root / "work").glob(f"*/{_FILE}")):
        try:
            if time.time() - place.stat().st_mtime < _FORGOTTEN:
                found[place.parent.name] = UnderWay(**json.loads(place.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # finished, or about to be written
    return found
