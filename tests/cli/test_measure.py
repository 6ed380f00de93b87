"""Measures as commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.cli.measure import number_lines
from tombola.lab.chains import imp_jobs
from tombola.lab.store import Store
from tombola.registry import function_names

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
    """The lines after the first that are a name and its number."""
    lines = (line.partition(": ") for line in out.splitlines()[1:])
    return {name: float(value) for name, _, value in lines if value and "," not in value}


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
    accuracies = ", ".join(f"{lab.result(run).accuracy:g}" for run in runs)
    assert out.splitlines()[1] == f"values: {accuracies}"


def test_a_line_between_runs_is_printed_as_columns(
    tombola: Tombola, tmp_path: Path, runs: list[tb.Job]
) -> None:
    names = [run.name[:10] for run in runs]
    _, out, _ = tombola("measure", "barrier", *names, "--data", "digits", "--points", 3)
    lab = tb.Lab(tmp_path / "store")
    first, second = (100 - lab.result(run).accuracy for run in runs)
    head, *rows = (line.split() for line in out.splitlines()[1:5])
    assert head == ["alphas", "errors", "losses"]
    assert [row[0] for row in rows] == ["0", "0.5", "1"]
    assert [float(rows[0][1]), float(rows[2][1])] == pytest.approx([first, second], rel=1e-4)


def test_lists_of_numbers_are_lines_or_columns_and_all_else_a_line_each() -> None:
    given = {
        "x[0]": 1.0,
        "x[1]": 20.0,
        "y[0]": 0.5,
        "y[1]": 3.0,
        "parts[0].z": 4.0,
        "": 6.0,
        "v[0]": 7.0,
        "v[1]": 8.0,
    }
    assert number_lines(given) == [" x    y", " 1  0.5", "20    3", "parts[0].z: 4", "value: 6", "v: 7, 8"]
    grid = {f"m[{row}][{column}]": row + column for row in range(2) for column in range(2)}
    assert number_lines(grid) == ["m[0]: 0, 1", "m[1]: 1, 2"]


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


def test_scores_and_selections_are_written_as_csv(
    tombola: Tombola, refused: Refused, tmp_path: Path, runs: list[tb.Job]
) -> None:
    lab, run = tb.Lab(tmp_path / "store"), runs[0].name[:12]
    file = tmp_path / "scores.csv"
    code, out, _ = tombola("measure", "example-scores", run, "--data", "digits", "--csv", file)
    assert code == 0
    assert out.splitlines()[-1] == f"written: {file}"
    first, *lines = file.read_text().splitlines()
    expected = tb.example_scores(lab.result(runs[0]), tb.load_data("digits")).values.tolist()
    assert first == "image,score"
    assert [line.split(",") for line in lines] == [[str(n), repr(value)] for n, value in enumerate(expected)]
    scores = tb.job(tb.example_scores, runs[0], "digits").name[:12]
    hardest = ("measure", "select-by-score", scores, "--data", "digits", "--share", 0.01, "--csv", "-")
    code, out, _ = tombola(*hardest)
    assert code == 0
    by_hand = sorted(range(1198), key=lambda index: -expected[index])[:12]
    assert out == "image\n" + "".join(f"{index}\n" for index in by_hand)
    assert refused(tombola("measure", "learning", run, "--csv", file)) == (
        "learning gives nothing of each image, so --csv has nothing to write; example-scores and the like do"
    )
    assert refused(tombola("measure", "select-by-score", run, "--data", "digits", "--share", 0.1)) == (
        "select-by-score: scores wants a job of scores, such as example-scores gives; job "
        f"{runs[0].name[:12]} is of train"
    )


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


def test_every_declared_function_says_what_it_takes(tombola: Tombola, refused: Refused) -> None:
    for name in function_names():
        result = tombola("measure", name, "--help")
        if result[0]:
            assert "which cannot be given on the command line" in refused(result), name


def test_alignments_and_rates_are_given_on_the_command_line(
    tombola: Tombola, refused: Refused, tmp_path: Path, runs: list[tb.Job]
) -> None:
    first, second = (run.name[:12] for run in runs)
    assert tombola("measure", "align", first, second, "--data", "digits")[0] == 0
    alignment = tb.job(tb.align, *runs, "digits")
    code, out, _ = tombola("measure", "aligned-run", second, alignment.name[:12])
    expected = tb.aligned_run(*(tb.Lab(tmp_path / "store").result(one) for one in (runs[1], alignment)))
    assert (code, numbers(out)["accuracy"]) == (0, pytest.approx(expected.accuracy, abs=1e-3))
    assert f"alignment wants a job of align; job {first} is of train" in refused(
        tombola("measure", "aligned-run", second, first)
    )
    ranking = ("measure", "prune", first, "--fraction", 0.2, "--scope", "layerwise")
    code, out, _ = tombola(*ranking, "--rates", "14", 0.5, "6", 0.25)
    assert code == 0
    rates = (("14", 0.5), ("6", 0.25))
    pruned = tb.job(tb.prune, runs[0], fraction=0.2, scope="layerwise", rates=rates)
    assert out.startswith(f"prune {pruned.name[:12]}")
