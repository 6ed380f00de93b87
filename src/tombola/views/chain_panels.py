"""Panels of pruning chains as data: what every experiment of one's own shows.

Each function takes the entries of one metric and gives panels for :mod:`tombola.report` to draw. What tells
lines apart is read off the keys (:class:`Names`), so that a configuration has one label in all pictures. The
figures of the paper are in :mod:`tombola.views.paper_panels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tombola.table.key import Key, Scalar
from tombola.table.metrics import metric_of
from tombola.table.number import Entry, Plane, is_ticket
from tombola.views.layout import momentum_text, percent_text, value_text
from tombola.views.lines import line_through, mean_course, spanned
from tombola.views.picture import Line, Panel, Relief

SPARSITY = "sparsity (% of weights pruned)"
POSITION = "position between the two runs"
LATE = "late rewinding"


@dataclass(frozen=True)
class Names:
    """What the entries of an experiment are called, by what varies among their keys.

    pairs: whether there are several networks or data sets. late: whether some chains rewind to a later epoch
    than 0. axes: further axes that vary. controls: whether there are controls of tickets.
    """

    pairs: bool
    late: bool
    axes: tuple[str, ...]
    controls: bool = False

    @classmethod
    def of(cls, keys: Iterable[Key], without: Sequence[str] = ()) -> Names:
        """The names of some keys; without: further axes that are drawn otherwise."""
        listed = list(keys)
        names = dict.fromkeys(name for key in listed for name, _ in key.more if name not in without)
        return cls(
            len({(key.network, key.dataset) for key in listed}) > 1,
            any(key.pretrained for key in listed),
            tuple(name for name in names if tells_apart(name, listed)),
            any(key.baseline is not None for key in listed),
        )

    def pair(self, key: Key) -> str:
        """Network and data, where there are several, and what control; those of a panel."""
        pair = f"{key.network} on {key.dataset}" if self.pairs else ""
        control = value_text("baseline", key.baseline) if key.baseline else ""
        return ", ".join(filter(None, [pair, control]))

    def configuration(self, key: Key) -> str:
        """Momentum, batch size and further axes, such as "μ = 0.9, batch 32, lr 0.1"."""
        parts = []
        if key.momentum is not None:
            parts.append(f"μ = {momentum_text(key.momentum)}")
        if key.batch_size is not None:
            parts.append(f"batch {key.batch_size}")
        values = {name.replace("_", " "): key.get(name) for name in self.axes}
        # An option that is switched on needs no value; one that a measure is taken without is not named.
        present = {name: value for name, value in values.items() if value is not None}
        parts += [name if value is True else f"{name} {value}" for name, value in present.items()]
        return ", ".join(parts)

    def label(self, key: Key) -> str:
        """The configuration, and whether it rewinds to a later epoch than 0."""
        return f"{self.configuration(key)}, {LATE}" if key.pretrained else self.configuration(key)

    def full(self, key: Key) -> str:
        """The label with network and data, and what control, where there are several."""
        return ", ".join(filter(None, [self.pair(key), self.label(key)]))


def tells_apart(name: str, keys: Sequence[Key]) -> bool:
    """Whether an axis differs between keys, and not only as late rewinding does, such as the noise of it."""
    values: dict[bool | None, set[Scalar]] = {}
    for key in keys:
        values.setdefault(key.pretrained, set()).add(key.get(name))
    return any(len(choices) > 1 for choices in values.values())


def sparsity_panels(entries: Sequence[Entry], names: Names, y_label: str) -> list[Panel]:
    """A metric against sparsity, a panel for each network and data set; accuracies mark winning tickets."""
    panels = []
    for pair, part in _grouped(entries, names.pair).items():
        lines, missing = [], []
        for label, course in _grouped(part, names.label).items():
            if not all(entry.finished for entry in course):
                missing.append(label)
            if any(entry.cell is not None for entry in course):
                lines.append(_course(label, course, names))
        limit = metric_of(part[0].key.metric).limit
        title = pair or ("tickets" if names.controls else "")
        panels.append(Panel(title, SPARSITY, y_label, lines, missing, by_round=True, limit=limit))
    return panels


def bar_panels(entries: Sequence[Entry], names: Names, y_label: str) -> list[Panel]:
    """One value a configuration, a panel for each network and data set and each sparsity."""
    return [
        Panel(
            title,
            "",
            y_label,
            _points(part, names),
            _missing(part, names),
            limit=metric_of(part[0].key.metric).limit,
        )
        for title, part in _grouped(entries, lambda key: title_of(key, names)).items()
    ]


def run_panels(entries: Sequence[Entry], names: Names, y_label: str) -> list[Panel]:
    """The same with the value of each run beside its mean."""
    return [replace(panel, runs=True) for panel in bar_panels(entries, names, y_label)]


def curve_panels(
    entries: Sequence[Entry], names: Names, x_label: str, y_label: str, *, logarithmic: bool = False
) -> list[Panel]:
    """Mean courses by configuration, a panel for each network and data set and each sparsity."""
    panels = []
    for title, part in _grouped(entries, lambda key: title_of(key, names)).items():
        lines = [line for entry in part if entry.finished and (line := _curve(entry, names)) is not None]
        panels.append(Panel(title, x_label, y_label, lines, _missing(part, names), logarithmic_y=logarithmic))
    return panels


def plane_panels(entries: Sequence[Entry], names: Names) -> list[Panel]:
    """Error and loss over the plane of each entry's first number that sums one up."""
    panels = []
    for entry in entries:
        plane = next((number.plane for number in entry.numbers if number.plane is not None), None)
        if plane is None:
            continue
        title = ", ".join(filter(None, [title_of(entry.key, names), names.label(entry.key)]))
        panels += reliefs_of(plane, title)
    return panels


def reliefs_of(plane: Plane, title: str = "", axis: str = "distance in weights") -> list[Panel]:
    """The error over a plane, and the loss beside it. axis: what its coordinates are."""
    return [
        Panel(
            title, axis, axis, (),
            relief=Relief(plane.horizontal, plane.vertical, values, label, plane.points, plane.path),
        )
        for values, label in ((plane.errors, "error (%)"), (plane.losses, "loss (nats)"))
    ]  # fmt: skip


def layer_panels(entries: Sequence[Entry], names: Names, axis: str, y_label: str) -> list[Panel]:
    """A value for each layer, in the order of the network, a panel for each network and data set."""
    panels = []
    for pair, part in _grouped(entries, names.pair).items():
        layers = list(
            dict.fromkeys(str(entry.key.get(axis)) for entry in part if entry.key.get(axis) is not None)
        )
        lines = []
        for label, course in _grouped(part, names.label).items():
            there = spanned(course)
            if there:
                x = [float(layers.index(str(entry.key.get(axis)))) for entry in there]
                lines.append(_line(label, there, x, names))
        title = ", ".join(filter(None, [pair, title_of(part[0].key, replace(names, pairs=False))]))
        panels.append(Panel(title, "", y_label, lines, _missing(part, names), x_names=layers))
    return panels


def title_of(key: Key, names: Names) -> str:
    """What one sparsity of one network and data set is called: "dense network", "tickets, 89.26% pruned"."""
    what = f"tickets, {percent_text(key.sparsity)}% pruned" if key.sparsity else "dense networks"
    return ", ".join(filter(None, [names.pair(key), what]))


def _course(label: str, course: Sequence[Entry], names: Names) -> Line:
    """A configuration against sparsity, in the order of the rounds."""
    there = spanned(sorted(course, key=lambda entry: entry.key.sparsity or 0.0))
    line = _line(label, there, [entry.key.sparsity or 0.0 for entry in there], names)
    if not any(is_ticket(entry.key) for entry in there):
        return line
    return replace(
        line,
        winning=[entry.cell is not None and entry.cell.winning for entry in there],
        failures=[_failures(entry) for entry in there],
    )


def _points(entries: Sequence[Entry], names: Names) -> list[Line]:
    """A line of one point for each entry that has a cell."""
    return [
        replace(
            _line(names.label(entry.key), [entry], [0.0], names),
            values=[entry.cell.values],
            failures=[_failures(entry)],
        )
        for entry in entries
        if entry.cell is not None
    ]


def _curve(entry: Entry, names: Names) -> Line | None:
    line = mean_course(names.label(entry.key), entry)
    return line and replace(line, pretrained=_half(entry.key, names))


def _line(label: str, entries: Sequence[Entry], x: Sequence[float], names: Names) -> Line:
    return replace(line_through(label, entries, x), pretrained=_half(entries[0].key, names))


def _half(key: Key, names: Names) -> bool | None:
    """Whether a line starts late, where some do."""
    return bool(key.pretrained) if names.late else None


def _failures(entry: Entry) -> list[float]:
    """The values of the runs that failed."""
    return [number.value for number in entry.numbers if number.failed and number.value is not None]


def _missing(entries: Sequence[Entry], names: Names) -> list[str]:
    return list(dict.fromkeys(names.label(entry.key) for entry in entries if not entry.finished))


def _grouped(entries: Iterable[Entry], name: Callable[[Key], str]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(name(entry.key), []).append(entry)
    return groups
