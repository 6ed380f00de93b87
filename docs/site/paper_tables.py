"""A page for each of the paper's tables: what it measures, the command, what it costs, which readings matter.

Everything is read off the program: titles, keys and layouts of the studies, the plan of their jobs, the
readings in docs/protocol.md that name the table or that the code of its numbers cites, and the claims on it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from tombola.experiments.bound import Bound, jobs_behind
from tombola.experiments.claims.all_claims import CLAIMS
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import printed_tables
from tombola.experiments.paper.scales import scale_named
from tombola.experiments.paper.studies import TABLES
from tombola.experiments.plan import Plan, plan
from tombola.experiments.study import Study
from tombola.lab.job import all_needed
from tombola.registry import Declaration, declaration, function_names
from tombola.table.key import Key
from tombola.table.metrics import METRICS
from tombola.views.layout import NAMES

SPEEDS = "benchmarks/results/gpu-h200.json"
"""Measured speeds that the hours are planned by."""

_PLACES = ("tombola.experiments.paper", "tombola.measures", "tombola.pruning", "tombola.search")
"""Where the code behind a number may cite a reading."""

_SECTIONS: tuple[tuple[str, str, Callable[[Mapping[str, Declaration], Sequence[Key]], bool]], ...] = (
    ("A (training)", "a-training", lambda declared, keys: "train" in declared),
    ("B (data and networks)", "b-data-and-networks", lambda declared, keys: True),
    ("C (pruning)", "c-pruning", lambda declared, keys: "prune" in declared),
    ("D (measures)", "d-measures", lambda declared, keys: any("accuracy" not in key.metric for key in keys)),
    (
        "F (short searches, other recipes)",
        "f-short-searches-and-other-recipes-for-sparse-training",
        lambda declared, keys: any(key.search_share or key.sparse_batch_size for key in keys),
    ),
    (
        "G (probes and transfer)",
        "g-probes-and-transfer",
        lambda declared, keys: any(key.block or key.target for key in keys),
    ),
    ("H (little data)", "h-little-data", lambda declared, keys: any(key.subset_percent for key in keys)),
)
"""The parts of the protocol, and of which studies each is, by their jobs and keys."""

_READING = re.compile(r"^\| \*\*([A-I]\d+)\*\* \| (.*) \| (.*) \|$", re.MULTILINE)
_CITED = re.compile(r"[Rr]eadings? \(?((?:[A-I]\d+(?:, and |, | and )?)+)|\(([ABD-I]\d+)\)")
_TABLES_NAMED = re.compile(r"\bTables? (\d+(?:(?:, | and | to )\d+)*)")


def paper_pages(repository: Path) -> dict[str, str]:
    """By title, a page for each table, after one that lists them all."""
    protocol = (repository / "docs" / "protocol.md").read_text(encoding="utf-8")
    readings = {name: (text, basis) for name, text, basis in _READING.findall(protocol)}
    speeds = _speeds(repository / SPEEDS)
    works = [PaperJobs(scale_named(name)) for name in ("paper", "tiny")]
    pages: dict[str, str] = {"All tables": ""}
    rows = []
    for study in TABLES:
        bound, tiny = (study.at(work) for work in works)
        heading = f"Table {study.name.removeprefix('table')}"
        costs = plan([bound], scale="scale paper", speed=speeds)
        declared = {
            job.declaration.name: job.declaration for job in all_needed(jobs_behind([bound])).values()
        }
        pages[heading] = "\n\n".join(
            [
                f"# {heading}: {study.title}",
                *_what(study, bound),
                *_commands(study),
                *_cost(costs, plan([tiny], scale="scale tiny")),
                *_readings(study, declared, [item.key for item in bound.items], readings),
                *_claims(study),
            ]
        )
        rows.append(
            f"| [{heading}]({study.name}.md) | {study.title} | {costs.jobs:,} | {costs.epochs:,.0f} "
            f"| {_hours(costs.hours, bool(costs.unmeasured))} |"
        )
    pages["All tables"] = "\n\n".join(
        [
            "# The paper's tables",
            "Each alone, at the paper's own budget: trainings and measures, epochs of training, and hours of "
            "one NVIDIA H200 with one training at a time, by "
            f"[measured speeds](../../{SPEEDS}). *At least* says that a network at a batch size without a "
            "measured speed is left out. Tables share most of their trainings: `tombola plan --all` counts "
            "each once.",
            "| table | what it is about | jobs | epochs | hours |\n|---|---|--:|--:|--:|\n" + "\n".join(rows),
        ]
    )  # fmt: skip
    return pages


def file_name(title: str) -> str:
    """Of a page of this folder."""
    return "index.md" if title == "All tables" else f"{title.lower().replace(' ', '')}.md"


def _speeds(path: Path) -> dict[tuple[str, int], float]:
    """Training images a second of one training alone, by network and batch size."""
    measured = json.loads(path.read_text(encoding="utf-8"))["speeds"]
    return {
        (speed["network"], speed["batch_size"]): speed["images_per_second"]
        for speed in measured
        if speed["packed"] == 1
    }


def _hours(hours: float | None, partly: bool) -> str:
    if hours is None:
        return "not measured"
    return f"{'at least ' if partly else ''}{hours:,.1f}"


def _what(study: Study, bound: Bound) -> Iterator[str]:
    keys = [item.key for item in bound.items]
    yield "## What it measures"
    listing = _listing(study)
    sentence = " ".join((listing.__doc__ or "").split("\n\n")[0].split())
    yield sentence
    metrics = dict.fromkeys(key.metric for key in keys)
    lines = [f"- **numbers**: {', '.join(_metric(name) for name in metrics)}"]
    pairs = dict.fromkeys(f"{key.network} on {key.dataset}" for key in keys if key.network and key.dataset)
    lines.append(f"- **trained**: {', '.join(pairs)}")
    if study.layout is not None:
        heads = [
            ", ".join(NAMES.get(field, field) for field in part)
            for part in (study.layout.rows, study.layout.columns)
        ]
        lines.append(f"- **rows** by {heads[0]}; **columns** by {heads[1]}")
    for field in ("sparsity", "target", "subset_percent", "block"):
        values = sorted({getattr(key, field) for key in keys} - {None})
        if values:
            unit = field in ("sparsity", "subset_percent")
            listed = ", ".join(f"{value:g}%" if unit else str(value) for value in values)
            lines.append(f"- **{NAMES[field]}**: {listed}")
    printed = printed_tables()[study.name]
    lines.append(f"- **cells**: {len(set(keys)):,} of ours, {len(printed):,} that the paper prints")
    yield "\n".join(lines)


def _metric(name: str) -> str:
    metric = METRICS[name]
    unit = f" in {metric.unit}" if metric.unit and metric.unit not in metric.label else ""
    return f"{metric.label}{unit} (`{name}`)"


def _commands(study: Study) -> Iterator[str]:
    name = study.name
    yield "## The commands"
    yield (
        f"```sh\ntombola plan {name}  # what it costs; runs nothing\n"
        f"tombola run {name} --scale tiny  # on stand-ins, in minutes on a CPU: proves the machinery only\n"
        f"tombola run {name}  # as the paper says\n"
        f"tombola report {name} --out my-report  # the paper's numbers beside ours\n```"
    )
    yield (
        "`--epochs 40 --seeds 1` makes it smaller, `--configs 0.0/256,0.9/100` takes some of its rows. Any "
        "run can be stopped; the same command continues."
    )


def _cost(costs: Plan, tiny: Plan) -> Iterator[str]:
    yield "## What it costs"
    yield (
        "At the paper's budget, alone and with nothing in the store, on one NVIDIA H200 that trains one run "
        f"at a time, by [measured speeds](../../{SPEEDS}):"
    )
    lines = costs.lines()
    if costs.hours is None:
        lines.insert(-1, "hours: no speed was measured for these networks and batch sizes")
    yield "```text\n" + "\n".join(lines) + "\n```"
    yield f"On stand-ins (`--scale tiny`): {tiny.jobs:,} jobs, {tiny.epochs:,.0f} epochs of a small network."


def _readings(
    study: Study,
    declared: Mapping[str, Declaration],
    keys: Sequence[Key],
    readings: Mapping[str, tuple[str, str]],
) -> Iterator[str]:
    yield "## Which readings matter"
    number = int(study.name.removeprefix("table"))
    named = [name for name, texts in readings.items() if number in _tables_named(" ".join(texts))]
    cited = _cited_by(study, declared.values(), {key.metric for key in keys})
    code = [name for name in readings if name in cited and name not in named]
    yield (
        "How the paper is read where it is silent or contradicts itself; every reading, with what it rests "
        "on, is in [the protocol](../protocol.md)."
    )
    for heading, names in (
        ("That name this table:", named),
        ("That the code behind its numbers cites:", code),
    ):
        if names:
            yield heading
            yield "\n".join(f"- **{name}** {_moved(readings[name][0])}" for name in names)
    sections = [
        f"[{letter}](../protocol.md#{anchor})"
        for letter, anchor, applies in _SECTIONS
        if applies(declared, keys)
    ]
    yield f"Besides, all those of sections {', '.join(sections)}, which are about what is done here."


def _tables_named(text: str) -> set[int]:
    """The numbers of the tables that a text names: "Table 2", "Tables 8 to 10", "Tables 5, 6, 19 and 20"."""
    numbers: set[int] = set()
    for listed in _TABLES_NAMED.findall(text):
        numbers |= {int(number) for number in re.findall(r"\d+", listed)}
        for first, last in re.findall(r"(\d+) to (\d+)", listed):
            numbers |= set(range(int(first), int(last) + 1))
    return numbers


def _moved(text: str) -> str:
    """A row of the protocol on a page one folder below it."""
    return re.sub(r"\[below\]\(#", "[there](../protocol.md#", text).replace("](#", "](../protocol.md#")


def _cited_by(study: Study, declared: Iterable[Declaration], metrics: Iterable[str]) -> set[str]:
    """The readings cited in the sources that list the items of a study, read their numbers and measure."""
    functions: list[Callable[..., Any]] = [_listing(study)]
    functions += [declaration.function for declaration in declared]
    others = {declaration(name).function for name in function_names()} - set(functions)
    texts = [inspect.getsource(function) for function in _reached(functions, others)]
    texts += [inspect.getmodule(function).__doc__ or "" for function in functions[1:] if _ours(function)]
    texts += map(_comment_of, metrics)
    cited = _CITED.findall(" ".join(" ".join(texts).split()))
    return {name for listed, one in cited for name in re.findall(r"[A-I]\d+", listed or one)}


def _comment_of(metric: str) -> str:
    """The comment above a metric in the list of them."""
    lines = inspect.getsource(inspect.getmodule(type(METRICS["barrier"]))).splitlines()
    [place] = (n for n, line in enumerate(lines) if line.strip().startswith(f'"{metric}": Metric('))
    return lines[place - 1] if lines[place - 1].strip().startswith("#") else ""


def _listing(study: Study) -> Callable[..., Any]:
    """The function that the listing of a study was made by; listings are closures over its arguments."""
    module = inspect.getmodule(study.listing)
    return getattr(module, study.listing.__qualname__.partition(".")[0])


def _ours(function: Callable[..., Any]) -> bool:
    return getattr(function, "__module__", "").startswith(_PLACES)


def _reached(
    functions: Iterable[Callable[..., Any]], others: set[Callable[..., Any]]
) -> list[Callable[..., Any]]:
    """Functions and all that they name in the same parts of the package, transitively.

    others: declared functions that the study has no job of; methods that write jobs of them are left out.
    """
    found: dict[int, Callable[..., Any]] = {}
    left = list(functions)
    while left:
        function = inspect.unwrap(left.pop())
        if id(function) in found or not isinstance(function, FunctionType) or not _ours(function):
            continue
        found[id(function)] = function
        for name in _names(function.__code__):
            named = [space.get(name) for space in (function.__globals__, vars(PaperJobs))]
            left += [one for one in named if isinstance(one, FunctionType) and not _writes(one, others)]
    return list(found.values())


def _writes(function: FunctionType, others: set[Callable[..., Any]]) -> bool:
    """Whether a function is a method of :class:`PaperJobs` that writes jobs of one of some others."""
    written = [function.__globals__.get(name) for name in _names(function.__code__)]
    return function in vars(PaperJobs).values() and any(one in others for one in written if callable(one))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _claims(study: Study) -> Iterator[str]:
    resting = [claim for claim in CLAIMS if study.name in claim.rests_on]
    if resting:
        yield "## Claims that rest on it"
        yield "`tombola claims` judges them as soon as their numbers are there."
        yield "\n".join(f"- **{claim.name}** [{claim.section}] {claim.sentence}" for claim in resting)
