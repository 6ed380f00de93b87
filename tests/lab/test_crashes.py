"""The short form of benchmarks/crashes.py: a chain under faults at some of its operations on the disk."""

import os
from pathlib import Path

import forked
import pytest

import tombola as tb


def crashes(*options: str) -> str:
    script = Path(__file__).parents[2] / "benchmarks" / "crashes.py"
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = forked.run(script, *options, env=environment, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forked processes")
@pytest.mark.parametrize("sample", [12, pytest.param(2000, marks=pytest.mark.long)])
def test_a_fault_at_any_operation_loses_nothing_and_repeats_nothing(sample: int) -> None:
    out = crashes("--sample", str(sample), "--processes", "1" if sample < 100 else "2")
    assert f" operations, {sample} faults in " in out
    assert out.endswith("all bits equal, nothing lost, nothing repeated\n")
