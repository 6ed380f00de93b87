"""Tables as Markdown and LaTeX: winning tickets underlined, failed runs starred, gaps empty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from tombola.report.entry import MINUS, Entry, difference_text, entry, inside_text, usual_runs
from tombola.report.layout import NAMES, Grid, column_texts, value_text
from tombola.studies.cells import Cell, Place
from tombola.studies.side_by_side import SideBySide, side_by_side

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


def to_markdown(table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None) -> str:
    """A table of GitHub's Markdown; with ``theirs`` each entry ends with the paper's number in brackets."""
    lines = [
        _markdown(table.title),
        "",
        _markdown_row(_headings(table, _markdown, " ")),
        _markdown_row(["---"] * len(table.row_names) + ["---:"] * len(table.columns)),
        *(_markdown_row(row) for row in _rows(table, cells, theirs, _markdown, _marked_in_markdown)),
        "",
        _markdown(table_note(table, cells)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None) -> str:
    """A floating table for the packages booktabs and amssymb, labelled ``tab:`` and the study's name."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(f'{table.title}. {table_note(table, cells)}')}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9-]', '-', table.study)}}}",
        rf"\begin{{tabular}}{{{'l' * len(table.row_names)}{'r' * len(table.columns)}}}",
        r"\toprule",
        _latex_row(_headings(table, _latex, " ")),
        r"\midrule",
        *(_latex_row(row) for row in _rows(table, cells, theirs, _latex, _marked_in_latex)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _headings(table: Grid, escape: Callable[[str], str], join: str) -> list[str]:
    names = [NAMES[name] for name in table.row_names]
    return [
        escape(text)
        for text in (*names, *(join.join(column_texts(table.column_names, key)) for key in table.columns))
    ]


def _rows(
    table: Grid,
    cells: Mapping[Place, Cell],
    theirs: Mapping[Place, Cell] | None,
    escape: Callable[[str], str],
    marked: Callable[[Entry], str],
) -> list[list[str]]:
    own = {place: cells[place] for place in table.places.values() if place in cells}
    runs = usual_runs(own.values())
    beside = {row.place: row for row in side_by_side(own, theirs or {})}
    rows = []
    for row in table.rows:
        texts = [escape(value_text(name, value)) for name, value in zip(table.row_names, row, strict=True)]
        for column in table.columns:
            place = table.places.get((row, column))
            text = marked(entry(own[place], runs)) if place in own else ""
            if theirs is not None and place in beside:
                text = f"{text} {escape(_compared(beside[place]))}".strip()
            texts.append(text)
        rows.append(texts)
    return rows


def _compared(beside: SideBySide) -> str:
    """The paper's number in brackets, with the difference and where it lies."""
    if beside.theirs is None:
        return ""
    paper = f"paper {entry(beside.theirs).text}" + "*" * beside.theirs.starred
    parts = [paper, difference_text(beside), inside_text(beside)]
    return f"({', '.join(part for part in parts if part)})"


def table_note(table: Grid, cells: Mapping[Place, Cell]) -> str:
    """What the marks and numbers of a table mean, as far as they occur."""
    own = [cells[place] for place in table.places.values() if place in cells]
    runs = usual_runs(own)
    sentences = []
    if runs is not None:
        spread = " ± standard deviation" * any(cell.std is not None for cell in own)
        budgets = " and ".join(str(epochs) for epochs in sorted({cell.epochs for cell in own}))
        many = f"Means{spread} of {runs} runs" if runs > 1 else "Single runs"
        sentences.append(f"{many} of {budgets} epochs.")
    if any(cell.underlined for cell in own):
        sentences.append("Underlined: winning ticket.")
    if any(cell.starred for cell in own):
        sentences.append("*: at least one run failed to train.")
    return " ".join(sentences)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _marked_in_markdown(shown: Entry) -> str:
    text = _markdown(shown.text)
    text = (f"<u>{text}</u>" if shown.underlined else text) + r"\*" * shown.starred
    return f"{text} ({shown.runs})" if shown.runs else text


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def _marked_in_latex(shown: Entry) -> str:
    text = _latex(shown.text)
    text = (rf"\underline{{{text}}}" if shown.underlined else text) + "$^*$" * shown.starred
    return f"{text} ({shown.runs})" if shown.runs else text


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"
