"""The card of a table that was pushed as a data set: what was measured, in which units, and its columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tombola.report.markdown import inert_markdown, inert_table, to_markdown
from tombola.table.key import Key
from tombola.table.metrics import METRICS, Unit, metric_of
from tombola.table.number import many
from tombola.table.table import Table
from tombola.version import __version__
from tombola.views.exhibit import Exhibit

NUMBERS, EXACT = "numbers.parquet", "table.json"

COLUMN_MEANINGS = {
    "metric": "what was measured, in the unit below",
    "over": "what the values of a key are of: seeds (runs that differ in initialisation and noise), pairs "
    "(of noise copies of one run), copies, or rounds (a run and that of the next round)",
    "reading": "which reading of the paper, where two go by one metric",
    "network": "what was trained",
    "dataset": "on what",
    "target": "what a frozen network was transferred to, or probed on",
    "momentum": "of the mask search; of a dense network its own; AdamW has none",
    "batch_size": "images a step, of the mask search; of a dense network its own",
    "pretrained": "whether it was rewound to a later epoch than 0",
    "search_share": "budget of each training of the mask search, as a share of the full one from 0 to 1",
    "sparse_momentum": "of the sparse training, where it differs from the search",
    "sparse_batch_size": "images a step of the sparse training, where it differs from the search",
    "block": "after which block a probe stands",
    "sparsity": "percent of the prunable weights that are pruned, by the number of prunings",
    "subset_percent": "percent of the train images that were kept",
    "subset_criterion": "how these were chosen",
    "baseline": "empty for tickets and networks as they are; permuted, randomized, reinitialized, ...",
    "epochs": "budget of the full trainings behind it, in epochs, late rewinding included",
    "seed": "the run: number of its initialisation",
    "pair": "which pair of noise copies, from 0",
    "value": "the number, in the unit of its metric; empty in a gap",
    "state": "measured; missing: not computed yet; undefined: computed, and there is no value",
    "failed": "whether a run behind it diverged or stayed at chance",
    "bound": "what the value is a bound of; empty for the value itself",
    "note": "what else is to be said",
    "runs": "of a number that several runs have together: how many",
    "spread": "of such a number: the spread that stands with it, in the unit of the metric",
    "stand_in": "what was really trained, where something stands in for network and dataset",
    "jobs": "names of the jobs that it rests on, divided by spaces",
}
"""What each column of a table holds, with its unit."""

_UNITS: dict[Unit, str] = {"%": "percent", "points": "percentage points", "epochs": "epochs", "": ""}
_KINDS = {"Int64": "whole", "float64": "real", "boolean": "truth"}
# Jobs of experiments of one's own have metrics by any name.
_OTHER_UNITS = (
    "A metric without a unit is one by itself or a share from 0 to 1; of names such as `measure.quantity`, "
    "accuracies and errors are in percent, losses in nats, truth values 0 or 1."
)


@dataclass(frozen=True)
class Shown:
    """What is said of a table beside its numbers.

    title: in one line. about: what was done, in sentences. exhibits: whose tables stand in the card.
    """

    title: str = ""
    about: str = ""
    exhibits: Sequence[Exhibit] = ()


def table_card(table: Table, shown: Shown, repository: str, license: str | None) -> str:
    """The card as Markdown."""
    name = repository.rpartition("/")[2]
    states = Counter(number.state for number in table)
    gaps = ", ".join(f"{states[state]:,} {state}" for state in ("missing", "undefined") if states[state])
    keys = len({number.key for number in table})
    parts = [
        f"---\n{_metadata(name, license)}\n---\n",
        f"# {name}\n",
        f"{inert_markdown(shown.title)}\n" if shown.title else "",
        f"{inert_markdown(shown.about)}\n" if shown.about else "",
        f"{many(len(table), 'number')} of {many(keys, 'key')}, a row each, {gaps or 'without gaps'}; "
        f"measured with tombola {__version__}. Two rows that agree in all columns of the key and in epochs "
        "are repetitions of each other; nothing is averaged.\n",
        "## Load it\n",
        f'```python\nfrom datasets import load_dataset\n\nframe = load_dataset("{repository}", split="train")'
        ".to_pandas()\n```\n",
        "In tombola, with the curves that numbers sum up and with means, spreads and gaps by key:\n",
        f'```python\nimport tombola as tb\n\ntable = tb.Table.from_hub("{repository}")\n'
        "cells = table.cells()\n```\n",
        "## What was measured\n",
        inert_table(("metric", "what it is", "unit", "numbers", "gaps"), _metrics(table)),
        f"{_OTHER_UNITS}\n",
        *map(_exhibit, _tabulated(table, shown.exhibits)),
        "## Columns\n",
        inert_table(("column", "type", "what it holds"), _columns(table)),
    ]
    return "\n".join(filter(None, parts))


def _metadata(name: str, license: str | None) -> str:
    """The metadata of the card as YAML: which file is the data set, and as what."""
    from huggingface_hub import DatasetCardData

    options: dict[str, Any] = {
        "license": license,
        "pretty_name": name,
        "tags": ["lottery-ticket", "pruning", "sparsity", "tabular"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": NUMBERS}]}],
    }
    return str(DatasetCardData(**options).to_yaml())


def _metrics(table: Table) -> Iterable[tuple[object, ...]]:
    """Each metric in the order of the table, with how many numbers and gaps it has."""
    count: Counter[str] = Counter()
    gaps: Counter[str] = Counter()
    for number in table:
        count[number.key.metric] += 1
        gaps[number.key.metric] += number.state != "measured"
    for name in count:
        metric = metric_of(name)
        label = metric.label.removesuffix(" (points)") if name in METRICS else ""
        yield name, label, _UNITS[metric.unit], f"{count[name]:,}", f"{gaps[name]:,}"


def _columns(table: Table) -> Iterable[tuple[object, ...]]:
    """Each column that the table has, with its type in the parquet file."""
    for name, kind in table.frame().dtypes.items():
        meaning = COLUMN_MEANINGS.get(str(name), "a further axis: what else tells two keys apart")
        yield name, _KINDS.get(str(kind), "text"), meaning


def _tabulated(table: Table, exhibits: Sequence[Exhibit]) -> Iterator[Exhibit]:
    """Those with numbers that are all of the table, and not in an exhibit before."""
    keys, before = {number.key for number in table}, set[Key]()
    for exhibit in exhibits:
        own = {entry.key for entry in exhibit.entries}
        if exhibit.cells and own <= keys and not own <= before:
            before |= own
            yield exhibit


def _exhibit(exhibit: Exhibit) -> str:
    """The table of an exhibit, means with what they rest on."""
    grid = exhibit.grid()
    assert grid is not None  # it has cells
    text = to_markdown(grid, exhibit.cells, exhibit.printed or None, "", exhibit.undefined)
    heading = exhibit.heading if exhibit.title == exhibit.heading else exhibit.full_title
    return f"## {inert_markdown(heading)}\n\n{text.partition(chr(10) * 2)[2]}"
