import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import tombola as tb
from tombola.lab.progress import RoundTable
from tombola.training.run import Epoch

MADE = {"seconds": 12.34}


def numbers(round_: int, accuracy: float, *, failed: bool = False, nonfinite: int = 0) -> dict:
    return {
        "round": round_,
        "sparsity": 1 - 0.8**round_,
        "accuracy": accuracy,
        "best_accuracy": accuracy + 0.5,
        "failed": failed,
        "diverged": False,
        "nonfinite_at_pruning": nonfinite,
    }


@contextmanager
def table(terminal: bool, rounds: int = 3) -> Iterator[tuple[RoundTable, StringIO]]:
    text = StringIO()
    console = Console(force_terminal=terminal, file=text, width=110, color_system=None, legacy_windows=False)
    with RoundTable(console, rounds) as made:
        yield made, text


def fill(made: RoundTable) -> None:
    made.add("a" * 64, numbers(0, 90.0), MADE, computed=True)
    made.add("b" * 64, numbers(1, 90.0), MADE, computed=False)
    made.add("c" * 64, numbers(2, 89.99), MADE, computed=True)
    made.add("d" * 64, numbers(3, 10.1, failed=True), MADE, computed=True)


def test_without_a_terminal_there_is_one_plain_line_a_round() -> None:
    with table(terminal=False) as (made, text):
        fill(made)
    assert text.getvalue() == (
        "round sparsity accuracy best seconds job\n"
        "0 0.00% 90.00% 90.50% 12.3 aaaaaaaaaaaa\n"
        "1 20.00% 90.00%+ 90.50% stored bbbbbbbbbbbb\n"
        "2 36.00% 89.99% 90.49% 12.3 cccccccccccc\n"
        "3 48.80% 10.10%* 10.60% 12.3 dddddddddddd\n"
        "underlined (+): winning, at least as accurate as dense; *: failed, at chance\n"
    )


@pytest.mark.parametrize("dense_failed", [True, False])
def test_a_failed_run_wins_nothing_and_nothing_is_won_against_one(dense_failed: bool) -> None:
    with table(terminal=False) as (made, text):
        made.add("a" * 64, numbers(0, 10.0, failed=dense_failed), MADE, computed=True)
        made.add("b" * 64, numbers(1, 11.0, failed=not dense_failed), MADE, computed=True)
    assert "+" not in text.getvalue().replace("(+)", "")


def test_rounds_that_ran_on_different_kinds_are_told() -> None:
    cpu = MADE | {
        "device": "cpu",
        "hardware": "AVX2",
        "precision": "float32",
        "threads": 1,
        "torch": "2.13.0",
    }
    gpu = MADE | {"device": "cuda", "hardware": "a GPU", "precision": "bfloat16", "torch": "2.13.0"}
    with table(terminal=False) as (made, text):
        for round_ in range(5):
            made.add("a" * 64, numbers(round_, 90.0), cpu if round_ < 3 else gpu, computed=True)
    assert text.getvalue().splitlines()[-1] == (
        "rounds are of different kinds: 0 to 2 on cpu, AVX2, float32, 1, 2.13.0; "
        "3, 4 on cuda, a GPU, bfloat16, 2.13.0"
    )


def test_a_round_that_met_non_finite_weights_is_flagged() -> None:
    with table(terminal=False) as (made, text):
        made.add("a" * 64, numbers(0, 90.0), MADE, computed=True)
        made.add("b" * 64, numbers(1, 10.0, failed=True, nonfinite=7), MADE, computed=True)
    assert "1 20.00% 10.00%*! " in text.getvalue()
    assert "!: non-finite weights were pruned first" in text.getvalue()


def test_the_rounds_are_written_as_csv(tmp_path: Path) -> None:
    with table(terminal=False) as (made, _):
        fill(made)
        made.write(tmp_path / "rounds.csv")
    lines = (tmp_path / "rounds.csv").read_text().splitlines()
    assert lines[0] == "round,sparsity,accuracy,best_accuracy,failed,diverged,winning,job"
    assert lines[2] == f"1,{1 - 0.8},90.0,90.5,False,False,True,{'b' * 64}"
    assert len(lines) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["rounds.csv"]


def last_screen(text: str) -> list[str]:
    """What a terminal shows in the end: lines that were drawn over again are not there any more."""
    lines: list[str] = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\n|\r)", text):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            pass
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif not part.startswith("\x1b"):
            lines[-1] += part
    return [line.rstrip() for line in lines if line.strip()]


def test_a_terminal_shows_the_rounds_as_a_table_and_the_epochs_under_way(start: tb.Ticket) -> None:
    job = tb.job(tb.train, start, "digits", tb.Recipe())
    with table(terminal=True) as (made, text):
        made.add("a" * 64, numbers(0, 90.0), MADE, computed=True)
        made.epoch(job, Epoch(7, 0.1, 0.5, 80.0, 0.6, 81.234, 5, 1.26), 200)
        under_way = last_screen(text.getvalue())
        fill(made)
    assert under_way[-1] == "round 1 of 3, train: epoch 7 of 200, test accuracy 81.23%, 1.3 s an epoch"
    shown = last_screen(text.getvalue())
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown if "│" in line]
    assert cells == [
        ["0", "0.00%", "90.00%", "90.50%", "12.3", "aaaaaaaaaaaa"],
        ["0", "0.00%", "90.00%", "90.50%", "12.3", "aaaaaaaaaaaa"],
        ["1", "20.00%", "90.00%", "90.50%", "stored", "bbbbbbbbbbbb"],
        ["2", "36.00%", "89.99%", "90.49%", "12.3", "cccccccccccc"],
        ["3", "48.80%", "10.10%*", "10.60%", "12.3", "dddddddddddd"],
    ]
    assert not any("under way" in line or "epoch 7" in line for line in shown)
    assert shown[-1].startswith("underlined (+): winning")


def test_winning_rounds_are_underlined_on_a_terminal() -> None:
    text = StringIO()
    with RoundTable(Console(force_terminal=True, file=text, color_system="standard"), 3) as made:
        fill(made)
    underlined = re.findall(r"\x1b\[4m([^\x1b]*)\x1b\[0m", text.getvalue())
    assert {cell.strip() for cell in underlined} == {"90.00%"}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_chain_that_fails_at_once_ends_without_a_legend(terminal: bool) -> None:
    with pytest.raises(RuntimeError), table(terminal) as (_, text):
        raise RuntimeError
    assert "winning" not in text.getvalue()
