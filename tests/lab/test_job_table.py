"""The numbers of single jobs: keys read off descriptions, without running what is not there."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tombola as tb
from tombola.data.fitting import fit_images
from tombola.data.subsets import subset
from tombola.errors import JobError, StoreError
from tombola.experiments.compute import collect
from tombola.lab.chains import imp_jobs, ticket_jobs
from tombola.lab.description import name_of
from tombola.lab.job import Job, all_needed, job
from tombola.lab.results import Packed, numbers_of
from tombola.measures.difficulty import forgotten_subset
from tombola.measures.instability import copies
from tombola.measures.learning import learning
from tombola.table.key import Key, sparsity_after
from tombola.table.number import Number
from tombola.table.table import Table, read_csv, read_json

FULL = tb.Recipe(epochs=4, batch_size=100, momentum=0.0)
SHORT = replace(FULL, epochs=1)


def publish(lab: tb.Lab, described: Job, numbers: dict, started: str = "2026-01-01T00:00:00") -> None:
    """Puts a made-up result into the store."""
    provenance = {"started": started, "seconds": 1.0}
    lab.store.publish(described.name, described.description(), Packed(numbers, {}, {}), provenance)


def publish_run(
    lab: tb.Lab, run: Job, accuracy: float, *, failed: bool = False, started: str = "2026"
) -> None:
    numbers = {"accuracy": accuracy, "best_accuracy": 95.0, "sparsity": 0.123, "failed": failed}
    publish(lab, run, numbers, started)


def only(numbers: Table, metric: str) -> list[Number]:
    return [number for number in numbers if number.key.metric == metric]


def key_of(lab: tb.Lab, *jobs: Job) -> Key:
    """The key that all of some jobs have, none of them run; told apart by seed or pair."""
    table = lab.table(list(jobs))
    assert {number.state for number in table} == {"missing"}
    [key] = {number.key for number in table}
    assert len(table) == len(jobs)
    return key


def chain(**options: object) -> list[Job]:
    arguments = {"network": "convnet", "data": "digits", "recipe": FULL, "rounds": 2, **options}
    return imp_jobs(arguments.pop("network"), arguments.pop("data"), arguments.pop("recipe"), **arguments)


# What a key has


def test_the_runs_of_a_chain_have_its_settings_and_the_sparsity_of_their_round(lab: tb.Lab) -> None:
    table = lab.table(chain(fraction=0.5, seed=3))
    assert [number.key for number in table] == [
        Key(metric="val_accuracy", network="convnet", dataset="digits", momentum=0.0, batch_size=100,
            pretrained=False, sparsity=sparsity)
        for sparsity in (0.0, 50.0, 75.0)
    ]  # fmt: skip
    assert {(number.epochs, number.seed, number.state, number.value) for number in table} == {
        (4, 3, "missing", None)
    }


def test_sparsity_is_counted_and_never_measured(lab: tb.Lab) -> None:
    run = chain()[2]
    publish_run(lab, run, 90.0)  # its numbers say 0.123
    table = lab.table(run)
    assert {number.key.sparsity for number in table} == {36.0} == {sparsity_after(2)}
    assert only(table, "train.sparsity")[0].value == 0.123


def test_prunings_of_different_fractions_multiply(lab: tb.Lab) -> None:
    first = job(tb.prune, chain()[0], fraction=0.5)
    second = job(tb.prune, job(tb.train, first, "digits", FULL), fraction=0.2)
    assert key_of(lab, job(tb.train, second, "digits", FULL)).sparsity == 60.0  # 0.5 * 0.8 stay


def test_tickets_of_other_criteria_have_keys_of_their_own(lab: tb.Lab) -> None:
    settings: list[dict[str, object]] = [
        {}, {"score": "movement"}, {"score": "movement@1", "same_sign": True}, {"invert": True},
        {"scope": "erk"}, {"scope": "uniform"}, {"rewinding": "learning_rate"},
    ]  # fmt: skip
    runs = [chain(**options)[1] for options in settings]
    axes = [dict(number.key.more) for number in lab.table(runs)]
    assert axes == [
        {}, {"score": "movement"}, {"score": "movement", "same_sign": True}, {"invert": True},
        {"scope": "erk"}, {"scope": "uniform"}, {"rewinding": "learning_rate"},
    ]  # fmt: skip
    dense = job(tb.train, job(tb.densify, runs[2].arguments["ticket"]), "digits", FULL)
    assert dict(key_of(lab, dense).more) == {"densified": True}


def test_a_ticket_that_is_pruned_untrained_keeps_where_it_comes_from(lab: tb.Lab) -> None:
    again = job(tb.prune, chain()[1].arguments["ticket"], score="large_init")
    key = key_of(lab, job(tb.train, again, "digits", FULL))
    assert (key.sparsity, key.momentum, key.more) == (36.0, 0.0, (("score", "magnitude, large_init"),))


def rounds_of(*settings: dict[str, object], data: object = "digits", seed: int = 0) -> Job:
    """The last run of a chain whose rounds are pruned by different settings."""
    run = chain(data=data, seed=seed, rounds=0)[0]
    for options in settings:
        run = job(tb.train, job(tb.prune, run, **options), data, FULL, noise=seed)
    return run


@pytest.mark.parametrize(
    ("name", "value", "both"),
    [
        ("score", "movement", ("movement, magnitude", "magnitude, movement")),
        ("scope", "erk", ("erk, global", "global, erk")),
        ("exclude", ["3.weight"], ('["3.weight"], []', '[], ["3.weight"]')),
        ("same_sign", True, ("true, false", "false, true")),
        ("invert", True, ("true, false", "false, true")),
    ],
)
def test_rounds_that_are_pruned_otherwise_are_told_in_their_order(
    lab: tb.Lab, name: str, value: object, both: tuple[str, str]
) -> None:
    told, once = {name: value}, json.dumps(value) if isinstance(value, list) else value
    expected = [((told, told), once), ((told, {}), both[0]), (({}, told), both[1]), (({}, {}), None)]
    assert [key_of(lab, rounds_of(*rounds)).get(name) for rounds, _ in expected] == [
        axis for _, axis in expected
    ]
    assert len({key_of(lab, rounds_of(*rounds)) for rounds, _ in expected}) == 4
    # Where all agree it stands there as it always did, and what was grown back was never pruned.
    assert key_of(lab, rounds_of(told, told)).more == ((name, once),)
    dense = job(tb.densify, rounds_of(told, {}).arguments["ticket"])
    assert key_of(lab, job(tb.train, dense, "digits", FULL)).more == (("densified", True),)


def test_a_score_is_told_by_its_data_where_the_run_was_trained_on_others(lab: tb.Lab) -> None:
    part = job(subset, "digits", share=0.1, seed=3)
    drawn = {"score_data": "digits", "score_subset": "random_class_balanced"}
    expected: list[tuple[object, dict[str, object]]] = [
        ("digits", {}),
        ("mnist", {"score_data": "mnist"}),
        (part, {**drawn, "score_subset_percent": 10, "score_subset.seed": "seed+3"}),
        (job(subset, "digits", share=0.1, seed=4),
         {**drawn, "score_subset_percent": 10, "score_subset.seed": "seed+4"}),
        (job(subset, "digits", share=0.2), {**drawn, "score_subset_percent": 20}),
        (job(subset, "digits", shots=5), {**drawn, "score_shots": 5}),
        (job(fit_images, "digits", size=(16, 16)), {"score_data": "digits", "score_size": "[16, 16]"}),
    ]  # fmt: skip
    for prunings in (1, 2):
        keys = [
            key_of(lab, rounds_of(*[{"score": "movement", "data": data}] * prunings)) for data, _ in expected
        ]
        assert [dict(key.more) for key in keys] == [{"score": "movement", **axes} for _, axes in expected]
    # The same draw of other seeds has the same key.
    other = job(subset, "digits", share=0.1, seed=9)
    assert key_of(lab, rounds_of({"data": part}), rounds_of({"data": other}, seed=6)).get("score_data")
    # A ticket that was never trained is scored on its data set, or told.
    start = chain(rounds=0)[0].arguments["ticket"]
    keys = [
        key_of(lab, job(tb.train, job(tb.prune, start, data=data), "digits", FULL))
        for data in ("digits", part)
    ]
    assert [key.get("score_subset_percent") for key in keys] == [None, 10]
    # Rounds whose scores have other data are told in their order.
    key = key_of(lab, rounds_of({"data": part}, {"data": "digits"}))
    assert (key.get("score_data"), key.get("score_subset_percent")) == ("digits, default", "10, default")
    dense = job(tb.densify, rounds_of({"data": part}).arguments["ticket"])
    assert key_of(lab, job(tb.train, dense, "digits", FULL)).more == (("densified", True),)


def test_a_score_on_the_data_of_the_training_has_no_axes_of_its_own(lab: tb.Lab) -> None:
    part = job(subset, "digits", share=0.1, seed=3)
    own, whole = (rounds_of({"data": data}, data=part) for data in (part, "digits"))
    search = {"search_subset": "random_class_balanced", "search_subset_percent": 10}
    assert dict(key_of(lab, own).more) == search
    assert dict(key_of(lab, whole).more) == {**search, "score_data": "digits"}


def test_an_experiment_and_its_jobs_by_themselves_have_one_key(lab: tb.Lab) -> None:
    @tb.declare_score("with-data")
    def with_data(run: tb.Run, data: tb.Data) -> dict:
        raise AssertionError

    experiment = tb.Experiment(
        "scored", rounds=2, score="with-data", scope="erk", exclude=["3.weight"], same_sign=True, invert=True
    ).at()  # fmt: skip
    rounds = [item for item in experiment.items if not item.measure and item.key.sparsity]
    assert [item.key.sparsity for item in rounds] == [20.0, 36.0]
    for item in rounds:
        assert item.jobs[0].arguments["ticket"].arguments["data"] == {"data": "digits"}
        assert replace(item.key, metric="val_accuracy") == key_of(lab, item.jobs[0])


def test_runs_of_other_seeds_have_one_key(lab: tb.Lab) -> None:
    for rewind, noise in ((0, None), (1, None), (1, 100)):
        runs = [
            chain(seed=seed, rewind=rewind, pretraining_noise=None if noise is None else noise + seed)[1]
            for seed in range(3)
        ]
        key = key_of(lab, *runs)
        assert key.pretrained is (rewind > 0)
        assert (key.get("rewind"), key.get("pretraining_noise")) == (rewind or None, noise and "seed+100")
        assert [number.seed for number in lab.table(runs)] == [0, 1, 2]


def test_noise_is_told_as_it_goes_with_the_seed(lab: tb.Lab) -> None:
    ticket = chain(seed=1)[1].arguments["ticket"]
    runs = [job(tb.train, ticket, "digits", FULL, noise=noise) for noise in (1, 2, 5)]
    assert [number.key.get("noise") for number in lab.table(runs)] == [None, "seed+1", "seed+4"]
    # Of another seed the same copy has the same key.
    other = job(tb.train, chain(seed=2)[1].arguments["ticket"], "digits", FULL, noise=3)
    assert lab.table(other).numbers[0].key == lab.table(runs[1]).numbers[0].key


def test_a_short_mask_search_is_told_by_its_share_of_the_budget(lab: tb.Lab) -> None:
    ticket = ticket_jobs("convnet", "digits", SHORT, rounds=1)[1]
    key = key_of(lab, job(tb.train, ticket, "digits", FULL))
    assert (key.search_share, key.sparse_momentum, key.sparse_batch_size) == (0.25, None, None)
    assert lab.table(job(tb.train, ticket, "digits", FULL)).numbers[0].epochs == 4


def test_sparse_training_by_another_recipe_has_fields_of_its_own(lab: tb.Lab) -> None:
    ticket = chain()[1].arguments["ticket"]
    other = replace(FULL, momentum=0.9, lr=0.5)
    key = key_of(lab, job(tb.train, ticket, "digits", other))
    assert (key.momentum, key.batch_size) == (0.0, 100)
    assert (key.sparse_momentum, key.sparse_batch_size, key.get("sparse_lr")) == (0.9, 100, 0.5)


def test_whatever_a_recipe_does_not_have_by_default_is_told(lab: tb.Lab) -> None:
    key = key_of(lab, *chain(recipe=replace(FULL, lr=0.5, augmentation=tb.Augmentation(pad=1)), rounds=0))
    assert (key.get("lr"), json.loads(str(key.get("augmentation")))) == (0.5, {"pad": 1})
    assert key.get("weight_decay") is None


def test_scope_initialisation_and_repeated_noise_of_a_search_are_told(lab: tb.Lab) -> None:
    run = chain(scope="layerwise", init="orthogonal", same_noise=True)[1]
    assert dict(key_of(lab, run).more) == {
        "scope": "layerwise", "init": "orthogonal", "noise_round": 0, "search_noise_round": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("control", "options", "baseline"),
    [
        (tb.permute, {}, "permuted"),
        (tb.randomize, {}, "randomized"),
        (tb.reinitialize, {"seed": 7}, "reinitialized"),
    ],
)
def test_a_control_is_told_by_its_kind(lab: tb.Lab, control: Callable, options: dict, baseline: str) -> None:
    ticket = chain()[1].arguments["ticket"]
    key = key_of(lab, job(tb.train, job(control, ticket, **options), "digits", FULL))
    assert (key.baseline, key.sparsity) == (baseline, 20.0)
    assert key.get("reinitialized.seed") == ("seed+7" if options else None)


def test_parts_of_the_data_are_told_by_size_and_choice(lab: tb.Lab) -> None:
    run, ticket = chain()[0], chain()[1].arguments["ticket"]
    parts = [
        job(subset, "digits", share=0.1),
        job(forgotten_subset, "digits", run, which="most", share=0.02),
        job(tb.drop_by_difficulty, "digits", run, which="hardest", share=0.3),
        job(subset, "digits", shots=5),
    ]
    keys = [key_of(lab, job(tb.train, ticket, part, FULL)) for part in parts]
    assert [(key.dataset, key.subset_percent, key.subset_criterion) for key in keys] == [
        ("digits", 10, "random_class_balanced"),
        ("digits", 2, "most_forgotten"),
        ("digits", 70, "hardest_removed"),
        ("digits", None, "random_class_balanced"),
    ]
    assert keys[3].get("shots") == 5


def test_a_frozen_network_is_told_by_its_target(lab: tb.Lab) -> None:
    run, ticket = chain()[0], chain()[1].arguments["ticket"]
    frozen = lab.table(job(tb.transfer, run, "mnist")).numbers[0]
    assert (frozen.key.dataset, frozen.key.target, frozen.key.baseline) == ("digits", "mnist", "frozen_dense")
    key = key_of(lab, job(tb.transfer, ticket, "mnist", size=(8, 8)))
    assert (key.target, key.baseline, key.sparsity, key.get("transfer.size")) == (
        "mnist",
        None,
        20.0,
        "[8, 8]",
    )
    resized = job(
        tb.train, job(tb.initialize, "convnet", job(fit_images, "mnist", size=(8, 8))), "mnist", FULL
    )
    assert key_of(lab, resized).dataset == "mnist"


def test_pairs_of_copies_share_a_key_and_are_numbered(lab: tb.Lab) -> None:
    for seed in (0, 4):
        ticket = chain(seed=seed)[1].arguments["ticket"]
        copies = [job(tb.train, ticket, "digits", FULL, noise=seed + n) for n in range(3)]
        pairs = [(0, 1), (0, 2), (1, 2)]
        table = lab.table([job(tb.barrier, copies[a], copies[b], "digits") for a, b in pairs])
        assert [(number.pair, number.seed, number.key.over) for number in table] == [
            (n, seed, "pairs") for n in range(3)
        ]
        [key] = {number.key for number in table}
        assert (key.metric, key.sparsity, key.more) == ("barrier", 20.0, ())


@pytest.mark.parametrize(("cause", "other"), [("order", "augmentation"), ("augmentation", "order")])
def test_copies_that_differ_in_one_cause_of_noise_have_a_key_of_their_own(
    lab: tb.Lab, cause: str, other: str
) -> None:
    ticket = chain(seed=4)[1].arguments["ticket"]
    runs = list(copies(job, ticket, "digits", FULL, noises=(4, 5, 6), differ_in=cause))
    table = lab.table([job(tb.barrier, first, second, "digits") for first, second in combinations(runs, 2)])
    assert [(number.pair, number.key.over) for number in table] == [(n, "pairs") for n in range(3)]
    [key] = {number.key for number in table}
    assert (key.metric, key.more) == ("barrier", (("differ_in", cause),))
    together = key_of(lab, job(tb.instability, runs, "digits"))
    assert dict(together.more)[f"{cause}_noises"] == "seed, seed+1, seed+2"
    elsewhere = list(copies(job, ticket, "digits", FULL, noises=(7, 8), differ_in=cause))
    shared = key_of(lab, job(tb.barrier, *elsewhere, "digits"))
    assert dict(shared.more) == {"differ_in": cause, f"{other}_noise": "seed+3"}


def test_the_numbers_of_causes_of_noise_stand_in_keys_of_runs_and_of_tickets(lab: tb.Lab) -> None:
    plain, split = chain(rounds=1, seed=2), chain(rounds=1, seed=2, order_noise=5)
    assert [dict(number.key.more) for number in lab.table(split)] == [{"order_noise": "seed+3"}] * 2
    crossed = job(tb.train, split[1].arguments["ticket"], "digits", FULL, noise=2)
    assert dict(key_of(lab, crossed).more) == {"search_order_noise": "seed+3"}
    late = job(tb.train, plain[1].arguments["ticket"], "digits", FULL, noise=2, order_noise=5)
    assert dict(key_of(lab, late).more) == {"order_noise": "seed+3", "search_order_noise": "seed"}
    rewound = chain(rounds=0, seed=2, rewind=1, order_noise=5)[0]
    assert dict(key_of(lab, rewound).more) == {
        "order_noise": "seed+3", "pretraining_order_noise": "seed+3", "rewind": 1,
    }  # fmt: skip


def test_a_barrier_to_the_next_round_stands_at_the_first_of_the_two(lab: tb.Lab) -> None:
    runs = chain()
    key = key_of(lab, job(tb.barrier, runs[1], runs[2], "digits", points=5))
    assert (key.metric, key.over, key.sparsity) == ("barrier_to_next", "rounds", 20.0)
    assert key.more == (("barrier.points", 5),)


def test_a_barrier_of_other_runs_tells_in_what_the_second_differs(lab: tb.Lab) -> None:
    runs, others = chain(), chain(recipe=replace(FULL, momentum=0.9), seed=2)
    key = key_of(lab, job(tb.barrier, runs[0], others[2], "digits"))
    assert (key.metric, key.over, key.momentum, key.sparsity) == ("barrier.height", "seeds", 0.0, 0.0)
    assert dict(key.more) == {"second_momentum": 0.9, "second_sparsity": 36.0, "second_seed": 2}


# What is measured


@pytest.fixture
def finished(lab: tb.Lab, quick: tb.Recipe) -> tuple[tb.Lab, dict[str, Job]]:
    """A store with a short chain and measures of it."""
    runs = chain(recipe=quick, rounds=1)
    copy = job(tb.train, runs[0].arguments["ticket"], "digits", quick, noise=1)
    jobs = {
        "dense": runs[0],
        "ticket": runs[1],
        "copy": copy,
        "barrier": job(tb.barrier, runs[0], copy, "digits", points=3, recalibrate=True),
        "instability": job(tb.instability, [runs[0], copy], "digits", points=3, recalibrate="beside"),
        "untrained": job(tb.untrained, runs[1].arguments["ticket"], "digits"),
        "probe": job(
            tb.probe, runs[0], "digits", recipe=tb.Recipe(epochs=1, lr=0.01), blocks=("1", "3"), head="6"
        ),
        "learning": job(learning, runs[0]),
    }
    del jobs["probe"]
    lab.run(jobs.values()).raise_failures()
    return lab, jobs


def test_every_number_of_a_result_is_a_row(finished: tuple[tb.Lab, dict[str, Job]]) -> None:
    lab, jobs = finished
    for name in ("barrier", "instability", "untrained", "learning"):
        table, expected = lab.table(jobs[name]), numbers_of(lab.result(jobs[name]))
        if name == "learning":  # the paper's tables have the share of unforgettable images in percent
            expected["forgetting.unforgettable"] *= 100
        assert sorted(number.value for number in table if number.value is not None) == sorted(
            expected.values()
        )
    summary = numbers_of(lab.result(jobs["ticket"]))
    table = lab.table(jobs["ticket"])
    assert {number.key.metric: number.value for number in table} == {
        "val_accuracy" if name == "accuracy" else f"train.{name}": value for name, value in summary.items()
    }


def test_barriers_carry_their_curve(finished: tuple[tb.Lab, dict[str, Job]]) -> None:
    lab, jobs = finished
    line = lab.result(jobs["barrier"])
    [number] = only(lab.table(jobs["barrier"]), "recalibrated_barrier")
    assert number.curve is not None
    assert (number.value, number.curve.x, number.curve.y) == (line.height, line.alphas, line.errors)
    assert number.key.get("barrier.recalibrate") is None  # the metric says so
    [loss] = only(lab.table(jobs["barrier"]), "barrier.loss_height")
    assert (loss.curve, loss.key.get("barrier.recalibrate")) == (None, True)
    lines = lab.result(jobs["instability"])
    table = lab.table(jobs["instability"])
    [plain], [anew] = only(table, "barrier"), only(table, "recalibrated_barrier")
    assert plain.curve is not None
    assert anew.curve is not None
    assert (plain.value, plain.curve.y) == (lines.heights[0], lines.lines[0].errors)
    assert (anew.value, anew.curve.y) == (lines.recalibrated.heights[0], lines.lines[0].recalibrated.errors)
    assert (plain.pair, plain.key.over, plain.key.get("noises")) == (0, "pairs", "seed, seed+1")


def test_the_whole_store_is_told_in_order_of_time_without_tickets(
    finished: tuple[tb.Lab, dict[str, Job]],
) -> None:
    lab, jobs = finished
    table = lab.table()
    assert {number.jobs for number in table} == {(described.name,) for described in jobs.values()}
    started = [lab.store.provenance(number.jobs[0])["started"] for number in table]
    assert started == sorted(started)
    # By name, by job and all together: the same numbers.
    assert set(lab.table(list(jobs.values()))) == set(table)
    assert set(lab.table([described.name[:10] for described in jobs.values()])) == set(table)


def test_the_table_of_an_experiment_is_what_it_collects(lab: tb.Lab, quick: tb.Recipe) -> None:
    experiment = tb.Experiment(
        "mine", recipe={"epochs": 1, "batch_size": 400, "lr": [0.1, 0.2]}, rounds=1, measures=["untrained"],
        between={"rounds": {"barrier.height": {"points": 3}}},
    ).at()  # fmt: skip
    assert {number.state for number in lab.table(experiment)} == {"missing"}
    lab.run([described for item in experiment.items[:4] for described in item.jobs]).raise_failures()
    assert lab.table(experiment).numbers == collect(lab, [experiment]).numbers
    assert lab.table(experiment.items).numbers == collect(lab, [experiment]).numbers
    # A job that it asks for is not told twice: its accuracy keeps the experiment's key.
    run = experiment.items[0].jobs[0]
    table = lab.table(experiment, run)
    assert len([number for number in only(table, "val_accuracy") if number.jobs == (run.name,)]) == 1
    assert len(only(table, "train.best_accuracy")) == 1


# Gaps


def test_jobs_that_are_not_finished_have_the_gaps_of_those_that_are(lab: tb.Lab) -> None:
    runs = [chain(seed=seed)[0] for seed in range(3)]
    publish_run(lab, runs[0], 90.0)
    table = lab.table(runs)
    for metric in ("val_accuracy", "train.best_accuracy", "train.sparsity", "train.failed"):
        assert [number.state for number in only(table, metric)] == ["measured", "missing", "missing"]
    [cell] = table.cells(partial=True)[only(table, "val_accuracy")[0].key]
    assert (cell.values, cell.missing) == ((90.0,), 2)


def test_failed_runs_are_marked_and_so_are_measures_of_them(lab: tb.Lab) -> None:
    runs = chain()
    publish_run(lab, runs[0], 10.0, failed=True)
    publish_run(lab, runs[1], 90.0)
    barrier = job(tb.barrier, runs[0], runs[1], "digits")
    line = {
        "alphas": [0.0, 0.5, 1.0],
        "errors": [90.0, 90.0, 10.0],
        "losses": [1.0, 1.0, 1.0],
        "split": "test",
    }
    publish(lab, barrier, {"value": line})
    assert [number.failed for number in only(lab.table(runs), "val_accuracy")] == [True, False, False]
    [height] = only(lab.table(barrier), "barrier_to_next")
    assert (height.value, height.failed) == (40.0, True)


def test_what_is_not_finite_or_has_no_value_is_undefined(lab: tb.Lab) -> None:
    run = chain()[0]
    publish(
        lab,
        job(tb.untrained, run.arguments["ticket"], "digits"),
        {"value": {"accuracy": 10.0, "loss": {"float": "inf"}}},
    )
    table = lab.table(job(tb.untrained, run.arguments["ticket"], "digits"))
    assert [(number.key.metric, number.value, number.state) for number in table] == [
        ("untrained_accuracy", 10.0, "measured"),
        ("untrained.loss", None, "undefined"),
    ]


# No number is lost


def test_jobs_that_would_have_one_key_are_told_apart(lab: tb.Lab) -> None:
    ticket = chain(seed=1)[1].arguments["ticket"]
    runs = [job(tb.train, ticket, "digits", FULL, noise=noise) for noise in (0, 1)]
    for number, run in enumerate(runs):
        publish_run(lab, run, 90.0 + number)
    table = only(lab.table(runs), "val_accuracy")
    assert [(number.value, number.key.get("noise")) for number in table] == [(90.0, 0), (91.0, 1)]
    # In both directions a barrier is the same number, and yet two jobs.
    twice = [job(tb.barrier, *pair, "digits") for pair in (runs, reversed(runs))]
    keys = {number.key for number in lab.table(twice)}
    assert len(keys) == 2
    # Half and then a fifth of the weights, or the other way round, leave as many: only the names differ.
    paths = []
    for fractions in ((0.5, 0.2), (0.2, 0.5)):
        run = chain()[0]
        for fraction in fractions:
            run = job(tb.train, job(tb.prune, run, fraction=fraction), "digits", FULL)
        paths.append(run)
    keys = {number.key for number in lab.table(paths)}
    assert {key.sparsity for key in keys} == {60.0}
    assert {key.get("job") for key in keys} == {run.name[:12] for run in paths}


def test_no_number_of_many_jobs_is_lost(lab: tb.Lab) -> None:
    jobs = []
    for seed in range(5):
        for momentum in (0.0, 0.9):
            runs = chain(seed=seed, recipe=replace(FULL, momentum=momentum), rounds=24)
            jobs += runs
    for number, run in enumerate(jobs):
        publish_run(lab, run, float(number), started=f"2026-01-01T{number:06}")
    table = lab.table()
    assert [number.value for number in only(table, "val_accuracy")] == [float(n) for n in range(250)]
    assert len(table) == 4 * 250
    cells = lab.table(jobs).cells()
    assert {len(cell.values) for group in cells.values() for cell in group} == {5}


# Strangers


def test_functions_that_are_not_declared_here_are_told_by_their_fields(lab: tb.Lab) -> None:
    @dataclass(frozen=True)
    class Distance:
        moved: float

        @property
        def doubled(self) -> float:
            return 2 * self.moved

    Distance.__module__ = __name__
    globals()["Distance"] = Distance

    @tb.declare("distance-told")
    def distance(run: tb.Run, *, order: int = 2) -> Distance:
        return Distance(1.5)

    measure = job(distance, chain()[1], order=1)
    for behind in all_needed([measure]).values():
        if behind is not measure:
            publish(lab, behind, {"sparsity": 0.0, "epoch": 0, "round": 0, "start": "0" * 64})
    publish(lab, measure, {"value": {"moved": 1.5}})
    expected = {"distance-told.moved": 1.5, "distance-told.doubled": 3.0}
    table = lab.table(measure)
    assert {number.key.metric: number.value for number in table} == expected
    from tombola import registry as declarations

    del declarations._declarations["distance-told"]
    stranger = Table(only(lab.table(), "distance-told.moved"))
    assert {number.key.metric: number.value for number in stranger} == {"distance-told.moved": 1.5}
    assert stranger.numbers[0].key == table.numbers[0].key
    assert table.numbers[0].key.get("distance-told.order") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"ticket": 5, "data": [], "recipe": "fast", "noise": "loud"},
        {
            "ticket": {"job": "a" * 64},
            "data": {"data": "digits"},
            "recipe": {"epochs": 10**400, "momentum": "x"},
        },
        {
            "recipe": {"network": "other", "metric": 1, "value": {"a": [1]}},
            "noise": 10**30,
            "noise_round": 1e300,
        },
        {
            "ticket": {
                "job": "b" * 64,
                "call": {"function": "prune", "version": 1, "arguments": {"fraction": -3}},
            }
        },
    ],
)
def test_a_description_of_another_form_is_read_as_far_as_it_goes(lab: tb.Lab, arguments: dict) -> None:
    description = {"function": "train", "version": 1, "arguments": arguments}
    if "call" in str(arguments):
        call = arguments["ticket"]["call"]
        arguments["ticket"]["job"] = name_of(call)
    numbers = {"accuracy": 50.0, "sparsity": 0.5, "failed": False}
    lab.store.publish(
        name_of(description), description, Packed(numbers, {}, {}), {"started": "", "seconds": 1}
    )
    table = lab.table()
    assert [number.value for number in only(table, "val_accuracy")] == [50.0]
    assert len(table.frame()) == len(table)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
        st.text("ab"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
FUNCTIONS = st.sampled_from(
    ["train", "prune", "pretrain", "initialize", "permute", "subset", "drop-by-difficulty", "barrier",
     "instability", "probe", "transfer", "ticket_at", "reinitialize", "fit_images", "network", "seed"]
)  # fmt: skip
PARAMETERS = st.sampled_from(
    ["ticket", "run", "data", "recipe", "seed", "noise", "fraction", "share", "which", "epochs", "first",
     "second", "start", "point", "network", "momentum", "value", "job", "noise_round", "recalibrate"]
)  # fmt: skip


@given(data=st.data())
def test_no_description_of_a_strangers_stops_the_table(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = tb.Lab(tmp_path_factory.mktemp("strangers"))
    names: list[str] = []
    for number in range(4):
        arguments = data.draw(st.dictionaries(PARAMETERS, JSON, max_size=5))
        references = st.sampled_from([{"data": "digits"}, *({"job": name} for name in names)])
        for parameter in data.draw(st.lists(PARAMETERS, max_size=3)):
            arguments[parameter] = data.draw(st.one_of(references, st.lists(references, max_size=3)))
        description = {"function": data.draw(FUNCTIONS), "version": 1, "arguments": arguments}
        numbers = data.draw(
            st.sampled_from(
                [
                    {"value": 1.5},
                    {"value": {"a": [1, {"b": 2}]}},
                    {"accuracy": 9.0, "sparsity": 0.0, "failed": True},
                ]
            )
        )
        names.append(name_of(description))
        provenance = {"started": str(number), "seconds": 1.0}
        lab.store.publish(names[-1], description, Packed(numbers, {}, {}), provenance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = lab.table()
    assert read_csv(table.csv()).numbers == read_json(table.json()).numbers == table.numbers
    assert len(table.frame()) == len(table)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("job.json", '{"function": "train", "version": 1, "arguments": {"noise": 7}}'),
        ("job.json", "{"),
        ("result.json", '{"value": 5'),
        ("result.json", '{"accuracy": 1' + "0" * 400 + ', "failed": false}'),
    ],
)
def test_damaged_jobs_are_told_and_left_out(lab: tb.Lab, file: str, content: str) -> None:
    runs = chain()
    for run in runs:
        publish_run(lab, run, 90.0)
    (lab.store.folder(runs[1].name) / file).write_text(content)
    with pytest.warns(UserWarning, match=rf"1 damaged job left out of the table.*{runs[1].name[:12]}"):
        table = lab.table()
    assert len(only(table, "val_accuracy")) == 2
    with pytest.raises(StoreError, match="is damaged"), warnings.catch_warnings():
        lab.table(runs[1].name)


def test_a_name_that_no_job_has_is_refused(lab: tb.Lab) -> None:
    with pytest.raises(JobError, match=r"no job in .* with a name that begins with 'abc'"):
        lab.table("abc")


def test_a_chain_of_hundreds_of_rounds_is_followed(lab: tb.Lab) -> None:
    runs: Sequence[Job] = chain(rounds=700, fraction=0.01)
    # Two decimals would not tell it from the round before.
    assert key_of(lab, runs[-1]).sparsity == round(100 * (1 - 0.99**700), 3)


def test_a_ticket_pruned_at_initialization_has_its_sparsity_and_a_part_of_the_data_its_own_key(
    lab: tb.Lab,
) -> None:
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    pruned = [
        tb.job(tb.prune_at_initialization, start, "digits", score=score, sparsity=0.9)
        for score in ("snip", "synflow")
    ]
    keys = [key_of(lab, tb.job(tb.train, ticket, "digits", FULL, noise=0)) for ticket in pruned]
    assert [key.sparsity for key in keys] == [90.0, 90.0]
    assert [dict(key.more) for key in keys] == [{"score": "snip"}, {"score": "synflow"}]
    parts = [tb.job(tb.take, "digits", list(range(first, 400))) for first in (0, 100)]
    first, second = (key_of(lab, tb.job(tb.train, start, part, FULL, noise=0)) for part in parts)
    assert first.dataset == second.dataset == "digits"
    assert first != second


def test_learned_masks_and_mask_actions_stand_in_the_key(lab: tb.Lab) -> None:
    def keys(seed: int) -> list[Key]:
        start = tb.job(tb.initialize, "convnet", "digits", seed=seed)
        popup = tb.job(tb.edge_popup, start, "digits", SHORT, sparsity=0.7, noise=seed)
        supermask = tb.job(tb.supermask, start, "digits", SHORT, draw=2, noise=seed)
        acted = tb.job(tb.shuffle_start, tb.job(tb.rescale, popup, exponent=0.5), seed=seed + 1)
        signs = tb.job(tb.signed_constant, popup)
        tickets = [start, popup, supermask, acted, signs]
        return [key_of(lab, tb.job(tb.train, ticket, "digits", FULL, noise=seed)) for ticket in tickets]

    assert [key.sparsity for key in keys(0)] == [0.0, 70.0, None, 70.0, 70.0]
    assert keys(0)[1].search_share == 0.25  # of the epochs of the training
    dense, popup, supermask, acted, signs = (dict(key.more) for key in keys(0))
    assert (popup["mask"], supermask["mask"], supermask["draw"]) == ("edge-popup", "supermask", 2)
    assert "mask" not in dense
    assert (acted["rescale"], acted["shuffle_start"]) == ('{"exponent": 0.5}', '{"seed": "seed+1"}')
    assert signs["signed_constant"] is True
    # Other seeds are repetitions of the same.
    assert keys(1) == keys(0)


# Budgets in iterations, and optimizers without momentum


def test_a_budget_in_iterations_is_an_axis_and_no_number_of_epochs(lab: tb.Lab) -> None:
    short, long = (chain(recipe=replace(FULL, epochs=f"{count}it"), rounds=0) for count in (30, 40))
    table = lab.table([*short, *long])
    assert [(number.key.get("iterations"), number.epochs) for number in table] == [(30, 0), (40, 0)]
    ticket = chain()[1].arguments["ticket"]
    sparse = key_of(lab, job(tb.train, ticket, "digits", replace(FULL, epochs="40it", lr=0.5)))
    assert (sparse.get("iterations"), sparse.get("sparse_iterations")) == (None, 40)
    assert (sparse.search_share, sparse.get("sparse_lr")) == (None, 0.5)
    back = key_of(lab, job(tb.train, short[0].arguments["ticket"], "digits", FULL))
    assert "iterations" not in dict(back.more)
    pretrained = chain(recipe=replace(FULL, epochs="40it"), rounds=0, rewind="7it")
    assert dict(key_of(lab, *pretrained).more) == {"iterations": 40, "rewind": "7it"}


def test_adamw_has_no_momentum(lab: tb.Lab) -> None:
    adamw = tb.Recipe(epochs=4, batch_size=100, optimizer="adamw", lr=0.001)
    key = key_of(lab, *chain(recipe=adamw, rounds=0))
    assert (key.momentum, key.batch_size, key.get("optimizer")) == (None, 100, "adamw")
    ticket = chain()[1].arguments["ticket"]
    sparse = key_of(lab, job(tb.train, ticket, "digits", adamw))
    assert (sparse.momentum, sparse.sparse_momentum, sparse.sparse_batch_size) == (0.0, None, 100)
    assert sparse.get("sparse_optimizer") == "adamw"
