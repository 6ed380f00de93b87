"""The short form of benchmarks/faults.py, one kill of each part of a cluster, and a job that hangs on one.

They take a minute, and have their own step of CI: ``TOMBOLA_FAULTS=1 pytest tests/lab/test_faults.py``.
"""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import tombola as tb
from tombola.lab.execute import Settings

pytestmark = pytest.mark.skipif(
    os.environ.get("TOMBOLA_FAULTS") != "1", reason="asked for with TOMBOLA_FAULTS=1; it takes a minute"
)


def test_a_study_survives_the_death_of_every_part_of_its_cluster_to_the_bit() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "faults.py"
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    command = [sys.executable, str(script), "--kills", "4", "--epochs", "25"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout
    assert done.stdout.endswith("all bits equal, nothing published twice\n")


HANGS = """
import time
import tombola as tb

@tb.declare("hangs alone")
def hangs(watch: tb.Watch | None = None) -> int:
    while True:
        time.sleep(600)

@tb.declare("goes on")
def goes_on(number: int) -> int:
    time.sleep(0.1)
    return number
"""


def test_a_job_that_hangs_on_a_plain_dask_worker_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "preloaded.py").write_text(HANGS)
    names: dict = {}
    exec(HANGS, names)
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    worker = ["--nthreads", "2", "--memory-limit", "0", "--preload", str(tmp_path / "preloaded.py")]
    commands = [["scheduler", "--port", "0", *options], ["worker", *options, *worker]]
    with (tmp_path / "log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *command], stdout=log, stderr=log, env=environment
            )
            for command in commands
        ]
    try:
        culprit = tb.job(names["hangs"])
        others = [tb.job(names["goes_on"], number) for number in range(8)]
        settings = Settings(device="cpu", attempts=2, hung_after=0.5)
        lab = tb.Lab(tmp_path / "store", scheduler_file=file, settings=settings)
        outcome = lab.run([culprit, *others])
    finally:
        for process in processes:
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for child in family:
                if child.is_running():
                    child.kill()
    assert set(outcome.failed) == {culprit.name}
    assert set(outcome.computed) == {job.name for job in others}
    assert "no sign of life for too long, in hangs (preloaded.py:" in outcome.failed[culprit.name]
