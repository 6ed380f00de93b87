"""Finished jobs as arguments."""

from pathlib import Path

import pytest

import tombola as tb
from tombola.errors import JobError
from tombola.lab.chains import imp_jobs
from tombola.lab.finished import finished_job


@pytest.fixture
def lab(tmp_path: Path) -> tb.Lab:
    return tb.Lab(tmp_path / "store")


def test_a_job_out_of_the_store_names_the_same_further_jobs(lab: tb.Lab, recipe: tb.Recipe) -> None:
    runs = imp_jobs("convnet", "digits", recipe, rounds=1)
    lab.run(runs).raise_failures()
    found = [finished_job(lab.store, run.name[:8]) for run in runs]
    assert [job.name for job in found] == [run.name for run in runs]
    wanted = tb.job(tb.barrier, *runs, "digits", points=3)
    asked = tb.job(tb.barrier, *found, "digits", points=3)
    assert asked.name == wanted.name
    assert lab.result(asked) == lab.result(wanted)
    assert tb.job(tb.prune, found[0]).name == tb.job(tb.prune, runs[0]).name


def test_what_is_not_there_is_refused(lab: tb.Lab) -> None:
    with pytest.raises(JobError, match=r"no job in .* with a name that begins with 'abc'; see tombola ls"):
        finished_job(lab.store, "abc")
