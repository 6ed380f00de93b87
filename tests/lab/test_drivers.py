"""The short form of benchmarks/drivers.py: two drivers at once on one store, and a third after them."""

import os
from pathlib import Path
from typing import Any

import forked
import pytest
from scripts import module_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "drivers.py"


def test_every_job_starts_once_under_two_drivers_and_none_under_a_third(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = module_of(SCRIPT, "drivers")

    def started_driver(place: Path, name: str, count: int, workers: int) -> Any:
        environment = os.environ | {
            "DRIVER": name, "STARTS": str(place / "starts.txt"), "PYTHONPATH": forked.SOURCES
        }  # fmt: skip
        command = (SCRIPT, "--drive", place, "--jobs", count, "--workers", workers)
        return forked.start(*command, env=environment)

    monkeypatch.setattr(drivers, "started_driver", started_driver)
    # Each in its own process, without workers: the same leases, a fraction of the time.
    by = drivers.one_round(tmp_path, 24, 0)
    assert by["first"] + by["second"] == 24
    assert by["third"] == 0
