"""Bound experiments: what is measured, as items, and how it is shown, as views.

Studies of the paper, the demo and a user's file all become this. Everything after
that, running, planning, tables, figures and pages, takes a :class:`Bound` and asks nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tombola.lab.item import Item, Results, jobs_of
from tombola.lab.job import Job
from tombola.table.key import Key
from tombola.table.number import Cell, Entry, Number, entries_of
from tombola.table.table import Table
from tombola.views.exhibit import Exhibit, not_drawn
from tombola.views.layout import Layout
from tombola.views.paper_panels import Panels
from tombola.views.picture import Panel, Picture


@dataclass(frozen=True, kw_only=True)
class Bound:
    """An experiment at a scale.

    name: such as ``"table11"``. title: what it is about. about: what is done in it, in sentences.
    items: everything that it measures, in the order of its table.
    layout: of its table, by rule if None. panels: of its figure, None for a table.
    printed: the paper's numbers that belong to it; comparable: all that may stand beside its points.
    budget: in words. warning: what has to be known with every number; empty for the paper's own budget.
    names: what networks and data are called, where something stands in for them.
    show: makes its exhibits of its entries, where they are not one table or figure.
    """

    name: str
    title: str
    items: tuple[Item, ...]
    about: str = ""
    layout: Layout | None = None
    panels: Panels | None = None
    printed: Mapping[Key, Cell] = field(default_factory=dict)
    comparable: Mapping[Key, Cell] = field(default_factory=dict)
    budget: str = ""
    warning: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    show: Callable[[Bound, Sequence[Entry]], list[Exhibit]] | None = None

    def numbers(self, results: Results) -> list[Number]:
        """All of its numbers, gaps included, in order."""
        return [number for item in self.items for number in item.numbers(results)]

    def exhibits(self, results: Results) -> list[Exhibit]:
        """What it shows so far."""
        groups: dict[Key, list[Number]] = {}
        for number in Table(self.numbers(results)):  # a repetition that two items ask for counts once
            groups.setdefault(number.key, []).append(number)
        entries = entries_of(groups.items(), self.comparable)
        if self.show is not None:
            return self.show(self, entries)
        return [self.exhibit(entries)]

    def exhibit(self, entries: Sequence[Entry]) -> Exhibit:
        """All of its entries as one table, and the figure if it has one."""
        return Exhibit(
            name=self.name, heading=spoken(self.name), title=self.title, entries=tuple(entries),
            layout=self.layout, picture=self._picture(entries), printed=self.printed, names=self.names,
        )  # fmt: skip

    def _picture(self, entries: Sequence[Entry]) -> Picture | None:
        if self.panels is None:
            return None
        budget = f"{self.budget}, {_counted([entry.cell for entry in entries if entry.cell is not None])}"
        caption = f"{self.title}. {budget[0].upper()}{budget[1:]}.{not_drawn(entries)}"
        panels = [_renamed(panel, self.names) for panel in self.panels(entries)]
        # None: of a figure that nothing is known of, not even its axes.
        return Picture(self.name, self.title, caption, panels, budget, self.warning) if panels else None


def spoken(study: str) -> str:
    """``"table2"`` as "Table 2"; names that the paper does not have as they are."""
    kind = re.fullmatch(r"(table|fig)(\d+)", study)
    return f"{'Table' if kind[1] == 'table' else 'Figure'} {kind[2]}" if kind else study


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A text in which stand-ins bear their own names."""
    if not names:
        return text
    # The longest first: CIFAR-10 is a part of CIFAR-100.
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda match: names[match[0]], text)


def _renamed(panel: Panel, names: Mapping[str, str]) -> Panel:
    return replace(panel, title=renamed(panel.title, names))


def _counted(cells: Sequence[Cell]) -> str:
    """How many numbers stand behind a point, in words."""
    counts = {len(cell.values) for cell in cells}
    if not counts:
        return "nothing computed yet"
    words = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return f"{words} value{'s' * (max(counts) > 1)} a point"


def jobs_behind(experiments: Iterable[Bound]) -> list[Job]:
    """All jobs of some experiments that are known beforehand."""
    return jobs_of(item for experiment in experiments for item in experiment.items)
