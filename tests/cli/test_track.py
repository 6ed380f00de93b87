"""``--track`` and ``tombola track`` as they are typed, with a tracker that is one file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab import trackers

Result = tuple[int, str, str]

CHAIN = ("imp", "--rounds", 1, "--fraction", 0.5, "--recipe.epochs", 1, "--recipe.batch-size", 600)

FOURTH = """
PACKAGE = "json"


def open_tracker(folder):
    return Lines(folder / "jobs.txt")


class Lines:
    def __init__(self, path):
        self.path = path

    def absent(self, names):
        held = self.path.read_text().split() if self.path.exists() else []
        return [name for name in names if name not in held]

    def add(self, job):
        if not self.path.parent.exists():
            raise OSError("no such folder")
        with self.path.open("a") as file:
            print(job.name, file=file)

    def place(self):
        return f"in {self.path.name}"
"""


@pytest.fixture(autouse=True)
def _lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fourth tracker: one file."""
    folder = tmp_path / "fourth"
    folder.mkdir()
    (folder / "lines.py").write_text(FOURTH)
    monkeypatch.setattr(trackers, "__path__", [*trackers.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, "tombola.lab.trackers.lines", raising=False)


def test_a_chain_is_tracked_and_what_is_there_is_left_alone(
    tombola: Callable[..., Result], tmp_path: Path
) -> None:
    folder = tmp_path / "tracked"
    folder.mkdir()
    code, out, err = tombola(*CHAIN, "--track", "lines", "--track-dir", folder)
    assert (code, err) == (0, "")
    assert "lines: 2 jobs entered in jobs.txt" in out.splitlines()
    lab = tb.Lab(tmp_path / "store")
    runs = {name for name in lab.store.names() if lab.store.description(name)["function"] == "train"}
    assert set((folder / "jobs.txt").read_text().split()) == runs
    code, out, err = tombola(*CHAIN, "--track", "lines", "--track-dir", folder)
    assert "lines: nothing new in jobs.txt" in out.splitlines()
    assert tombola("track", "all", "--to", "lines", "--track-dir", folder) == (
        0, "lines: nothing new in jobs.txt\n", "",
    )  # fmt: skip
    assert len((folder / "jobs.txt").read_text().split()) == 2
    # By name, into a new place; a name that is a ticket's is refused.
    name = min(runs)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = tombola("track", name[:12], "--to", "lines", "--track-dir", elsewhere)
    assert said == (0, "lines: 1 job entered in jobs.txt\n", "")
    [ticket] = [n for n in lab.store.names() if lab.store.description(n)["function"] == "prune"]
    _, _, err = tombola("track", ticket, "--to", "lines", "--track-dir", elsewhere)
    assert err == f"tombola: job {ticket[:12]} is a ticket; trackers take runs and measures\n"
    _, _, err = tombola("track", "--to", "lines", "--track-dir", elsewhere)
    assert err == "tombola: no job was named; name some, or say all\n"


def test_a_tracker_that_fails_fails_no_training_but_the_command_that_tracks(
    tombola: Callable[..., Result], tmp_path: Path, refused: Callable[[Result], str]
) -> None:
    gone = tmp_path / "gone"
    code, out, err = tombola(*CHAIN, "--track", "lines", "--track-dir", gone)
    assert code == 0
    assert "8,456 of 8,610 parameters are prunable" in out
    assert err.startswith("tombola: note: lines takes no more jobs: OSError: no such folder; tombola track")
    assert err.count("\n") == 1
    line = refused(tombola("track", "all", "--to", "lines", "--track-dir", gone))
    assert line == "lines failed after 0 jobs (no such folder); the same command continues"


def test_a_tracker_that_cannot_be_used_is_refused_before_there_is_a_store(
    tombola: Callable[..., Result],
    tmp_path: Path,
    refused: Callable[[Result], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert refused(tombola(*CHAIN, "--track", "lnies")) == "no tracker 'lnies'; did you mean 'lines'?"
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    for command in (CHAIN, ("run", "table2", "--scale", "tiny")):
        assert refused(tombola(*command, "--track", "mlflow")) == (
            "tracker mlflow needs mlflow, which is not installed; pip install 'tombola[mlflow]'"
        )
    assert "--to with one of lines, mlflow" in refused(tombola("track", "all"))
    assert not (tmp_path / "store").exists()
