"""Tables as LaTeX: winning tickets underlined, failed runs starred, gaps empty, the paper's numbers below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tombola.report.cell_text import MINUS, CellText, cell_text, difference_text
from tombola.report.markdown import beside_each_other, headings, table_note
from tombola.table.compare import SideBySide
from tombola.table.key import Key
from tombola.table.number import Cell
from tombola.views.layout import Grid

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
    "†": r"$^\dagger$",
}
_INSIDE = {None: "", True: "✓", False: "✗"}
_MOST_LINES = 40
"""Lines of a table that goes on one page; a longer one is broken over several."""
_BESIDE = (
    "Small: the paper's number, the difference, and whether the paper's lies in the 95% interval of our mean "
    "(✓, ✗)."
)


def to_latex(
    table: Grid, cells: Mapping[Key, Cell], theirs: Mapping[Key, Cell] | None = None, note: str = ""
) -> str:
    """A table labelled ``tab:`` and the study's name, never wider than the line.

    It needs the packages booktabs, amssymb and graphicx; one of more than 40 lines longtable, too, which
    breaks it over pages. With ``theirs`` the paper's number stands below each entry.

    note: a warning for the caption.
    """
    # LaTeX numbers the table itself.
    title = re.sub(r"^(Table|Figure) \d+: ", "", table.title)
    caption = " ".join(filter(None, [f"{title}.", table_note(table, cells, note), _BESIDE if theirs else ""]))
    titled = rf"\caption{{{_latex(caption)}}}\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.name)}}}"
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


def _rows(table: Grid, cells: Mapping[Key, Cell], theirs: Mapping[Key, Cell] | None) -> Iterator[str]:
    for row, slots in beside_each_other(table, cells, theirs):
        heads = [_latex(head) for head in table.row_heads(row)]
        yield _row([*heads, *(_marked(ours) if ours else "" for ours, _ in slots)])
        if theirs is not None:
            small = [_compared(beside) if beside else "" for _, beside in slots]
            yield _row(["" for _ in heads] + small)


def _compared(beside: SideBySide) -> str:
    """The paper's number in small, with the difference and where it lies."""
    if beside.theirs is None:
        return ""
    printed = _marked(cell_text(beside.theirs))
    parts = [
        ", ".join(filter(None, [printed, _latex(difference_text(beside))])),
        _latex(_INSIDE[beside.inside]),
    ]
    return rf"{{\scriptsize {' '.join(filter(None, parts))}}}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _marked(shown: CellText) -> str:
    text = _latex(shown.text)
    text = rf"\underline{{{text}}}" if shown.winning else text
    text += r"$^\dagger$" * shown.clearly + "$^*$" * shown.failed
    interval = rf"{{\scriptsize {_latex(shown.interval)}}}" if shown.interval else ""
    return " ".join(filter(None, [text, interval, f"({shown.runs})" * bool(shown.runs)]))


def _row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"
