"""The scripts of docs/cluster.md on a real Slurm, one of whose nodes is killed while it trains.

It wants Debian's slurm-wlm and munge, and root; then ``pytest tests/cluster`` takes about two minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import tombola as tb
from tombola.experiments.from_file import read_experiments
from tombola.lab.item import jobs_of
from tombola.lab.job import all_needed
from tombola.lab.verify import verify

pytestmark = pytest.mark.slurm

_DOCUMENT = Path(__file__).parents[2] / "docs" / "cluster.md"
# Three chains of three trainings, each long enough to be killed within. Every publication is noted.
_EXPERIMENT = """
import tombola as tb
from tombola.lab.store import Store

experiment = tb.Experiment(
    name="wider", networks=["convnet"], data=["digits"], rounds=2, fraction=0.5, seeds=3,
    recipe={"epochs": 40, "batch_size": 50, "momentum": 0.9},
)

def take_in(self, name, staging):
    new = plainly(self, name, staging)
    if new:
        with open(self.root.parent / "published.txt", "a") as file:
            file.write(name + "\\n")
    return new

plainly, Store.take_in = Store.take_in, take_in
"""


def documented() -> tuple[list[str], str]:
    """The scripts in the document's section on Slurm, and the line that submits them."""
    section = _DOCUMENT.read_text().partition("## Slurm\n")[2].partition("\n## ")[0]
    workers, driver, submission = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [workers, driver], submission


@pytest.fixture(scope="module")
def undisturbed(slurm_possible: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The jobs of the experiment and their results, from one process and without any cluster."""
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "experiment.py").write_text(_EXPERIMENT.partition("def take_in")[0])
    (experiment,) = read_experiments(place / "experiment.py").experiments
    jobs = all_needed(jobs_of(experiment.at().items))
    lab = tb.Lab(place / "store")
    lab.run(jobs.values()).raise_failures()
    return {name: (job, lab.result(job)) for name, job in jobs.items()}


def node_of(lease: Path) -> str | None:
    """The node on which the owner of a lease runs."""
    try:
        process = psutil.Process(json.loads(lease.read_text())["pid"])
        return process.environ().get("SLURMD_NODENAME")
    except (OSError, ValueError, psutil.Error):
        return None


@pytest.mark.parametrize("victim", ["a node of workers", "the node of the experiment"])
def test_an_experiment_survives_the_death_of_a_node_to_the_bit(
    slurm, wait_for, tmp_path: Path, undisturbed: dict[str, Any], same_run: Callable[..., bool], victim: str
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    scripts, submission = documented()
    for name, content in zip(("workers.sh", "experiment.sh"), scripts, strict=True):
        (folder / name).write_text(content)
    (folder / "wider.py").write_text(_EXPERIMENT)
    subprocess.run(["bash", "-ec", submission], env=slurm.environment, cwd=folder, check=True)

    wait_for(
        "the experiment to begin", lambda: slurm.tell("squeue", "-h", "-n", "tombola-experiment", "-o", "%N")
    )
    home = slurm.tell("squeue", "-h", "-n", "tombola-experiment", "-o", "%N")
    node = (
        home if victim == "the node of the experiment" else next(each for each in slurm.nodes if each != home)
    )
    work = folder / "store" / "work"

    def trains_there() -> list[Path]:
        places = [place.parent for place in work.glob("*/checkpoint")]
        return [place for place in places if node_of(place / "lease") == node]

    wait_for(f"a training on {node} with a checkpoint", trains_there)
    slurm.kill_node(node)
    wait_for(f"{node} to be down", lambda: "down" in slurm.tell("sinfo", "-h", "-n", node, "-o", "%t"))
    slurm.start_node(node)
    wait_for("the end of the experiment", lambda: not slurm.tell("squeue", "-h"))

    told = slurm.tell("scontrol", "show", "job")
    assert "Restarts=1" in told
    assert set(re.findall(r"JobState=(\w+)", told)) == {"COMPLETED"}
    lab = tb.Lab(folder / "store")
    assert set(lab.store.names()) == undisturbed.keys()
    for job, result in undisturbed.values():
        found = lab.result(job)
        assert (
            same_run(found, result) if isinstance(result, tb.Run) else found.fingerprint == result.fingerprint
        )
    assert Counter((folder / "published.txt").read_text().split()) == Counter(list(undisturbed))
    assert list(verify(lab.store)) == []
