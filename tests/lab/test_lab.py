from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import DataError, DeviceError, JobError, RecipeError, StoreError
from tombola.lab.chains import imp_jobs
from tombola.lab.execute import Settings
from tombola.networks import network as networks

Same = Callable[..., bool]


@pytest.fixture(scope="module")
def short() -> tb.Recipe:
    return tb.Recipe(epochs=2, batch_size=200, momentum=0.9)


# The same functions with memory


def test_a_chain_of_jobs_gives_the_runs_of_the_library(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, short: tb.Recipe, same_run: Same
) -> None:
    jobs = imp_jobs("convnet", "digits", short, rounds=2, fraction=0.5)
    lab.run(jobs).raise_failures()
    for made, run in zip(jobs, tb.imp(start, digits, short, rounds=2, fraction=0.5), strict=True):
        assert same_run(lab.result(made), run)
        assert lab.result(made).fingerprint == run.fingerprint
        assert lab.numbers(made) == run.summary()


def test_measures_and_controls_are_those_of_the_library(
    lab: tb.Lab, start: tb.Ticket, digits: tb.Data, short: tb.Recipe, same_run: Same
) -> None:
    first, second = imp_jobs("convnet", "digits", short, rounds=1, fraction=0.5)
    line = lab.result(tb.job(tb.barrier, first, second, "digits", points=3))
    runs = list(tb.imp(start, digits, short, rounds=1, fraction=0.5))
    assert line == tb.barrier(*runs, digits, points=3)
    ticket = tb.job(tb.prune, first, fraction=0.5)
    permuted = lab.result(tb.job(tb.train, tb.job(tb.permute, ticket, seed=2), "digits", short))
    assert same_run(permuted, tb.train(tb.permute(runs[1].ticket, seed=2), digits, short))


def test_a_result_is_computed_when_it_is_asked_for(lab: tb.Lab) -> None:
    start = tb.job(tb.initialize, "convnet", "digits", seed=1)
    assert not lab.has(start)
    assert lab.result(start).kept == 8456
    assert lab.has(start)


def test_a_job_that_is_not_stored_is_run_again_where_it_is_asked_for(lab: tb.Lab, short: tb.Recipe) -> None:
    run = imp_jobs("convnet", "digits", short, rounds=0)[0]
    forgotten = tb.job(tb.forgetting, run)
    assert lab.result(forgotten) == tb.forgetting(lab.result(run))
    assert lab.run(forgotten).finished_before == list(lab.run([run]).finished_before)
    assert not lab.has(forgotten)


def test_a_finished_job_needs_nothing_that_is_behind_it(
    lab: tb.Lab, short: tb.Recipe, tmp_path: Path
) -> None:
    jobs = imp_jobs("convnet", "digits", short, rounds=1)
    lab.run(jobs).raise_failures()
    lab.store.folder(jobs[0].name).rename(tmp_path / "aside")
    assert lab.run(jobs[1:]).computed == []
    assert lab.run(jobs).computed == [jobs[0].name]


def test_a_job_of_before_there_were_versions_is_of_version_1(lab: tb.Lab, digits: tb.Data) -> None:
    """Its description has the name alone, which a user types for the newest version."""
    old, new = (tb.job(tb.initialize, name, "digits") for name in ("resnet18@1", "resnet18"))
    lab.run([old, new]).raise_failures()
    assert lab.store.description(old.name)["arguments"]["network"] == "resnet18"
    assert lab.store.description(new.name)["arguments"]["network"] == "resnet18@2"
    assert lab.result(old).fingerprint == tb.initialize("resnet18@1", digits).fingerprint
    assert lab.result(new).fingerprint == tb.initialize("resnet18", digits).fingerprint
    assert lab.result(old).network.description()["name"] == "resnet18"
    assert not torch.equal(lab.result(old).start["conv1.weight"], lab.result(new).start["conv1.weight"])


def test_a_failure_is_raised_where_a_result_is_asked_for(lab: tb.Lab) -> None:
    start = tb.job(tb.initialize, "vgg16", "digits")
    with pytest.raises(
        JobError, match=f"job {start.name[:12]} failed: network vgg16 cannot take 1x8x8 images"
    ):
        lab.result(start)


def test_a_declared_function_of_the_user_is_a_job_at_once(lab: tb.Lab, short: tb.Recipe) -> None:
    @dataclass(frozen=True)
    class Spread:
        layers: tuple[str, ...]
        largest: float

    @tb.declare("spread")
    def spread(run: tb.Run, data: tb.Data, *, power: float = 1.0, device: str = "cpu"):
        assert str(device) == "cpu"
        assert data.classes == 10
        return Spread(tuple(run.weights), power * max(float(w.abs().max()) for w in run.weights.values()))

    spread.__annotations__["return"] = Spread
    (run,) = imp_jobs("convnet", "digits", short, rounds=0)
    one, two = (lab.result(tb.job(spread, run, "digits", power=power)) for power in (1, 2))
    assert two == replace(one, largest=2 * one.largest)
    assert "0.weight" in one.layers


# The caller's own


def test_a_ticket_of_the_callers_own_is_trained_as_by_the_library(
    lab: tb.Lab, chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, same_run: Same
) -> None:
    expected = tb.train(chain[1].ticket, digits, recipe, noise=9)
    chain[1].ticket.save(tmp_path / "ticket")
    for ticket in (chain[1].ticket, tb.Ticket.load(tmp_path / "ticket")):
        trained = tb.job(tb.train, ticket, "digits", recipe, noise=9)
        assert same_run(lab.result(trained), expected)
    assert len(list(lab.store.names())) == 1


def test_a_ticket_without_its_dense_start_can_be_trained_but_not_permuted(
    lab: tb.Lab, chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe, tmp_path: Path, same_run: Same
) -> None:
    chain[1].ticket.save(tmp_path / "ticket")
    sparse = tb.Ticket.load(tmp_path / "ticket")
    trained = tb.job(tb.train, sparse, "digits", recipe, noise=9)
    result = lab.result(trained)
    assert same_run(result, tb.train(sparse, digits, recipe, noise=9))
    assert not result.ticket.complete
    assert lab.result(tb.job(tb.prune, trained, fraction=0.5)).kept == 2114
    permuted = tb.job(tb.train, tb.job(tb.permute, sparse), "digits", recipe)
    with pytest.raises(
        JobError, match=r"this ticket does not carry its dense start .*; save it with with_start=True"
    ):
        lab.result(permuted)
    # The same ticket, the same job: now with what it needs.
    assert lab.result(tb.job(tb.train, tb.job(tb.permute, chain[1].ticket), "digits", recipe)).noise == 0


def test_a_job_that_is_not_stored_takes_the_callers_own(lab: tb.Lab, run: tb.Run) -> None:
    assert lab.result(tb.job(tb.convergence, run)) == tb.convergence(run)
    permuted = lab.result(tb.job(tb.permute, run.ticket, seed=4))
    assert permuted.fingerprint == tb.permute(run.ticket, seed=4).fingerprint


def test_runs_of_the_callers_own_are_measured_beside_the_labs(
    lab: tb.Lab, run: tb.Run, digits: tb.Data, recipe: tb.Recipe
) -> None:
    other = tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", recipe, noise=1)
    line = lab.result(tb.job(tb.barrier, run, other, "digits", points=3))
    # The same training, so a flat line.
    assert line.height == 0
    assert line.errors[0] == pytest.approx(100 - run.accuracy)


def test_tensors_of_the_callers_own_are_data(lab: tb.Lab, colour: tb.Data, same_run: Same) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=70)
    jobs = imp_jobs("convnet", colour, recipe, rounds=1)
    lab.run(jobs).raise_failures()
    runs = tb.imp(tb.initialize("convnet", colour), colour, recipe, rounds=1)
    for made, run in zip(jobs, runs, strict=True):
        assert same_run(lab.result(made), run)


def test_other_pixels_under_the_same_name_are_refused_before_any_work(lab: tb.Lab, colour: tb.Data) -> None:
    lab.run(tb.job(tb.initialize, "convnet", colour)).raise_failures()
    labels = colour.train.labels.roll(1)
    other = replace(colour, train=tb.ImageSet(colour.train.images, labels))
    with pytest.raises(StoreError, match="results for other pixels under the data name 'colour'"):
        lab.run(tb.job(tb.initialize, "convnet", other, seed=1))
    assert len(list(lab.store.names())) == 1


def test_data_that_cannot_be_loaded_are_told_before_any_work(lab: tb.Lab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"folder .*empty' has no images"):
        lab.run(tb.job(tb.initialize, "convnet", tmp_path / "empty"))
    assert list(lab.store.names()) == []


def test_a_declared_network_of_the_callers_own_is_trained(
    lab: tb.Lab, short: tb.Recipe, digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same
) -> None:
    monkeypatch.setattr(networks._networks, "_declared", dict(networks._networks._declared))

    @tb.declare_network("flat")
    def flat(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))

    (made,) = imp_jobs("flat", "digits", short, rounds=0)
    assert same_run(lab.result(made), tb.train(tb.initialize(flat, digits), digits, short))


# Settings


def test_device_and_checkpoints_enter_no_name(tmp_path: Path, short: tb.Recipe) -> None:
    jobs = imp_jobs("convnet", "digits", short, rounds=0)
    tb.Lab(tmp_path, settings=Settings(device="cpu", checkpoint_every=0.0)).run(jobs).raise_failures()
    assert tb.Lab(tmp_path).run(jobs).computed == []


def test_an_unknown_device_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no device 'gpu'; known: auto, cpu, cuda, cuda:0, \.\.\."):
        tb.Lab(tmp_path, settings=Settings(device="gpu"))


def test_fewer_than_no_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"workers is -1; it must be 0 .* or more"):
        tb.Lab(tmp_path / "store", workers=-1)
    assert not (tmp_path / "store").exists()


def test_a_lab_leaves_the_global_generator_and_the_threads_alone(lab: tb.Lab, short: tb.Recipe) -> None:
    before = torch.get_rng_state(), torch.get_num_threads()
    lab.run(imp_jobs("convnet", "digits", short, rounds=1)).raise_failures()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
