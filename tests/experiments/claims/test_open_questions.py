"""Possible answers to what the paper leaves open: what speaks for and against them, what they rest on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from tombola.experiments.bound import Bound
from tombola.experiments.claims.all_claims import CLAIMS, QUESTIONS, judge_questions
from tombola.experiments.claims.claim import Claim, judge, needed
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import printed_cells
from tombola.experiments.paper.scales import scale_named
from tombola.experiments.paper.studies import STUDIES
from tombola.lab.job import Job
from tombola.table.key import Key
from tombola.table.number import Cell, measured

ANSWERS = {question.name: question for question in QUESTIONS}


def cells(question: Claim, value: Callable[[Key], float]) -> Mapping[Key, Cell]:
    """Three runs close together for every number that an answer asks for."""
    return {
        key: measured(key, [value(key) - 0.01, value(key), value(key) + 0.01], epochs=200)
        for key in needed(question)
    }


def merged(key: Key) -> float:
    """Tickets err by 30%: half way to chance, which is 90% and more, is at 60% and more."""
    if key.metric == "val_accuracy":
        return 70.0
    return {"projection_excess": 0.5, "projection_error": 59.0, "excess_to_round": 1.0}[key.metric]


def vanished(key: Key) -> float:
    """At chance, from where the error only falls on the way to the ticket."""
    changed = {"projection_excess": 0.0, "projection_error": 99.6, "excess_to_round": 60.0}
    return changed[key.metric] if key.metric in changed else merged(key)


def behind_a_ridge(key: Key) -> float:
    return 2.5 if key.metric == "projection_excess" else merged(key)


def by_cause(key: Key) -> float:
    return {"noise": 40.0, "order": 38.0, "augmentation": 20.0}[str(key.get("differ_in"))]


def falling(key: Key) -> float:
    return 50.0 / (1 + float(key.get("pretrained_percent") or 0))


def rising_late(key: Key) -> float:
    return 30.0 if key.get("pretrained_percent") == 20 else falling(key)


def rising_below_the_limit(key: Key) -> float:
    return 1.9 if key.get("pretrained_percent") == 40 else min(falling(key), 1.0)


def probed(key: Key) -> float:
    by_configuration = 80.0 if (key.momentum, key.batch_size) == (0.0, 256) else 40.0
    return by_configuration + {"lr 0.0005": -1.5, "epochs x 4": 1.5}.get(str(key.get("head")), 0.0)


def upset(key: Key) -> float:
    return 20.0 if key.get("head") == "lr 0.05" and key.momentum == 0.0 else probed(key)


def noise(key: Key) -> float:
    assert key.batch_size is not None
    assert key.momentum is not None
    return 1 / (key.batch_size * (1 - key.momentum))


def by_noise(key: Key) -> float:
    """Tickets of little noise gain most; all that is measured early follows the noise and the rewinding."""
    late = 0.001 if key.pretrained else 0.0
    if key.metric == "val_accuracy":
        return 90 - (50 * noise(key) - late if key.sparsity else 0.0)
    return noise(key) + late


def by_batch(key: Key) -> float:
    """Half a point of gain for each doubling of the batch, and early measures without any order."""
    assert key.batch_size is not None
    if key.metric == "val_accuracy":
        return 90 + (0.3 * math.log2(key.batch_size) if key.sparsity else 0.0)
    return (key.batch_size * 7 + int(10 * (key.momentum or 0)) + bool(key.pretrained)) % 5 + 0.1


@pytest.mark.parametrize(
    ("name", "value", "status", "against"),
    [
        ("Q1", merged, "holds", 0), ("Q1", vanished, "partly", 16),
        ("Q1", behind_a_ridge, "partly", 16),
        ("Q2", merged, "fails", 16), ("Q2", vanished, "holds", 0),
        ("Q3", merged, "holds", 0), ("Q3", vanished, "fails", 24),
        ("Q4", by_cause, "holds", 0), ("Q4", lambda key: 50 - by_cause(key), "fails", 4),
        ("Q5", by_cause, "partly", 4),  # order has 38 of 40, augmentation 20
        ("Q6", falling, "holds", 0), ("Q6", rising_late, "partly", 2),
        ("Q6", rising_below_the_limit, "holds", 0),
        ("Q7", probed, "holds", 0), ("Q7", upset, "partly", 2),
        ("Q8", probed, "holds", 0), ("Q8", upset, "partly", 1),
        ("Q9", by_noise, "holds", 0), ("Q9", by_batch, "partly", 6),
        ("Q10", by_noise, "holds", 0), ("Q10", by_batch, "holds", 0),
        ("Q11", by_noise, "holds", 0), ("Q11", by_batch, "fails", 6),
    ],
)  # fmt: skip
def test_what_speaks_for_an_answer_and_against_it(
    name: str, value: Callable[[Key], float], status: str, against: int
) -> None:
    verdict = judge(ANSWERS[name], cells(ANSWERS[name], value))
    assert verdict.status == status
    assert verdict.listed - verdict.holding == against


def test_what_predicts_is_beyond_chance_and_nothing_beyond_chance_is_missed() -> None:
    """By counting all orders of eight."""
    ranks = np.arange(8)
    orders = np.array(list(itertools.permutations(ranks)))
    found = np.round(np.abs(1 - 6 * np.square(orders - ranks).sum(axis=1) / (8 * 63)), 12)
    least = min(value for value in np.unique(found) if (found >= value).mean() <= 0.05)
    verdict = judge(ANSWERS["Q11"], cells(ANSWERS["Q11"], by_noise))
    limits = {comparison.right.value for _, comparison in verdict.comparisons}
    assert [least >= limit > found[found < least].max() for limit in limits] == [True]


def test_answers_are_numbered_apart_from_the_papers_claims() -> None:
    assert [question.name for question in QUESTIONS] == [f"Q{number}" for number in range(1, 12)]
    assert {claim.letter for claim in CLAIMS} == {"C"}
    assert all(question.ours for question in QUESTIONS)


def test_the_paper_prints_not_enough_numbers_for_any_of_them() -> None:
    verdicts = judge_questions(printed_cells())
    assert {verdict.status for verdict in verdicts} == {"not computable yet"}
    assert all(verdict.missing for verdict in verdicts)


def test_what_a_stand_in_gave_answers_nothing() -> None:
    stand_ins = {
        key: replace(cell, stand_in="convnet on digits")
        for key, cell in cells(ANSWERS["Q4"], by_cause).items()
    }
    assert judge_questions(stand_ins)[3].status == "not computable yet"


@pytest.fixture(scope="module")
def shown() -> dict[str, set[Key]]:
    work = PaperJobs(scale_named("paper"))
    return {study.name: {item.key for item in study.at(work).items} for study in STUDIES}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_studies_measure_what_an_answer_needs_and_none_is_named_for_nothing(
    question: Claim, shown: dict[str, set[Key]]
) -> None:
    keys = set(needed(question))
    assert keys <= set().union(*(shown[name] for name in question.rests_on))
    assert all(keys & shown[name] for name in question.rests_on)


# The jobs behind them, on the paper's scale


def jobs_of_study(paper_studies: Mapping[str, Bound], name: str, **fields: object) -> list[Job]:
    """The jobs of the one item with these fields."""
    (found,) = [
        item
        for item in paper_studies[name].items
        if all(item.key.get(field) == value for field, value in fields.items())
    ]
    return list(found.jobs)


def test_copies_by_one_cause_share_the_other(paper_studies: Mapping[str, Bound]) -> None:
    settings = {"momentum": 0.9, "batch_size": 100}
    for cause, other in (("order", "augmentation"), ("augmentation", "order")):
        (measure,) = jobs_of_study(paper_studies, "noise-causes", differ_in=cause, **settings)
        runs = [run.arguments for run in measure.arguments["runs"]]
        assert [run.get(f"{cause}_noise", 0) for run in runs] == [0, 1, 2]
        assert {run.get("noise", 0) for run in runs} == {0}
        assert not any(f"{other}_noise" in run for run in runs)
        assert len({run["ticket"].name for run in runs}) == 1


def test_pretrained_copies_are_those_of_the_search_for_the_first_stable_epoch(
    paper_studies: Mapping[str, Bound],
) -> None:
    settings = {"momentum": 0.0, "batch_size": 256}
    (measure,) = jobs_of_study(paper_studies, "stability-by-length", pretrained_percent=10, **settings)
    work = PaperJobs(scale_named("paper"))
    (search,) = [
        item
        for item in next(study for study in STUDIES if study.name == "table15").at(work).items
        if item.key.dataset == "CIFAR-10" and (item.key.momentum, item.key.batch_size) == (0.0, 256)
    ]
    assert measure.name == search.starts[0].job(20).name  # 10% of 200 epochs


def test_probes_differ_in_what_their_name_says(paper_studies: Mapping[str, Bound]) -> None:
    settings = {"momentum": 0.0, "batch_size": 256}
    heads = {
        head: jobs_of_study(paper_studies, "probe-hyperparameters", head=head, **settings)[1].arguments
        for head in ("as in the paper", "lr 0.05", "epochs x 4", "momentum 0", "batch size 400")
    }
    usual = {"epochs": 5, "batch_size": 100, "lr": 0.005, "weight_decay": 1e-4, "schedule": "constant"}
    assert "recipe" not in heads["as in the paper"]  # which are probes as they are
    assert heads["lr 0.05"]["recipe"] == {**usual, "lr": 0.05}
    assert heads["epochs x 4"]["recipe"] == {**usual, "epochs": 20}
    assert heads["momentum 0"]["recipe"] == {**usual, "momentum": 0.0}
    assert heads["batch size 400"]["recipe"] == {**usual, "batch_size": 400}
    assert all(one["seed"] == 1 for one in heads.values())
