"""Tables as LaTeX: winning tickets underlined, failed runs starred, gaps empty, the paper's numbers below.

Rows, headings and the note are those of :mod:`tombola.report.markdown`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from tombola.report.cell_text import INSIDE_SIGNS, MINUS, NONE_UNDEFINED, CellText, cell_text, difference_text
from tombola.report.markdown import compared_rows, headings, table_note
from tombola.table.compare import SideBySide
from tombola.table.key import Key
from tombola.table.number import Cell
from tombola.views.layout import Grid

_ESCAPES = {
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
_MOST_LINES = 40
"""Lines of a table that goes on one page; a longer one is broken over several."""
_PRINTED_BELOW = (
    "Small: the paper's number, the difference, and whether the paper's lies in the 95% interval of our mean "
    "(✓, ✗)."
)


def to_latex(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None = None,
    note: str = "",
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> str:
    """A table that is never wider than the line, labelled ``tab:`` and the study's name.

    It needs the packages booktabs, amssymb and graphicx; one of more than 40 lines longtable, too, which
    breaks it over pages. With ``theirs`` the paper's number stands below each entry.

    note: a warning for the caption. undefined: as for :func:`~tombola.report.markdown.to_markdown`.
    """
    # LaTeX numbers the table itself.
    title = re.sub(r"^(Table|Figure) \d+: ", "", table.title)
    sentences = [f"{title}.", table_note(table, cells, note, undefined), _PRINTED_BELOW if theirs else ""]
    caption = _escaped_latex(" ".join(filter(None, sentences)))
    titled = rf"\caption{{{caption}}}\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.name)}}}"
    shape = f"{{{'l' * len(table.row_names)}{'r' * len(table.columns)}}}"
    head = [r"\toprule", _latex_row(map(_escaped_latex, headings(table))), r"\midrule"]
    body = list(_latex_rows(table, cells, theirs, undefined))
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


def _latex_rows(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None,
    undefined: Mapping[Key, bool],
) -> Iterator[str]:
    for row, slots in compared_rows(table, cells, theirs, undefined):
        heads = [_escaped_latex(head) for head in table.row_heads(row)]
        yield _latex_row([*heads, *(_marked_latex(ours) if ours else "" for ours, _ in slots)])
        if theirs is not None:
            small = [_printed_latex(comparison) if comparison else "" for _, comparison in slots]
            yield _latex_row(["" for _ in heads] + small)


def _printed_latex(comparison: SideBySide) -> str:
    """The paper's number in small, with the difference and whether it lies in the interval of our mean."""
    if comparison.theirs is None:
        return ""
    printed = _marked_latex(cell_text(comparison.theirs))
    parts = [
        ", ".join(filter(None, [printed, _escaped_latex(difference_text(comparison))])),
        _escaped_latex(INSIDE_SIGNS[comparison.inside]),
    ]
    return rf"{{\scriptsize {' '.join(filter(None, parts))}}}"


def _escaped_latex(text: str) -> str:
    """A text in one line that LaTeX shows as it is."""
    return "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))


def _marked_latex(shown: CellText) -> str:
    """A cell with its marks, its interval in small and, where they are unusual, its runs."""
    text = _escaped_latex(shown.text)
    text = rf"\underline{{{text}}}" if shown.winning else text
    text += r"$^\dagger$" * shown.clearly + "$^*$" * shown.failed
    interval = rf"{{\scriptsize {_escaped_latex(shown.interval)}}}" if shown.interval else ""
    return " ".join(filter(None, [text, interval, f"({shown.runs})" * bool(shown.runs)]))


def _latex_row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"
