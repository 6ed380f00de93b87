"""The two tables of a summary, for the terminal: Tables 1 and 2 of the paper in miniature.

The accuracy table shows every round where the width allows it, else evenly chosen ones that begin with the
dense network. Marks that are styles on a terminal become characters where no styles are shown, as in a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tombola.measures.limits import STABLE_BELOW
from tombola.report.style import configuration_of, momentum_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Chain:
    """One row of the accuracy table: a configuration and a rewinding point, with its entries by round."""

    momentum: str
    batch_size: int
    start: str
    entries: Mapping[int, Mapping[str, Any]]


def chains(summary: Mapping[str, Any]) -> list[Chain]:
    """The rows of the accuracy table: by rewinding point, then momentum, then batch size, as in the paper."""
    entries: dict[tuple[int, float, int], dict[int, Mapping[str, Any]]] = {}
    for row in summary["rows"]:
        key = (row["rewind"], *configuration_of(row))
        entries.setdefault(key, {})[row["round"]] = row
    return [
        Chain(momentum_text(momentum), batch_size, start_name(rewind), by_round)
        for (rewind, momentum, batch_size), by_round in sorted(entries.items())
    ]


def start_name(rewind: int) -> str:
    """A starting point in a table's cell."""
    return f"epoch {rewind}" if rewind else "initial"


def rounds(summary: Mapping[str, Any]) -> dict[int, str]:
    """All rounds with their sparsity in percent, the mean over the rows of that round."""
    shares: dict[int, list[float]] = {}
    for row in summary["rows"]:
        shares.setdefault(row["round"], []).append(row["sparsity"])
    return {number: f"{100 * sum(some) / len(some):.1f}%" for number, some in sorted(shares.items())}


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals, or a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def accuracy_table(summary: Mapping[str, Any], console: Console | None = None) -> Table:
    """Mean test accuracy (%) by configuration and sparsity, winning tickets underlined, failed runs starred.

    console: where it will be printed. Its width decides how many rounds are shown; where it shows no styles,
        a plus sign stands for the underline. Default: the standard output.
    """
    from rich import get_console

    console = console or get_console()
    numbers = list(rounds(summary))
    for step in range(1, max(len(numbers), 2)):
        for padding in (1, 0):
            table = _accuracy_table(summary, numbers[::step], padding, console.color_system is not None)
            if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
                return table
    return table


def dense_table(summary: Mapping[str, Any]) -> Table:
    """Stability, forgetting and convergence of the dense networks, trained from the initialisation."""
    table = empty_table(
        "Dense networks, trained from the initialisation",
        f"Barriers in percentage points, stable below {STABLE_BELOW:g}; the second with batch-norm "
        "statistics measured anew. Forgetting: events an image, mean ± spread over images. Unforgettable: "
        "share of images learned and never forgotten. Convergence: 1 if all was learned in the first epoch.",
    )
    headings = (
        "μ",
        "batch",
        "barrier",
        "recalibrated\nbarrier",
        "forgetting",
        "unforget-\ntable",
        "conver-\ngence",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in sorted(summary["dense"], key=configuration_of):
        table.add_row(*dense_cells(entry))
    return table


def dense_cells(entry: Mapping[str, Any]) -> list[str]:
    """One row of the dense table."""
    share = entry["unforgettable"]
    return [
        momentum_text(entry["momentum"]),
        str(entry["batch_size"]),
        number(entry["barrier"]),
        number(entry["barrier_recalibrated"]),
        f"{number(entry['forgetting_events'], 2)} ± {number(entry['forgetting_std'], 2)}",
        MISSING if share is None else f"{100 * share:.1f}%",
        number(entry["convergence"], 3),
    ]


def _accuracy_table(summary: Mapping[str, Any], shown: Sequence[int], padding: int, styled: bool) -> Table:
    """The accuracy table of these rounds, with so many more spaces at both sides of each column."""
    table = empty_table("Test accuracy (%) by sparsity", _accuracy_caption(summary, shown, styled), padding)
    table.add_column("μ", justify="right", no_wrap=True)
    table.add_column("batch", justify="right", no_wrap=True)
    table.add_column("start", no_wrap=True)
    sparsities = rounds(summary)
    for position in shown:
        table.add_column(sparsities[position], justify="right", no_wrap=True)
    previous = None
    for chain in chains(summary):
        if previous not in (None, chain.start):
            table.add_section()
        previous = chain.start
        cells = [_accuracy_cell(chain.entries.get(position), styled) for position in shown]
        table.add_row(chain.momentum, str(chain.batch_size), chain.start, *cells)
    return table


def _accuracy_cell(entry: Mapping[str, Any] | None, styled: bool) -> Text:
    """The mean with its marks, or the space of a mark, so that digits stand below each other."""
    from rich.text import Text

    if entry is None:
        return Text(f"{MISSING} ")
    underlined = entry["winning"] and styled
    marks = "+" * bool(entry["winning"] and not styled) + "*" * bool(entry["failed_runs"])
    return Text.assemble(
        (number(entry["accuracy_mean"]), "bold underline" if underlined else ""), marks or " "
    )


def _accuracy_caption(summary: Mapping[str, Any], shown: Sequence[int], styled: bool) -> str:
    seeds = summary["settings"]["seeds"]
    failed = {row["round"] for row in summary["rows"] if row["failed_runs"]}
    winning = "[bold underline]Underlined[/]" if styled else "+"
    sentences = [
        f"Mean over {seeds} seeds." if seeds != 1 else "One seed.",
        f"{winning}: winning ticket, no worse than its own dense network.",
    ]
    if failed & set(shown):
        sentences.append("*: at least one run failed to train; it is part of the mean.")
    if failed - set(shown):
        sentences.append("Runs failed in rounds that are not shown here.")
    return " ".join(sentences)


def empty_table(title: str, caption: str, padding: int = 1) -> Table:
    """A terminal table in the one look they all have, without columns."""
    from rich import box
    from rich.table import Table

    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        caption_style="dim",
        padding=(0, padding),
    )
