"""Tables as LaTeX: winning tickets underlined, failed runs starred, gaps empty, the paper's numbers below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tombola.report.entry import MINUS, Entry, difference_text, entry
from tombola.report.layout import Grid, spoken
from tombola.report.markup import beside_each_other, headings, row_heads, table_note
from tombola.studies.cells import Cell, Place
from tombola.studies.side_by_side import SideBySide

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "μ": r"$\mu$",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
    MINUS: "$-$",
}
_INSIDE = {None: "", True: "✓", False: "✗"}
_MOST_LINES = 40
"""Lines of a table that goes on one page; a longer one is broken over several."""
_BESIDE = (
    "Small: the paper's number, the difference, and whether the paper's lies in the 95% interval of our mean "
    "(✓, ✗)."
)


def to_latex(
    table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None, note: str = ""
) -> str:
    """A table labelled ``tab:`` and the study's name, never wider than the line.

    It needs the packages booktabs, amssymb and graphicx; one of more than 40 lines longtable, too, which
    breaks it over pages. With ``theirs`` the paper's number stands below each entry.

    note: a warning for the caption.
    """
    # LaTeX numbers the table itself.
    title = table.title.removeprefix(f"{spoken(table.study)}: ")
    caption = " ".join(filter(None, [f"{title}.", table_note(table, cells, note), _BESIDE if theirs else ""]))
    titled = rf"\caption{{{_latex(caption)}}}\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.study)}}}"
    shape = f"{{{'l' * len(table.row_names)}{'r' * len(table.columns)}}}"
    head = [r"\toprule", _row(map(_latex, headings(table))), r"\midrule"]
    body = list(_rows(table, cells, theirs))
    packages = "booktabs, amssymb, graphicx"
    if len(body) > _MOST_LINES:
        packages += ", longtable"
        lines = [
            r"{\footnotesize", rf"\begin{{longtable}}{shape}", rf"{titled}\\", *head, r"\endhead",
            *body, r"\bottomrule", r"\end{longtable}}",
        ]  # fmt: skip
    else:
        lines = [
            r"\begin{table}", r"\centering", titled,
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{shape}", *head, *body, r"\bottomrule", r"\end{tabular}}", r"\end{table}",
        ]  # fmt: skip
    return "\n".join([f"% Packages: {packages}", *lines]) + "\n"


def _rows(table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None) -> Iterator[str]:
    for row, slots in beside_each_other(table, cells, theirs):
        heads = [_latex(head) for head in row_heads(table, row)]
        yield _row([*heads, *(_marked(ours) if ours else "" for ours, _ in slots)])
        if theirs is not None:
            small = [_compared(beside) if beside else "" for _, beside in slots]
            yield _row(["" for _ in heads] + small)


def _compared(beside: SideBySide) -> str:
    """The paper's number in small, with the difference and where it lies."""
    if beside.theirs is None:
        return ""
    printed = _marked(entry(beside.theirs))
    parts = [
        ", ".join(filter(None, [printed, _latex(difference_text(beside))])),
        _latex(_INSIDE[beside.inside]),
    ]
    return rf"{{\scriptsize {' '.join(filter(None, parts))}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _marked(shown: Entry) -> str:
    text = _latex(shown.text)
    text = (rf"\underline{{{text}}}" if shown.underlined else text) + "$^*$" * shown.starred
    return f"{text} ({shown.runs})" if shown.runs else text


def _row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"
