"""Weights that go while an experiment runs: nothing is trained twice for it, and no number changes."""

from pathlib import Path

import pytest

import tombola as tb
from tombola.experiments.bound import Bound
from tombola.experiments.compute import collect, run_experiments
from tombola.experiments.experiment import Experiment
from tombola.lab.listing import listing


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
