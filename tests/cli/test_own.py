"""Experiments of one's own on the command line, and the example of the documents as it stands there."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tombola as tb
from tombola.cli import own
from tombola.cli.console import InertConsole
from tombola.lab.finished import finished_job
from tombola.lab.store import Store

Result = tuple[int, str, str]
Tombola = Callable[..., Result]
Refused = Callable[[Result], str]

DOCUMENT = Path(__file__).parents[2] / "docs" / "own-study.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the document in a folder of their own, which is the present one."""
    for text in re.findall(r"```(?:python|toml)\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL):
        name = re.match(r"# (\S+)\n", text)
        assert name
        (tmp_path / name[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("forked_workers")
def test_the_example_of_the_documents_runs_as_it_stands(
    tombola: Tombola, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = re.findall(r"^tombola (.+)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["plan wider.py", "run wider.py", "report wider.py --out wider"]
    code, out, _ = tombola(*commands[0].split())
    assert code == 0
    # Networks, momenta, seeds, rounds, copies, and epochs of each.
    epochs = 2 * 2 * 2 * 3 * 2 * 2
    assert out.splitlines()[-1] == f"total: {epochs} epochs shared, {epochs} epochs alone"
    assert not (example / "store").exists()
    code, out, _ = tombola(*commands[1].split(), "--workers", 1)
    assert code == 0
    # A table for each metric, with a row for each network and momentum.
    for heading in ("Test accuracy", "Distance moved", "Barrier between rounds"):
        assert heading in out
    accuracies = out[out.index("Test accuracy") : out.index("Mean barrier")]
    assert len(re.findall(r"^ +two-layers +0\.[09] ", accuracies, re.MULTILINE)) == 2
    closing = "tombola report wider.py makes a page of its tables and figures"
    assert out.splitlines()[-1] == closing
    code, out, _ = tombola(*commands[2].split())
    assert code == 0
    assert str((example / "wider" / "report.html").absolute()) in out
    with (example / "wider" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    measures = {row["metric"] for row in rows}
    assert {
        "val_accuracy",
        "distance-moved",
        "untrained_accuracy",
        "instability.height",
        "barrier_to_next",
    } < measures
    assert {row["state"] for row in rows} == {"measured"}
    # Networks, momenta and seeds, of three rounds each.
    assert len([row for row in rows if row["metric"] == "val_accuracy"]) == 2 * 2 * 2 * 3
    page = (example / "wider" / "report.html").read_text(encoding="utf-8")
    assert "Winning tickets" in page
    assert "Euclidean distance between the weights before and after training. Mean over the seeds." in page
    assert "The paper prints no numbers" not in page
    assert (example / "wider" / "figures" / "wider-accuracy.png").is_file()
    store = Store(example / "store")
    lab = tb.Lab(store.root)
    values = {float(row["value"]) for row in rows if row["metric"] == "val_accuracy"}
    runs = [name for name in store.names() if store.description(name)["function"] == "train"]
    # Networks, momenta, rounds, and of each of two chains its own run and a copy.
    assert len(runs) == 2 * 2 * 3 * 4
    assert values <= {store.numbers(name)["accuracy"] for name in runs}
    # The same measure by itself finds the finished job.
    before = len(list(store.names()))
    code, out, _ = tombola("measure", "distance-moved", runs[0], "--import", "wider.py")
    assert code == 0
    assert len(list(store.names())) == before
    run = lab.result(finished_job(store, runs[0]))
    start = run.ticket.weights()
    squares = sum(float(((run.weights[name] - start[name]) ** 2).sum()) for name in run.ticket.mask)
    assert float(out.splitlines()[1].removeprefix("value: ")) == pytest.approx(squares**0.5, rel=1e-4)

    code, out, _ = tombola("run", "wider.toml", "--workers", 0)
    assert code == 0
    assert "jobs were there already; nothing to compute" in out

    # Four rows to each table: on a terminal five of them, and the names of the others.
    _, out, _ = tombola("report", "wider.py")
    in_full = re.findall(r"^(\S.*)\n +\n +network ", out, re.MULTILINE)
    monkeypatch.setattr(own, "table_console", lambda: InertConsole(force_terminal=True, width=200))
    _, out, _ = tombola("report", "wider.py")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert len(in_full) > 5
    assert re.findall(r"^(\S.*)\n +\n +network ", plain, re.MULTILINE) == in_full[:5]
    others = "; ".join(name.strip() for name in in_full[5:])
    where = "on the page of the report, and as numbers in tombola table wider.py"
    assert f"{len(in_full) - 5} more tables {where}: {others}" in plain.replace("\n", " ")
    assert tombola("table", "wider.py")[0] == 0

    # After a run there is no page yet, and in a narrow terminal no line is wider than that.
    monkeypatch.setattr(own, "table_console", lambda: InertConsole(force_terminal=True, width=60))
    _, out, _ = tombola("run", "wider.py", "--workers", 0)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    (first,) = [place for place, line in enumerate(lines) if re.match(r"\d+ more tables ", line)]
    named = " ".join(line.strip() for line in lines[first:])
    assert " more tables in tombola report wider.py, and as numbers in tombola table wider.py: " in named
    assert max(map(len, lines[first:-1])) <= 60
    assert others.split("; ")[-1] in named

    # Of several files the one whose tables they are is named.
    (example / "narrow.toml").write_text((example / "wider.toml").read_text())
    _, out, _ = tombola("report", "wider.py", "narrow.toml")
    assert re.search(r"^wider: \d+ more tables ", re.sub(r"\x1b\[[0-9;]*m", "", out), re.MULTILINE)


def test_what_does_not_fit_is_refused_before_anything_is_run(
    tombola: Tombola, refused: Refused, example: Path
) -> None:
    (example / "wrong.py").write_text("import tombola as tb\nstudy = tb.Experiment('a', rounds=[])\n")
    for arguments, words in (
        (
            ("wrong.py",),
            "wrong.py, line 2: ExperimentError: a: rounds is []; it must be a whole number, at least 0",
        ),
        (("none.py",), "no file 'none.py'; give an experiment of your own that exists"),
        (
            ("wider.py", "table1"),
            "'wider.py' is a file of your own; name it by itself, without studies of the paper",
        ),
        (
            ("wider.py", "--scale", "tiny"),
            "scales are of the paper's studies; write such numbers into wider.py",
        ),
    ):
        for command in ("run", "plan"):
            assert refused(tombola(command, *arguments)) == words
    words = "--keep-going leaves out studies of the paper; wider.py has none to leave out"
    assert refused(tombola("run", "wider.py", "--keep-going")) == words
    assert not (example / "store").exists()
