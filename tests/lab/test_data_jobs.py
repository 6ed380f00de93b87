"""Data sets that a call makes, such as subsets: arguments of jobs like data that are loaded."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

import tombola as tb
from tombola import registry
from tombola.data.subsets import subset
from tombola.errors import JobError, StoreError
from tombola.lab import evaluate as evaluating
from tombola.lab.chains import imp_jobs
from tombola.lab.job import all_needed, data_behind
from tombola.lab.objects import register_data, stored_data
from tombola.lab.store import Store, read_json
from tombola.measures.difficulty import drop_by_difficulty, forgotten_subset
from tombola.measures.learning import forgetting_curve, forgetting_ranking

Same = Callable[..., bool]


@pytest.fixture(autouse=True)
def _nothing_made_before() -> Iterator[None]:
    evaluating._derived_data.cache_clear()
    yield
    evaluating._derived_data.cache_clear()


@pytest.fixture
def made() -> list[float]:
    """A declared function that makes data, and every call that was made of it."""
    calls: list[float] = []

    @tb.declare("darker", stored=False)
    def darker(data: tb.Data, share: float) -> tb.Data:
        calls.append(share)
        images = (data.train.images * share).to(torch.uint8)
        return replace(data, name=f"dark-{share}", train=tb.ImageSet(images, data.train.labels), source=None)

    return calls


def darker(*arguments: object) -> tb.Job:
    return tb.job(registry.declaration("darker").function, *arguments)


def dense() -> tb.Job:
    return tb.job(tb.initialize, "convnet", "digits")


def test_a_subset_within_a_job_is_the_subset_of_the_library(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, quick: tb.Recipe, same_run: Same
) -> None:
    part = tb.job(subset, "digits", share=0.4, seed=3)
    trained = tb.job(tb.train, dense(), part, quick)
    assert same_run(lab.result(trained), tb.train(start, subset(digits, share=0.4, seed=3), quick))
    assert data_behind([trained]) == {"digits": "digits"}
    assert not lab.has(part)


def test_a_subset_by_forgetting_needs_the_run_behind_it(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, quick: tb.Recipe, same_run: Same
) -> None:
    longer = replace(quick, epochs=3)
    run = tb.job(tb.train, dense(), "digits", longer)
    part = tb.job(forgotten_subset, "digits", run, which="most", share=0.4)
    rest = tb.job(drop_by_difficulty, "digits", run, which="hardest", share=0.3)
    trained = [tb.job(tb.train, dense(), data, quick) for data in (part, rest)]
    assert [job.declaration.name for job in all_needed(trained).values()] == ["initialize", *["train"] * 3]
    lab.run(trained).raise_failures()
    whole = tb.train(start, digits, longer)
    by_hand = (
        forgotten_subset(digits, whole, which="most", share=0.4),
        drop_by_difficulty(digits, whole, which="hardest", share=0.3),
    )
    for job, data in zip(trained, by_hand, strict=True):
        assert same_run(lab.result(job), tb.train(start, data, quick))


def test_a_whole_chain_runs_on_a_subset(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, quick: tb.Recipe, same_run: Same
) -> None:
    jobs = imp_jobs("convnet", tb.job(subset, "digits", share=0.5), quick, rounds=2, fraction=0.5)
    lab.run(jobs).raise_failures()
    runs = tb.imp(start, subset(digits, share=0.5), quick, rounds=2, fraction=0.5)
    for job, run in zip(jobs, runs, strict=True):
        assert same_run(lab.result(job), run)


@pytest.mark.usefixtures("forked_workers")
def test_worker_processes_make_the_same_subsets(
    lab: tb.Lab, tmp_path, quick: tb.Recipe, same_run: Same
) -> None:
    run = tb.job(tb.train, dense(), "digits", quick)
    parts = [
        tb.job(subset, "digits", shots=50),
        tb.job(forgotten_subset, "digits", run, which="least", share=0.4),
    ]
    trained = [tb.job(tb.train, dense(), part, quick) for part in parts]
    workers = tb.Lab(tmp_path / "other", workers=2)
    workers.run(trained).raise_failures()
    lab.run(trained).raise_failures()
    for job in trained:
        assert same_run(workers.result(job), lab.result(job))


def test_a_data_set_is_made_once_for_all_jobs_of_a_process(
    lab: tb.Lab, quick: tb.Recipe, made: list[float]
) -> None:
    jobs = [tb.job(tb.train, dense(), darker("digits", 0.5), quick, noise=noise) for noise in range(3)]
    jobs.append(tb.job(tb.train, dense(), darker(darker("digits", 0.5), 0.25), quick))
    lab.run(jobs).raise_failures()
    assert made == [0.5, 0.25]


def test_at_most_a_few_made_data_sets_are_kept(lab: tb.Lab, made: list[float]) -> None:
    lab.run(dense()).raise_failures()
    for index in range(10):
        description = tb.job(tb.train, dense(), darker("digits", index / 10), tb.Recipe()).description()
        evaluating._described_argument(lab.store, description["arguments"]["data"], {}, {})
    assert len(made) == 10
    assert evaluating._derived_data.cache_info().currsize <= 4


def test_other_pixels_at_the_same_place_make_other_data(tmp_path, colour: tb.Data, made: list[float]) -> None:
    dark = darker(colour, 0.5)
    seen = []
    for place, data in (("first", colour), ("second", subset(colour, share=0.5))):
        store = Store(tmp_path / "store")
        register_data(store, "colour", replace(data, name="colour"))
        argument = tb.job(subset, dark, share=1.0).description()["arguments"]["data"]
        seen.append(len(evaluating._described_argument(store, argument, {}, {}).train))
        store.root.rename(tmp_path / place)
    assert seen == [210, len(subset(colour, share=0.5).train)]


def test_provenance_tells_the_pixels_that_were_trained_on(
    lab: tb.Lab, digits: tb.Data, quick: tb.Recipe
) -> None:
    trained = tb.job(tb.train, dense(), tb.job(subset, "digits", share=0.5), quick)
    lab.run(trained).raise_failures()
    assert lab.store.provenance(trained.name)["data"] == {"data": subset(digits, share=0.5).fingerprint}


def test_a_subset_given_as_it_is_is_read_back_with_its_normalisation(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, quick: tb.Recipe, same_run: Same
) -> None:
    part = subset(digits, share=0.5)
    assert same_run(lab.result(tb.job(tb.train, start, part, quick)), tb.train(start, part, quick))
    record = read_json(lab.store.root / "data" / f"{part.name}.json")
    assert record["normalization"] == [digits.mean.tolist(), digits.std.tolist()]
    back = stored_data(lab.store, part.name)
    assert (back.fingerprint, back.normalization) == (part.fingerprint, part.normalization)
    register_data(lab.store, part.name, part)
    with pytest.raises(StoreError, match=f"results for other pixels under the data name '{part.name}'"):
        register_data(lab.store, part.name, replace(part, normalization=None))


def test_a_result_of_a_data_job_is_the_data_set(lab: tb.Lab, digits: tb.Data) -> None:
    found = lab.result(tb.job(subset, tb.job(subset, "digits", share=0.5), shots=2, seed=1))
    assert found.fingerprint == subset(subset(digits, share=0.5), shots=2, seed=1).fingerprint
    assert found.name == "digits-share0.5-seed0-shots2-seed1"


def test_a_data_set_that_a_function_keeps_is_read_back_whole(
    lab: tb.Lab, digits: tb.Data, quick: tb.Recipe
) -> None:
    @tb.declare("kept part")
    def kept_part(data: tb.Data) -> tb.Data:
        return subset(data, share=0.5)

    part = tb.job(kept_part, "digits")
    assert lab.result(part).fingerprint == subset(digits, share=0.5).fingerprint
    lab.result(tb.job(tb.train, dense(), part, quick))
    assert lab.has(part)


def test_an_impossible_subset_fails_its_job_with_the_cause(lab: tb.Lab, quick: tb.Recipe) -> None:
    trained = tb.job(tb.train, dense(), tb.job(subset, "digits", shots=900), quick)
    with pytest.raises(JobError, match=r"shots is 900, but class '\d' of digits has \d+ train images"):
        lab.result(trained)


def test_forgetting_and_its_curve_and_ranking_are_those_of_the_library(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, quick: tb.Recipe
) -> None:
    longer = replace(quick, epochs=2)
    run, made_run = tb.train(start, digits, longer), tb.job(tb.train, dense(), "digits", longer)
    assert lab.result(tb.job(forgetting_curve, made_run)) == forgetting_curve(run)
    assert torch.equal(
        lab.result(tb.job(forgetting_ranking, made_run, seed=2)), forgetting_ranking(run, seed=2)
    )


def test_names_of_jobs_over_made_data_are_hashes_of_the_calls_as_written_by_hand() -> None:
    def sha(function: str, **arguments: object) -> str:
        called = {"function": function, "version": 1, "arguments": arguments}
        return hashlib.sha256(json.dumps(called, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    digits, recipe = {"data": "digits"}, tb.Recipe(epochs=12)
    start = sha("initialize", network="convnet", data=digits)
    run = sha("train", ticket={"job": start}, data=digits, recipe={"epochs": 12})
    part = sha("subset", data=digits, share=0.01, seed=2)
    most = sha("forgotten-subset", data=digits, run={"job": run}, which="most", shots=5)
    easy = sha("drop-by-difficulty", data=digits, run={"job": run}, which="easiest", share=0.3)

    run_job = tb.job(tb.train, dense(), "digits", recipe)
    made = {
        part: tb.job(subset, "digits", share=0.01, shots=None, seed=2),
        most: tb.job(forgotten_subset, "digits", run_job, which="most", shots=5, seed=0),
        easy: tb.job(drop_by_difficulty, "digits", run_job, which="easiest", share=0.3),
    }
    assert [job.name for job in made.values()] == list(made)
    for name, job in made.items():
        trained = sha("train", ticket={"job": start}, data={"job": name}, recipe={"epochs": 12})
        assert tb.job(tb.train, dense(), job, recipe).name == trained
    # A whole number for a share names the same job.
    assert tb.job(subset, "digits", share=1).name == tb.job(subset, "digits", share=1.0).name
