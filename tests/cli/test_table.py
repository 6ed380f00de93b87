"""``tombola table``: what may be named, and the forms it is told in."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.lab.chains import imp_jobs
from tombola.lab.description import name_of
from tombola.lab.job import Job, all_needed
from tombola.lab.results import Packed
from tombola.lab.store import Store
from tombola.table.table import read_csv, read_json

Result = tuple[int, str, str]
Tombola = Callable[..., Result]
Refused = Callable[[Result], str]
RECIPE = tb.Recipe(epochs=1, batch_size=400)


@pytest.fixture
def runs(tmp_path: Path) -> list[Job]:
    """Two rounds of a chain in a store, the second failed, and a third that is not there."""
    jobs = imp_jobs("convnet", "digits", RECIPE, rounds=2)
    store = Store(tmp_path / "store")
    for number, described in enumerate(all_needed(jobs[:2]).values()):
        started = {"started": f"2026-01-0{number + 1}", "seconds": 1.0}
        result = Packed({"sparsity": 0.2, "epoch": 0, "round": 0, "start": "0" * 64}, {}, {})
        if described in jobs:
            place = jobs.index(described)
            numbers = {"accuracy": 90.0 + place, "sparsity": 0.2 * place, "failed": place == 1}
            result = Packed(numbers, {}, {}, [{"epoch": 0, "test_accuracy": 10.0}])
        store.publish(described.name, described.description(), result, started)
    return jobs


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("rounds = 2\n[recipe]\nepochs = 1\nbatch_size = 400\n")
    return path


def test_the_whole_store_is_a_readable_table(tombola: Tombola, runs: list[Job]) -> None:
    code, out, err = tombola("table")
    assert (code, err) == (0, "")
    head, columns, *lines, last = out.splitlines()
    assert head == "all: network convnet, data digits, μ 0.9, batch 400, pre ✗, epochs 1, seed 0"
    assert columns.split() == ["measure", "sparsity", "value", "job"]
    assert lines[0].split() == ["val_accuracy", "0.00%", "90.00%", runs[0].name[:12]]
    assert lines[3].split() == ["val_accuracy", "20.00%", "91.00%*", runs[1].name[:12]]
    assert last == "6 numbers, 3 of failed runs (*)"


def test_jobs_are_named_by_the_beginning_of_their_names(tombola: Tombola, runs: list[Job]) -> None:
    _, out, _ = tombola("table", runs[1].name[:9], "--json")
    assert {number.jobs for number in read_json(out)} == {(runs[1].name,)}


def test_the_forms_hold_the_same_numbers(tombola: Tombola, runs: list[Job], tmp_path: Path) -> None:
    _, as_json, _ = tombola("table", "--json")
    _, as_csv, _ = tombola("table", "--csv", "-")
    _, as_markdown, _ = tombola("table", "--markdown")
    code, said, _ = tombola("table", "--csv", tmp_path / "numbers.csv")
    assert (code, said) == (0, f"{tmp_path / 'numbers.csv'}: 6 numbers\n")
    assert (tmp_path / "numbers.csv").read_text() == as_csv
    assert read_csv(as_csv).numbers == read_json(as_json).numbers
    assert [row["value"] for row in json.loads(as_json)][:1] == [90.0]
    assert len(as_markdown.splitlines()) == 2 + 6
    assert len(list(csv.DictReader(io.StringIO(as_csv)))) == 6


def test_a_file_of_your_own_shows_its_gaps(tombola: Tombola, runs: list[Job], own_file: Path) -> None:
    code, out, _ = tombola("table", own_file, "--json")
    assert code == 0
    rows = json.loads(out)
    accuracies = [row for row in rows if row["metric"] == "val_accuracy"]
    assert [(row["state"], row.get("value")) for row in accuracies] == [
        ("measured", 90.0),
        ("measured", 91.0),
        ("missing", None),
    ]
    _, out, _ = tombola("table", own_file)
    # The layers of the ticket that is not pruned yet are the fourth.
    assert "4 numbers, 2 missing, 1 of failed runs (*)" in out


def test_a_study_of_the_paper_is_shown_at_its_scale(tombola: Tombola, runs: list[Job]) -> None:
    code, out, _ = tombola("table", "table11", "--scale", "tiny", "--seeds", 1, "--json")
    assert code == 0
    table = read_json(out)
    assert {number.state for number in table} == {"missing"}
    assert all(number.stand_in for number in table)
    assert {number.key.dataset for number in table} <= {"CIFAR-10", "CIFAR-100", "TinyImageNet"}
    of_cifar10 = {number.stand_in for number in table if number.key.dataset == "CIFAR-10"}
    for form in ((), ("--markdown",)):
        _, out, _ = tombola("table", "table11", "--scale", "tiny", "--seeds", 1, *form)
        assert all(words in out for words in of_cifar10)
    _, out, _ = tombola("table", "table11", "--scale", "tiny", "--seeds", 1, "--pairs", "R18/C10")
    (words,) = of_cifar10
    assert out.startswith(f"all: trained {words}, network ResNet-18, data CIFAR-10, ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("tabel11",),
            "no study 'tabel11'; did you mean 'table11'? (a job goes by its name, a file ends in .py",
        ),
        (("mine.py",), "no file 'mine.py'"),
        (("ffffffff",), "no job in "),
        (
            ("--json", "--markdown"),
            "--json and --markdown were given; a table has one form, ask for one of them",
        ),
        (("--scale", "tiny"), "a scale was given, but no study of the paper; name one, such as table11"),
        (("table11", "--scale", "tyni"), "no scale 'tyni'; known: paper, short, tiny"),
        (("--csv", "/nowhere/at/all.csv"), "cannot write to /nowhere/at/all.csv"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(
    tombola: Tombola, refused: Refused, runs: list[Job], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(tombola("table", *arguments))


def test_without_a_store_there_is_no_table(tombola: Tombola, refused: Refused) -> None:
    assert "no store at" in refused(tombola("table"))


def test_a_measure_of_your_own_is_declared_by_its_file(
    tombola: Tombola, runs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "measures.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "import tombola as tb\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Moved:\n"
        "    distance: float\n\n"
        "    @property\n"
        "    def doubled(self) -> float:\n"
        "        return 2 * self.distance\n\n\n"
        '@tb.declare("moved-by")\n'
        "def moved_by(run: tb.Run) -> Moved:\n"
        "    return Moved(0.0)\n"
    )
    description = {"function": "moved-by", "version": 1, "arguments": {"run": {"job": runs[0].name}}}
    name = name_of(description)
    result = Packed({"value": {"distance": 1.5}}, {}, {})
    Store(tmp_path / "store").publish(name, description, result, {"started": "2026", "seconds": 0.0})
    _, out, _ = tombola("table", name, "--json")
    assert [row["metric"] for row in json.loads(out)] == ["moved-by.distance"]
    _, out, _ = tombola("table", name, "--json", "--import", file)
    assert {row["metric"]: row["value"] for row in json.loads(out)} == {
        "moved-by.distance": 1.5, "moved-by.doubled": 3.0,
    }  # fmt: skip


def test_a_text_of_a_strangers_moves_no_cursor(tombola: Tombola, tmp_path: Path) -> None:
    arguments = {"recipe": {"\x1b[2Jevil": "\x1b]0;x"}, "data": {"data": "digits"}}
    description = {"function": "train", "version": 1, "arguments": arguments}
    numbers = {"accuracy": 90.0, "sparsity": 0.0, "failed": False}
    Store(tmp_path / "store").publish(
        name_of(description), description, Packed(numbers, {}, {}), {"started": "", "seconds": 0.0}
    )
    code, out, _ = tombola("table")
    assert (code, "\x1b" in out) == (0, False)
    assert "val_accuracy" in out
