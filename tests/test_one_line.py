"""What values say of themselves: one line under 300 characters, and a small table in a notebook."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

import tombola as tb
from tombola.training.run import History


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (
            "ticket",
            "<ticket of convnet: {kept} of {total} weights, 75.00% sparse, round 2, taken at epoch 1>",
        ),
        (
            "run",
            "<run of convnet: {accuracy}% on the test images, 75.00% sparse, epochs 1 to {epochs}, noise 3, "
            "trained on cpu>",
        ),
        ("history", "<history of epochs 1 to {epochs}: train loss {loss}, test accuracy {accuracy}%>"),
        ("data", "<data digits: 1,198 train and 599 test images of 1x8x8, 10 classes>"),
        ("recipe", "Recipe(epochs=3, batch_size=100)"),
        ("barrier", "<barrier of 0.00 points on the test images, 3 positions>"),
    ],
)  # fmt: skip
def test_each_value_says_in_one_line_what_it_is(
    chain: list[tb.Run], digits: tb.Data, made: str, line: str
) -> None:
    run = chain[2]
    values: dict[str, Any] = {
        "ticket": run.ticket, "run": run, "history": run.history, "data": digits,
        "recipe": tb.Recipe(epochs=3, batch_size=100), "barrier": tb.barrier(run, run, digits, points=3),
    }  # fmt: skip
    expected = line.format(
        kept=f"{run.ticket.kept:,}", total=f"{run.ticket.total:,}", accuracy=f"{run.accuracy:.2f}",
        epochs=run.history[-1].epoch, loss=f"{run.history[-1].train_loss:.4g}",
    )  # fmt: skip
    assert repr(values[made]) == expected
    assert len(expected) < 300
    table = ElementTree.fromstring(values[made]._repr_html_())
    assert 3 <= len(list(table.iter("tr"))) < 20


def test_a_recipe_reads_back_what_it_says() -> None:
    from tombola import Augmentation, Recipe  # noqa: F401  what its line names

    recipe = tb.Recipe(
        momentum=0.0, schedule="step", milestones=(2, 5), augmentation=tb.Augmentation(pad=2, fill="mean")
    )
    assert eval(repr(recipe)) == recipe
    assert repr(tb.Recipe()) == "Recipe()"


def test_a_failed_run_says_so(start: tb.Ticket, digits: tb.Data) -> None:
    run = tb.train(start, digits, tb.Recipe(epochs=1, batch_size=100, lr=1e6, momentum=0.0))
    assert ", diverged, " in repr(run) or ", at chance, " in repr(run)
    assert "the first run" in repr(tb.barrier(run, run, digits, points=3))


def test_a_history_is_a_frame(chain: list[tb.Run]) -> None:
    history = chain[2].history
    frame = history.frame()
    assert isinstance(frame, pd.DataFrame)
    assert frame["test_accuracy"].tolist() == history.column("test_accuracy")
    assert f"{history[-1].test_accuracy:.6f}"[:6] in history._repr_html_()


def test_a_lab_says_where_its_store_is_and_who_works(tmp_path: Path) -> None:
    assert repr(tb.Lab(tmp_path / "store")) == f"<lab in {tmp_path / 'store'}, jobs run in this process>"
    assert "2 worker processes" in repr(tb.Lab(tmp_path / "store", workers=2))


def test_what_a_file_held_does_no_harm_in_a_line(chain: list[tb.Run]) -> None:
    hostile = replace(chain[0], device="\x1b[31m" + "long\n" * 200)
    assert repr(hostile).isprintable()
    assert len(repr(hostile)) < 300
    assert repr(History([])) == "<history of no epochs>"


def test_a_table_has_the_values_and_shows_what_a_file_held_as_text(
    chain: list[tb.Run], digits: tb.Data, tmp_path: Path
) -> None:
    html = chain[2]._repr_html_()
    assert f'<td style="text-align: left">{chain[2].accuracy:.2f}%</td>' in html
    assert "0.25" not in html
    assert "75.00%" in html
    named = replace(digits, name="<script>alert(1)</script>", class_names=("<b>",) * 10)
    assert "&lt;script&gt;" in named._repr_html_()
    assert "<b>" not in named._repr_html_() + replace(chain[0], device="<b>\n")._repr_html_()
    assert "this process" in tb.Lab(tmp_path)._repr_html_()
    barrier = tb.barrier(chain[0], chain[1], digits, points=3)
    assert f"{barrier.errors[1]:.2f}%" in barrier._repr_html_()
    assert "not known" in tb.run_from(chain[0].weights, network=chain[0].ticket.network)._repr_html_()
