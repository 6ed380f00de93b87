"""Exhibits: what a study of the paper or an experiment shows, as data; a page is any list of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from tombola.table.key import Key
from tombola.table.number import Cell, Entry, many
from tombola.views.layout import Grid, Layout, grid
from tombola.views.origin import Origin
from tombola.views.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """What one study or experiment shows so far.

    name: of the study or experiment, or for one of several exhibits with the part that it is.
    experiment: of which it is one of several; empty for one alone.
    heading: such as "Table 2", or the name. title: what it is about.
    entries: its keys in order with what there is of them.
    layout: of its table; by rule if None. picture: of a figure, as far as anything of it is known.
    printed: the paper's numbers that belong to it, by key.
    names: what networks and data are called on the page, where something stands in for them.
    origins: what the jobs behind each key were made with.
    left_out: why it is not shown at this scale; empty if it is.
    """

    name: str
    heading: str
    experiment: str = ""
    title: str = ""
    entries: tuple[Entry, ...] = ()
    layout: Layout | None = None
    picture: Picture | None = None
    printed: Mapping[Key, Cell] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[Key, Collection[Origin]] = field(default_factory=dict)
    left_out: str = ""

    @property
    def cells(self) -> dict[Key, Cell]:
        """The cells that are computed, by key."""
        return {entry.key: entry.cell for entry in self.entries if entry.cell is not None}

    @property
    def full_title(self) -> str:
        """Heading and title, such as "Table 2: Accuracy of tickets"."""
        return ": ".join(part for part in (self.heading, self.title) if part)

    @property
    def undefined(self) -> dict[Key, bool]:
        """The keys whose numbers are computed and all undefined, and whether a run behind them failed."""
        return {entry.key: entry.failed for entry in self.entries if entry.undefined}

    def grid(self) -> Grid | None:
        """Its table before its numbers, the paper's rows first; None without a single key."""
        keys = [*self.printed, *(entry.key for entry in self.entries)]
        return grid(self.name, keys, self.layout, self.full_title, self.names) if keys else None


def not_drawn(entries: Iterable[Entry]) -> str:
    """The sentence of a caption that counts the points that are undefined; empty without any."""
    undefined = [entry for entry in entries if entry.undefined]
    if not undefined:
        return ""
    failed = sum(entry.failed for entry in undefined)
    behind = f", {failed} of them because a run failed" if failed else ""
    return f" Not drawn: {many(len(undefined), 'undefined value')}{behind}."
