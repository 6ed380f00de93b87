"""The report as one HTML page: pictures inside, no script, nothing loaded from anywhere.

Its sentences about results come from :mod:`tombola.report.findings`; the template holds only what is true
whatever came out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tombola.measures.limits import STABLE_BELOW
from tombola.report.figure import inline_svg
from tombola.report.findings import accuracy_findings, stability_findings, training_findings
from tombola.report.style import configuration_of, start_label
from tombola.report.table import chains, dense_cells, number, rounds
from tombola.report.template import template

FIGURE_TITLES = {
    "accuracy_by_sparsity": "Test accuracy against sparsity",
    "interpolation": "Test error on the line between two runs",
    "barriers": "Error barriers",
    "training_curves": "Test error and forgetting events by epoch",
}
"""Every picture of the report by the name of its file, in the order of the page."""


@dataclass(frozen=True)
class Cell:
    """One accuracy of the table: its texts and its marks."""

    mean: str
    spread: str
    winning: bool
    failed: int


def report_html(summary: Mapping[str, Any], svgs: Mapping[str, str]) -> str:
    """The whole page.

    summary: what the demo measured.
    svgs: SVG files by the names of ``FIGURE_TITLES``; a picture that is missing there is left out.
    """
    from markupsafe import Markup

    figures = {
        name: Markup(inline_svg(svgs[name], name, title))  # made by matplotlib, nothing of a user's
        for name, title in FIGURE_TITLES.items()
        if name in svgs
    }
    rewinds = sorted({row["rewind"] for row in summary["rows"]})
    return template("demo").render(
        settings=summary["settings"],
        provenance=summary["provenance"],
        figures=figures,
        titles=FIGURE_TITLES,
        findings={
            "accuracy": accuracy_findings(summary),
            "stability": stability_findings(summary),
            "training": training_findings(summary),
        },
        starts=[start_label(rewind) for rewind in rewinds],
        configuration_count=len({configuration_of(row) for row in summary["rows"]}),
        rounds=rounds(summary),
        chains=[
            (chain, [_cell(chain.entries.get(position)) for position in rounds(summary)])
            for chain in chains(summary)
        ],
        any_failed=any(row["failed_runs"] for row in summary["rows"]),
        dense=[dense_cells(entry) for entry in sorted(summary["dense"], key=configuration_of)],
        stable_below=f"{STABLE_BELOW:g}",
        provenance_rows=list(_provenance_rows(summary["provenance"])),
    )


def _cell(entry: Mapping[str, Any] | None) -> Cell:
    if entry is None:
        return Cell(number(None), "", False, 0)
    spread = "" if entry["accuracy_std"] is None else f"± {number(entry['accuracy_std'])}"
    return Cell(number(entry["accuracy_mean"]), spread, bool(entry["winning"]), entry["failed_runs"])


def _provenance_rows(provenance: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    names = {"jobs": "jobs in the study", "computed": "jobs computed now", "seconds": "wall time"}
    for key, value in provenance.items():
        yield names.get(key, key), f"{value:.1f} s" if key == "seconds" and value is not None else str(value)
