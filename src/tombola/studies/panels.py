"""Panels of figures out of filled entries: what is computed becomes points, what is not a missing label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tombola.measures.instability import Instability
from tombola.measures.learning import Learning
from tombola.measures.statistics import mean, sample_std
from tombola.studies.cells import Cell, Place
from tombola.studies.claims.names import PAIRS, TABULATED
from tombola.studies.entries import Filled
from tombola.studies.picture import Line, Panel
from tombola.studies.results import Results

_SPARSITY = "sparsity (%)"
_HALVES = {False: "without late rewinding", True: "with late rewinding"}
_ALPHA = "position between the two runs"


def over_sparsity(
    y_label: str, *, marked: bool = False
) -> Callable[[Sequence[Filled], Results], list[Panel]]:
    """A panel for each half, and for each pair, block and subset size that the entries have.

    marked: with a vertical line at every trained ticket.
    """

    def panels(found: Sequence[Filled], results: Results) -> list[Panel]:
        drawn = []
        for key, part in _grouped(found, _panel_key).items():
            marks = sorted({place.sparsity or 0.0 for place in _places(part)})
            lines, missing = _lines(part, lambda place: place.sparsity or 0.0, spread=True)
            drawn.append(
                Panel(
                    ", ".join(key), _SPARSITY, y_label, lines, missing,
                    marks if marked else [each for each in TABULATED if each in marks],
                )
            )  # fmt: skip
        return drawn

    return panels


def instability_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """(a) the error along the line between noise copies; (b) the barrier of each configuration."""
    lines, missing = [], []
    barriers = [(entry, cell) for entry, cell in found if entry.place.metric == "barrier"]
    for entry, cell in barriers:
        if cell is None:
            missing.append(_label(entry.place, both_halves=True))
        else:
            lines.append(_path(entry.place, results.of(entry.jobs[0])))
    heights, without = _lines(
        barriers, lambda place: 1.0 if place.pretrained else 0.0, spread=True, both_halves=False
    )
    return [
        Panel("(a) between noise copies", _ALPHA, "test error (%)", lines, missing),
        Panel(
            "(b) error barrier", "start: 0 initialisation, 1 late rewinding point", "error barrier (points)",
            heights, without,
        ),
    ]  # fmt: skip


def _path(place: Place, found: Instability, label: str | None = None) -> Line:
    errors = list(zip(*(line.errors for line in found.lines), strict=True))
    spread = [sample_std(values) for values in errors]
    return Line(
        label or _label(place, both_halves=True), found.alphas, [mean(values) for values in errors],
        None if label else place.momentum, None if label else place.batch_size,
        [each for each in spread if each is not None] or None, None if label else place.pretrained,
    )  # fmt: skip


def forgetting_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """A panel for each pair: forgetting events by epoch, mean over the runs (reading E2)."""
    drawn = []
    for (name,), part in _grouped(found, lambda place: (_pair_name(place),)).items():
        lines, missing = [], []
        for entry, cell in part:
            if cell is None:
                missing.append(_label(entry.place))
                continue
            runs: list[Learning] = [results.of(job) for job in entry.jobs]
            curves = [[events / run.images for events in run.curve.events] for run in runs]
            by_epoch = list(zip(*curves, strict=True))
            spread = [each for each in map(sample_std, by_epoch) if each is not None]
            lines.append(
                Line(
                    _label(entry.place), runs[0].curve.epochs, [mean(values) for values in by_epoch],
                    entry.place.momentum, entry.place.batch_size, spread or None,
                    starred=[cell.starred] * len(by_epoch),
                )
            )  # fmt: skip
        drawn.append(Panel(name, "epoch", "forgetting events an image", lines, missing))
    return drawn


def subset_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """Fig. 7: (a) error along the line, (b) barrier and (c) accuracy by how many images were removed."""
    of = _grouped(found, lambda place: (place.metric,))
    lines, missing = [], []
    for entry, cell in of[("barrier",)]:
        label = _subset_label(entry.place)
        if cell is None:
            missing.append(label)
        else:
            lines.append(_path(entry.place, results.of(entry.jobs[0]), label))
    paths = Panel("(a) between noise copies", _ALPHA, "test error (%)", lines, missing)
    return [
        paths,
        _by_removal("(b) error barrier", "error barrier (points)", of[("barrier",)]),
        _by_removal("(c) accuracy", "test accuracy (%)", of[("val_accuracy",)]),
    ]


def _by_removal(title: str, y_label: str, found: Sequence[Filled]) -> Panel:
    """A line for either end of the ranking; both begin at the full set."""
    whole = [pair for pair in found if pair[0].place.subset_criterion is None]
    lines, missing = [], []
    for words, criterion in (("easiest removed", "easiest_removed"), ("hardest removed", "hardest_removed")):
        part = [pair for pair in found if pair[0].place.subset_criterion == criterion]
        cells = [cell for _, cell in (*whole, *part) if cell is not None]
        if len(cells) < len(whole) + len(part):
            missing.append(words)
        if cells:
            lines.append(
                _line(
                    words, cells, [100.0 - (cell.place.subset_percent or 100) for cell in cells], plain=True
                )
            )
    return Panel(title, "images removed (%)", y_label, lines, missing)


def _lines(
    found: Sequence[Filled],
    x_of: Callable[[Place], float],
    *,
    spread: bool,
    both_halves: bool = False,
) -> tuple[list[Line], list[str]]:
    """A line for each configuration, and the labels of those that lack points."""
    lines, missing = [], []
    for (label,), part in _grouped(found, lambda place: (_label(place, both_halves=both_halves),)).items():
        cells = [cell for _, cell in part if cell is not None]
        if len(cells) < len(part):
            missing.append(label)
        if cells:
            lines.append(_line(label, cells, [x_of(cell.place) for cell in cells]))
    return lines, missing


def _line(label: str, cells: Sequence[Cell], x: Sequence[float], *, plain: bool = False) -> Line:
    place = cells[0].place
    spread = [cell.std for cell in cells]
    known = [each for each in spread if each is not None]
    return Line(
        label, x, [cell.mean for cell in cells],
        None if plain else place.momentum, None if plain else place.batch_size,
        known if len(known) == len(cells) else None,
        starred=[cell.starred for cell in cells],
    )  # fmt: skip


def _panel_key(place: Place) -> tuple[str, ...]:
    key = []
    if place.study in ("untrained-accuracy", "ticket-convergence"):  # the only ones over several pairs
        key.append(_pair_name(place))
    key.append(_HALVES[bool(place.pretrained)])
    if place.block is not None:
        key.append({4: "middle block", 8: "last block"}[place.block])
    if place.subset_percent is not None:
        key.append(f"{place.subset_percent}% of the images")
    return tuple(key)


def _grouped(
    found: Iterable[Filled], key: Callable[[Place], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Filled]]:
    groups: dict[tuple[str, ...], list[Filled]] = {}
    for pair in found:
        groups.setdefault(key(pair[0].place), []).append(pair)
    return groups


def _places(found: Iterable[Filled]) -> list[Place]:
    return [entry.place for entry, _ in found]


def _pair_name(place: Place) -> str:
    return next(
        f"{pair.network} on {pair.dataset}"
        for pair in PAIRS
        if (pair.network, pair.dataset) == (place.network, place.dataset)
    )


def _label(place: Place, *, both_halves: bool = False) -> str:
    """What the legend says of a configuration."""
    label = f"μ = {place.momentum}, batch {place.batch_size}"
    return f"{label}, late rewinding" if both_halves and place.pretrained else label


def _subset_label(place: Place) -> str:
    if place.subset_criterion is None:
        return "all images"
    which = place.subset_criterion.removesuffix("_removed")
    return f"{which} {100 - (place.subset_percent or 0)}% removed"
