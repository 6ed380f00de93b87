"""``tombola ls``, ``show``, ``diff`` and ``rm`` as they are typed."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.cli.main import COMMANDS

Result = tuple[int, str, str]


@pytest.fixture
def trained(tmp_path: Path) -> tuple[tb.Lab, list[tb.Job]]:
    """A lab on the store of the command, with a training of each of two momenta in it."""
    lab = tb.Lab(tmp_path / "store")
    start = tb.job(tb.initialize, "convnet", "digits", seed=0)
    recipes = (tb.Recipe(epochs=3, batch_size=400, momentum=momentum) for momentum in (0.0, 0.9))
    jobs = [tb.job(tb.train, start, "digits", recipe) for recipe in recipes]
    lab.run(jobs).raise_failures()
    return lab, jobs


def test_jobs_are_found_again(tombola: Callable[..., Result], trained: tuple[tb.Lab, list[tb.Job]]) -> None:
    _, (_, fast) = trained
    code, out, _ = tombola("ls", "--where", "momentum=0.9", "--where", "kind=run", "--json")
    assert code == 0
    assert [job["name"] for job in json.loads(out)["jobs"]] == [fast.name]
    code, out, _ = tombola("ls", "--function", "train", "--last", 1)
    assert (code, "1 job, " in out) == (0, True)
    code, out, _ = tombola("ls", "--where", "momentum=0.3")
    assert (code, out.startswith("no momentum=0.3 jobs in the store at ")) == (0, True)
    code, _, err = tombola("ls", "--where", "moment=0.3")
    assert (code, err) == (2, "tombola: no field 'moment'; did you mean 'momentum'?\n")


def test_a_run_is_shown_with_its_curve_and_what_it_was_made_from(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, list[tb.Job]]
) -> None:
    lab, (slow, _) = trained
    code, out, _ = tombola("show", slow.name[:12])
    assert code == 0
    history = lab.result(slow).history
    ends = history[0].test_accuracy, history[-1].test_accuracy
    (line,) = (line for line in out.splitlines() if line.startswith("test accuracy "))
    assert f"{ends[0]:.2f}% to {ends[1]:.2f}%, best " in line
    assert "made from 1 job\n" in out
    assert f"└── {slow.parents[0].name[:12]} initialize: 0.00% sparsity at epoch 0\n" in out


def test_two_jobs_are_compared(tombola: Callable[..., Result], trained: tuple[tb.Lab, list[tb.Job]]) -> None:
    _, (slow, fast) = trained
    code, out, _ = tombola("diff", slow.name[:12], fast.name[:12], "--json")
    assert code == 0
    assert json.loads(out)["measured"] == {"momentum": [0.0, 0.9]}
    code, out, _ = tombola("diff", slow.name[:12], fast.name[:12])
    assert [line.split() for line in out.splitlines()[:3]] == [
        [slow.name[:12], fast.name[:12]],
        ["measured"],
        ["momentum", "0", "0.9"],
    ]
    for field, unit in (("accuracy", "%"), ("seconds", " s")):
        assert re.search(rf"^  {field} +[\d.]+{unit} +[\d.]+{unit} *$", out, re.MULTILINE)
    code, out, _ = tombola("diff", slow.name[:12], slow.name[:12])
    assert (code, out) == (0, f"{slow.name[:12]} and {slow.name[:12]} differ in nothing\n")


def test_nothing_is_removed_unless_it_is_said(
    tombola: Callable[..., Result], trained: tuple[tb.Lab, list[tb.Job]]
) -> None:
    lab, (slow, fast) = trained
    start = slow.parents[0]
    code, out, _ = tombola("rm", start.name[:12])
    assert (code, "2 jobs made from it: " in out, "would go; say --remove" in out) == (0, True, True)
    assert "; kept, though verify will miss what was removed; --dependents removes these too\n" in out
    assert lab.store.has(start.name)
    code, out, _ = tombola("rm", slow.name[:12], "--remove")
    assert (code, out.splitlines()[-1].endswith(" removed")) == (0, True)
    assert (lab.store.has(slow.name), lab.store.has(fast.name)) == (False, True)
    assert tombola("rm") == (2, "", "tombola: no job is named; tombola ls lists their names\n")


def test_a_mistyped_command_is_answered_with_the_nearest(tombola: Callable[..., Result]) -> None:
    code, _, err = tombola("lss")
    assert code == 2
    assert err == "tombola: no command 'lss'; did you mean 'ls'? (tombola --help lists them)\n"


def test_a_listing_does_not_wait_for_pytorch() -> None:
    needed = "import sys, tombola.lab.listing, tombola.lab.store; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", needed], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_budget_is_given_to_a_chain_as_to_a_study(tombola: Callable[..., Result], tmp_path: Path) -> None:
    short = ("imp", "--rounds", 0, "--recipe.batch-size", 400, "--device", "cpu")
    assert tombola(*short, "--epochs", 1)[0] == 0
    (run,) = (job for job in tb.Lab(tmp_path / "store").store.names() if _function(tmp_path, job) == "train")
    code, out, _ = tombola(*short, "--recipe.epochs", 1)
    assert (code, run[:12] in out, "stored" in out) == (0, True, True)
    assert tombola(*short, "--epochs", "1ep", "--recipe.epochs=1")[0] == 0
    for other in (3, tb.Recipe().epochs):  # one that is typed counts, the default too
        code, _, err = tombola(*short, "--epochs=2", "--recipe.epochs", other)
        message = f"--epochs 2 and --recipe.epochs {other} were given; they are the same, give one"
        assert (code, err) == (2, f"tombola: {message}\n")
    tiny = ("imp", "--network", "lenet300", "--recipe", "lenet300", "--rounds", 0, "--device", "cpu")
    assert tombola(*tiny, "--epochs", "1it")[0] == 0
    code, out, _ = tombola(*tiny, "--recipe.epochs", "1it")
    assert (code, "stored" in out) == (0, True)
    code, _, err = tombola(*short, "--epochs", "soon")
    assert code == 2
    assert err.startswith("tombola: epochs is 'soon'; it must be a whole number, at least 1, or iterations")


def _function(place: Path, job: str) -> str:
    return str(tb.Lab(place / "store").store.description(job)["function"])


@pytest.mark.parametrize("command", [*sorted(COMMANDS), "measure barrier", "measure plane", "measure train"])
def test_help_names_no_default_that_is_empty(tombola: Callable[..., Result], command: str) -> None:
    code, out, _ = tombola(*command.split(), "--help")
    assert code == 0
    assert "(default: )" not in " ".join(out.split())


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_shows_options_by_what_they_take(tombola: Callable[..., Result], command: str) -> None:
    code, out, _ = tombola(command, "--help")
    assert code == 0
    assert "{None}" not in out
    assert "STR|STR" not in out
    # Of an augmentation None is a value, and says what it means.
    assert "(default: None)" not in out or command == "imp"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slots", 0), "slots is 0; it must be at least 1"),
        (("--repeats", -1), "repeats is -1; measure each case at least once"),
        (("--size", -3), "size is -3; it must be at least 1"),
        (("--batch-sizes", 0), "batch size is 0; it must be at least 1"),
        (("--size", 10**6), "made-up images of size 1000000 for batches of 100 take 1,200 TB, and "),
        (
            ("--batch-sizes", 10**12),
            "made-up images of size 32 for batches of 1000000000000 take 12,288 TB, ",
        ),
    ],
)
def test_numbers_that_cannot_be_measured_are_refused(
    tombola: Callable[..., Result], options: tuple[object, ...], message: str
) -> None:
    code, out, err = tombola("bench", "--networks", "convnet", "--device", "cpu", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"tombola: {message}")
