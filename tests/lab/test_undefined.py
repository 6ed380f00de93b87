"""A measure of a run that diverged is undefined: finished, told with its reason everywhere, and never again.

The run is a real one, at a learning rate of 1e30.
"""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import tombola as tb
from tombola.errors import TicketError, Undefined
from tombola.experiments.chain_items import ChainItem
from tombola.lab.activity import Watcher
from tombola.lab.archive import import_
from tombola.lab.details import show_job
from tombola.lab.export import export
from tombola.lab.item import Measured, Reading
from tombola.lab.listing import listing
from tombola.lab.store import Store
from tombola.lab.tracked_job import tracked_jobs
from tombola.lab.verify import verify
from tombola.measures.predictions import check_finite

LOST = tb.Recipe(epochs=1, batch_size=400, lr=1e30, momentum=0.0)
SOUND = tb.Recipe(epochs=1, batch_size=400, lr=0.1, momentum=0.0)
START = tb.job(tb.initialize, "convnet", "digits", seed=0)
RUN, TRAINED = (tb.job(tb.train, START, "digits", recipe) for recipe in (LOST, SOUND))
SCORES = tb.job(tb.example_scores, RUN, "digits")
PARTS = [
    tb.job(
        tb.train,
        START,
        tb.job(tb.selected, "digits", tb.job(tb.random_selection, "digits", share=0.7, seed=seed)),
        LOST,
    )
    for seed in (0, 1)
]
MEASURES = {
    "hessian-eigenvalues": tb.job(tb.hessian_eigenvalues, RUN, "digits"),
    "hessian-trace": tb.job(tb.hessian_trace, RUN, "digits"),
    "box-sharpness": tb.job(tb.box_sharpness, RUN, "digits"),
    "sam-sharpness": tb.job(tb.sam_sharpness, RUN, "digits"),
    "margins": tb.job(tb.margins, RUN, "digits"),
    "el2n": SCORES,
    "grand": tb.job(tb.example_scores, RUN, "digits", score="grand-last-layer"),
    "gradient-noise": tb.job(tb.gradient_noise, RUN, "digits"),
    "curve": tb.job(tb.curve, TRAINED, RUN, "digits"),
    "plane": tb.job(tb.plane, [TRAINED, RUN, TRAINED], "digits"),
    "slice": tb.job(tb.loss_slice, RUN, "digits"),
    "herding": tb.job(tb.herding, RUN, "digits", share=0.1),
    "k-center": tb.job(tb.k_center, RUN, "digits", share=0.1),
    "memorization": tb.job(tb.memorization, PARTS, "digits"),
    "early-bird": tb.job(tb.early_bird, START, "digits", LOST),
    "edge-popup-accuracy": tb.job(tb.edge_popup_accuracy, START, "digits", LOST),
    "supermask-accuracy": tb.job(tb.supermask_accuracy, START, "digits", LOST),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    lab = tb.Lab(tmp_path_factory.mktemp("undefined") / "store")
    lab.run([RUN, TRAINED]).raise_failures()
    assert lab.result(RUN).diverged
    return lab


def shown(what: Any) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(what)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", MEASURES)
def test_it_is_finished_is_not_computed_again_and_says_why(lab: tb.Lab, name: str) -> None:
    measure = MEASURES[name]
    first = lab.run(measure)
    assert (first.failed, first.left, lab.has(measure)) == ({}, [], True)
    again = lab.run(measure)
    assert (again.computed, again.failed) == ([], {})
    why = lab.numbers(measure)["undefined"]
    assert "diverged" in why
    with pytest.raises(Undefined) as raised:
        lab.result(measure)
    assert str(raised.value) == why
    numbers = list(lab.table(measure))
    assert numbers
    for number in numbers:
        assert (number.state, number.value, number.failed, number.note) == ("undefined", None, True, why)
    [row] = [row for row in listing(lab.store).finished if row.name == measure.name]
    assert len(row.result) <= 60
    assert f"undefined*: {why}".startswith(row.result.removesuffix("…"))
    assert f"undefined: {why}" in shown(show_job(lab.store, measure.name))
    [key] = {number.key for number in numbers}
    item = ChainItem(key, measure.declaration.name, (measure,), (0,), 1)
    read = Measured(key, (measure,), lambda _: Reading((1.0,)), epochs=1)
    for number in (*item.numbers(lab.results()), *read.numbers(lab.results())):
        assert (number.state, number.failed, number.note) == ("undefined", True, why)


@pytest.mark.parametrize(
    "measure", [tb.hessian_trace, tb.sam_sharpness, tb.margins, tb.example_scores, tb.gradient_noise]
)
def test_a_direct_call_raises_one_line_that_says_what_to_do(
    lab: tb.Lab, measure: Callable[..., object]
) -> None:
    with pytest.raises(TicketError, match=r"^the run diverged, so there is no .* of it; measure one that"):
        measure(lab.result(RUN), "digits")


def test_a_barrier_keeps_its_value_that_says_which_run_diverged(lab: tb.Lab) -> None:
    line = lab.result(tb.job(tb.barrier, TRAINED, RUN, "digits", points=3))
    assert line.failures().endswith("the second run diverged")


def test_a_gap_stands_under_each_number_that_a_defined_measure_has(lab: tb.Lab) -> None:
    defined = tb.job(tb.margins, TRAINED, "digits")
    lab.run([defined, MEASURES["margins"]]).raise_failures()
    table = lab.table(defined, MEASURES["margins"])
    by_rate = {
        rate: {number.key.metric: number.state for number in table if number.key.get("lr") == rate}
        for rate in {number.key.get("lr") for number in table}
    }
    assert len(by_rate) == 2
    first, second = by_rate.values()
    assert first.keys() == second.keys()
    assert {*first.values(), *second.values()} == {"measured", "undefined"}


def test_what_is_made_of_an_undefined_measure_is_undefined_and_a_training_on_it_fails(lab: tb.Lab) -> None:
    selection = tb.job(tb.select_by_score, SCORES, "digits", share=0.1)
    assert not selection.stored
    why = "the run diverged, so there is no el2n of it"
    with pytest.raises(Undefined, match=why):
        lab.result(selection)
    assert {(number.state, number.note) for number in lab.table(selection)} == {("undefined", why)}
    run = tb.job(tb.train, START, tb.job(tb.selected, "digits", selection), SOUND)
    outcome = lab.run(run)
    assert outcome.failed[run.name] == why
    assert not lab.has(run)


@pytest.mark.parametrize("weights", [True, False])
def test_it_travels_is_intact_and_is_told_to_watchers_and_trackers(
    lab: tb.Lab, tmp_path: Path, weights: bool
) -> None:
    measure = MEASURES["margins"]
    lab.run(measure).raise_failures()
    export(lab.store, None, tmp_path / "jobs.zip", weights=weights)
    other = Store(tmp_path / "other")
    import_(other, tmp_path / "jobs.zip")
    assert list(verify(other)) == []
    [number] = tb.Lab(other.root).table(measure)
    assert (number.state, number.note) == ("undefined", lab.numbers(measure)["undefined"])
    watcher = Watcher(other)
    watcher.look()
    [row] = [row for row in watcher.rows if row.name == measure.name]
    assert row.result.startswith("undefined*: the run diverged")
    [tracked] = tracked_jobs(other, [measure.name], pytest.fail)
    assert tracked.numbers == {}


def test_what_is_not_finite_of_a_run_that_did_not_diverge_is_a_failure(
    start: tb.Ticket, digits: tb.Data
) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=100))
    with pytest.raises(TicketError, match="though the run did not diverge") as raised:
        check_finite(torch.tensor([math.nan]), "Hessian", "logits", run)
    assert not isinstance(raised.value, Undefined)
