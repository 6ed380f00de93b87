"""Data diets: pretraining and searching on a part of the train images, trainings on all."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tombola as tb
from tombola.data.subsets import subset
from tombola.errors import DataError, ExperimentError, RecipeError
from tombola.measures.data_diet import at_same_step
from tombola.measures.difficulty import forgotten_subset
from tombola.training.definitions import factor

Same = Callable[..., bool]
QUICK = tb.Recipe(epochs=3, batch_size=100, lr=0.1)
"""Twelve steps an epoch on all digits."""


@pytest.fixture(scope="module")
def everything(digits: tb.Data) -> tb.Data:
    """All digits as a part of them."""
    return tb.take(digits, range(len(digits.train)))


@pytest.fixture(scope="module")
def quarter(digits: tb.Data) -> tb.Data:
    """300 images: three steps an epoch."""
    return subset(digits, share=0.25)


# Steps


def test_a_recipe_on_a_share_of_the_images_takes_as_many_steps() -> None:
    recipe = tb.Recipe(epochs=10, schedule="step", milestones=(4, 9), warmup=1)
    longer = tb.as_many_steps(recipe, 0.25)
    assert (longer.epochs, longer.milestones, longer.warmup) == (40, (16, 36), 4)
    assert tb.as_many_steps(recipe, 1.0) == recipe
    assert tb.as_many_steps(recipe, 0.3).epochs == 33
    for share in (0, 1.1, math.nan):
        with pytest.raises(DataError, match="share is"):
            tb.as_many_steps(recipe, share)


def test_the_rate_at_the_same_step_is_the_same() -> None:
    longer = tb.as_many_steps(QUICK, 0.25)
    for step in (0, 5, 12, 35):
        assert factor(longer, step / 3) == pytest.approx(factor(QUICK, step / 12))
        assert factor(QUICK, step / 12) == pytest.approx(0.5 + 0.5 * math.cos(math.pi * step / 36))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0, 0, 1), (0, 0, 1)),
        ((1, 0, 1), (4, 0, 1)),
        ((0, 5, 12), (1, 2, 3)),
        ((2, 1, 12), (8, 1, 3)),
    ],
)
def test_a_ticket_is_at_the_same_step_of_either_schedule(
    start: tb.Ticket, digits: tb.Data, quarter: tb.Data, place: Any, expected: Any
) -> None:
    epoch, step, steps = place
    ticket = replace(start, epoch=epoch, step=step, steps=steps)
    there = at_same_step(ticket, before=digits, data=quarter, batch_size=100)
    assert (there.epoch, there.step, there.steps) == expected
    back = at_same_step(there, before=quarter, data=digits, batch_size=100)
    assert back.fingerprint == ticket.fingerprint


# A diet of everything is no diet


def test_pretraining_on_everything_is_pretraining(
    start: tb.Ticket, digits: tb.Data, everything: tb.Data
) -> None:
    for epochs in (1, "5it"):
        plain = tb.pretrain(start, digits, QUICK, epochs=epochs, noise=2)
        on_part = tb.pretrain_on_part(start, digits, QUICK, part=everything, epochs=epochs, noise=2)
        assert on_part.fingerprint == plain.fingerprint


def test_a_search_on_everything_is_iterative_pruning(
    start: tb.Ticket, digits: tb.Data, everything: tb.Data, same_run: Same
) -> None:
    rewound = tb.pretrain(start, digits, QUICK, epochs="5it", noise=9)
    options: dict[str, Any] = {"rounds": 1, "fraction": 0.5, "noise": 2}
    plain = list(tb.imp(rewound, digits, QUICK, **options))
    diet = list(tb.data_diet(rewound, digits, QUICK, part=everything, **options))
    assert [run.ticket.fingerprint for run in diet] == [run.ticket.fingerprint for run in plain]
    assert all(map(same_run, diet, plain))


# A quarter


def test_masks_come_from_the_part_and_accuracies_from_all(
    start: tb.Ticket, digits: tb.Data, quarter: tb.Data
) -> None:
    diet = list(tb.data_diet(start, digits, QUICK, part=quarter, rounds=1, fraction=0.5, noise=2))
    assert diet[0].fingerprint == tb.train(start, digits, QUICK, noise=2).fingerprint
    # The longer training of the search by hand: 12 epochs of three steps.
    found = tb.prune(
        tb.train(start, quarter, tb.Recipe(epochs=12, batch_size=100, lr=0.1), noise=2), fraction=0.5
    )
    assert diet[1].ticket.fingerprint == found.fingerprint
    assert diet[1].fingerprint == tb.train(found, digits, QUICK, noise=2).fingerprint
    assert len(diet[1].forgetting.events) == len(digits.train)
    short = list(
        tb.data_diet(start, digits, QUICK, part=quarter, rounds=1, fraction=0.5, noise=2, search=QUICK)
    )
    by_hand = tb.prune(tb.train(start, quarter, QUICK, noise=2), fraction=0.5)
    assert short[1].ticket.fingerprint == by_hand.fingerprint


def test_pretraining_on_a_part_takes_as_many_steps_and_stands_at_that_place(
    start: tb.Ticket, digits: tb.Data, quarter: tb.Data, same_bits: Same
) -> None:
    pretrained = tb.pretrain_on_part(start, digits, QUICK, part=quarter, epochs="14it", noise=4)
    assert (pretrained.epoch, pretrained.step, pretrained.steps) == (1, 2, 12)
    by_hand = tb.pretrain(
        start, quarter, tb.Recipe(epochs=12, batch_size=100, lr=0.1), epochs="14it", noise=4
    )
    assert same_bits(pretrained.start, by_hand.start)
    (dense, sparse) = tb.imp(pretrained, digits, QUICK, rounds=1)
    assert (dense.history[-1].epoch, sparse.ticket.place) == (3, "epoch 1, step 2 of 12")


def test_what_no_search_can_be_is_refused_at_once(
    start: tb.Ticket, digits: tb.Data, quarter: tb.Data
) -> None:
    with pytest.raises(RecipeError, match="rounds is -1"):
        tb.data_diet(start, digits, QUICK, part=quarter, rounds=-1)
    with pytest.raises(RecipeError, match="fraction is 2"):
        tb.data_diet(start, digits, QUICK, part=quarter, rounds=1, fraction=2)


# Experiments


def test_an_experiment_on_a_diet_is_the_librarys(tmp_path: Path, start: tb.Ticket, digits: tb.Data) -> None:
    recipe = {"epochs": 2, "batch_size": 400}
    diet = {"share": 0.5, "chosen": "most_forgotten"}
    experiment = tb.Experiment("diet", recipe=recipe, rounds=1, fraction=0.5, diet=diet)
    lab = tb.Lab(tmp_path / "store")
    bound = experiment.at()
    lab.run([one for item in bound.items for one in item.jobs]).raise_failures()
    dense = tb.train(start, digits, tb.Recipe(**recipe))
    part = forgotten_subset(digits, dense, which="most", share=0.5)
    expected = list(tb.data_diet(start, digits, tb.Recipe(**recipe), part=part, rounds=1, fraction=0.5))
    chain = experiment.chains()[0]
    assert [lab.result(run).fingerprint for run in chain] == [run.fingerprint for run in expected]
    numbers = [one for one in bound.numbers(lab.results()) if one.key.metric == "val_accuracy"]
    axes = {"search_subset": "most_forgotten", "search_subset_percent": 50}
    assert [dict(one.key.more) for one in numbers] == [axes, axes]
    # The key that is read off the job says it too, and how much longer the search was.
    (read,) = [one for one in lab.table(chain[1]) if one.key.metric == "val_accuracy"]
    assert axes.items() <= dict(read.key.more).items()
    assert (read.key.search_share, read.key.sparsity) == (2.0, 50.0)
    assert "The mask search sees 50% of the train images of each class, chosen most forgotten" in bound.about


@pytest.mark.parametrize(
    ("chosen", "keep", "scored_at"),
    [("el2n", "easy", 1), ("forgetting", "hard", None)],
)
def test_a_part_is_chosen_by_any_score_of_images(
    tmp_path: Path, start: tb.Ticket, digits: tb.Data, chosen: Any, keep: Any, scored_at: int | None
) -> None:
    recipe = {"epochs": 2, "batch_size": 400}
    diet = {"share": 0.5, "chosen": chosen, "keep": keep, "scored_at": scored_at}
    experiment = tb.Experiment("diet", recipe=recipe, rounds=1, fraction=0.5, diet=diet)
    lab = tb.Lab(tmp_path / "store")
    chain = experiment.chains()[0]
    lab.run(chain).raise_failures()
    if scored_at is not None:
        subject: Any = tb.pretrain(start, digits, tb.Recipe(**recipe), epochs=scored_at)
    else:
        subject = tb.train(start, digits, tb.Recipe(**recipe))
    scores = (
        tb.forgetting_scores(subject)
        if chosen == "forgetting"
        else tb.example_scores(subject, digits, score=chosen)
    )
    part = tb.selected(digits, tb.select_by_score(scores, digits, share=0.5, keep=keep, balanced=True))
    expected = list(tb.data_diet(start, digits, tb.Recipe(**recipe), part=part, rounds=1, fraction=0.5))
    assert [lab.result(run).fingerprint for run in chain] == [run.fingerprint for run in expected]
    own = {dict(item.key.more)["example_score"] for item in experiment.at().items}
    (read,) = [one for one in lab.table(chain[1]) if one.key.metric == "val_accuracy"]
    assert own == {dict(read.key.more)["example_score"]} == {chosen}
    assert f"{'hardest' if keep == 'hard' else 'easiest'} by {chosen}" in experiment.at().about


def test_a_diet_of_the_pretraining_is_a_start_of_its_own(
    tmp_path: Path, start: tb.Ticket, digits: tb.Data
) -> None:
    recipe = {"epochs": 2, "batch_size": 400}
    diet = {"share": 0.5, "stages": ["pretraining"]}
    experiment = tb.Experiment("diet", recipe=recipe, rounds=1, rewind="2it", diet=diet)
    lab = tb.Lab(tmp_path / "store")
    chain = experiment.chains()[0]
    lab.run(chain).raise_failures()
    on_part = tb.pretrain_on_part(
        start, digits, tb.Recipe(**recipe), part=subset(digits, share=0.5), epochs="2it"
    )
    expected = tb.imp(on_part, digits, tb.Recipe(**recipe), rounds=1)
    assert [lab.result(run).fingerprint for run in chain] == [run.fingerprint for run in expected]
    (read,) = [one for one in lab.table(chain[1]) if one.key.metric == "val_accuracy"]
    axes = {"pretraining_subset": "random_class_balanced", "pretraining_subset_percent": 50, "rewind": "2it"}
    assert dict(read.key.more) == axes
    assert read.key.pretrained


def test_controls_are_of_tickets_on_a_diet_and_other_searches_see_all_images(tmp_path: Path) -> None:
    experiment = tb.Experiment(
        "diet", recipe={"epochs": 2, "batch_size": 400}, rounds=1, diet={"share": 0.5, "chosen": "random"},
        searches={"prune-at-initialization": {"score": "snip"}}, controls=["permuted"],
    )  # fmt: skip
    dieted, permuted, found, _ = experiment.chains()
    assert permuted[1].arguments["ticket"].arguments["ticket"].name == dieted[1].arguments["ticket"].name
    assert found[1].arguments["ticket"].arguments["data"] == {"data": "digits"}
    own = [
        item.key for item in experiment.at().items if not getattr(item, "measure", "") and item.key.sparsity
    ]
    read = [one.key for one in tb.Lab(tmp_path / "store").table([dieted[1], permuted[1], found[1]])]
    axes = {"search_subset": "random_class_balanced", "search_subset_percent": 50}
    for key, of_job, expected in zip(own[:3], read, (axes, axes, {}), strict=True):
        for more in (key.more, of_job.more):
            assert {name: value for name, value in more if name.startswith("search_subset")} == expected


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"diet": {"share": 1.5}}, "share is 1.5; of a diet it must lie between 0 and 1"),
        ({"diet": {"chosen": "random"}}, "a diet has no share"),
        ({"diet": {"share": 0.5, "chosen": "least"}}, "no choice of a diet 'least'; known: el2n, entropy"),
        (
            {"diet": {"share": 0.5, "stages": ["training"]}},
            "stages is .*; give one or both of pretraining and search",
        ),
        ({"diet": {"part": 0.5}}, "no field of a diet 'part'"),
        ({"diet": {"share": 0.5, "keep": "easy"}}, "chosen is 'random'; keep goes with one of el2n"),
        ({"diet": {"share": 0.5, "chosen": "forgetting", "scored_at": 1}}, "scored_at with any of these but"),
        ({"diet": 0.5}, "diet is 0.5; give its fields by name"),
        ({"diet": {"share": 0.5}, "order_noise": 3}, "a diet goes with one noise; leave out order_noise"),
        (
            {"diet": {"share": 0.5}, "recipe": {"loss": "distillation"}, "teacher": "0a"},
            "a diet goes without distillation; leave out teacher",
        ),
    ],
)
def test_a_diet_that_there_is_not_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        tb.Experiment("diet", **fields)


def test_a_diet_of_a_pretraining_that_there_is_not_is_refused() -> None:
    diet = {"share": 0.5, "stages": "pretraining"}
    with pytest.raises(RecipeError, match="a diet of the pretraining needs late rewinding"):
        tb.Experiment("diet", recipe={"epochs": 2}, diet=diet).at()
