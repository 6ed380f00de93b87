"""Panels of figures out of filled entries: what is computed becomes points, what is not a missing label."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.measures.learning import Learning
from tombola.measures.statistics import mean, sample_std
from tombola.studies.cells import Cell, Place
from tombola.studies.entries import Filled
from tombola.studies.paper.settings import PAIRS, TABULATED
from tombola.studies.picture import Line, Panel
from tombola.studies.results import Results

Panels = Callable[[Sequence[Filled], Results], list[Panel]]
"""Draws the entries of a study."""

_SPARSITY, _ROUND = "sparsity (%)", "pruning round"
_ALPHA = "position between the two runs"
_ERROR, _BARRIER, _ACCURACY = "test error (%)", "error barrier (points)", "test accuracy (%)"
_FORGETTING = "forgetting events an\N{NO-BREAK SPACE}image"
_TO_NEXT = "error barrier to the next round (points)"
_HALVES = {False: "without late rewinding", True: "with late rewinding"}
_LETTERS = "abcdefgh"


def over_sparsity(y_label: str) -> Panels:
    """A panel for each half, and for each pair, block, subset size and reading that the entries have.

    The tabulated sparsities are marked.
    """

    def panels(found: Sequence[Filled], results: Results) -> list[Panel]:
        drawn = []
        # The halves of one panel come one after the other.
        pairs = list(dict.fromkeys(_pair_name(each.place) for each in found))
        parts = _grouped(
            sorted(found, key=lambda each: (pairs.index(_pair_name(each.place)), *_panel_order(each.place))),
            _panel_key,
        )
        for key, part in parts.items():
            reached = {each.place.sparsity for each in part}
            lines, missing = _lines(part, lambda place: place.sparsity or 0.0)
            marks = [sparsity for sparsity in TABULATED if sparsity in reached]
            drawn.append(Panel(", ".join(key), _SPARSITY, y_label, lines, missing, marks))
        return drawn

    return panels


def consecutive_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """For each half the barrier to the next round, and the error along the path through all trained tickets.

    Both readings of the figure are drawn (E1); vertical lines mark the trained tickets.
    """
    barriers, paths = [], []
    for (title,), part in _grouped(found, lambda place: (_HALVES[bool(place.pretrained)],)).items():
        lines, missing = _lines(part, lambda place: place.sparsity or 0.0)
        marks = sorted({each.place.sparsity or 0.0 for each in part})
        barriers.append(Panel(title, _SPARSITY, _TO_NEXT, lines, missing, marks))
        chained = []
        for (label,), steps in _grouped(part, lambda place: (_label(place),)).items():
            if any(each.finished for each in steps):
                chained.append(_chained(label, steps, results))
        rounds = [float(n) for n in range(len(marks) + 1)]
        paths.append(Panel(f"path {title}", _ROUND, _ERROR, chained, missing, rounds))
    return [*barriers, *paths]


def _chained(label: str, steps: Sequence[Filled], results: Results) -> Line:
    """The error on the straight lines from round to round, one after the other; NaN where one is missing."""
    x: list[float] = []
    y: list[float] = []
    for n, each in enumerate(steps):
        if not each.finished:
            x.append(n + 0.5)
            y.append(math.nan)
            continue
        line: Barrier = results.of(each.entry.jobs[0])
        x += [n + alpha for alpha in line.alphas]
        y += line.errors
    place = steps[0].place
    return Line(label, x, y, place.momentum, place.batch_size)


def instability_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """(a) the error along the line between noise copies; (b) the barrier of each configuration, as bars."""
    barriers = [each for each in found if each.place.metric == "barrier"]
    paths = [
        _path(each, _label(each.place, both_halves=True), results.of(each.entry.jobs[0]))
        for each in barriers
        if each.finished
    ]
    missing = [_label(each.place, both_halves=True) for each in barriers if not each.finished]
    heights = [
        replace(
            _line(_label(each.place, both_halves=True), [each.cell], [0.0]), pretrained=each.place.pretrained
        )
        for each in barriers
        if each.cell is not None
    ]
    return [
        Panel("(a) between noise copies", _ALPHA, _ERROR, paths, missing),
        Panel("(b) error barrier", "", _BARRIER, heights, missing),
    ]


def _path(each: Filled, label: str, found: Instability) -> Line:
    """The error between noise copies, mean and spread over their pairs."""
    errors = list(zip(*(line.errors for line in found.lines), strict=True))
    place = each.place
    return Line(
        label, found.alphas, [mean(values) for values in errors],
        place.momentum, place.batch_size, _spread(errors), place.pretrained,
        starred=[found.failed > 0] * len(errors),
    )  # fmt: skip


def forgetting_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """A panel for each pair: forgetting events by epoch, mean over the runs (reading E2)."""
    drawn = []
    groups = _grouped(found, lambda place: (_pair_name(place),))
    for letter, ((name,), part) in zip(_LETTERS, groups.items(), strict=False):
        lines = [_forgetting(each, results) for each in part if each.finished]
        missing = [_label(each.place) for each in part if not each.finished]
        drawn.append(Panel(f"({letter}) {name}", "epoch", _FORGETTING, lines, missing))
    return drawn


def _forgetting(each: Filled, results: Results) -> Line:
    runs: list[Learning] = [results.of(job) for job in each.entry.jobs]
    by_epoch = list(zip(*([events / run.images for events in run.curve.events] for run in runs), strict=True))
    place = each.place
    return Line(
        _label(place), runs[0].curve.epochs, [mean(values) for values in by_epoch],
        place.momentum, place.batch_size, _spread(by_epoch),
        starred=[any(run.failed for run in runs)] * len(by_epoch),
    )  # fmt: skip


def subset_panels(found: Sequence[Filled], results: Results) -> list[Panel]:
    """Fig. 7: (a) error along the line, (b) barrier and (c) accuracy by how many images were removed."""
    of = {metric: [each for each in found if each.place.metric == metric] for metric in _SUBSET_METRICS}
    barriers = of["barrier"]
    # All are of one configuration, which tells none of them apart.
    plain: dict[str, Any] = {"momentum": None, "batch_size": None, "pretrained": None}
    paths = [
        replace(_path(each, _subset_label(each.place), results.of(each.entry.jobs[0])), **plain)
        for each in barriers
        if each.finished
    ]
    missing = [_subset_label(each.place) for each in barriers if not each.finished]
    return [
        Panel("(a) between noise copies", _ALPHA, _ERROR, paths, missing),
        _by_removal("(b) error barrier", _BARRIER, barriers),
        _by_removal("(c) accuracy", _ACCURACY, of["val_accuracy"]),
    ]


_SUBSET_METRICS = ("barrier", "val_accuracy")


def _by_removal(title: str, y_label: str, found: Sequence[Filled]) -> Panel:
    """A line for either end of the ranking; both begin at the full set."""
    whole = [each for each in found if each.place.subset_criterion is None]
    lines, missing = [], []
    for criterion in ("easiest_removed", "hardest_removed"):
        label = criterion.replace("_", " ")
        part = [*whole, *(each for each in found if each.place.subset_criterion == criterion)]
        if not all(each.finished for each in part):
            missing.append(label)
        cells = [each.cell for each in part if each.cell is not None]
        if cells:
            removed = [100.0 - (cell.place.subset_percent or 100) for cell in cells]
            lines.append(_line(label, cells, removed, baseline=True))
    return Panel(title, "images removed (%)", y_label, lines, missing)


def _lines(found: Sequence[Filled], x_of: Callable[[Place], float]) -> tuple[list[Line], list[str]]:
    """A line for each configuration, and the labels of those that are not finished."""
    lines, missing = [], []
    for (label,), part in _grouped(found, lambda place: (_label(place),)).items():
        if not all(each.finished for each in part):
            missing.append(label)
        cells = [each.cell for each in part if each.cell is not None]
        if cells:
            printed = [each.printed.mean if each.printed else None for each in part if each.cell is not None]
            line = _line(label, cells, [x_of(cell.place) for cell in cells])
            lines.append(replace(line, printed=printed))
    return lines, missing


def _line(label: str, cells: Sequence[Cell], x: Sequence[float], *, baseline: bool = False) -> Line:
    """A line through cells; as a baseline it is of no configuration."""
    place = cells[0].place
    spread = [cell.std for cell in cells if cell.std is not None]
    return Line(
        label, x, [cell.mean for cell in cells],
        None if baseline else place.momentum, None if baseline else place.batch_size,
        spread if len(spread) == len(cells) else None,
        starred=[cell.starred for cell in cells],
    )  # fmt: skip


def _spread(points: Iterable[Sequence[float]]) -> list[float] | None:
    """Sample standard deviation at each point; None for single values."""
    found = [sample_std(values) for values in points]
    known = [each for each in found if each is not None]
    return known if known and len(known) == len(found) else None


def _panel_key(place: Place) -> tuple[str, ...]:
    """What a panel over sparsity is of: everything that its lines have in common."""
    half = _HALVES[bool(place.pretrained)]
    if place.study in ("untrained-accuracy", "ticket-convergence"):  # the only ones over several pairs
        return _pair_name(place), half, *(["batch norm measured anew"] * _is_second_reading(place))
    if place.block is not None:
        return f"({_LETTERS[bool(place.pretrained)]}) {half}", {4: "middle block", 8: "last block"}[
            place.block
        ]
    if place.subset_percent is not None:
        return half, f"{place.subset_percent}% of the images"
    return (half,)


def _panel_order(place: Place) -> tuple[int, int, bool, bool]:
    return place.block or 0, place.subset_percent or 0, _is_second_reading(place), bool(place.pretrained)


def _is_second_reading(place: Place) -> bool:
    """Whether a ticket's accuracy before training is with batch-norm statistics measured anew (D3)."""
    return place.metric == "recalibrated_untrained_accuracy"


def _grouped(
    found: Iterable[Filled], key: Callable[[Place], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Filled]]:
    groups: dict[tuple[str, ...], list[Filled]] = {}
    for each in found:
        groups.setdefault(key(each.place), []).append(each)
    return groups


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
