"""Commands that end on time, with what they say and how they end; see tests/lab for what becomes of jobs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.cli.stop import joined, seconds_of
from tombola.lab.driver import Outcome
from tombola.lab.store import Store
from tombola.lab.training_progress import trainings_in_progress

Result = tuple[int, str, str]
Tombola = Callable[..., Result]
Refused = Callable[[Result], str]

QUICK = ("--recipe.epochs", 2, "--recipe.batch-size", 400)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("9m", 540), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), (".5m", 30), ("1h0m5s", 3605)],
)
def test_times_have_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("command", [("imp",), ("run", "table2"), ("run", "mine.py")])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("0", "--stop-after is 0; it must be more than 0, such as 9m"),
        ("0m", "--stop-after is 0m; it must be more than 0, such as 9m"),
        ("-9m", "--stop-after is -9m; it must be more than 0, such as 9m"),
        ("-9", "--stop-after is -9; it must be more than 0, such as 9m"),
        ("9", "--stop-after is 9, without a unit; give 9s, 9m or 9h"),
        ("1.5", "--stop-after is 1.5, without a unit; give 1.5s, 1.5m or 1.5h"),
        ("9min", "--stop-after is '9min'; give a time such as 90s, 9m or 1h30m"),
        ("soon", "--stop-after is 'soon'; give a time such as 90s, 9m or 1h30m"),
        ("", "--stop-after is ''; give a time such as 90s, 9m or 1h30m"),
        ("9 m", "--stop-after is '9 m'; give a time such as 90s, 9m or 1h30m"),
        ("nan", "--stop-after is 'nan'; give a time such as 90s, 9m or 1h30m"),
    ],
)
def test_a_time_that_is_none_is_refused_in_one_line(
    tombola: Tombola, refused: Refused, tmp_path: Path, command: tuple[str, ...], text: str, line: str
) -> None:
    assert refused(tombola(*command, "--stop-after", text)) == line
    assert not (tmp_path / "store").exists()


def test_a_negative_time_is_no_option() -> None:
    assert joined(["run", "--stop-after", "-9m", "-h"]) == ["run", "--stop-after=-9m", "-h"]
    assert joined(["run", "--stop-after", "--all"]) == ["run", "--stop-after", "--all"]


def test_a_command_has_no_stop_after_it(tombola: Tombola) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert tombola("imp", "--rounds", 0, *QUICK, "--stop-after", "1h")[0] == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_left_is_told_beside_what_failed(
    tombola: Tombola, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\n[recipe]\nepochs = 1\n')
    outcome = Outcome(failed={"a" * 64: "boom"}, left=["b" * 64])
    monkeypatch.setattr(tb.Lab, "run", lambda *_, **__: outcome)
    monkeypatch.setattr(os, "_exit", sys.exit)  # a command that was stopped waits for no thread
    code, _, err = tombola("run", own, "--stop-after", "9m")
    assert code == 75
    assert err == (
        "tombola: nothing more fits into 9m: 0 of 2 jobs done, 1 left (1 failed); "
        "the same command continues\n"
    )


def command(store: Path, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-m", "tombola.cli", *map(str, arguments), "--store", str(store)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_chain_leaves_the_round_that_cannot_end_in_time_and_goes_on_later(tmp_path: Path) -> None:
    arguments = ("imp", "--rounds", 2, *QUICK)
    with command(tmp_path, "imp", "--rounds", 0, *QUICK) as process:
        assert process.wait(timeout=300) == 0
    store = Store(tmp_path)
    for file in tmp_path.glob("jobs/*/*/history.csv"):  # the dense training says of itself that it took long
        made = file.parent / "provenance.json"
        made.write_text(json.dumps(json.loads(made.read_text()) | {"seconds": 7200.0}))
    with command(tmp_path, *arguments, "--stop-after", "1h30m") as process:
        _, err = process.communicate(timeout=300)
    assert process.returncode == 75
    assert err == (
        "tombola: nothing more fits into 1h30m: 2 of 4 jobs done, 2 left "
        "(1 not begun, because their like took 2h or more); the same command continues if it is given more "
        "than 2h\n"
    )
    with command(tmp_path, *arguments) as process:
        assert process.wait(timeout=300) == 0
    assert len(list(store.names())) == 6  # two of them tickets, which are not counted above


@pytest.mark.parametrize(
    "kind",
    [
        "imp",
        pytest.param("run of one's own", marks=pytest.mark.long),
        pytest.param("run of the paper", marks=pytest.mark.long),
    ],
)
def test_sigterm_to_the_whole_group_ends_a_command_with_one_line_and_75(tmp_path: Path, kind: str) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(
        'name = "mine"\nnetworks = ["convnet"]\ndata = ["digits"]\nrounds = 1\nseeds = 2\n'
        "[recipe]\nepochs = 3000\nbatch_size = 100\n"
    )
    arguments: dict[str, tuple[object, ...]] = {
        "imp": ("imp", "--rounds", 1, "--recipe.epochs", 3000, "--recipe.batch-size", 100),
        "run of one's own": ("run", own, "--workers", 2),
        "run of the paper": (
            "run",
            "table8",
            "--scale",
            "tiny",
            "--epochs",
            3000,
            "--seeds",
            1,
            "--workers",
            2,
        ),
    }
    store = tmp_path / "store"
    # Far from its end when it is stopped, however slow the machine: its epochs are thousands.
    with command(store, *arguments[kind]) as process:
        while not ((store / "tombola.json").exists() and trainings_in_progress(Store(store))):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert "Traceback" not in out + err
    pattern = (
        r"tombola: stopped by SIGTERM: (\d+) of (\d+) jobs done, (\d+) left \(([12]) with a checkpoint\); "
        r"the same command continues"
    )
    found = re.fullmatch(pattern, err.splitlines()[-1])
    assert found, err
    done, jobs, left, checkpoints = map(int, found.groups())
    assert done == len(list(Store(store).names()))
    assert done + left == jobs
    assert checkpoints == len(list(store.glob("work/*/checkpoint")))
    assert not list(store.glob("work/*/attempts.json"))
    assert not list(store.glob("work/*/lease"))
