"""Markdown and LaTeX: the paper's tables as it prints them, typed off its pages."""

from __future__ import annotations

import re

import pytest

from tombola.experiments.paper.printed import printed_cells, printed_tables
from tombola.experiments.paper.studies import study_named
from tombola.report.cell_text import MINUS
from tombola.report.latex import to_latex
from tombola.report.markdown import to_markdown
from tombola.table.key import Key
from tombola.table.number import Cell, Number, by_key, cells_of, longest, measured
from tombola.views.layout import Grid, grid

TABLE_2 = """
0.0 100 ✗ 61.14% 59.76% 57.79% 54.47% 50.98%
0.0 256 ✗ 59.33% 59.95% 60.20% 58.89% 57.09%
0.9 100 ✗ 63.74% 62.46% 35.95%* 35.69%* 15.09%*
0.9 256 ✗ 61.57% 60.37% 56.93% 52.76% 47.34%
0.0 100 ✓ 60.91% _62.90%_ _62.67%_ 60.37% 56.11%
0.0 256 ✓ 59.27% _60.01%_ _60.08%_ 58.59% 56.40%
0.9 100 ✓ 63.45% 63.02% 60.10% 57.73% 35.10%*
0.9 256 ✓ 61.66% 61.22% 58.95% 55.91% 52.49%
"""
TABLE_7 = """
0.0 100 ✗ ticket 4.72±0.46% 7.69±0.39% 16.46±0.24% 27.34±0.18%
0.0 256 ✗ ticket 10.49±1.14% 17.90±1.72% 29.51±1.71% 37.87±0.43%
0.9 100 ✗ ticket 3.41±0.28% 5.18±0.59% 14.33±0.55% 8.36±13.61%
0.9 256 ✗ ticket 3.40±0.62% 6.17±0.85% 11.42±0.31% 21.25±1.63%
0.0 100 ✓ ticket 10.31±1.19% 15.29±0.74% 26.01±1.19% 36.35±1.14%
0.0 256 ✓ ticket 15.94±0.69% 22.90±1.21% 34.18±0.64% 43.40±0.26%
0.9 100 ✓ ticket 6.00±0.58% 8.76±0.86% 17.59±1.09% 26.50±0.83%
0.9 256 ✓ ticket 4.95±0.24% 7.65±0.78% 15.31±0.75% 25.55±0.61%
- - - densenetwork 4.32±0.13% 6.33±0.19% 13.19±0.33% 25.13±0.57%
"""
TABLE_15 = """
ResNet-18 CIFAR-10 2.3±0.5 1.7±0.5 42.7±1.9 23.7±1.2
ResNet-18 CIFAR-100 3.0±0.0 2.0±0.0 47.3±2.1 19.0±0.8
VGG16 CIFAR-100 13.3±0.5 8.3±0.5 85.0±0.8 40.3±0.5
ResNet-34 TinyImageNet 5.0±0.0 3.7±0.9 36.7±1.9 18.0±1.4
"""
PRINTED = [("table2", TABLE_2), ("table7", TABLE_7), ("table15", TABLE_15)]
"""Without spaces inside a cell; underlines as _, a cell that is empty as -."""


def printed_grid(study: str) -> Grid:
    """A table of the paper as it prints it."""
    return grid(study, printed_tables()[study], study_named(study).layout)


def rows_of(printed: str) -> list[list[str]]:
    return [line.split() for line in printed.strip().splitlines()]


@pytest.mark.parametrize(("study", "printed"), PRINTED)
def test_markdown_reproduces_the_paper(study: str, printed: str) -> None:
    text = to_markdown(printed_grid(study), printed_cells())
    body = [line for line in text.splitlines() if line.startswith("|")][2:]
    plain = [
        [re.sub(r"</?u>", "_", cell).replace("\\", "").replace(" ", "") or "-" for cell in cells]
        for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in body)
    ]
    assert plain == rows_of(printed)


@pytest.mark.parametrize(("study", "printed"), PRINTED)
def test_latex_reproduces_the_paper(study: str, printed: str) -> None:
    text = to_latex(printed_grid(study), printed_cells())
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    signs = {r"$\times$": "✗", r"$\checkmark$": "✓", r"$\pm$": "±", r"\%": "%", "$^*$": "*", " ": ""}
    plain = []
    for line in body:
        assert line.endswith(r" \\")
        row = []
        for cell in line.removesuffix(r" \\").split(" & "):
            for sign, character in signs.items():
                cell = cell.replace(sign, character)
            row.append(re.sub(r"\\underline\{(.*)\}", r"_\1_", cell) or "-")
        plain.append(row)
    assert plain == rows_of(printed)


def test_a_cell_of_fewer_runs_says_so() -> None:
    # The 60.15% of Table 6 is a single run among cells of three.
    text = to_markdown(printed_grid("table6"), printed_cells())
    assert "| 60.15% (1 run) |" in text
    assert text.count(" run)") == 1
    assert "Means ± standard deviation of 3 runs of 200 epochs." in text


def mine(**fields: object) -> Key:
    return Key(metric="val_accuracy", **fields)  # type: ignore[arg-type]


def test_pairs_of_noise_copies_are_not_called_runs() -> None:
    barriers = [Key(metric="barrier", over="pairs", momentum=momentum) for momentum in (0.0, 0.9)]
    accuracy = mine(momentum=0.0)
    cells = by_key(
        [
            measured(barriers[0], [1.0, 2.0, 3.0], epochs=20),
            measured(barriers[1], [1.0], epochs=20),
            measured(accuracy, [60.0, 61.0, 62.0], epochs=20),
        ]
    )
    text = to_markdown(grid("fig3", cells), cells)
    assert text.splitlines()[-1] == (
        "Means ± standard deviation of 3 runs of 20 epochs. "
        "Means ± standard deviation of 3 pairs of 3 noise copies of one run of 20 epochs. "
        r"In square brackets: 95% interval of the mean."
    )
    assert "1.00 (1 pair)" in text


@pytest.mark.parametrize(
    ("epochs", "words"),
    [
        (20, " Searches of 2 and 5 epochs stand for the paper's 20 and 50, about 10% and 25% of the budget."),
        (200, ""),
    ],
)
def test_rows_of_shortened_searches_say_how_long_they_are(epochs: int, words: str) -> None:
    cells = by_key(measured(key, [50.0], epochs=epochs) for key in printed_tables()["table3"])
    text = to_markdown(printed_grid("table3"), cells)
    assert text.splitlines()[-1] == f"Single runs of {epochs} epochs.{words}"


def test_one_epoch_is_told_as_one() -> None:
    cells = by_key([measured(mine(momentum=0.0), [60.0], epochs=1)])
    assert to_markdown(grid("mine", cells), cells).splitlines()[-1] == "Single runs of 1 epoch."


def test_names_are_escaped() -> None:
    cells = by_key(measured(mine(dataset=name), [50.0], epochs=2) for name in ("a|b_c", r"50% <b>\x & $y"))
    table = grid("my_study", cells)
    markdown = to_markdown(table, cells)
    assert r"| a\|b\_c |" in markdown
    assert r"50% \<b\>\\x & $y" in markdown
    latex = to_latex(table, cells)
    assert r"a|b\_c" in latex
    assert r"50\% <b>\textbackslash{}x \& \$y" in latex
    assert r"\label{tab:my-study}" in latex


def test_gaps_stay_empty() -> None:
    cells = by_key(
        measured(mine(momentum=momentum, sparsity=sparsity), [50.0], epochs=2)
        for momentum, sparsity in ((0.0, 0.0), (0.9, 20.0))
    )
    table = grid("my_study", cells)
    assert "| 0.0 | 50.00% |  |" in to_markdown(table, cells)
    assert r"0.9 &  & 50.00\% \\" in to_latex(table, cells)


def test_a_long_table_is_broken_over_pages() -> None:
    for rows, environment in ((40, "tabular"), (41, "longtable")):
        cells = by_key(measured(mine(batch_size=size), [50.0], epochs=2) for size in range(1, rows + 1))
        text = to_latex(grid("my_study", cells), cells)
        assert rf"\begin{{{environment}}}{{lr}}" in text
        assert text.count(r"\caption") == text.count(r"\label{tab:my-study}") == 1


KEY = Key(
    metric="val_accuracy", network="ResNet-34", dataset="TinyImageNet",
    momentum=0.0, batch_size=256, pretrained=False, sparsity=89.26,
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "own", "interval", "compared"),
    [
        # The paper prints 60.20; by hand, the interval of the second is 61 ± 2.48, of the third 70 ± 2.48.
        # Of two runs it would be as wide as the axis: neither it nor where the paper's lies is told.
        ([58.0], "58.00%", "", f"60.20%, {MINUS}2.20"),
        ([60.0, 61.0, 62.0], "61.00 ± 1.00%", "[58.52, 63.48]", "60.20%, +0.80, inside"),
        ([69.0, 70.0, 71.0], "70.00 ± 1.00%", "[67.52, 72.48]", "60.20%, +9.80, outside"),
        ([60.198, 60.198], "60.20 ± 0.00%", "", "60.20%, +0.00"),
    ],
)
def test_side_by_side_tells_difference_and_interval(
    values: list[float], own: str, interval: str, compared: str
) -> None:
    cells: dict[Key, Cell] = by_key([measured(KEY, values, epochs=20)])
    text = to_markdown(printed_grid("table2"), cells, printed_cells())
    bracketed = interval.replace("[", r"\[").replace("]", r"\]")
    assert f"| {' '.join(filter(None, [own, bracketed, f'(paper {compared})']))} |" in text
    assert (r"In square brackets: 95% interval of the mean." in text) == bool(interval)
    assert "| (paper 59.33%) |" in text
    assert r"| (paper 35.95%\*) |" in text
    latex = to_latex(printed_grid("table2"), cells, printed_cells())
    signs = {"%": r"\%", "±": r"$\pm$", MINUS: "$-$", ", inside": r" $\checkmark$", ", outside": r" $\times$"}
    for sign, written in signs.items():
        own, compared = own.replace(sign, written), compared.replace(sign, written)
    own = f"{own} {{\\scriptsize {interval}}}" if interval else own
    above, below = (line.split(" & ") for line in latex.splitlines() if own in line or compared in line)
    assert [above[5], below[5]] == [own, rf"{{\scriptsize {compared}}}"]
    assert (above[3], below[:3], below[3]) == ("", ["", "", ""], r"{\scriptsize 59.33\%}")


def ticket_cells(dense: list[float], ticket: list[float], failed: bool = False) -> dict[Key, Cell]:
    """The cells of a dense network and of its ticket, run by run."""
    return longest(
        cells_of(
            Number(
                key=mine(momentum=0.0, sparsity=sparsity), value=value, epochs=20, seed=seed, failed=starred
            )
            for sparsity, values, starred in ((0.0, dense, False), (20.0, ticket, failed))
            for seed, value in enumerate(values)
        )
    )


@pytest.mark.parametrize(
    ("dense", "ticket", "markdown", "latex", "notes"),
    [
        # By hand: the differences seed by seed are 1.0, 1.1, 0.9, which lie around 1.0 ± 0.25.
        (
            [50.0, 52.0, 54.0], [51.0, 53.1, 54.9], r"<u>53.00 ± 1.95%</u>† \[48.15, 57.85\]",
            r"\underline{53.00 $\pm$ 1.95\%}$^\dagger$ {\scriptsize [48.15, 57.85]}", {"Underlined", "†"},
        ),
        # The differences are -1, 0, 4: 1.0 ± 6.57.
        (
            [50.0, 52.0, 54.0], [49.0, 52.0, 58.0], r"<u>53.00 ± 4.58%</u> \[41.62, 64.38\]",
            r"\underline{53.00 $\pm$ 4.58\%} {\scriptsize [41.62, 64.38]}", {"Underlined"},
        ),
        ([50.0], [51.0], "<u>51.00%</u>", r"\underline{51.00\%}", {"Underlined"}),
        ([50.0], [49.0], "49.00%", r"49.00\%", set()),
    ],
)  # fmt: skip
def test_a_ticket_that_wins_beyond_the_noise_of_the_seeds_has_a_dagger(
    dense: list[float], ticket: list[float], markdown: str, latex: str, notes: set[str]
) -> None:
    cells = ticket_cells(dense, ticket)
    table = grid("my_study", cells)
    text = to_markdown(table, cells)
    assert f" {markdown} |\n" in text
    assert f" {latex} " in to_latex(table, cells)
    sentences = {"Underlined": "Underlined: winning ticket", "†": "†: higher beyond the noise of the seeds"}
    assert {mark for mark, sentence in sentences.items() if sentence in text} == notes


def test_a_ticket_with_a_failed_run_is_starred_and_not_winning() -> None:
    cells = ticket_cells([50.0, 52.0, 54.0], [60.0, 62.0, 64.0], failed=True)
    table = grid("my_study", cells)
    text = to_markdown(table, cells)
    assert r"62.00 ± 2.00%\* \[57.03, 66.97\] |" in text
    assert "<u>" not in text
    assert "Underlined" not in text
    assert r"62.00 $\pm$ 2.00\%$^*$ {\scriptsize [57.03, 66.97]}" in to_latex(table, cells)
