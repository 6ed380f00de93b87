"""What a search for the first stable epoch costs if the answers are those of the paper's Table 15.

The table gives mean and (population) standard deviation over three starts; all triples of whole epochs that
fit both are searched for, and their costs averaged. Counted are epochs of training: the trunk's stretches and
the children of every length. Target: at most 75% of lengths asked x copies x budget, over the four
configurations of each pair of network and data.

Run: python benchmarks/bisection.py --table table15.csv [--neighbours 1]
"""

from __future__ import annotations

import csv
import itertools
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tombola.measures.first_stable import PAPER_STEPS, bracket, epochs_trained, questions

sys.path.insert(0, str(Path(__file__).parent))
from measure import report

# Half of the last digit that the table prints.
_ROUNDING = 0.05 + 1e-9


@dataclass(frozen=True)
class Cost:
    """One search: lengths asked about, rounds of questions, epochs trained, and those lengths in full."""

    lengths: int
    rounds: int
    trained: int
    full: int


def main(table: Path, neighbours: int = 1, at_once: int = 1, budget: int = 200, copies: int = 3) -> None:
    """Search for every cell of the table.

    table: its values as CSV, one row a configuration with its mean (``value``) and ``std``.
    neighbours: lengths on each side of the one found that are asked about as a check.
    at_once: lengths asked about together.
    budget, copies: epochs of a training, and children of each length.
    """
    with table.open(newline="") as file:
        cells = list(csv.DictReader(file))
    rows, ratios = [], []
    for (network, data), group in itertools.groupby(cells, lambda cell: (cell["network"], cell["dataset"])):
        shares = []
        for cell in group:
            costs = [
                _search(epoch, budget, copies, neighbours, at_once, shared=float(cell["momentum"]) == 0)
                for triple in _triples(float(cell["value"]), float(cell["std"]))
                for epoch in triple
            ]
            trained = statistics.mean(cost.trained for cost in costs)
            shares.append(statistics.mean(cost.trained / cost.full for cost in costs))
            what = f"{network}, {data}, {cell['momentum']}/{cell['batch_size']}, first at {cell['value']}"
            rows.append(_row(what, costs, trained, shares[-1], PAPER_STEPS * copies * budget))
        ratios.append(statistics.mean(shares))
        rows.append({"what": f"{network}, {data}: mean"} | dict.fromkeys(list(rows[0])[1:], ""))
        rows[-1]["share of these in full"] = ratios[-1]
    report(f"search for the first stable epoch, worst mean share {max(ratios):.3f} (target: 0.75)", rows)


def _row(what: str, costs: list[Cost], trained: float, share: float, paper: int) -> dict[str, Any]:
    return {
        "what": what,
        "lengths": statistics.mean(cost.lengths for cost in costs),
        "rounds": statistics.mean(cost.rounds for cost in costs),
        "epochs a start": trained,
        "share of these in full": share,
        "share of the paper's": trained / paper,
    }


def _triples(mean: float, std: float) -> list[tuple[int, ...]]:
    """Three whole epochs with that mean and that population standard deviation, as printed."""
    around = range(max(0, int(mean - 2 * std) - 1), int(mean + 2 * std) + 3)
    return [
        triple
        for triple in itertools.combinations_with_replacement(around, 3)
        if abs(statistics.mean(triple) - mean) <= _ROUNDING
        and abs(statistics.pstdev(triple) - std) <= _ROUNDING
    ]


def _search(
    first_stable: int, budget: int, copies: int, neighbours: int, at_once: int, *, shared: bool
) -> Cost:
    answers: dict[int, bool] = {}
    rounds = 0
    while lengths := questions(answers, budget, at_once=at_once, neighbours=neighbours):
        answers |= {length: length >= first_stable for length in lengths}
        rounds += 1
    if bracket(answers, budget)[1] != first_stable:
        raise AssertionError(f"found {bracket(answers, budget)[1]} instead of {first_stable}")
    trained = epochs_trained(answers, budget, copies=copies, shared=shared)
    return Cost(len(answers), rounds, trained, len(answers) * copies * budget)


if __name__ == "__main__":
    tyro.cli(main)
