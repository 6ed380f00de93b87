"""Figures as data: from the entries of an exhibit to panels of lines and bars, with what is missing named.

Each function here is one kind of figure. It takes entries in their order and knows nothing of the exhibit
that they are of; the keys say what a line is, and the numbers have the courses that they sum up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from tombola.table.key import Key
from tombola.table.metrics import metric_of
from tombola.table.number import Entry
from tombola.views.lines import line_through, mean_course, spanned
from tombola.views.picture import Line, Panel

Panels = Callable[[Sequence[Entry]], list[Panel]]
"""Makes panels of the entries of an exhibit."""

_SPARSITY, _ROUND = "sparsity (%)", "pruning round"
_ALPHA = "position between the two runs"
_ERROR, _BARRIER, _ACCURACY = "test error (%)", "error barrier (points)", "test accuracy (%)"
_FORGETTING = "forgetting events an\N{NO-BREAK SPACE}image"
_TO_NEXT = "error barrier to the next round (points)"
_HALVES = {False: "without late rewinding", True: "with late rewinding"}
_LETTERS = "abcdefgh"
_BLOCKS = {4: "middle block", 8: "last block"}


def over_sparsity(y_label: str, marks: Sequence[float] = ()) -> Panels:
    """A panel for each half, and for each pair, block, subset size and reading that the entries have.

    marks: sparsities in percent that are marked where a line reaches them, such as the tabulated ones.
    """

    def panels(entries: Sequence[Entry]) -> list[Panel]:
        # The halves of one panel come one after the other.
        pairs = list(dict.fromkeys(_pair_name(entry.key) for entry in entries))
        ordered = sorted(
            entries, key=lambda entry: (pairs.index(_pair_name(entry.key)), *_panel_order(entry.key))
        )
        panels = []
        for key, part in _grouped(ordered, lambda key: _panel_key(key, several=len(pairs) > 1)).items():
            reached = {entry.key.sparsity for entry in part}
            lines, missing = _lines(part, lambda key: key.sparsity or 0.0)
            shown = [sparsity for sparsity in marks if sparsity in reached]
            panels.append(
                Panel(
                    ", ".join(key),
                    _SPARSITY,
                    y_label,
                    lines,
                    missing,
                    shown,
                    by_round=True,
                    limit=metric_of(part[0].key.metric).limit,
                )
            )
        return panels

    return panels


def consecutive_panels(entries: Sequence[Entry]) -> list[Panel]:
    """For each half the barrier to the next round, and the error along the path through all trained tickets.

    Both readings of the figure are drawn (E1); vertical lines mark the trained tickets.
    """
    barriers, paths = [], []
    for (title,), part in _grouped(entries, lambda key: (_HALVES[bool(key.pretrained)],)).items():
        lines, missing = _lines(part, lambda key: key.sparsity or 0.0)
        marks = sorted({entry.key.sparsity or 0.0 for entry in part})
        barriers.append(
            Panel(
                title,
                _SPARSITY,
                _TO_NEXT,
                lines,
                missing,
                marks,
                by_round=True,
                limit=metric_of(part[0].key.metric).limit,
            )
        )
        chained = []
        for (label,), steps in _grouped(part, lambda key: (_label(key),)).items():
            if any(entry.finished for entry in steps):
                chained.append(_chained(label, steps))
        rounds = [float(n) for n in range(len(marks) + 1)]
        paths.append(Panel(f"path {title}", _ROUND, _ERROR, chained, missing, rounds))
    return [*barriers, *paths]


def _chained(label: str, steps: Sequence[Entry]) -> Line:
    """The error on the straight lines from round to round, one after the other; NaN where one is missing."""
    x: list[float] = []
    y: list[float] = []
    failed: list[bool] = []
    for n, step in enumerate(steps):
        curve = step.numbers[0].curve
        failed += [step.failed] * (len(curve.x) if curve else 1)
        if curve is None:
            x.append(n + 0.5)
            y.append(math.nan)
            continue
        x += [n + alpha for alpha in curve.x]
        y += curve.y
    key = steps[0].key
    return Line(label, x, y, key.momentum, key.batch_size, failed=failed)


def instability_panels(entries: Sequence[Entry]) -> list[Panel]:
    """(a) the error along the line between noise copies; (b) the barrier of each configuration, as bars."""
    barriers = [entry for entry in entries if entry.key.metric == "barrier"]
    paths = _paths(barriers, lambda key: _label(key, both_halves=True))
    missing = [_label(entry.key, both_halves=True) for entry in barriers if not entry.finished]
    heights = [
        replace(
            line_through(_label(entry.key, both_halves=True), [entry], [0.0]), pretrained=entry.key.pretrained
        )
        for entry in barriers
        if entry.cell is not None
    ]
    return [
        Panel("(a) between noise copies", _ALPHA, _ERROR, paths, missing),
        Panel("(b) error barrier", "", _BARRIER, heights, missing, limit=metric_of("barrier").limit),
    ]


def _paths(entries: Iterable[Entry], label: Callable[[Key], str]) -> list[Line]:
    """The courses of the finished entries, each in the half that it starts in."""
    courses = [(entry, mean_course(label(entry.key), entry)) for entry in entries if entry.finished]
    return [replace(line, pretrained=entry.key.pretrained) for entry, line in courses if line is not None]


def forgetting_panels(entries: Sequence[Entry]) -> list[Panel]:
    """A panel for each pair: forgetting events by epoch, mean over the runs (reading E2)."""
    drawn = []
    groups = _grouped(entries, lambda key: (_pair_name(key),))
    for letter, ((name,), part) in zip(_LETTERS, groups.items(), strict=False):
        lines = [replace(line, pretrained=None) for line in _paths(part, _label)]
        missing = [_label(entry.key) for entry in part if not entry.finished]
        drawn.append(Panel(f"({letter}) {name}", "epoch", _FORGETTING, lines, missing))
    return drawn


def subset_panels(entries: Sequence[Entry]) -> list[Panel]:
    """Fig. 7: (a) error along the line, (b) barrier and (c) accuracy by how many images were removed."""
    of = {metric: [entry for entry in entries if entry.key.metric == metric] for metric in _SUBSET_METRICS}
    barriers = of["barrier"]
    paths = [replace(line, **_UNCONFIGURED) for line in _paths(barriers, _subset_label)]
    missing = [_subset_label(entry.key) for entry in barriers if not entry.finished]
    return [
        Panel("(a) between noise copies", _ALPHA, _ERROR, paths, missing),
        _by_removal("(b) error barrier", _BARRIER, barriers),
        _by_removal("(c) accuracy", _ACCURACY, of["val_accuracy"]),
    ]


_SUBSET_METRICS = ("barrier", "val_accuracy")
_UNCONFIGURED: dict[str, Any] = {"momentum": None, "batch_size": None, "pretrained": None}
"""All lines of Fig. 7 are of one configuration, which tells none of them apart."""


def _by_removal(title: str, y_label: str, entries: Sequence[Entry]) -> Panel:
    """A line for either end of the ranking; both begin at the full set."""
    all_images = [entry for entry in entries if entry.key.subset_criterion is None]
    lines, missing = [], []
    for criterion in ("easiest_removed", "hardest_removed"):
        label = criterion.replace("_", " ")
        part = [*all_images, *(entry for entry in entries if entry.key.subset_criterion == criterion)]
        if not all(entry.finished for entry in part):
            missing.append(label)
        if there := spanned(part):
            removed = [100.0 - (entry.key.subset_percent or 100) for entry in there]
            lines.append(replace(line_through(label, there, removed), **_UNCONFIGURED))
    limit = metric_of(entries[0].key.metric).limit if entries else None
    return Panel(title, "images removed (%)", y_label, lines, missing, limit=limit)


def _lines(entries: Sequence[Entry], x_of: Callable[[Key], float]) -> tuple[list[Line], list[str]]:
    """A line for each configuration, and the labels of those that are not finished."""
    lines, missing = [], []
    for (label,), part in _grouped(entries, lambda key: (_label(key),)).items():
        if not all(entry.finished for entry in part):
            missing.append(label)
        if there := spanned(part):
            printed = [entry.printed.mean if entry.printed else None for entry in there]
            line = line_through(label, there, [x_of(entry.key) for entry in there])
            lines.append(replace(line, printed=printed))
    return lines, missing


def _panel_key(key: Key, *, several: bool) -> tuple[str, ...]:
    """What a panel over sparsity is of: everything that its lines have in common."""
    half = _HALVES[bool(key.pretrained)]
    anew = ["batch norm measured anew"] if _is_second_reading(key) else []
    if several:
        return _pair_name(key), half, *anew
    if key.block is not None:
        return f"({_LETTERS[bool(key.pretrained)]}) {half}", _BLOCKS.get(key.block, f"block {key.block}")
    if key.subset_percent is not None:
        return half, f"{key.subset_percent}% of the images"
    return half, *anew


def _panel_order(key: Key) -> tuple[int, int, bool, bool]:
    return key.block or 0, key.subset_percent or 0, _is_second_reading(key), bool(key.pretrained)


def _is_second_reading(key: Key) -> bool:
    """Whether a ticket's accuracy before training is with batch-norm statistics measured anew (D3)."""
    return key.metric == "recalibrated_untrained_accuracy"


def _grouped(
    entries: Iterable[Entry], key: Callable[[Key], tuple[str, ...]]
) -> dict[tuple[str, ...], list[Entry]]:
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry.key), []).append(entry)
    return groups


def _pair_name(key: Key) -> str:
    return f"{key.network} on {key.dataset}"


def _label(key: Key, *, both_halves: bool = False) -> str:
    """What the legend says of a configuration."""
    label = f"μ = {key.momentum}, batch {key.batch_size}"
    return f"{label}, late rewinding" if both_halves and key.pretrained else label


def _subset_label(key: Key) -> str:
    if key.subset_criterion is None:
        return "all images"
    which = key.subset_criterion.removesuffix("_removed")
    return f"{which} {100 - (key.subset_percent or 0)}% removed"
