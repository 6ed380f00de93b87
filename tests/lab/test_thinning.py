"""Weights that go while an experiment runs: nothing is trained twice for it, and no number changes."""

import json
import subprocess
from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import JobError
from tombola.experiments.bound import Bound
from tombola.experiments.compute import collect, run_experiments
from tombola.experiments.experiment import Experiment
from tombola.lab.listing import listing
from tombola.lab.queue import announced
from tombola.lab.removal import check_unneeded, remove_job


def experiments(quick: tb.Recipe) -> tuple[list[list[tb.Job]], list[Bound]]:
    """A chain of four runs with the barriers between them."""
    experiment = Experiment(
        "chain", ["convnet"], ["digits"], quick, rounds=3, between={"rounds": ["barrier"]}
    )
    return experiment.chains(), [experiment.at()]


@pytest.mark.parametrize("workers", [0, 2])
def test_each_run_is_thinned_once_and_trained_once(workers: int, quick: tb.Recipe, tmp_path: Path) -> None:
    (chain,), bound = experiments(quick)
    whole = tb.Lab(tmp_path / "whole")
    run_experiments(whole, bound).outcome.raise_failures()
    lab = tb.Lab(tmp_path / "thin", workers=workers)
    ran = run_experiments(lab, bound, keep="needed").outcome
    ran.raise_failures()
    assert [lab.store.is_thin(run.name) for run in chain] == [True] * 4
    assert len(ran.computed) == len({*ran.computed})
    assert collect(lab, bound).csv() == collect(whole, bound).csv()
    # What is thin is finished: the same again computes nothing.
    assert run_experiments(lab, bound, keep="needed").outcome.computed == []
    assert len(listing(lab.store, "train").finished) == 4


def test_weights_that_an_earlier_call_kept_go(quick: tb.Recipe, tmp_path: Path) -> None:
    (chain,), bound = experiments(quick)
    lab = tb.Lab(tmp_path / "store")
    # One was cut off after two runs, and another one kept all weights.
    lab.run(chain[:2]).raise_failures()
    run_experiments(lab, bound, keep="needed").outcome.raise_failures()
    assert all(lab.store.is_thin(run.name) for run in chain)
    whole = tb.Lab(tmp_path / "whole")
    run_experiments(whole, bound).outcome.raise_failures()
    assert run_experiments(whole, bound, keep="needed").outcome.computed == []
    assert all(whole.store.is_thin(run.name) for run in chain)


def test_weights_behind_a_job_that_failed_stay(quick: tb.Recipe, tmp_path: Path) -> None:
    from tombola.lab.driver import Progress
    from tombola.lab.thinning import ThinningProgress

    (chain,), _ = experiments(quick)
    lab = tb.Lab(tmp_path / "store")
    line = tb.job(tb.barrier, chain[0], chain[1], "digits", points=3)
    lab.run(chain[:2]).raise_failures()
    thinning = ThinningProgress(Progress(), lab.store)
    thinning.expect([line])
    thinning.done(chain[1], None)
    thinning.done(line, "it failed")
    assert not lab.store.is_thin(chain[0].name)
    lab.run(line, progress=thinning).raise_failures()
    assert lab.store.is_thin(chain[0].name)


def test_weights_that_another_driver_still_needs_stay(quick: tb.Recipe, tmp_path: Path) -> None:
    """The other driver has a barrier to compute between two finished runs."""
    (chain,), bound = experiments(quick)
    lab = tb.Lab(tmp_path / "store")
    lab.run(chain[:2]).raise_failures()
    line = tb.job(tb.barrier, chain[0], chain[1], "digits", points=5)
    with announced(lab.store, [line]):
        run_experiments(lab, bound, keep="needed").outcome.raise_failures()
        assert [lab.store.is_thin(run.name) for run in chain] == [False, False, True, True]
        with pytest.raises(JobError, match=rf"process \d+ on .* needs job {chain[1].name[:12]} for others"):
            check_unneeded(lab.store, [chain[1].name])
        lab.run(line).raise_failures()
        # What it needed it has, though it goes on.
        run_experiments(lab, bound, keep="needed").outcome.raise_failures()
        assert all(lab.store.is_thin(run.name) for run in chain)
        check_unneeded(lab.store, [chain[3].name])
        remove_job(lab.store, chain[3].name)
    assert not lab.store.has(chain[3].name)


def test_the_queue_of_a_driver_that_died_spares_nothing(quick: tb.Recipe, tmp_path: Path) -> None:
    (chain,), bound = experiments(quick)
    lab = tb.Lab(tmp_path / "store")
    lab.run(chain[:2]).raise_failures()
    dead = subprocess.Popen(["true"])
    dead.wait()
    with announced(lab.store, [tb.job(tb.barrier, chain[0], chain[1], "digits", points=5)]):
        (path,) = (lab.store.root / "work").glob(".queue.*")
        path.write_text(json.dumps({**json.loads(path.read_text()), "pid": dead.pid}))
        run_experiments(lab, bound, keep="needed").outcome.raise_failures()
    assert all(lab.store.is_thin(run.name) for run in chain)
