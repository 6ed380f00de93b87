"""No study shows other numbers than before: on made-up results its cells, figure and table are pinned.

Each job of the paper's scale has a result that follows from its name alone, and a share of them none. What
was pinned first is what the program showed before numbers had keys, but for marks of winning tickets, which
are left out: since then runs that failed win nothing. Where a study is meant to show something else,
``python tests/experiments/test_made_up.py`` pins what it shows now.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tombola.experiments.bound import Bound
from tombola.lab.item import Results
from tombola.lab.job import Job, result_type
from tombola.measures.axial import AxialProjection
from tombola.measures.connectivity import Barrier
from tombola.measures.curvature import HessianTrace
from tombola.measures.early_bird import EarlyBird
from tombola.measures.gradient_noise import GradientNoise
from tombola.measures.instability import Instability
from tombola.measures.learning import Forgetting, ForgettingCurve, Learning, SummedForgetting
from tombola.measures.margins import Margins
from tombola.measures.sharpness import SamSharpness
from tombola.report.frame import to_csv
from tombola.table.key import KEY_FIELDS, Key
from tombola.training.run import Run
from tombola.views.exhibit import Exhibit
from tombola.views.picture import Picture

PINNED = Path(__file__).with_name("made_up.json")
MISSING = (0, 6)
"""Percent of the jobs that have no result."""


class MadeUp:
    """Results that follow from the names of jobs."""

    def __init__(self, missing: int) -> None:
        self._missing = missing
        self._results: dict[str, Any] = {}

    def has(self, job: Job) -> bool:
        return 100 * draws(f"missing {job.name}").random() >= self._missing

    def of(self, job: Job) -> Any:
        if job.name not in self._results:
            self._results[job.name] = made_up(job) if self.has(job) else None
        return self._results[job.name]


def draws(name: str) -> random.Random:
    return random.Random(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))


def made_up(job: Job) -> Any:
    """A result of the kind that a job has, made of numbers that mean nothing; one run in twenty failed."""
    drawn = draws(job.name)
    kind = result_type(job.declaration)
    if kind is Run:
        return {"accuracy": 100 * drawn.random(), "failed": drawn.random() < 0.05}
    if kind is Barrier:
        return line(drawn)
    if kind is AxialProjection:
        ends = (line(drawn, recalibrated=line(drawn)) for _ in range(2))
        return AxialProjection(drawn.random(), drawn.random(), drawn.random(), *ends)
    if kind is Instability:
        lines = tuple(line(drawn, recalibrated=line(drawn)) for _ in range(3))
        return Instability(lines, noises=(0, 1, 2), failed=int(drawn.random() < 0.1))
    if kind is Learning:
        forgetting = Forgetting(10 * drawn.random(), 10 * drawn.random(), drawn.random(), drawn.randrange(9))
        curve = ForgettingCurve(tuple(range(1, 11)), tuple(drawn.randrange(5000) for _ in range(10)))
        convergence = None if drawn.random() < 0.05 else drawn.random()
        return Learning(5000, forgetting, curve, convergence, failed=drawn.random() < 0.05)
    if kind is SummedForgetting:
        return SummedForgetting(9 * drawn.random(), 9 * drawn.random(), 5000, 3, drawn.random() < 0.05)
    if kind is HessianTrace:
        return HessianTrace(100 * drawn.random(), drawn.random(), 4, 11_000_000)
    if kind is SamSharpness:
        return SamSharpness(0.1, 0.1 + drawn.random(), 1.0)
    if kind is Margins:
        small = drawn.random() / 2
        return Margins(3.0, -1.0, 0.0, 3.0, 6.0, 9.0, wrong=small / 2, small=small)
    if kind is EarlyBird:
        return EarlyBird(None, None, (drawn.random(),), chance=0.5)
    if kind is GradientNoise:
        return GradientNoise(drawn.random(), drawn.random(), images=100, batch_size=1)
    if job.declaration.name == "probe":
        return SimpleNamespace(accuracy=tuple(100 * drawn.random() for _ in range(20)))
    return SimpleNamespace(accuracy=100 * drawn.random())


def line(drawn: random.Random, recalibrated: Barrier | None = None) -> Barrier:
    alphas = tuple(place / 10 for place in range(11))
    errors = tuple(100 * drawn.random() for _ in alphas)
    return Barrier(alphas, errors, losses=errors, recalibrated=recalibrated)


def content(study: Bound, results: Results) -> dict[str, Any]:
    """The cells of a study, its figure, and its table as CSV; all without marks of winning tickets."""
    exhibit, *others = study.exhibits(results)
    return {
        "cells": [
            [key_content(key), cell.mean, cell.std, cell.runs, cell.values, cell.failed, cell.note]
            for key, cell in exhibit.cells.items()
        ],
        "figure": figure_content(exhibit.picture) if exhibit.picture else None,
        "table": table_content(exhibit),
        **{f"table {other.name}": table_content(other) for other in others},
    }


def key_content(key: Key) -> dict[str, Any]:
    return {name: key.get(name) for name in KEY_FIELDS if key.get(name) not in (None, "")}


def figure_content(picture: Picture) -> list[Any]:
    panels = [
        [
            panel.title, panel.x_label, panel.y_label, panel.missing, panel.marks,
            [
                [
                    line.label, line.x, line.y, line.momentum, line.batch_size, line.pretrained, line.spread,
                    line.failed, line.printed,
                ]
                for line in panel.lines
            ],
        ]
        for panel in picture.panels
    ]  # fmt: skip
    return [picture.title, picture.caption, picture.budget, picture.note, panels]


def table_content(exhibit: Exhibit) -> list[list[str]]:
    grid = exhibit.grid()
    assert grid is not None
    rows = list(csv.reader(io.StringIO(to_csv(grid, exhibit.cells, exhibit.printed or None))))
    kept = [place for place, heading in enumerate(rows[0]) if not heading.endswith(" mark")]
    return [[row[place] for place in kept] for row in rows]


def fingerprints(studies: Mapping[str, Bound], missing: int) -> dict[str, dict[str, str]]:
    """A SHA-256 of each part of what each study shows."""
    results: Any = MadeUp(missing)
    return {
        name: {
            part: hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
            for part, shown in content(study, results).items()
            if shown is not None
        }
        for name, study in studies.items()
    }


@cache
def pinned() -> dict[str, dict[str, dict[str, str]]]:
    """The fingerprints by percent that is missing, study and part."""
    loaded: dict[str, dict[str, dict[str, str]]] = json.loads(PINNED.read_text())
    return loaded


@pytest.mark.parametrize("missing", MISSING)
def test_every_study_shows_the_numbers_that_it_showed(
    paper_studies: Mapping[str, Bound], missing: int
) -> None:
    shown = fingerprints(paper_studies, missing)
    before = pinned()[str(missing)]
    assert shown.keys() == before.keys()
    changed = [
        (name, part)
        for name, parts in shown.items()
        for part in parts.keys() | before[name].keys()
        if parts.get(part) != before[name].get(part)
    ]
    assert changed == []


def test_made_up_results_leave_gaps_and_failures(paper_studies: Mapping[str, Bound]) -> None:
    (exhibit,) = paper_studies["table2"].exhibits(MadeUp(6))  # type: ignore[arg-type]
    finished = [entry.cell for entry in exhibit.entries if entry.cell]
    assert 0 < len(finished) < len(exhibit.entries)
    assert any(cell.failed for cell in finished)
    assert any(cell.winning for cell in finished)


if __name__ == "__main__":
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.scales import scale_named
    from tombola.experiments.paper.studies import STUDIES

    jobs = PaperJobs(scale_named("paper"))
    bound = {study.name: study.at(jobs) for study in STUDIES}
    shown = {str(missing): fingerprints(bound, missing) for missing in MISSING}
    PINNED.write_text(json.dumps(shown, indent=1) + "\n")
