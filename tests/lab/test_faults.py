"""The short form of benchmarks/faults.py: one kill of each part of a cluster.

It takes most of a minute, and its own step of CI: ``TOMBOLA_FAULTS=1 pytest tests/lab/test_faults.py``.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tombola as tb

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
