"""A barrier of which a run failed says so wherever it is a number: in items, tables of jobs and listings."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import tombola as tb
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.paper.readers import (
    barrier_heights,
    highest_errors,
    levels_reached,
    one_barrier,
    recalibrated_heights,
)
from tombola.lab.chains import imp_jobs
from tombola.lab.item import Measured, Results
from tombola.lab.job import Job, job
from tombola.lab.listing import listing
from tombola.lab.results import Packed, pack
from tombola.measures.connectivity import Barrier
from tombola.measures.instability import Instability
from tombola.table.key import Key
from tombola.table.number import cell_of
from tombola.table.table import Table, read_json

RECIPE = tb.Recipe(epochs=4, batch_size=100, momentum=0.0)
ALPHAS = (0.0, 0.5, 1.0)
SOUND = Barrier(ALPHAS, (10.0, 30.0, 20.0), (0.1, 0.5, 0.2), ends=("trained", "trained"))
STUCK = Barrier(ALPHAS, (90.0, 90.0, 20.0), (2.3, 2.3, 0.2), ends=("at chance", "trained"))
GONE = Barrier(ALPHAS, (10.0, 90.0, 90.0), (0.1, math.nan, math.nan), ends=("trained", "diverged"))
KEY = Key(metric="barrier_to_next", network="convnet", dataset="digits", over="rounds")


def before(line: Barrier) -> Barrier:
    """A line as it stands in a store from before ends were recorded."""
    return replace(line, ends=None)


@pytest.fixture
def lab(tmp_path: Path) -> tb.Lab:
    return tb.Lab(tmp_path / "store")


def publish(lab: tb.Lab, described: Job, result: object) -> None:
    packed = result if isinstance(result, Packed) else pack(result)
    if isinstance(result, Barrier | Instability):
        text = json.dumps(packed.numbers)
        packed = Packed(json.loads(text.replace(', "ends": null', "")), {}, {})
    lab.store.publish(
        described.name, described.description(), packed, {"started": "2026-01-01", "seconds": 1.0}
    )


def runs_of(lab: tb.Lab, *ends: str) -> list[Job]:
    """The runs of a chain of which each ended so."""
    chain = imp_jobs("convnet", "digits", RECIPE, rounds=len(ends) - 1)
    for run, end in zip(chain, ends, strict=True):
        numbers: dict[str, Any] = {
            "accuracy": 90.0, "sparsity": 0.0, "failed": end != "trained", "diverged": end == "diverged",
        }  # fmt: skip
        publish(lab, run, Packed(numbers, {}, {}))
    return list(chain)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize(
    ("line", "value", "words"),
    [
        (SOUND, 15.0, ""), (STUCK, 35.0, "the first run stayed at chance"),
        (GONE, None, "the second run diverged"),
    ],
)  # fmt: skip
def test_every_table_marks_a_barrier_with_a_failed_end(
    lab: tb.Lab, line: Barrier, value: float | None, words: str, recorded: bool
) -> None:
    assert line.ends is not None
    runs = runs_of(lab, *line.ends)
    measure = job(tb.barrier, *runs, "digits", points=3)
    publish(lab, measure, line if recorded else before(line))
    results = Results(lab.store)
    measured = Measured(KEY, (measure,), one_barrier, epochs=4).numbers(results)
    item = ChainItem(KEY, "barrier", (measure,), (0,), 4, "rounds", "rounds", "height")
    [of_job] = [one for one in lab.table(measure) if one.key.metric == "barrier_to_next"]
    for number in (*measured, *item.numbers(results), of_job):
        assert (number.value, number.state) == (value, "measured" if value is not None else "undefined")
        assert number.failed == bool(words)
        assert words in number.note
        table = Table([number])
        for text in (table.csv(), table.json(), table.markdown()):
            assert words in text
        assert read_json(table.json()).numbers == table.numbers
        [row] = table.rows()
        assert (row["failed"], row["note"]) == (number.failed, number.note)
    text = io.StringIO()
    Console(file=text, width=300).print(listing(lab.store, "barrier"))
    shown = {15.0: "barrier 15.00 points", 35.0: "barrier 35.00 points*", None: "barrier undefined*"}[value]
    assert shown in text.getvalue()
    assert (f"{shown}*" in text.getvalue()) is False


def test_the_pairs_of_an_instability_are_marked_each(lab: tb.Lab) -> None:
    start = job(tb.initialize, "convnet", "digits")
    runs = [job(tb.train, start, "digits", RECIPE, noise=noise) for noise in (0, 1, 2)]
    for run, failed in zip(runs, (False, True, False), strict=True):
        numbers = {"accuracy": 9.0, "failed": failed, "diverged": failed, "sparsity": 0.0}
        publish(lab, run, Packed(numbers, {}, {}))
    mirrored = replace(GONE, losses=GONE.losses[::-1], errors=GONE.errors[::-1], ends=("diverged", "trained"))
    lines = (GONE, SOUND, mirrored)
    lines = tuple(replace(line, recalibrated=line) for line in lines)
    for number, kept in enumerate((lines, tuple(map(before, lines)))):
        measure = job(tb.instability, runs, "digits", points=3 + 2 * number)
        publish(lab, measure, Instability(kept, (0, 1, 2), 1))
        for read in (barrier_heights, recalibrated_heights, highest_errors, levels_reached):
            key = replace(KEY, metric="barrier", over="pairs")
            pairs = Measured(key, (measure,), read, epochs=4).numbers(Results(lab.store))
            assert [one.state for one in pairs] == ["undefined", "measured", "undefined"]
            assert [one.failed for one in pairs] == [True, False, True]
            assert ["the copy of noise 1 diverged" in one.note for one in pairs] == [True, False, True]
        cell = cell_of(pairs)
        assert cell is not None
        assert (cell.runs, cell.undefined, cell.failed) == (1, 2, True)
        assert "the copy of noise 1 diverged" in cell.note
        pairs = [one for one in lab.table(measure) if one.key.metric == "barrier"]
        assert [(one.state, one.failed) for one in pairs] == [
            ("undefined", True), ("measured", False), ("undefined", True),
        ]  # fmt: skip
        [height] = [one for one in lab.table(measure) if one.key.metric == "instability.height"]
        assert (height.state, height.failed) == ("undefined", True)
        assert height.note == "the copy of noise 1 diverged"


def test_a_line_over_infinite_losses_between_sound_runs_says_why_it_has_no_barrier(lab: tb.Lab) -> None:
    line = replace(SOUND, losses=(0.1, math.inf, 0.2))
    measure = job(tb.barrier, *runs_of(lab, "trained", "trained"), "digits", points=3)
    publish(lab, measure, line)
    [number] = Measured(KEY, (measure,), one_barrier, epochs=4).numbers(Results(lab.store))
    assert (number.state, number.failed) == ("undefined", False)
    assert number.note == "a loss on the line is not finite"
