"""Tables as Markdown: winning tickets underlined, failed runs starred, gaps empty.

Rows, headings and the note below a table are shared with :mod:`tombola.report.latex` and the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tombola.experiments.paper.settings import SEARCH_SHARES, short_search_epochs
from tombola.report.cell_text import (
    NONE_UNDEFINED,
    CellText,
    cell_text,
    difference_text,
    inside_text,
    interval_text,
    undefined_text,
    usual_runs,
)
from tombola.table.compare import SideBySide, side_by_side
from tombola.table.key import ITERATIONS, Key
from tombola.table.number import Cell, copies_of
from tombola.training.length import length_text
from tombola.untrusted import printable
from tombola.views.layout import NAMES, Grid, Values

WINNING = "Underlined: winning ticket, its mean no lower than that of its own dense network (reading C6)."
CLEARLY = "†: higher beyond the noise of the seeds (95% interval of the difference, paired by seed)."
INTERVAL = "In square brackets: 95% interval of the mean."
_SUMMED = (
    "Forgetting events a run, and their spread over the training images, are counted as by Toneva et al. "
    "The paper's numbers are in all likelihood of its three runs together: the events of an image summed "
    "over them and halved, ± spread over images (reading D8 of docs/protocol.md). They stand beside ours of "
    "three runs together; with fewer runs ours is a gap."
)


def to_markdown(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None = None,
    note: str = "",
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> str:
    """A table in GitHub's Markdown; with ``theirs`` each cell ends with the paper's number in brackets.

    note: a warning below it.
    undefined: keys whose numbers have no value, and whether a run behind them failed.
    """
    lines = [
        _escaped(table.title),
        "",
        _markdown_row([_escaped(heading) for heading in headings(table)]),
        _markdown_row(["---"] * len(table.row_names) + ["---:"] * len(table.columns)),
        *map(_markdown_row, _table_rows(table, cells, theirs, undefined)),
        "",
        _escaped(table_note(table, cells, note, undefined)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def headings(table: Grid) -> list[str]:
    """The heading of each column, those of the row heads first."""
    columns = [" ".join(table.column_heads(column)) for column in table.columns]
    return [*(NAMES.get(name, name) for name in table.row_names), *columns]


def compared_rows(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None,
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> Iterator[tuple[Values, list[tuple[CellText | None, SideBySide | None]]]]:
    """Each row of a table: its values, and for each column our cell and its comparison with the paper's.

    Both are None where there is no number; comparisons are None without ``theirs``, too.
    """
    own = {key: cells[key] for key in table.keys.values() if key in cells}
    runs = usual_runs(own.values())
    comparisons = {row.key: row for row in side_by_side(own, theirs)} if theirs is not None else {}
    texts = {key: undefined_text(failed) for key, failed in undefined.items()}
    texts |= {key: cell_text(cell, runs) for key, cell in own.items()}
    for row in table.rows:
        keys = [table.keys.get((row, column)) for column in table.columns]
        yield (
            row,
            [(texts.get(key) if key else None, comparisons.get(key) if key else None) for key in keys],
        )


def _table_rows(
    table: Grid,
    cells: Mapping[Key, Cell],
    theirs: Mapping[Key, Cell] | None,
    undefined: Mapping[Key, bool],
) -> Iterator[list[str]]:
    for row, slots in compared_rows(table, cells, theirs, undefined):
        texts = [_escaped(head) for head in table.row_heads(row)]
        for ours, comparison in slots:
            printed = _escaped(_printed_text(comparison)) if comparison else ""
            parts = [_marked(ours) if ours else "", printed]
            texts.append(" ".join(filter(None, parts)))
        yield texts


def _printed_text(comparison: SideBySide) -> str:
    """The paper's number in brackets, with the difference and whether it lies in the interval of our mean."""
    if comparison.theirs is None:
        return ""
    paper = f"paper {cell_text(comparison.theirs).text}" + "*" * comparison.theirs.failed
    parts = [paper, difference_text(comparison), inside_text(comparison)]
    return f"({', '.join(part for part in parts if part)})"


def table_note(
    table: Grid,
    cells: Mapping[Key, Cell],
    note: str = "",
    undefined: Mapping[Key, bool] = NONE_UNDEFINED,
) -> str:
    """The meaning of the marks and numbers that occur in a table, in sentences; a warning comes last."""
    own = [cells[key] for key in table.keys.values() if key in cells]
    sentences = [
        _runs_sentence(part)
        for pairs in (False, True)
        if (part := [cell for cell in own if cell.of_pairs is pairs])
    ]
    if lengths := _search_sentence(own):
        sentences.append(lengths)
    if own and ("summed_forgetting_events",) in table.columns:
        sentences.append(_SUMMED)
    if any(cell.winning for cell in own):
        sentences.append(WINNING)
    if any(cell.clearly for cell in own):
        sentences.append(CLEARLY)
    if any(interval_text(cell) for cell in own):
        sentences.append(INTERVAL)
    if any(cell.failed for cell in own) or any(undefined.values()):
        sentences.append("*: at least one run failed to train.")
    if note and own:
        sentences.append(f"{note[0].upper()}{note[1:].removesuffix('.')}.")
    return " ".join(sentences)


def _search_sentence(cells: Sequence[Cell]) -> str:
    """How long our searches are in rows headed by the paper's epochs; empty where both are equally long."""
    shares = {share: printed for printed, share in SEARCH_SHARES.items()}
    lengths = sorted(
        {
            (printed, short_search_epochs(printed, cell.epochs))
            for cell in cells
            if (printed := shares.get(cell.key.search_share or 0.0))
        }
    )
    if all(printed == epochs for printed, epochs in lengths):
        return ""
    ours = " and ".join(dict.fromkeys(str(epochs) for _, epochs in lengths))
    theirs = " and ".join(dict.fromkeys(f"{printed}" for printed, _ in lengths))
    percent = " and ".join(dict.fromkeys(f"{SEARCH_SHARES[printed]:.0%}" for printed, _ in lengths))
    lengths_text = f"{ours} epoch{'s' * (ours != '1')}"
    return f"Searches of {lengths_text} stand for the paper's {theirs}, about {percent} of the budget."


def _runs_sentence(cells: Sequence[Cell]) -> str:
    """How many runs, or pairs of noise copies, of how many epochs the means of some cells are of."""
    runs = usual_runs(cells) or 0
    copies = f" of {copies_of(runs)} noise copies of one run" if cells[0].of_pairs else ""
    seeds = len(set(cells[0].seeds))
    if cells[0].of_pairs and seeds > 1:
        copies = f" of {copies_of(runs // seeds)} noise copies of each of {seeds} runs"
    spread = " ± standard deviation" * any(cell.std is not None for cell in cells)
    budgets = _budgets_text(cells)
    what = "pairs" if cells[0].of_pairs else "runs"
    shown = f"Means{spread} of {runs} {what}" if runs > 1 else f"Single {what}"
    return f"{shown}{copies} of {budgets}."


def _budgets_text(cells: Sequence[Cell]) -> str:
    """The budgets of some cells in words: "10 and 20 epochs", "500 iterations"."""
    iterations = {cell.key: _iterations(cell) for cell in cells}
    in_epochs = sorted({cell.epochs for cell in cells if not iterations[cell.key]})
    epochs = " and ".join(map(str, in_epochs))
    texts = [f"{epochs} epoch{'' if epochs == '1' else 's'}"] if in_epochs else []
    texts += [length_text(f"{count}it") for count in sorted(set(iterations.values()) - {0})]
    return " and ".join(texts)


def _iterations(cell: Cell) -> int:
    """The budget of a cell in iterations; 0 for one in epochs."""
    count = cell.key.get(ITERATIONS)
    return count if isinstance(count, int) and not cell.epochs else 0


def inert_table(heading: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table whose cells are shown as they are, whoever wrote them; it ends in a line feed."""
    lines = [_markdown_row(heading), "|---" * len(heading) + "|"]
    lines += [_markdown_row([inert_markdown(str(cell)) for cell in row]) for row in rows]
    return "\n".join(lines) + "\n"


def inert_markdown(text: str) -> str:
    """A text of a stranger's in one printable line that Markdown shows as it is."""
    return _escaped(printable(" ".join(text.split())))


def _escaped(text: str) -> str:
    """A text in one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _marked(shown: CellText) -> str:
    """A cell with its marks, its interval and, where they are unusual, its runs."""
    text = _escaped(shown.text)
    text = (f"<u>{text}</u>" if shown.winning else text) + "†" * shown.clearly + r"\*" * shown.failed
    return " ".join(filter(None, [text, _escaped(shown.interval), f"({shown.runs})" * bool(shown.runs)]))


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
