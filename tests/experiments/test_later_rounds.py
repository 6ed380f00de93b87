"""Measures between a round and all later ones: of two runs with each, of several with all together."""

from typing import Any

import pytest

import tombola as tb
from tombola.errors import ExperimentError
from tombola.experiments.experiment import Experiment

RECIPE = tb.Recipe(epochs=1, batch_size=400)
LINES = {"points": 3}


def items_of(between: dict[str, Any], **options: Any) -> list[Any]:
    experiment = Experiment("later", recipe=RECIPE, rounds=3, between={"later_rounds": between}, **options)
    return [item for item in experiment.at().items if getattr(item, "between", "")]


def test_a_measure_of_two_runs_is_taken_of_a_round_with_each_later_one() -> None:
    items = items_of({"barrier.height": LINES}, seeds=2)
    chains = Experiment("later", recipe=RECIPE, rounds=3, seeds=2).chains()
    expected = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    sparsities = [0.0, 20.0, 36.0, 48.8]
    assert [(item.key.sparsity, item.key.get("second_sparsity")) for item in items] == [
        (sparsities[first], sparsities[second]) for first, second in expected
    ]
    for item, (first, second) in zip(items, expected, strict=True):
        assert (item.seeds, item.over) == ((0, 1), "seeds")
        ends = [(job.arguments["first"].name, job.arguments["second"].name) for job in item.jobs]
        assert ends == [(chain[first].name, chain[second].name) for chain in chains]


def test_the_key_is_the_one_that_is_read_off_the_job(tmp_path: Any) -> None:
    items = items_of({"barrier.height": {}})
    distant = next(item for item in items if item.key.get("second_sparsity") == 48.8)
    (read,) = tb.Lab(tmp_path / "store").table(list(distant.jobs))
    (own,) = distant.numbers(tb.Lab(tmp_path / "store").results())
    assert read.key == own.key


def test_a_measure_of_several_runs_is_taken_of_a_round_and_all_later_ones() -> None:
    items = items_of({"basins.count": LINES})
    assert [item.key.sparsity for item in items] == [0.0, 20.0, 36.0]
    assert [len(item.jobs[0].arguments["runs"]) for item in items] == [4, 3, 2]
    assert all(item.key.get("second_sparsity") is None for item in items)


def test_a_measure_that_asks_for_a_recipe_gets_that_of_the_chains() -> None:
    (item, *_) = items_of({"pruning-robustness.height": {"factor": 2.0}})
    chain = Experiment("later", recipe=RECIPE, rounds=3).chains()[0]
    expected = tb.job(tb.pruning_robustness, chain[0], chain[1], "digits", RECIPE, factor=2.0)
    assert item.jobs[0].name == expected.name


def test_a_measure_of_one_run_is_none_between_rounds() -> None:
    with pytest.raises(ExperimentError, match="between runs a measure takes two of them, or a list"):
        items_of({"untrained": {}})


def test_of_controls_and_other_searches_no_later_round_follows() -> None:
    searches = {"prune-at-initialization": {"score": "snip"}}
    items = items_of({"barrier.height": LINES}, searches=searches, controls=["permuted"])
    chained = items_of({"barrier.height": LINES})
    assert [item.key.sparsity for item in items] == [item.key.sparsity for item in chained]
    assert {item.key.baseline for item in items} == {None}
