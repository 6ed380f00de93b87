"""``tombola run --slurm`` on a real Slurm: time limits end jobs, which go on to the same bits.

It wants what tests/cluster/test_slurm.py wants and --long: a limit of Slurm is of minutes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.experiments.from_file import read_experiments
from tombola.lab.item import jobs_of
from tombola.lab.job import all_needed
from tombola.lab.verify import verify

pytestmark = [pytest.mark.slurm, pytest.mark.long]

# Trainings that wait more than they compute, so that they reach a limit of minutes on any machine. None comes
# after another: what cannot end in time, as others of its kind tell, is not begun.
_EXPERIMENT = """
import time

import tombola as tb
from tombola.lab.supervision import LabWatch

experiment = tb.Experiment(
    name="slow", networks=["convnet"], data=["digits"], rounds=0, seeds={seeds},
    recipe={{"epochs": 40, "batch_size": 50, "momentum": 0.9}},
)

def finished_epoch(self, row, epochs):
    time.sleep({seconds})
    plainly(self, row, epochs)

plainly, LabWatch.finished_epoch = LabWatch.finished_epoch, finished_epoch
"""


@pytest.mark.parametrize(
    ("asked", "seeds", "jobs"),
    [
        ('partition=main,cpus=2,time=4,comment=it\'s "so" \\ $HOME #1', 1, 1),
        ("partition=main,gpus=2,nodes=2,time=4", 2, 2),
    ],
)
def test_a_run_under_a_time_limit_is_requeued_until_it_is_done_to_the_bit(
    slurm, wait_for, tmp_path: Path, same_run: Callable[..., bool], asked: str, seeds: int, jobs: int
) -> None:
    folder = tmp_path / "it's shared"
    folder.mkdir()
    file = folder / "slow.py"
    file.write_text(_EXPERIMENT.format(seeds=seeds, seconds=0))
    (experiment,) = read_experiments(file).experiments
    expected = all_needed(jobs_of(experiment.at().items))
    undisturbed = tb.Lab(tmp_path / "undisturbed")
    undisturbed.run(expected.values()).raise_failures()

    file.write_text(_EXPERIMENT.format(seeds=seeds, seconds=6))  # for 40 epochs: beyond the limit
    command = [
        sys.executable, "-m", "tombola.cli", "run", "slow.py", "--slurm", asked, "--store", "a store",
        "--device", "cpu", "--checkpoint-every", "0.5", "--slots", "1",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=slurm.environment, cwd=folder, check=True, capture_output=True, text=True
    )
    numbers = re.search(r"^  cancel:  scancel ([\d ]+)$", done.stdout, re.MULTILINE)[1].split()  # type: ignore[index]
    assert len(numbers) == jobs
    shown = slurm.tell("scontrol", "show", "job", numbers[0])
    if "comment" in asked:
        assert f"Comment={asked.partition('comment=')[2]}" in shown
    wait_for("the end of the experiment", lambda: not slurm.tell("squeue", "-h"), 1800.0)

    shown = slurm.tell("scontrol", "show", "job")
    assert set(re.findall(r"JobState=(\w+)", shown)) == {"COMPLETED"}
    driver = slurm.tell("scontrol", "show", "job", numbers[0])
    assert int(re.search(r"Restarts=(\d+)", driver)[1]) >= 1  # type: ignore[index]
    (place,) = (folder / "a store" / "slurm").iterdir()
    log = (place / f"{numbers[0]}.log").read_text()
    assert "stopped after " in log
    if jobs == 2:
        assert re.search(r"Scheduler at: +tls://127\.0\.0\.1:", log)
        assert "tcp://" not in log
    lab = tb.Lab(folder / "a store")
    assert set(lab.store.names()) == expected.keys()
    for name, job in expected.items():
        found, result = lab.result(job), undisturbed.result(job)
        assert (
            same_run(found, result) if isinstance(result, tb.Run) else found.fingerprint == result.fingerprint
        ), name
    assert list(verify(lab.store)) == []


def test_a_cancelled_run_stays_cancelled(slurm, wait_for, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(_EXPERIMENT.format(seeds=1, seconds=1.5))
    command = [sys.executable, "-m", "tombola.cli", "run", "slow.py", "--slurm", "cpus=1,time=5"]
    options = ["--store", "store", "--device", "cpu", "--checkpoint-every", "0.5"]
    subprocess.run([*command, *options], env=slurm.environment, cwd=tmp_path, check=True)
    wait_for("a checkpoint", lambda: list(tmp_path.glob("store/work/*/checkpoint")))
    slurm.tell("scancel", "1")
    wait_for("the end of the job", lambda: not slurm.tell("squeue", "-h"))
    told = slurm.tell("scontrol", "show", "job", "1")
    assert "JobState=CANCELLED" in told
    assert "Restarts=0" in told
    assert list(tmp_path.glob("store/work/*/checkpoint"))
