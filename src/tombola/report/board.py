"""The claims board: the verdicts of the paper's own numbers and of ours, as rows, terminal table and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from tombola.experiments.claims.claim import Verdict
from tombola.experiments.paper.settings import EPOCHS
from tombola.report.terminal import empty_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATUSES = ("holds", "partly", "fails", "undecided", "not computable yet")
STAND_IN = "stand-in"
"""Our verdict where something else was trained than what the paper claims to be of."""
_COLORS = {
    "holds": "green",
    "partly": "yellow",
    "fails": "red",
    "undecided": "magenta",
    "not computable yet": "dim",
    STAND_IN: "dim",
}
_WIDE = 110


@dataclass(frozen=True)
class Row:
    """One claim, or a possible answer to what the paper leaves open.

    paper, ours: the verdicts.
    comparisons: how many of ours hold, such as ``"7 of 8"``; while cells are missing, of those that can be
        made without them.
    rests_on: studies that hold its numbers.
    runs, epochs: behind our numbers; instead of runs there may be pairs of noise copies.
    reduced: whether one of these trainings was shorter than the paper's; None without a comparison.
    noise: whether our verdict could be another with other seeds; None where that is unknown.
    lacking: what keeps ours from being computed.
    choice: what the paper does not say and we had to choose.
    """

    claim: str
    sentence: str
    section: str
    paper: str
    ours: str
    comparisons: str
    rests_on: str
    runs: str
    epochs: str
    reduced: bool | None
    noise: bool | None
    lacking: str
    choice: str

    @property
    def remarks(self) -> str:
        """What has to be known with our verdict, in a few words."""
        parts = [
            self.lacking,
            f"{self.comparisons} {_comparisons(self.comparisons)}"
            if self.comparisons and not self.lacking
            else "",
            self.runs,
            f"{self.epochs} epoch{'s' * (self.epochs != '1')}" if self.epochs else "",
            "reduced budget" if self.reduced else "",
            "within noise" if self.noise else "",
        ]
        return ", ".join(part for part in parts if part)


def board(paper: Sequence[Verdict], ours: Sequence[Verdict]) -> list[Row]:
    """A row for each claim; both verdicts in the same order of claims."""
    return [_board_row(printed, own) for printed, own in zip(paper, ours, strict=True)]


def of_stand_ins(row: Row) -> Row:
    """The paper's side of a row alone, where stand-ins give no verdict of ours."""
    return replace(
        row, ours=STAND_IN, comparisons="", runs="", epochs="", reduced=None, noise=None, lacking=""
    )


def board_csv(rows: Sequence[Row]) -> str:
    """The board with a column for each field of a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(Row)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([_csv_text(getattr(row, name)) for name in names])
    return buffer.getvalue()


def board_table(rows: Sequence[Row], console: Console | None = None) -> Table:
    """The board for the terminal; a narrow one leaves out what the numbers rest on.

    console: where it will be printed. Default: the standard output.
    """
    from rich import get_console
    from rich.text import Text

    wide = (console or get_console()).width >= _WIDE
    table = empty_table("Claims", counts(rows))
    for heading in ("", "claim", "paper", "ours"):
        table.add_column(heading, no_wrap=heading != "claim", ratio=3 if heading == "claim" else None)
    if wide:
        table.add_column("rests on", ratio=1)
    table.add_column("remarks", ratio=2)
    for row in rows:
        verdicts = [
            Text(unknown if status == "not computable yet" else status, style=_COLORS[status])
            for status, unknown in ((row.paper, "no number"), (row.ours, "not yet"))
        ]
        rests = [Text(row.rests_on)] if wide else []
        table.add_row(row.claim, Text(row.sentence), *verdicts, *rests, Text(row.remarks))
    return table


def counts(rows: Sequence[Row]) -> str:
    """How often each verdict was given on a claim, in a sentence for the paper and one for us.

    Answers to what the paper leaves open are not among them: several of one question exclude each other.
    """
    rows = [row for row in rows if row.claim.startswith("C")]
    sentences = []
    for whose, verdicts in (
        ("The paper's own numbers", [row.paper for row in rows]),
        ("Ours", [row.ours for row in rows]),
    ):
        frequency = Counter(verdict for verdict in verdicts if verdict != STAND_IN)
        if not frequency:
            continue
        listed = ", ".join(
            f"{frequency[status]} {_plural(status)}" for status in STATUSES if frequency[status]
        )
        sentences.append(f"{whose}: {listed}.")
    return " ".join(sentences)


def _board_row(printed: Verdict, own: Verdict) -> Row:
    claim = own.claim
    lacking = ""
    if own.missing:
        lacking = f"{len(own.missing)} cell{'s' * (len(own.missing) > 1)} missing"
        lacking += f", {own.so_far}" * bool(own.comparisons)
    elif own.undefined:
        lacking = f"undefined: {'; '.join(own.undefined)}"
    compared = bool(own.comparisons) and not own.undefined
    return Row(
        claim=claim.name,
        sentence=claim.sentence,
        section=claim.section,
        paper=printed.status,
        ours=own.status,
        comparisons=f"{own.holding} of {len(own.comparisons)}" if compared else "",
        rests_on=", ".join(claim.rests_on),
        runs=own.behind if compared else "",
        epochs=" and ".join(str(epochs) for epochs in own.epochs) if compared else "",
        reduced=any(epochs < EPOCHS for epochs in own.epochs) if compared else None,
        noise=own.within_noise if compared and not own.missing else None,
        lacking=lacking,
        choice=claim.ours,
    )


def _plural(status: str) -> str:
    return {"holds": "hold", "fails": "fail"}.get(status, status)


def _comparisons(share: str) -> str:
    """The words after a share such as "7 of 8"."""
    return "comparison holds" if share.endswith(" of 1") else "comparisons hold"


def _csv_text(value: str | bool | None) -> str:
    """A field of a row as it is written to CSV."""
    if isinstance(value, str):
        return value
    return {None: "", True: "yes", False: "no"}[value]
