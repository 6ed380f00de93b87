"""Measures as commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab.chains import imp_jobs
from tombola.lab.store import Store

Result = tuple[int, str, str]
Tombola = Callable[..., Result]
Refused = Callable[[Result], str]

MINE = """
import tombola as tb


@tb.declare("weights-kept-times")
def weights_kept_times(run: tb.Run, *, factor: int = 1) -> int:
    '''Kept weights of the trained ticket, times a factor.'''
    return factor * run.ticket.kept
"""


@pytest.fixture
def runs(tmp_path: Path, recipe: tb.Recipe) -> list[tb.Job]:
    """Two finished trainings of a chain, in the store of the command."""
    made = imp_jobs("convnet", "digits", recipe, rounds=1)
    tb.Lab(tmp_path / "store").run(made).raise_failures()
    return made


def numbers(out: str) -> dict[str, float]:
    """The lines after the first as names and numbers."""
    return {name: float(value) for name, value in (line.split(": ") for line in out.splitlines()[1:])}


def test_a_measure_of_finished_jobs_is_a_job_and_its_numbers(
    tombola: Tombola, tmp_path: Path, runs: list[tb.Job]
) -> None:
    lab = tb.Lab(tmp_path / "store")
    names = [run.name[:10] for run in runs]
    code, out, err = tombola("measure", "barrier", *names, "--data", "digits", "--points", 3)
    assert (code, err) == (0, "")
    asked = tb.job(tb.barrier, *runs, "digits", points=3)
    assert out.splitlines()[0] == f"barrier {asked.name[:12]}"
    assert lab.has(asked)
    expected = tb.barrier(*map(lab.result, runs), tb.load_data("digits"), points=3)
    assert numbers(out)["height"] == pytest.approx(expected.height, rel=1e-4)
    code, out, _ = tombola("measure", "summarize", *names)
    assert code == 0
    assert out.splitlines()[0].endswith("(not kept)")
    assert numbers(out)["values[1]"] == pytest.approx(lab.result(runs[1]).accuracy, rel=1e-4)


def test_files_stand_for_tickets_and_runs(
    tombola: Tombola, refused: Refused, tmp_path: Path, chain: list[tb.Run]
) -> None:
    chain[1].ticket.save(tmp_path / "ticket.safetensors")
    chain[1].save(tmp_path / "run.safetensors")
    code, out, _ = tombola("measure", "untrained", tmp_path / "ticket.safetensors", "--data", "digits")
    assert code == 0
    expected = tb.untrained(chain[1].ticket, tb.load_data("digits")).accuracy
    assert numbers(out)["accuracy"] == pytest.approx(expected, rel=1e-4)
    for said, recalibrate in (("True", True), ("beside", "beside")):
        code, out, _ = tombola(
            "measure", "untrained", tmp_path / "ticket.safetensors", "--data", "digits", "--recalibrate", said
        )
        assert code == 0
        both = tb.untrained(chain[1].ticket, tb.load_data("digits"), recalibrate=recalibrate)
        assert numbers(out)["loss"] == pytest.approx(both.loss, rel=1e-4)
        assert ("recalibrated.accuracy" in numbers(out)) == (both.recalibrated is not None)
    code, out, _ = tombola("measure", "convergence", tmp_path / "run.safetensors")
    assert numbers(out)["value"] == pytest.approx(tb.convergence(chain[1]), rel=1e-4)
    assert refused(tombola("measure", "convergence", tmp_path / "ticket.safetensors")) == (
        f"convergence: run wants a run; {tmp_path / 'ticket.safetensors'} holds a ticket"
    )


def test_a_measure_of_ones_own_is_a_command_with_no_other_edit(
    tombola: Tombola, tmp_path: Path, runs: list[tb.Job]
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    mine = ("--import", tmp_path / "mine.py")
    code, out, err = tombola("measure", "weights-kept-times", runs[1].name[:8], "--factor", 2, *mine)
    assert (code, err) == (0, "")
    assert numbers(out) == {"value": 2 * round(0.8 * 8456)}
    code, out, _ = tombola("measure", *mine, "weights-kept-times", "--help")
    assert code == 0
    assert "Kept weights of the trained ticket, times a factor." in out
    assert "--factor INT" in out
    assert "watch" not in out
    names = Store(tmp_path / "store").names()
    assert "weights-kept-times" in {Store(tmp_path / "store").description(name)["function"] for name in names}


def test_what_is_not_there_is_refused_with_the_nearest(
    tombola: Tombola, refused: Refused, tmp_path: Path, runs: list[tb.Job]
) -> None:
    run = runs[0].name[:12]
    store = tmp_path / "store"
    for arguments, words in (
        (("barier", run), "no declared function 'barier'; did you mean 'barrier'?"),
        (("learning", "xyz"), f"no job in {store} with a name that begins with 'xyz'; see tombola ls"),
        (
            ("untrained", run, "--data", "digits"),
            f"untrained: ticket wants a ticket; job {run} is of train; tombola ls --function prune "
            "lists tickets",
        ),
        (("learning", run, "--import"), "--import names no file; give one that declares measures"),
        (("learning", run, "--import", "none.py"), "cannot read none.py: No such file or directory"),
        (("--import", "none.py"), "no measure was named; give one, such as tombola measure barrier"),
        (
            ("barrier", run, run, "--data", "digits", "--points", 2),
            "points is 2; a barrier needs at least 3: both ends and the middle",
        ),
    ):  # fmt: skip
        assert words in refused(tombola("measure", *arguments))


def test_what_a_measure_does_not_take_ends_with_the_same_code(tombola: Tombola, runs: list[tb.Job]) -> None:
    for arguments in ((), ("barrier", runs[0].name), ("barrier", "--point", 3), ("learning", "--points", 3)):
        code, _, err = tombola("measure", *arguments)
        assert code == 2
        assert "Traceback" not in err


def test_a_start_is_drawn_pruned_and_trained_by_commands(tombola: Tombola, tmp_path: Path) -> None:
    def named(*arguments: object) -> str:
        code, out, err = tombola("measure", *arguments, "--data", "digits")
        assert (code, err) == (0, "")
        return out.splitlines()[0].split()[-1]

    start = named("initialize", "--network", "convnet", "--seed", 2)
    ticket = named("prune-at-initialization", start, "--score", "snip", "--sparsity", 0.5)
    named("train", ticket, "--recipe.epochs", 1)
    first = tb.job(tb.initialize, "convnet", "digits", seed=2)
    second = tb.job(tb.prune_at_initialization, first, "digits", score="snip", sparsity=0.5)
    third = tb.job(tb.train, second, "digits", tb.Recipe(epochs=1))
    lab = tb.Lab(tmp_path / "store")
    assert all(lab.has(job) for job in (first, second, third))
    assert lab.result(third).ticket.kept == 4228
