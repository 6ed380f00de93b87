"""The definition of an image, containers/tombola.def: built where Apptainer is, and looked at anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFINITION = ROOT / "containers" / "tombola.def"


def sections() -> dict[str, str]:
    """The sections of the definition by name; what stands before the first is called "header"."""
    names_and_texts = re.split(r"^%(\w+)[^\n]*\n", f"%header\n{DEFINITION.read_text()}", flags=re.MULTILINE)
    return dict(zip(names_and_texts[1::2], names_and_texts[2::2], strict=True))


def test_the_image_has_the_tested_versions_and_copies_what_is_there() -> None:
    parts = sections()
    copies = [line.split() for line in parts["files"].splitlines() if line.strip()]
    assert all((ROOT / source).exists() and target.startswith("/opt/tombola/") for source, target in copies)
    assert "/opt/tombola -c /opt/tombola/constraints.txt" in parts["post"]
    # The Python that the versions were tested with, as the tests of this checkout run in CI.
    assert re.search(r"^From: python:3\.(\d+)-slim-\w+$", parts["header"], re.MULTILINE)[1] == "11"  # type: ignore[index]


@pytest.mark.skipif(shutil.which("bash") is None, reason="wants bash")
@pytest.mark.parametrize("section", ["post", "environment", "test", "runscript"])
def test_its_scripts_are_ones(section: str) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=sections()[section], text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.apptainer
def test_an_image_is_built_and_runs(tmp_path: Path) -> None:
    if shutil.which("apptainer") is None:
        pytest.skip("Apptainer is not installed")
    image = tmp_path / "tombola.sif"
    subprocess.run(["apptainer", "build", image, DEFINITION], cwd=ROOT, check=True)  # runs its %test as well
    told = subprocess.run(["apptainer", "run", image, "doctor"], capture_output=True, text=True, check=True)
    assert "tombola: " in told.stdout
