"""Experiments of one's own: their jobs, their numbers, and what is refused."""

import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import tombola as tb
from tombola.errors import ExperimentError, TombolaError
from tombola.experiments.chain_items import ChainItem
from tombola.experiments.compute import run_experiments
from tombola.experiments.experiment import Experiment
from tombola.experiments.from_file import read_all_experiments, read_experiments
from tombola.lab.chains import imp_jobs
from tombola.lab.item import jobs_of
from tombola.table.key import Key
from tombola.table.number import Cell, Entry, longest
from tombola.table.number import measured as measured_cell
from tombola.table.table import Table, read_csv

QUICK = {"epochs": 2, "batch_size": 400}


def items_of(experiment: Experiment) -> list[ChainItem]:
    """Its items, all of which are of chains."""
    items = [item for item in experiment.at().items if isinstance(item, ChainItem)]
    assert len(items) == len(experiment.at().items)
    return items


def measured(experiment: Experiment, folder: Path) -> tuple[tb.Lab, Table]:
    """A lab in which everything was run, and all numbers."""
    lab = tb.Lab(folder)
    bound = experiment.at()
    lab.run(jobs_of(bound.items)).raise_failures()
    return lab, Table(bound.numbers(lab.results()))


def by_metric(table: Table) -> dict[tuple[float | None, str, str], Cell]:
    """The cells by sparsity, metric and what their values are of, where nothing else tells them apart."""
    cells = longest(table.cells())
    placed = {(key.sparsity, key.metric, key.over): cell for key, cell in cells.items() if not key.more}
    assert len(placed) == len([key for key in cells if not key.more])
    return placed


def test_the_grid_is_all_combinations_and_its_chains_are_those_of_imp() -> None:
    experiment = Experiment(
        "mine", recipe={**QUICK, "momentum": [0.0, 0.9], "lr": [0.1, 0.2]}, rounds=1, seeds=2
    )
    assert [varied for varied, _ in experiment.recipes()] == [
        {"momentum": mu, "lr": lr} for mu in (0.0, 0.9) for lr in (0.1, 0.2)
    ]
    runs = [item for item in items_of(experiment) if not item.measure]
    assert [(item.key.sparsity, item.key.momentum, item.key.get("lr")) for item in runs] == [
        (sparsity, mu, lr) for mu in (0.0, 0.9) for lr in (0.1, 0.2) for sparsity in (0.0, 20.0)
    ]
    recipe = tb.Recipe(epochs=2, batch_size=400, momentum=0.0, lr=0.2)
    expected = [imp_jobs("convnet", "digits", recipe, rounds=1, seed=seed)[1].name for seed in (0, 1)]
    assert [job.name for job in runs[3].jobs] == expected


def test_several_epochs_to_rewind_to_are_an_axis_of_their_own() -> None:
    experiment = Experiment("mine", recipe=QUICK | {"epochs": 3}, rewind=[0, 1, 2], rounds=1)
    keys = [item.key for item in items_of(experiment) if not item.measure and not item.key.sparsity]
    assert [(key.pretrained, key.get("rewind")) for key in keys] == [(False, 0), (True, 1), (True, 2)]
    two = Experiment("mine", recipe=QUICK, rewind=[0, 1])
    assert [(item.key.pretrained, item.key.more) for item in items_of(two)] == [(False, ()), (True, ())]


def test_late_rewinding_has_a_noise_of_its_own_where_that_is_asked_for() -> None:
    recipe = tb.Recipe(**QUICK)
    for own, noise in ((False, None), (True, 101)):
        experiment = Experiment("mine", recipe=QUICK, rewind=1, seeds=2, own_pretraining_noise=own)
        (item,) = items_of(experiment)
        expected = imp_jobs("convnet", "digits", recipe, rounds=0, rewind=1, seed=1, pretraining_noise=noise)
        assert item.jobs[1].name == expected[0].name


def test_the_initialisation_of_an_experiment_is_that_of_its_starts() -> None:
    experiment = Experiment("mine", recipe=QUICK, init="glorot-normal")
    (item,) = items_of(experiment)
    recipe = tb.Recipe(**QUICK)
    (expected,) = imp_jobs("convnet", "digits", recipe, rounds=0, init="glorot-normal")
    assert item.jobs[0].name == expected.name
    assert expected.parents[0].arguments["init"] == "glorot-normal"
    assert expected.name != imp_jobs("convnet", "digits", recipe, rounds=0)[0].name
    with pytest.raises(TombolaError, match="no initialisation 'glorot'; did you mean 'glorot-normal'"):
        Experiment("mine", recipe=QUICK, init="glorot").at()


def test_experiments_that_differ_in_first_weights_or_noise_alone_are_no_repetitions_of_each_other() -> None:
    quick: dict[str, Any] = {"recipe": QUICK, "rounds": 1}
    for options, axes in (
        ({}, {}),
        ({"init": "glorot-normal"}, {"init": "glorot-normal"}),
        ({"same_noise": True}, {"same_noise": True}),
        ({"seeds": [7], "order_noise": 9}, {"order_noise": "seed+2"}),
        ({"seeds": [7], "augmentation_noise": 7}, {}),
        ({"seeds": [7, 8], "augmentation_noise": 7}, {"augmentation_noise": 7}),
    ):
        runs = [item for item in items_of(Experiment("mine", **quick, **options)) if not item.measure]
        assert [dict(item.key.more) for item in runs] == [axes, axes], options


def test_causes_of_noise_have_numbers_of_their_own_in_chains_of_every_seed() -> None:
    experiment = Experiment("mine", recipe=QUICK, rounds=1, rewind=1, seeds=2, order_noise=5)
    recipe = tb.Recipe(**QUICK)
    expected = [
        imp_jobs("convnet", "digits", recipe, rounds=1, rewind=1, seed=seed, order_noise=5) for seed in (0, 1)
    ]
    assert [[run.name for run in chain] for chain in experiment.chains()] == [
        [run.name for run in chain] for chain in expected
    ]
    assert experiment.about.endswith("The order noise has a number of its own, 5.")


def test_several_scores_make_chains_and_rows_by_each() -> None:
    experiment = Experiment("mine", recipe=QUICK, rounds=1, score=["magnitude", "movement"], scope="erk")
    runs = [item for item in items_of(experiment) if not item.measure]
    assert [(item.key.sparsity, item.key.get("score"), item.key.get("scope")) for item in runs] == [
        (sparsity, score, "erk") for score in ("magnitude", "movement") for sparsity in (0.0, 20.0)
    ]
    recipe = tb.Recipe(**QUICK)
    for place, score in ((1, "magnitude"), (3, "movement")):
        expected = imp_jobs("convnet", "digits", recipe, rounds=1, score=score, scope="erk")
        assert runs[place].jobs[0].name == expected[1].name
    assert (
        "the 20% lowest of the remaining weights by the score magnitude or movement (separate chains) are"
        in (experiment.about)
    )
    (plain,) = items_of(Experiment("mine", recipe=QUICK))
    assert not plain.key.more


def test_an_older_version_of_a_score_stays_the_older_one(tmp_path: Path) -> None:
    @tb.declare_score("versioned")
    def lowest(run: tb.Run) -> dict[str, Tensor]:
        return {name: -run.weights[name] for name in run.ticket.mask}

    @tb.declare_score("versioned", version=2)
    def highest(run: tb.Run) -> dict[str, Tensor]:
        return {name: run.weights[name] for name in run.ticket.mask}

    scores = ["versioned@1", "versioned"]
    experiment = Experiment("mine", recipe=QUICK, rounds=1, fraction=0.5, score=scores)
    lab, table = measured(experiment, tmp_path)
    assert {number.key.get("score") for number in table} == {"versioned", "versioned@2"}
    first, second = (
        lab.result(item.jobs[0]).ticket.mask
        for item in items_of(experiment)
        if item.key.sparsity == 50.0 and not item.measure
    )
    assert not any((first[name] & second[name]).any() for name in first)


def test_an_experiment_has_the_criterion_of_its_prunings_in_its_keys_and_jobs() -> None:
    options: dict[str, Any] = {
        "same_sign": True,
        "invert": True,
        "exclude": ["0.weight"],
        "score": "movement",
    }
    experiment = Experiment("mine", recipe=QUICK, rounds=2, fraction=[0.5, 0.2], **options)
    runs = [item for item in items_of(experiment) if not item.measure]
    assert [item.key.sparsity for item in runs] == [0.0, 50.0, 60.0]
    assert dict(runs[1].key.more) == {**options, "exclude": '["0.weight"]'}
    expected = imp_jobs("convnet", "digits", tb.Recipe(**QUICK), rounds=2, fraction=[0.5, 0.2], **options)
    assert [item.jobs[0].name for item in runs] == [job.name for job in expected]
    assert "2 rounds of pruning: the 50% then 20% highest of the remaining weights by the score movement" in (
        experiment.about
    )


def test_rounds_that_two_decimals_do_not_tell_apart_have_keys_of_their_own() -> None:
    experiment = Experiment("mine", recipe=QUICK, rounds=6, fraction=0.9)
    sparsities = [item.key.sparsity for item in items_of(experiment) if not item.measure]
    assert sparsities == pytest.approx([0.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999])
    assert len(set(sparsities)) == 7


def test_measures_are_taken_of_every_round(tmp_path: Path, digits: tb.Data) -> None:
    experiment = Experiment(
        "mine", recipe=QUICK, rounds=1, seeds=2,
        measures={"untrained": {}, "convergence": {}, "probe": {"blocks": ["5"], "head": "14"}},
    )  # fmt: skip
    lab = tb.Lab(tmp_path)
    before = Table(experiment.at().numbers(lab.results()))
    assert {number.state for number in before} == {"missing"}
    assert before.cells(partial=True) == {}
    lab, table = measured(experiment, tmp_path)
    cells = by_metric(table)
    recipe = tb.Recipe(epochs=2, batch_size=400)
    runs = [
        list(tb.imp(tb.initialize("convnet", digits, seed=n), digits, recipe, rounds=1, noise=n))
        for n in (0, 1)
    ]
    for number, sparsity in enumerate((0.0, 20.0)):
        of_round = [chain[number] for chain in runs]
        accuracy = cells[sparsity, "val_accuracy", "seeds"]
        assert accuracy.values == tuple(run.accuracy for run in of_round)
        assert accuracy.seeds == (0, 1)
        assert accuracy.failed == any(run.failed for run in of_round)
        untrained = tuple(tb.untrained(run.ticket, digits).accuracy for run in of_round)
        assert cells[sparsity, "untrained_accuracy", "seeds"].values == untrained
        known = [value for run in of_round if (value := tb.convergence(run)) is not None]
        assert cells[sparsity, "convergence", "seeds"].values == tuple(known)
        assert statistics.mean(cells[sparsity, "probe.accuracy[0]", "seeds"].values) > 0
        if number:
            for name, keep in of_round[0].ticket.mask.items():
                (share,) = [
                    entry.value for entry in table if entry.key.get("layer") == name and entry.seed == 0
                ]
                assert share == pytest.approx(1 - int(keep.sum()) / keep.numel())
    # The accuracies carry their course: test error by epoch, from before any step.
    (first,) = [n for n in table if n.key.metric == "val_accuracy" and n.key.sparsity == 0 and n.seed == 0]
    assert first.curve is not None
    assert first.curve.x == (0, 1, 2)
    assert first.curve.y == pytest.approx([100 - row.test_accuracy for row in runs[0][0].history])


def test_the_record_of_learning_has_the_names_and_units_of_the_table(tmp_path: Path, digits: tb.Data) -> None:
    experiment = Experiment("mine", recipe=QUICK, measures=["learning.forgetting", "learning.convergence"])
    _, table = measured(experiment, tmp_path)
    run = tb.train(tb.initialize("convnet", digits, seed=0), digits, tb.Recipe(**QUICK), noise=0)
    forgetting = tb.forgetting(run)
    numbers = {number.key.metric: number for number in table}
    assert numbers["forgetting_events"].value == forgetting.events_mean
    assert numbers["forgetting_spread"].value == forgetting.events_std
    assert numbers["unforgettable_percent"].value == pytest.approx(100 * forgetting.unforgettable)
    assert numbers["convergence"].value == tb.convergence(run)
    curve = numbers["forgetting_events"].curve
    assert curve is not None
    assert curve.x == (1, 2)
    assert sum(curve.y) == pytest.approx(forgetting.events_mean)


def test_measures_between_copies_and_rounds_are_those_of_the_library(tmp_path: Path, digits: tb.Data) -> None:
    of_three = {"points": 3}
    experiment = Experiment(
        "mine", recipe=QUICK, rounds=1, seeds=2, copies=2,
        between={
            "copies": {"instability.height": of_three, "barrier.height": of_three},
            "rounds": {"barrier.height": of_three},
        },
    )  # fmt: skip
    _, table = measured(experiment, tmp_path)
    cells = by_metric(table)
    assert {place for place in cells if place[1] != "val_accuracy"} == {
        *((sparsity, "instability.height", "copies") for sparsity in (0.0, 20.0)),
        *((sparsity, "barrier", "pairs") for sparsity in (0.0, 20.0)),
        (0.0, "barrier_to_next", "rounds"),  # from the last round there is no next
    }
    recipe = tb.Recipe(epochs=2, batch_size=400)
    copied: dict[int, list[float]] = {0: [], 1: []}
    stepped = []
    for seed in (0, 1):
        start = tb.initialize("convnet", digits, seed=seed)
        first, second = tb.imp(start, digits, recipe, rounds=1, noise=seed)
        stepped.append(tb.barrier(first, second, digits, points=3))
        for number, run in enumerate((first, second)):
            other = tb.train(run.ticket, digits, recipe, noise=seed + 1)
            copied[number].append(tb.barrier(run, other, digits, points=3).height)
    assert cells[0.0, "barrier_to_next", "rounds"].values == tuple(line.height for line in stepped)
    for number, sparsity in enumerate((0.0, 20.0)):
        for metric, over in (("instability.height", "copies"), ("barrier", "pairs")):
            cell = cells[sparsity, metric, over]
            assert cell.values == tuple(copied[number])
            assert cell.failed == cells[sparsity, "val_accuracy", "seeds"].failed
    (number,) = [n for n in table if n.key.metric == "barrier_to_next" and n.seed == 1]
    assert number.curve is not None
    assert (number.curve.x, number.curve.y) == (stepped[1].alphas, stepped[1].errors)


def test_a_measure_of_two_runs_is_taken_of_every_pair_of_copies() -> None:
    experiment = Experiment("mine", recipe=QUICK, seeds=2, copies=3, between={"copies": ["barrier"]})
    (item,) = [item for item in items_of(experiment) if item.between]
    noises = [
        tuple(job.arguments[end].arguments.get("noise", 0) for end in ("first", "second"))
        for job in item.jobs
    ]
    assert noises == [(0, 1), (0, 2), (1, 2), (1, 2), (1, 3), (2, 3)]
    assert item.seeds == (0, 0, 0, 1, 1, 1)


def test_copies_can_differ_in_one_cause_of_noise_each_kind_beside_the_others() -> None:
    causes = ["noise", "order", "augmentation"]
    experiment = Experiment(
        "mine", recipe=QUICK, copies=2, seeds=2, differ_in=causes, between={"copies": ["barrier"]}
    )
    items = [item for item in items_of(experiment) if item.between]
    assert [dict(item.key.more) for item in items] == [
        {},
        {"differ_in": "order"},
        {"differ_in": "augmentation"},
    ]
    (own,) = [item for item in items_of(experiment) if not item.measure]
    for item, name in zip(items, ["noise", "order_noise", "augmentation_noise"], strict=True):
        for seed, job in enumerate(item.jobs):
            first, second = job.arguments["first"], job.arguments["second"]
            assert first.name == own.jobs[seed].name
            expected = {**first.arguments, name: seed + 1}
            assert second.arguments == expected
    assert [item.key.more for item in items_of(experiment) if not item.between] == [()]


def test_chains_are_made_for_each_rewinding_and_share_their_dense_runs() -> None:
    both = Experiment("mine", recipe=QUICK, rounds=1, rewinding=["weights", "learning_rate"])
    runs = [item for item in items_of(both) if not item.measure]
    assert [dict(item.key.more) for item in runs] == [
        {"rewinding": "weights"}, {"rewinding": "weights"},
        {"rewinding": "learning_rate"}, {"rewinding": "learning_rate"},
    ]  # fmt: skip
    assert runs[0].jobs[0].name == runs[2].jobs[0].name
    assert runs[1].jobs[0].name != runs[3].jobs[0].name
    assert runs[3].jobs[0].arguments["ticket"].arguments["rewinding"] == "learning_rate"
    assert "the rest go back to initialisation or the rest stay as they are" in both.about
    plain = Experiment("mine", recipe=QUICK, rounds=1)
    assert [item.key.more for item in items_of(plain) if not item.measure] == [(), ()]


def test_places_to_rewind_to_may_be_in_iterations_and_lengths_may_be_text() -> None:
    experiment = Experiment(
        "mine", recipe={**QUICK, "epochs": ["2ep", 3]}, rounds=1, rewind=["1ep", "2it", "0it"]
    )
    keys = [item.key for item in items_of(experiment) if not item.measure]
    assert {(key.get("rewind"), key.pretrained) for key in keys} == {(1, True), ("2it", True), (0, False)}
    assert {key.get("budget") for key in keys} == {2, 3}
    assert "go back to epoch 1, iteration 2 or initialisation (separate chains)" in experiment.about
    assert "trained for 2 and 3 epochs" in experiment.about
    numbers = [experiment.rewinds, *(recipe.epochs for _, recipe in experiment.recipes())]
    assert numbers == [(1, "2it", 0), 2, 3]


def test_copies_are_trained_at_the_rounds_that_ask_for_them_only() -> None:
    experiment = Experiment(
        "mine", recipe=QUICK, rounds=3, copies=2, copies_at=[0, 3], between={"copies": ["barrier"]}
    )
    copied = [item.key.sparsity for item in items_of(experiment) if item.between]
    assert copied == [0.0, pytest.approx(48.8)]
    everywhere = Experiment("mine", recipe=QUICK, rounds=3, copies=2, between={"copies": ["barrier"]})
    assert len([item for item in items_of(everywhere) if item.between]) == 4


def test_a_measure_with_several_option_sets_is_taken_with_each(tmp_path: Path, digits: tb.Data) -> None:
    lines = [{"points": 3}, {"points": 5}, {"points": 3, "recalibrate": True}]
    experiment = Experiment(
        "mine", recipe=QUICK, copies=2,
        measures={"untrained.loss": [{}, {"recalibrate": True}]},
        between={"copies": {"barrier.height": lines}},
    )  # fmt: skip
    _, table = measured(experiment, tmp_path)
    values = {
        (
            number.key.metric,
            number.key.get("barrier.points"),
            number.key.get("untrained.recalibrate"),
        ): number.value
        for number in table
        if number.key.metric != "val_accuracy"
    }
    recipe = tb.Recipe(**QUICK)
    start = tb.initialize("convnet", digits, seed=0)
    first, second = (tb.train(start, digits, recipe, noise=noise) for noise in (0, 1))
    assert values == {
        ("untrained.loss", None, None): tb.untrained(start, digits).loss,
        ("untrained.loss", None, True): tb.untrained(start, digits, recalibrate=True).loss,
        ("barrier", 3, None): tb.barrier(first, second, digits, points=3).height,
        ("barrier", 5, None): tb.barrier(first, second, digits, points=5).height,
        ("recalibrated_barrier", 3, None): tb.barrier(
            first, second, digits, points=3, recalibrate=True
        ).height,
    }


def test_a_number_has_one_name_by_its_experiment_and_by_its_job(tmp_path: Path) -> None:
    experiment = Experiment(
        "mine", recipe=QUICK, rounds=1, fraction=0.9, copies=2,
        measures={"untrained": [{}, {"recalibrate": True}], "learning.forgetting.events_mean": {}},
        between={
            "copies": {"barrier.height": [{"points": 3}, {"points": 3, "recalibrate": True}]},
            "rounds": {"barrier.height": {"points": 3}},
        },
    )  # fmt: skip
    lab, table = measured(experiment, tmp_path)
    jobs = jobs_of(experiment.at().items)
    by_job: dict[object, set[float | None]] = {}
    for number in lab.table(*jobs):
        by_job.setdefault((number.jobs, number.key.metric, number.key.sparsity), set()).add(number.value)
    metrics = set()
    for number in table:
        assert number.value in by_job[number.jobs, number.key.metric, number.key.sparsity]
        metrics.add(number.key.metric)
    assert metrics == {
        "val_accuracy", "untrained.loss", "untrained_accuracy", "recalibrated_untrained_accuracy",
        "forgetting_events", "barrier", "recalibrated_barrier", "barrier_to_next", "layer_sparsity",
    }  # fmt: skip
    by_experiment, alone = (
        {one.key.get("layer") for one in numbers if one.key.metric == "layer_sparsity"}
        for numbers in (table, lab.table(*jobs))
    )
    assert by_experiment == alone == {f"{place}.weight" for place in (0, 3, 6, 9, 14)}


def test_a_number_that_two_measures_have_is_one_repetition(tmp_path: Path) -> None:
    experiment = Experiment("mine", recipe=QUICK, seeds=2, measures=["learning.convergence", "convergence"])
    lab, _ = measured(experiment, tmp_path)
    (entry,) = [
        entry
        for exhibit in experiment.at().exhibits(lab.results())
        for entry in exhibit.entries
        if entry.key.metric == "convergence"
    ]
    assert entry.cell is not None
    assert entry.cell.runs == 2


def test_one_seed_or_epoch_is_told_as_one() -> None:
    about = Experiment("mine", recipe={"epochs": 1}).at().about
    assert "trained for 1 epoch with" in about
    assert "All of it with 1 seed, which is one draw of the first weights" in about
    assert Experiment("mine", recipe={"epochs": 1}).at().budget == "1 epoch, 1 seed"
    several = Experiment("mine", recipe={"epochs": 3}, rounds=1, rewind=[0, 2], seeds=2).at().about
    assert "go back to initialisation or epoch 2 (separate chains)" in several
    assert "All of it with 2 seeds, which differ in" in several


def test_a_single_chain_is_described_as_it_was_made() -> None:
    recipe = tb.Recipe(epochs=2, schedule="step", milestones=(1,))
    options: dict[str, Any] = {"scope": "layerwise", "exclude": ["14.weight"], "init": "orthogonal"}
    experiment = Experiment(
        "chain", recipe=recipe, rounds=1, fraction=0.5, seeds=[7], same_noise=True, **options
    )
    expected = imp_jobs(
        "convnet", "digits", recipe, rounds=1, fraction=0.5, seed=7, same_noise=True, **options
    )
    assert [[run.name for run in chain] for chain in experiment.chains()] == [[run.name for run in expected]]
    bound = experiment.at()
    for words in (
        "the 50% smallest of the remaining weights of each layer are removed",
        "Never pruned: 14.weight.", "drawn by the scheme orthogonal", "milestones 1",
        "Seed 7 numbers the draw of the first weights and the noise of training, the same in every round",
    ):  # fmt: skip
        assert words in bound.about
    assert bound.budget == "2 epochs, seed 7"
    (key,) = [
        item.key for item in bound.items if item.key.sparsity == 50 and not getattr(item, "measure", "")
    ]
    layer = replace(key, metric="layer_sparsity", more=(("layer", "conv1.weight"),))
    (caption,) = [
        exhibit.picture.caption
        for exhibit in bound.show(bound, [Entry(layer, (), measured_cell(layer, [0.5], epochs=2))])
        if exhibit.picture
    ]
    assert "each layer is ranked by itself" in caption


def test_seeds_are_numbered_as_they_were_given() -> None:
    experiment = Experiment(
        "mine", recipe={"epochs": 2, "momentum": [0.0, 0.9]}, rounds=1, seeds=[5, 3], copies=2,
        between={"copies": ["barrier"]},
    )  # fmt: skip
    chains = experiment.chains()
    assert [chain[0].arguments["noise"] for chain in chains] == [5, 3, 5, 3]
    recipes = [tb.Recipe(epochs=2, momentum=momentum) for momentum in (0.0, 0.9)]
    expected = [
        imp_jobs("convnet", "digits", recipe, rounds=1, seed=seed) for recipe in recipes for seed in (5, 3)
    ]
    assert [[run.name for run in chain] for chain in chains] == [
        [run.name for run in chain] for chain in expected
    ]
    for item in items_of(experiment):
        if item.between:
            pairs = [(line.arguments["first"], line.arguments["second"]) for line in item.jobs]
            noises = [[run.arguments["noise"] for run in pair] for pair in pairs]
            assert (item.seeds, noises) == ((5, 3), [[5, 6], [3, 4]])
    bound = experiment.at()
    assert bound.budget == "2 epochs, seeds 5 and 3"
    assert "Seeds 5 and 3 number the draw of the first weights and the noise of training, another in" in (
        bound.about
    )


def test_a_cell_is_there_when_all_of_its_pairs_are(tmp_path: Path) -> None:
    """A gap of one seed is not filled by the pairs of another."""
    experiment = Experiment(
        "mine", recipe=QUICK, seeds=2, copies=2, between={"copies": {"barrier.height": {"points": 3}}}
    )
    bound = experiment.at()
    (barriers,) = [item for item in items_of(experiment) if item.between]
    lab = tb.Lab(tmp_path)
    lab.run(barriers.jobs[0]).raise_failures()
    table = Table(bound.numbers(lab.results()))
    states = [number.state for number in table if number.key.metric == "barrier"]
    assert states == ["measured", "missing"]
    assert [key for key in table.cells() if key.metric == "barrier"] == []


def test_epochs_as_an_axis_have_a_column_of_their_own(tmp_path: Path) -> None:
    experiment = Experiment("mine", recipe=QUICK | {"epochs": [1, 2]})
    _, table = measured(experiment, tmp_path)
    assert [(number.key.get("budget"), number.epochs) for number in table] == [(1, 1), (2, 2)]
    assert read_csv(table.csv()).numbers[0].key == table.numbers[0].key
    assert isinstance(table.numbers[0].key, Key)


def test_recipes_of_a_grid_may_differ_in_their_augmentation() -> None:
    choices = [{"cutout": 2}, {"pad": 0}, tb.Augmentation()]
    experiment = Experiment("mine", ["convnet"], ["digits"], {"epochs": 1, "augmentation": choices})
    recipes = [recipe for _, recipe in experiment.recipes()]
    augmentations = [tb.Augmentation(cutout=2), tb.Augmentation(pad=0), tb.Augmentation()]
    assert recipes == [tb.Recipe(epochs=1, augmentation=augmentation) for augmentation in augmentations]
    items = experiment.at().items
    assert [dict(item.key.more)["augmentation"] for item in items] == ["cutout 2", "pad 0", "as usual"]
    assert "augmentation cutout 2, pad 0 and as usual" in experiment.at().about


def test_a_study_written_before_has_the_same_class() -> None:
    assert tb.OwnStudy is tb.Experiment is Experiment


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"recipe": {"epoch": 3}}, "mine: no field of a recipe 'epoch'; did you mean 'epochs'?"),
        ({"recipe": {"epochs": 0}}, "epochs is 0; it must be a whole number, at least 1"),
        ({"recipe": {"lr": "fast"}}, "mine: recipe has lr = 'fast'; it must be a number"),
        ({"recipe": {"milestones": 3}}, "mine: the recipe does not fit: "),
        (
            {"recipe": {"augmentation": "lit"}},
            "mine: the recipe does not fit: augmentation is 'lit'",
        ),
        ({"recipe": {"augmentation": [{"cut": 1}]}}, "mine: the recipe does not fit: "),
        ({"networks": "convnet"}, "mine: networks is 'convnet'; give a list of at least one"),
        ({"networks": ["convnett"]}, "no network 'convnett'; did you mean 'convnet'?"),
        ({"measures": "probe"}, "mine: measures is 'probe'; give a list, ['probe']"),
        ({"measures": ["prob"]}, "no declared function 'prob'; did you mean 'probe'?"),
        (
            {"measures": ["barrier"]},
            "mine: measure 'barrier' takes first, second; here a measure takes one run or ticket and, if it "
            "wants, data and recipe; one of several runs belongs under between",
        ),
        (
            {"measures": ["untrained.los"]},
            "mine: no number of measure 'untrained' 'los'; did you mean 'loss'?",
        ),
        (
            {"between": {"copies": ["untrained"]}},
            "mine: measure 'untrained' takes ticket; between runs a measure takes two of them, or a list, "
            "and, if it wants, data and recipe",
        ),
        (
            {"between": {"copy": ["barrier"]}},
            "mine: no kind of runs to measure between 'copy'; did you mean 'copies'?",
        ),
        (
            {"between": ["barrier"]},
            "mine: between is ['barrier']; give measures for each of copies and rounds",
        ),
        ({"between": {"rounds": "barrier"}}, "mine: rounds is 'barrier'; give a list, ['barrier']"),
        ({"name": 3}, "an experiment is called 3; its name must do as the name of a file"),
        ({"networks": 3}, "mine: networks is 3; give a list of at least one"),
        ({"data": 3}, "mine: data is 3; give a list of at least one"),
        ({"recipe": 3}, "mine: recipe is 3; give its fields by name"),
        ({"recipe": {"momentum": "x"}}, "mine: recipe has momentum = 'x'; it must be a number"),
        ({"recipe": {"lr": [0.1, True]}}, "mine: recipe has lr = True; it must be a number"),
        ({"recipe": {"momentum": []}}, "mine: recipe has momentum = []; give at least one value"),
        ({"measures": 3}, "mine: measures is 3; give a list of measures"),
        (
            {"measures": {"untrained": 3}},
            "mine: measures has untrained = 3; give its options by name, or {}",
        ),
        ({"between": {"rounds": 3}}, "mine: rounds is 3; give a list of measures"),
        ({"measures": [3]}, "mine: measures is [3]; measures stand in it by their names"),
        ({"networks": [3]}, "mine: networks is [3]; they stand in it by their names"),
        ({"measures": ["convergence.a"]}, "mine: measure 'convergence' gives a single number; leave out 'a'"),
        ({"copies_at": [-1]}, "mine: copies_at is -1; it must be a whole number, at least 0"),
        ({"rewind": []}, "mine: rewind is an empty list; give at least one epoch"),
        (
            {"measures": {"untrained": [{}, 3]}},
            "mine: measures has untrained = [{}, 3]; give its options by name, or {}",
        ),
        ({"rewind": "soon"}, "mine: 'soon' is no length; give epochs, such as 2 or '2ep', or '500it'"),
        ({"rewind": ["1ep", 1]}, "mine: rewind has 1 twice; give each value once"),
        ({"rewinding": "rate"}, "mine: rewinding is 'rate'; allowed are weights, learning_rate"),
        ({"differ_in": "orders"}, "mine: differ_in is 'orders'; allowed are noise, order, augmentation"),
        ({"differ_in": []}, "mine: differ_in is []; allowed are noise, order, augmentation"),
        ({"differ_in": ["order", "order"]}, "mine: differ_in has 'order' twice; give each value once"),
        ({"copies": 1}, "mine: copies is 1; it must be a whole number, at least 2"),
        ({"seeds": 0}, "mine: seeds is 0; it must be a whole number, at least 1"),
        ({"seeds": []}, "mine: seeds is []; give how many, or a list of whole numbers"),
        ({"seeds": [1, "2"]}, "mine: seeds is [1, '2']; give how many, or a list of whole numbers"),
        ({"seeds": [3, 3]}, "mine: seeds has 3 twice; give each value once"),
        (
            {"seeds": [100], "own_pretraining_noise": True},
            "mine: seeds is [100]; with own_pretraining_noise they must be from 0 to 99",
        ),
        ({"same_noise": 1}, "mine: same_noise is 1; give true or false"),
        ({"order_noise": True}, "mine: order_noise is True; it must be a whole number"),
        (
            {"augmentation_noise": 3, "between": {"copies": ["barrier"]}},
            "mine: augmentation_noise is 3, but copies differ in noises that they number themselves;",
        ),
        ({"rounds": 1.5}, "mine: rounds is 1.5; it must be a whole number, at least 0"),
        ({"fraction": "half"}, "mine: fraction is 'half'; it must be a number"),
        ({"fraction": 2}, "mine: fraction is 2; it must lie between 0 and 1, both excluded"),
        ({"fraction": True}, "mine: fraction is True; it must be a number"),
        ({"fraction": 1.5, "rounds": 0}, "mine: fraction is 1.5; it must lie between 0 and 1, both excluded"),
        ({"fraction": [0.5, 0.2], "rounds": 3}, "mine: rounds is 3, but fraction has 2; give one for each"),
        ({"fraction": []}, "mine: fraction is an empty list; give one for each round"),
        ({"fraction": [0.5, "x"]}, "mine: fraction is [0.5, 'x']; it must be a number"),
        ({"score": "movment"}, "mine: no score 'movment'; did you mean 'movement'?"),
        ({"score": []}, "mine: score is []; give names of declared scores"),
        ({"score": 3}, "mine: score is 3; give names of declared scores"),
        ({"score": ["movement", "movement@1"]}, "mine: score has 'movement' twice; give each value once"),
        ({"scope": "erkk"}, "mine: no pruning scope 'erkk'; did you mean 'erk'?"),
        ({"scope": 3}, "mine: scope is 3; give its name"),
        ({"invert": "yes"}, "mine: invert is 'yes'; give true or false"),
        ({"exclude": "0.weight"}, "mine: exclude is '0.weight'; give a list of names"),
        ({"networks": ["convnet", "convnet"]}, "mine: networks has 'convnet' twice; give each value once"),
        ({"data": ["digits", "digits"]}, "mine: data has 'digits' twice; give each value once"),
        ({"recipe": {"lr": [0.1, 0.2, 0.1]}}, "mine: lr of the recipe has 0.1 twice; give each value once"),
        ({"rewind": [0, 0]}, "mine: rewind has 0 twice; give each value once"),
        ({"copies_at": [1, 1]}, "mine: copies_at has 1 twice; give each value once"),
        ({"recipe": {"epochs": 1}, "rewind": 2}, "mine: rewind is 2 of 1 epoch"),
        ({"recipe": {"epochs": 2}, "rewind": 2}, "mine: rewind is 2 of 2 epochs"),
        ({"name": "a/b"}, "an experiment is called 'a/b'; its name must do as the name of a file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(TombolaError) as caught:
        Experiment(**{"name": "mine", **entries}).at()
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_toml_and_python_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'rounds = 3\nmeasures = ["untrained"]\nbetween = {rounds = ["barrier"]}\n'
        "[recipe]\nmomentum = [0.0, 0.9]\n",
        encoding="utf-8",
    )
    (tmp_path / "mine.py").write_text(
        "import tombola as tb\n"
        "study = tb.OwnStudy('mine', rounds=3, measures=['untrained'], between={'rounds': ['barrier']},\n"
        "    recipe={'momentum': [0.0, 0.9]})\n"
    )
    toml, python = (read_experiments(tmp_path / f"mine.{kind}") for kind in ("toml", "py"))
    assert toml.experiments == python.experiments
    assert (toml.code, python.code) == ((), (tmp_path / "mine.py",))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine.toml", "rounds = ", "mine.toml: Invalid value"),
        ("mine.toml", "round = 3", "mine.toml: no field of an experiment 'round'; did you mean 'rounds'?"),
        ("mine.toml", "import = 3", "mine.toml: import is 3; give names of Python files"),
        ("mine.py", "import sys\nsys.exit(3)", "mine.py, line 2: SystemExit: 3"),
        ("mine.toml", 'import = "none.py"', "none.py: No such file or directory"),
        ("mine.toml", 'import = "a\\u0000.py"', "embedded null byte"),
        ("mine.toml", "data = " + "[" * 5_000, "mine.toml is nested too deeply"),
        (
            "mine.py",
            "import tombola",
            "mine.py makes no experiment; write experiment = tombola.Experiment(...) at its top",
        ),
        ("mine.txt", "", "mine.txt is neither Python nor TOML; its name must end in .py or .toml"),
    ],
)
def test_a_file_with_an_error_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TombolaError) as caught:
        read_experiments(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_experiments_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("import tombola as tb\nstudy = again = tb.OwnStudy('a')\n")
    second.write_text("import tombola as tb\none, other = tb.OwnStudy('a'), tb.OwnStudy('a', rounds=2)\n")
    (file,) = read_all_experiments([first])
    assert [study.name for study in file.experiments] == ["a"]
    words = r"second\.py: an experiment is called 'a' as is another one there; give each a name of its own"
    with pytest.raises(ExperimentError, match=words):
        read_all_experiments([second])
    with pytest.raises(
        ExperimentError, match=r"second\.py: an experiment is called 'a' as is one in .*first\.py; give"
    ):
        read_all_experiments([first, second])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ExperimentError, match=r"no file '.*none\.py'; give an experiment of your own that exists"
    ):
        read_experiments(tmp_path / "none.py")


def test_a_damaged_result_that_others_need_ends_the_rounds_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"epochs": 1, "batch_size": 600}
    experiment = Experiment("mine", recipe=recipe, rounds=1).at()
    lab = tb.Lab(tmp_path / "store")
    run_experiments(lab, [experiment]).outcome.raise_failures()
    functions = {name: lab.store.description(name)["function"] for name in lab.store.names()}
    (ticket,) = [name for name, function in functions.items() if function == "prune"]
    dense = lab.store.description(ticket)["arguments"]["run"]["job"]
    for name in functions.keys() - {dense}:
        shutil.rmtree(lab.store.folder(name))
    (lab.store.folder(dense) / "job.json").unlink()
    rounds: list[object] = []
    run = lab.run

    def counted(*arguments: Any, **options: Any) -> Any:
        rounds.append(arguments)
        return run(*arguments, **options) if len(rounds) < 5 else pytest.fail("it begins again and again")

    monkeypatch.setattr(lab, "run", counted)
    failed = run_experiments(lab, [experiment]).outcome.failed
    assert any("is damaged: job.json" in cause for cause in failed.values())
