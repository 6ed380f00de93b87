"""Tables as Markdown: winning tickets underlined, failed runs starred, gaps empty."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tombola.report.entry import Entry, difference_text, entry, inside_text, usual_runs
from tombola.report.layout import NAMES, Grid, Key, column_texts, value_text
from tombola.studies.cells import Cell, Place, copies_of
from tombola.studies.paper.settings import SEARCH_SHARES, short_search_epochs
from tombola.studies.side_by_side import SideBySide, side_by_side

_SUMMED = (
    "Forgetting events a run, and their spread over the training images, are counted as by Toneva et al. "
    "The paper's numbers are in all likelihood of its three runs together: the events of an image summed "
    "over them and halved, ± spread over images (reading D8 of docs/protocol.md). They stand beside ours of "
    "three runs together; with fewer runs ours is a gap."
)


def to_markdown(
    table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None = None, note: str = ""
) -> str:
    """A table of GitHub's Markdown; with ``theirs`` each entry ends with the paper's number in brackets.

    note: a warning below it.
    """
    lines = [
        _markdown(table.title),
        "",
        _markdown_row([_markdown(heading) for heading in headings(table)]),
        _markdown_row(["---"] * len(table.row_names) + ["---:"] * len(table.columns)),
        *map(_markdown_row, _markdown_rows(table, cells, theirs)),
        "",
        _markdown(table_note(table, cells, note)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def headings(table: Grid) -> list[str]:
    """What stands above the columns, those of the row heads first."""
    columns = [" ".join(column_texts(table.column_names, key)) for key in table.columns]
    return [*(NAMES[name] for name in table.row_names), *columns]


def row_heads(table: Grid, row: Key) -> list[str]:
    """What stands at the beginning of a row."""
    return [value_text(name, value) for name, value in zip(table.row_names, row, strict=True)]


def beside_each_other(
    table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None
) -> Iterator[tuple[Key, list[tuple[Entry | None, SideBySide | None]]]]:
    """Row by row our entries and, with ``theirs``, what the paper has beside; None where nothing stands."""
    own = {place: cells[place] for place in table.places.values() if place in cells}
    runs = usual_runs(own.values())
    beside = {found.place: found for found in side_by_side(own, theirs)} if theirs is not None else {}
    for row in table.rows:
        places = [table.places.get((row, column)) for column in table.columns]
        yield (
            row,
            [
                (entry(own[place], runs) if place in own else None, beside.get(place) if place else None)
                for place in places
            ],
        )


def _markdown_rows(
    table: Grid, cells: Mapping[Place, Cell], theirs: Mapping[Place, Cell] | None
) -> Iterator[list[str]]:
    for row, slots in beside_each_other(table, cells, theirs):
        texts = [_markdown(head) for head in row_heads(table, row)]
        for ours, beside in slots:
            parts = [_marked(ours) if ours else "", _markdown(_compared(beside)) if beside else ""]
            texts.append(" ".join(filter(None, parts)))
        yield texts


def _compared(beside: SideBySide) -> str:
    """The paper's number in brackets, with the difference and where it lies."""
    if beside.theirs is None:
        return ""
    paper = f"paper {entry(beside.theirs).text}" + "*" * beside.theirs.starred
    parts = [paper, difference_text(beside), inside_text(beside)]
    return f"({', '.join(part for part in parts if part)})"


def table_note(table: Grid, cells: Mapping[Place, Cell], note: str = "") -> str:
    """What the marks and numbers of a table mean, as far as they occur, and a warning if there is one."""
    own = [cells[place] for place in table.places.values() if place in cells]
    sentences = [
        _what_of(part)
        for pairs in (False, True)
        if (part := [cell for cell in own if cell.of_pairs is pairs])
    ]
    if searched := _searched(own):
        sentences.append(searched)
    if own and ("summed_forgetting_events",) in table.columns:
        sentences.append(_SUMMED)
    if any(cell.underlined for cell in own):
        sentences.append("Underlined: winning ticket.")
    if any(cell.starred for cell in own):
        sentences.append("*: at least one run failed to train.")
    if note and own:
        sentences.append(f"{note[0].upper()}{note[1:].removesuffix('.')}.")
    return " ".join(sentences)


def _searched(cells: Sequence[Cell]) -> str:
    """Which searches stand in rows that are headed as the paper prints them; nothing where it is the same."""
    lengths = sorted(
        {
            (printed, short_search_epochs(printed, cell.epochs))
            for cell in cells
            if (printed := cell.place.search_epochs) in SEARCH_SHARES
        }
    )
    if all(printed == epochs for printed, epochs in lengths):
        return ""
    ours = " and ".join(dict.fromkeys(str(epochs) for _, epochs in lengths))
    theirs = " and ".join(dict.fromkeys(f"{printed}" for printed, _ in lengths))
    shares = " and ".join(dict.fromkeys(f"{SEARCH_SHARES[printed]:.0%}" for printed, _ in lengths))
    return f"Searches of {ours} epochs stand for the paper's {theirs}, about {shares} of the budget."


def _what_of(cells: Sequence[Cell]) -> str:
    """What the numbers of some cells are of: runs, or pairs of the noise copies of one run."""
    runs = usual_runs(cells) or 0
    copies = f" of {copies_of(runs)} noise copies of one run" if cells[0].of_pairs else ""
    spread = " ± standard deviation" * any(cell.std is not None for cell in cells)
    budgets = " and ".join(str(epochs) for epochs in sorted({cell.epochs for cell in cells}))
    what = "pairs" if cells[0].of_pairs else "runs"
    shown = f"Means{spread} of {runs} {what}" if runs > 1 else f"Single {what}"
    return f"{shown}{copies} of {budgets} epochs."


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))


def _marked(shown: Entry) -> str:
    text = _markdown(shown.text)
    text = (f"<u>{text}</u>" if shown.underlined else text) + r"\*" * shown.starred
    return f"{text} ({shown.runs})" if shown.runs else text


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"
