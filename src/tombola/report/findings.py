"""What the numbers of a summary say, in sentences: each is computed from them, none is written beforehand.

A sentence states a count, an extreme or a yes or no. Where a number is missing its sentence is missing too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tombola.measures.limits import STABLE_BELOW
from tombola.report.stability import shown_curves
from tombola.report.style import configuration_of, momentum_text, start_label

Entry = Mapping[str, Any]


def accuracy_findings(summary: Mapping[str, Any]) -> list[str]:
    """About winning tickets, what the last round costs, and failed runs."""
    rows = [row for row in summary["rows"] if row["accuracy_mean"] is not None]
    return [*_winning(rows), *_last_round(rows), *_failures(summary["rows"])]


def stability_findings(summary: Mapping[str, Any]) -> list[str]:
    """About the error barriers of dense networks and of the sparsest tickets."""
    curves = shown_curves(summary)
    sentences = []
    for rewind in sorted({curve["rewind"] for curve in curves}):
        dense = [c for c in curves if c["kind"] == "dense" and c["rewind"] == rewind]
        if dense:
            most, least = _extremes(dense, "barrier")
            sentences.append(
                f"Dense networks {start_label(rewind)}: {_stable_count(dense)} have a barrier below "
                f"{STABLE_BELOW:g} points. Most stable is {_label(most)} ({most['barrier']:.1f} points), "
                f"least stable {_label(least)} ({least['barrier']:.1f} points)."
            )
    measured = [entry for entry in summary["dense"] if entry.get("barrier_recalibrated") is not None]
    if measured:
        highest = max(measured, key=lambda entry: float(entry["barrier_recalibrated"]))
        sentences.append(
            "How much of that is batch norm: with its statistics measured anew on the line, the highest "
            f"dense barrier {start_label(0)} is {highest['barrier_recalibrated']:.1f} points "
            f"({_label(highest)})."
        )
    tickets = [curve for curve in curves if curve["kind"] == "ticket"]
    if tickets:
        unstable = [c for c in tickets if c["barrier"] >= STABLE_BELOW]
        listed = "; ".join(f"{_label(c)} {start_label(c['rewind'])}: {c['barrier']:.1f}" for c in unstable)
        ceiling = f"the highest is {max(c['barrier'] for c in tickets):.1f}"
        sentences.append(
            f"All ticket barriers below {STABLE_BELOW:g} points: "
            + (f"no ({listed})." if unstable else f"yes ({ceiling}).")
        )
    return sentences


def training_findings(summary: Mapping[str, Any]) -> list[str]:
    """About forgetting in the dense networks, and where convergence is undefined."""
    dense = [entry for entry in summary["dense"] if entry["forgetting_events"] is not None]
    sentences = []
    if len(dense) > 1:
        least, most = _extremes(dense, "forgetting_events")
        sentences.append(
            f"Most forgetting: {_label(most)}, {most['forgetting_events']:.2f} events an image over the "
            f"whole training; least: {_label(least)}, {least['forgetting_events']:.2f}."
        )
    sentences += _momentum_compared(dense)
    undefined = [_label(entry) for entry in summary["dense"] if entry["convergence"] is None]
    if undefined:
        sentences.append(f"No convergence speed, for nothing was learned: {'; '.join(undefined)}.")
    return sentences


def _winning(rows: Sequence[Entry]) -> list[str]:
    tickets = [row for row in rows if row["winning"] is not None]
    if not tickets:
        return []
    counts = []
    for rewind in sorted({row["rewind"] for row in tickets}):
        chosen = [row for row in tickets if row["rewind"] == rewind]
        counts.append(f"{sum(row['winning'] for row in chosen)} of {len(chosen)} {start_label(rewind)}")
    sentences = [f"Winning tickets: {' and '.join(counts)}."]
    winners = [row for row in tickets if row["winning"]]
    if winners:
        last = max(row["round"] for row in winners)
        sparsest = [row for row in winners if row["round"] == last]
        listed = "; ".join(
            f"{_label(row)} {start_label(row['rewind'])}, {row['accuracy_mean']:.1f}%" for row in sparsest
        )
        sentences.append(
            f"The sparsest, with {100 * sparsest[0]['sparsity']:.1f}% of the weights pruned, and their "
            f"accuracies: {listed}."
        )
    return sentences


def _last_round(rows: Sequence[Entry]) -> list[str]:
    """The change in accuracy from dense to the last round, where it is best and where worst."""
    changes = []
    for key in sorted({(configuration_of(row), row["rewind"]) for row in rows}):
        chain = sorted(
            (row for row in rows if (configuration_of(row), row["rewind"]) == key),
            key=lambda row: row["round"],
        )
        if chain[0]["round"] == 0 and len(chain) > 1:
            change = chain[-1]["accuracy_mean"] - chain[0]["accuracy_mean"]
            changes.append((change, f"{_label(chain[-1])} {start_label(key[1])}"))
    if len(changes) < 2:
        return []
    (worst, loser), (best, keeper) = min(changes), max(changes)
    return [
        f"From the dense network to the last round accuracy changes by {_points(best)} in the best case "
        f"({keeper}) and by {_points(worst)} in the worst ({loser})."
    ]


def _failures(rows: Iterable[Entry]) -> list[str]:
    rows = list(rows)
    failed, runs = sum(row["failed_runs"] for row in rows), sum(len(row["accuracies"]) for row in rows)
    if not runs:
        return []
    if not failed:
        return [f"None of the {runs} runs failed."]
    return [f"{failed} of {runs} runs failed to train; failed runs are part of the means."]


def _momentum_compared(dense: Sequence[Entry]) -> list[str]:
    """Forgetting with the highest momentum against none, batch size by batch size."""
    momenta = sorted({entry["momentum"] for entry in dense})
    if len(momenta) < 2:
        return []
    low, high = momenta[0], momenta[-1]
    without, with_it = (
        {entry["batch_size"]: entry["forgetting_events"] for entry in dense if entry["momentum"] == momentum}
        for momentum in (low, high)
    )
    shared = without.keys() & with_it.keys()
    more = sum(with_it[size] > without[size] for size in shared)
    if not shared:
        return []
    return [
        f"With momentum {momentum_text(high)} images are forgotten more often than with {momentum_text(low)} "
        f"at {more} of {len(shared)} batch sizes."
    ]


def _points(change: float) -> str:
    return f"{change:+.1f} points".replace("-", "\N{MINUS SIGN}")


def _extremes(entries: Sequence[Entry], key: str) -> tuple[Entry, Entry]:
    return min(entries, key=lambda entry: entry[key]), max(entries, key=lambda entry: entry[key])


def _stable_count(curves: Sequence[Entry]) -> str:
    return f"{sum(curve['barrier'] < STABLE_BELOW for curve in curves)} of {len(curves)}"


def _label(entry: Entry) -> str:
    """The label on one line: a sentence may break before it, not inside."""
    return configuration_of(entry).label.replace(" ", "\N{NO-BREAK SPACE}")
