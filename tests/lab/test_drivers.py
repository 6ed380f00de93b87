"""The short form of benchmarks/drivers.py: two drivers at once on one store, and a third after them."""

import os
import subprocess
import sys
from pathlib import Path

import tombola as tb


def test_every_job_starts_once_under_two_drivers_and_none_under_a_third() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "drivers.py"
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    # Each in its own process, without workers: the same leases, a fraction of the time.
    command = [sys.executable, str(script), "--jobs", "24", "--rounds", "1", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    _, row, last = done.stdout.splitlines()
    jobs, first, second, third = (int(word) for word in row.split()[1:])
    assert jobs == 24
    assert first + second == 24
    assert third == 0
    assert last.endswith("every job started once")
