"""Predictors of winning on a made-up table whose gains and candidates are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tombola as tb
from tombola.errors import ExperimentError
from tombola.report.figure import draw
from tombola.report.terminal import grid_table
from tombola.table.key import Key
from tombola.table.number import Number
from tombola.table.table import Table
from tombola.views.picture import Picture
from tombola.views.predictors import (
    NOISE,
    NOISE_BY_RATE,
    Forecast,
    forecasts,
    predictor_exhibits,
    predictor_numbers,
    predictor_panels,
    sentences,
)

GAINS = {(0.0, 256): 0.7, (0.0, 100): 0.2, (0.9, 256): -0.3, (0.9, 100): -0.6}


def number(metric: str, value: float, momentum: float, batch_size: int, **fields: Any) -> Number:
    seed = fields.pop("seed", 0)
    key = Key(
        metric=metric, network="net", dataset="set", momentum=momentum, batch_size=batch_size,
        **{"pretrained": False, "sparsity": 0.0} | fields,
    )  # fmt: skip
    return Number(key=key, value=value, epochs=9, seed=seed)


def made_up(**fields: Any) -> list[Number]:
    """Four configurations: gains as above at 50%, and a sharpness that falls as they rise."""
    numbers = []
    for (momentum, batch_size), gain in GAINS.items():
        numbers += [
            number("val_accuracy", 90.0, momentum, batch_size, **fields),
            number("val_accuracy", 90.0 + gain, momentum, batch_size, **fields | {"sparsity": 50.0}),
            number("early_sharpness", 2 - gain, momentum, batch_size, **fields),
            number("test_error", 10.0, momentum, batch_size, **fields),
            number("forgetting_events", 3.0, momentum, batch_size, **fields),
        ]
    return numbers


def the_one(numbers: list[Number], sparsity: float | None = None) -> Forecast:
    [forecast] = forecasts(numbers, sparsity=sparsity)
    return forecast


def test_gains_and_candidates_are_read_off_the_table() -> None:
    forecast = the_one(made_up())
    assert forecast.sparsity == 50.0
    gains = {(one.key.momentum, one.key.batch_size): one.gain for one in forecast.configurations}
    assert gains == pytest.approx(GAINS)
    assert [one.winning for one in forecast.configurations] == [True, True, False, False]
    by_label = {one.label: one for one in forecast.candidates}
    # What is the same everywhere, and what is predicted itself, is no candidate.
    assert by_label.keys() == {NOISE, "early adaptive sharpness (nats)"}
    sharpness = by_label["early adaptive sharpness (nats)"].agreement
    assert sharpness is not None
    assert sharpness.spearman.value == sharpness.kendall.value == -1
    assert sorted(by_label[NOISE].values.values()) == pytest.approx([1 / 256, 1 / 100, 1 / 25.6, 1 / 10])


def test_a_gain_is_over_the_seeds_that_both_have() -> None:
    numbers = made_up()
    # A dense network of another seed says nothing of this ticket.
    numbers.append(number("val_accuracy", 80.0, 0.0, 256, seed=1))
    assert the_one(numbers).configurations[0].gain == pytest.approx(0.7)


def test_what_leaves_the_rewinding_open_is_of_both_halves() -> None:
    numbers = made_up() + [replace_pretrained(one) for one in made_up()]
    stable = {(0.0, 256): 1.0, (0.0, 100): 2.0, (0.9, 256): 5.0, (0.9, 100): 7.0}
    numbers += [
        number("first_stable_epoch", epoch, momentum, size, pretrained=None)
        for (momentum, size), epoch in stable.items()
    ]
    forecast = the_one(numbers)
    [candidate] = [one for one in forecast.candidates if one.label == "first stable epoch"]
    assert len(candidate.values) == 8
    assert candidate.agreement is not None
    assert candidate.agreement.spearman.value == pytest.approx(-1)


def replace_pretrained(one: Number) -> Number:
    return replace(one, key=replace(one.key, pretrained=True))


def test_what_is_not_of_a_chain_is_left_out() -> None:
    few = [number("val_accuracy", 99.0, 0.5, 64, sparsity=s, subset_percent=1) for s in (0.0, 50.0)]
    elsewhere = [number("val_accuracy", 99.0, 0.5, 64, sparsity=s, target="x") for s in (0.0, 50.0)]
    assert len(the_one([*made_up(), *few, *elsewhere]).configurations) == 4


def test_the_sparsity_is_the_highest_that_most_configurations_have() -> None:
    deeper = [number("val_accuracy", 88.0, *pair, sparsity=75.0) for pair in list(GAINS)[:3]]
    deepest = [number("val_accuracy", 80.0, *pair, sparsity=90.0) for pair in list(GAINS)[:2]]
    numbers = [*made_up(), *deeper, *deepest]
    assert the_one(numbers).sparsity == 75.0
    assert len(the_one(numbers, 90.0).configurations) == 2
    assert forecasts(numbers, sparsity=20.0) == []


def test_rates_that_differ_are_a_part_of_the_noise() -> None:
    forecast = the_one([*made_up(more=(("lr", 0.1),)), *made_up(more=(("lr", 0.2),))])
    noise = next(one for one in forecast.candidates if one.label == NOISE_BY_RATE)
    assert max(noise.values.values()) == pytest.approx(0.2 / 10)
    assert len(forecast.configurations) == 8


def test_a_measure_under_the_default_rate_is_of_no_configuration_with_another() -> None:
    numbers = made_up(more=(("lr", 0.2),)) + [
        number("first_stable_epoch", epoch, momentum, size)
        for epoch, (momentum, size) in enumerate(GAINS, start=1)
    ]
    assert "first stable epoch" not in {one.label for one in the_one(numbers).candidates}


def test_equal_noise_of_other_momenta_is_a_tie() -> None:
    numbers = made_up()
    numbers += [number("val_accuracy", 90.0 + s / 100, 0.75, 1024, sparsity=s) for s in (0.0, 50.0)]
    noise = next(one for one in the_one(numbers).candidates if one.label == NOISE)
    assert len(set(noise.values.values())) == 4


def test_it_says_how_little_four_points_can_say() -> None:
    first, second = sentences(the_one(made_up()))
    assert first.startswith("4 configurations of net on set with tickets of 50% sparsity")
    assert "no rank correlation of 4 is beyond chance at 5%" in second
    assert "of 2 candidates 0 are, where up to 0.1 would be" in second


def test_correlations_are_numbers_of_a_table_and_figure() -> None:
    forecast = the_one(made_up())
    table = Table(predictor_numbers(forecast))
    rho = {one.key.get("candidate"): one.value for one in table if one.key.metric == "spearman"}
    assert rho["early adaptive sharpness (nats)"] == pytest.approx(-1)
    assert tb.Table(table.numbers).csv() == table.csv()
    values, correlations = predictor_exhibits("predictors", [forecast])
    for exhibit in (values, correlations):
        assert grid_table(exhibit).row_count in (4, 2)
    panels = predictor_panels([forecast])
    assert [len(panel.lines) for panel in panels] == [4, 4]
    figure = draw(Picture("predictors", "", "", panels))
    assert {axes.get_xlabel() for axes in figure.axes} == {NOISE, "early adaptive sharpness (nats)"}


def test_an_experiment_takes_predictors_early_in_its_dense_trainings_alone() -> None:
    bound = tb.Experiment(
        name="early", recipe={"epochs": 9, "momentum": [0.0, 0.9]}, rewind=[0, 6], rounds=2,
        predictors={"gradient-noise.scale": {}, "early-bird.latest": {"window": 2}}, early=3,
    ).at()  # fmt: skip
    items = [item for item in bound.items if item.key.get("after") == 3]
    assert {item.key.sparsity for item in items} == {0.0}
    assert len(items) == 2 * 4
    by_measure: dict[str, list[Any]] = {}
    for item in items:
        by_measure.setdefault(item.jobs[0].declaration.name, []).append(item.jobs[0])
    subjects = [one.arguments["subject"] for one in by_measure["gradient-noise"]]
    # Of a chain that starts later than that, its start.
    assert sorted(one.arguments["epochs"] for one in subjects) == [3, 3, 6, 6]
    # What trains by itself is given the start that it shall train from.
    starts = [one.arguments["start"].declaration.name for one in by_measure["early-bird"]]
    assert sorted(starts) == ["initialize", "initialize", "pretrain", "pretrain"]


def test_predictors_are_measures_of_a_ticket() -> None:
    with pytest.raises(ExperimentError, match="predictor 'learning' takes run; it must take one ticket"):
        tb.Experiment(name="early", predictors=["learning"]).at()
