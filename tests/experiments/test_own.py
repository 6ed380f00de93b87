"""Studies of one's own: their jobs, their numbers, and what is refused."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from tombola.experiments.own import OwnStudy
from tombola.experiments.own_cells import own_cells
from tombola.experiments.own_file import read_all_own, read_own
from tombola.experiments.own_rows import own_rows

import tombola as tb
from tombola.errors import StudyError, TombolaError
from tombola.lab.chains import imp_jobs

QUICK = {"epochs": 2, "batch_size": 400}


def test_the_grid_is_all_combinations_and_its_chains_are_those_of_imp() -> None:
    study = OwnStudy("mine", recipe={**QUICK, "momentum": [0.0, 0.9], "lr": [0.1, 0.2]}, rounds=1, seeds=2)
    assert [varied for varied, _ in study.recipes()] == [
        {"momentum": mu, "lr": lr} for mu in (0.0, 0.9) for lr in (0.1, 0.2)
    ]
    rows = own_rows(study)
    assert [row.round for row in rows] == [0, 1] * 4
    assert [row.sparsity for row in rows[:2]] == [0.0, pytest.approx(0.2)]
    recipe = tb.Recipe(epochs=2, batch_size=400, momentum=0.0, lr=0.2)
    expected = [imp_jobs("convnet", "digits", recipe, rounds=1, seed=seed)[1].name for seed in (0, 1)]
    assert [job.name for job in rows[3].jobs] == expected


def test_the_initialisation_of_a_study_is_that_of_its_starts() -> None:
    study = OwnStudy("mine", recipe=QUICK, init="glorot-normal")
    (row,) = own_rows(study)
    recipe = tb.Recipe(**QUICK)
    (expected,) = imp_jobs("convnet", "digits", recipe, rounds=0, init="glorot-normal")
    assert row.jobs[0].name == expected.name
    assert expected.parents[0].arguments["init"] == "glorot-normal"
    assert expected.name != imp_jobs("convnet", "digits", recipe, rounds=0)[0].name
    with pytest.raises(TombolaError, match="no initialisation 'glorot'; did you mean 'glorot-normal'"):
        own_rows(OwnStudy("mine", recipe=QUICK, init="glorot"))


def test_measures_are_taken_of_every_round(tmp_path: Path, digits: tb.Data) -> None:
    study = OwnStudy(
        "mine", recipe=QUICK, rounds=1, seeds=2,
        measures={"untrained": {}, "convergence": {}, "probe": {"blocks": ["5"], "head": "14"}},
    )  # fmt: skip
    lab = tb.Lab(tmp_path)
    rows = own_rows(study)
    assert own_cells(lab, rows) == []
    lab.run([job for row in rows for job in row.jobs]).raise_failures()
    cells = {(cell.row.round, cell.quantity): cell for cell in own_cells(lab, rows)}
    recipe = tb.Recipe(epochs=2, batch_size=400)
    runs = [
        list(tb.imp(tb.initialize("convnet", digits, seed=n), digits, recipe, rounds=1, noise=n))
        for n in (0, 1)
    ]
    for number in (0, 1):
        of_round = [chain[number] for chain in runs]
        assert cells[number, "accuracy"].values == tuple(run.accuracy for run in of_round)
        assert cells[number, "accuracy"].starred == any(run.failed for run in of_round)
        untrained = tuple(tb.untrained(run.ticket, digits).accuracy for run in of_round)
        assert cells[number, "untrained.accuracy"].values == untrained
        known = [value for run in of_round if (value := tb.convergence(run)) is not None]
        assert cells[number, "convergence"].values == tuple(known)
        assert statistics.mean(cells[number, "probe.accuracy[0]"].values) > 0


def test_measures_between_copies_and_rounds_are_those_of_the_library(tmp_path: Path, digits: tb.Data) -> None:
    of_three = {"points": 3}
    study = OwnStudy(
        "mine", recipe=QUICK, rounds=1, seeds=2, copies=2,
        between={"copies": {"instability.height": of_three}, "rounds": {"barrier.height": of_three}},
    )  # fmt: skip
    lab = tb.Lab(tmp_path)
    rows = own_rows(study)
    lab.run([job for row in rows for job in row.jobs]).raise_failures()
    cells = {(cell.row.round, cell.quantity): cell for cell in own_cells(lab, rows)}
    assert {key for key in cells if key[1] != "accuracy"} == {
        (0, "instability.height between copies"),
        (1, "instability.height between copies"),
        (0, "barrier.height between rounds"),  # from the last round there is no next
    }
    recipe = tb.Recipe(epochs=2, batch_size=400)
    copied: dict[int, list[float]] = {0: [], 1: []}
    stepped = []
    for seed in (0, 1):
        start = tb.initialize("convnet", digits, seed=seed)
        first, second = tb.imp(start, digits, recipe, rounds=1, noise=seed)
        stepped.append(tb.barrier(first, second, digits, points=3).height)
        for number, run in enumerate((first, second)):
            other = tb.train(run.ticket, digits, recipe, noise=seed + 1)
            copied[number].append(tb.barrier(run, other, digits, points=3).height)
    assert cells[0, "barrier.height between rounds"].values == tuple(stepped)
    for number in (0, 1):
        assert cells[number, "instability.height between copies"].values == tuple(copied[number])
        assert cells[number, "instability.height between copies"].starred == cells[number, "accuracy"].starred


def test_a_measure_of_two_runs_is_taken_of_every_pair_of_copies() -> None:
    study = OwnStudy("mine", recipe=QUICK, seeds=2, copies=3, between={"copies": ["barrier"]})
    (row,) = [row for row in own_rows(study) if row.between]
    noises = [
        tuple(job.arguments[end].arguments.get("noise", 0) for end in ("first", "second")) for job in row.jobs
    ]
    assert noises == [(0, 1), (0, 2), (1, 2), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"recipe": {"epoch": 3}}, "mine: no entry of a recipe 'epoch'; did you mean 'epochs'?"),
        ({"recipe": {"epochs": 0}}, "epochs is 0; it must be a whole number, at least 1"),
        ({"recipe": {"lr": "fast"}}, "mine: recipe has lr = 'fast'; it must be a number"),
        ({"recipe": {"milestones": 3}}, "mine: the recipe does not fit: "),
        ({"networks": "convnet"}, "mine: networks is 'convnet'; give a list of at least one"),
        ({"networks": ["convnett"]}, "no network 'convnett'; did you mean 'convnet'?"),
        ({"measures": "probe"}, "mine: measures is 'probe'; give a list, ['probe']"),
        ({"measures": ["prob"]}, "no declared function 'prob'; did you mean 'probe'?"),
        (
            {"measures": ["barrier"]},
            "mine: measure 'barrier' takes first, second; here a measure takes one run or ticket and, if it "
            "wants, the data; one of several runs belongs under between",
        ),
        (
            {"measures": ["untrained.los"]},
            "mine: no number of measure 'untrained' 'los'; did you mean 'loss'?",
        ),
        (
            {"between": {"copies": ["untrained"]}},
            "mine: measure 'untrained' takes ticket; between runs a measure takes two of them, or a list, "
            "and, if it wants, the data",
        ),
        (
            {"between": {"copy": ["barrier"]}},
            "mine: no kind of runs to measure between 'copy'; did you mean 'copies'?",
        ),
        (
            {"between": ["barrier"]},
            "mine: between is ['barrier']; give measures for each of copies and rounds",
        ),
        ({"between": {"rounds": "barrier"}}, "mine: rounds is 'barrier'; give a list, ['barrier']"),
        ({"name": 3}, "a study is called 3; its name must do as the name of a file"),
        ({"networks": 3}, "mine: networks is 3; give a list of at least one"),
        ({"data": 3}, "mine: data is 3; give a list of at least one"),
        ({"recipe": 3}, "mine: recipe is 3; give its entries by name"),
        ({"recipe": {"momentum": "x"}}, "mine: recipe has momentum = 'x'; it must be a number"),
        ({"recipe": {"lr": [0.1, True]}}, "mine: recipe has lr = True; it must be a number"),
        ({"recipe": {"momentum": []}}, "mine: recipe has momentum = []; give at least one value"),
        ({"measures": 3}, "mine: measures is 3; give a list of measures"),
        (
            {"measures": {"untrained": 3}},
            "mine: measures has untrained = 3; give its options by name, or {}",
        ),
        ({"between": {"rounds": 3}}, "mine: rounds is 3; give a list of measures"),
        ({"measures": [3]}, "mine: measures is [3]; measures stand in it by their names"),
        ({"networks": [3]}, "mine: networks is [3]; they stand in it by their names"),
        ({"measures": ["convergence.a"]}, "mine: measure 'convergence' gives a single number; leave out 'a'"),
        ({"copies": 1}, "mine: copies is 1; it must be a whole number, at least 2"),
        ({"seeds": 0}, "mine: seeds is 0; it must be a whole number, at least 1"),
        ({"rounds": 1.5}, "mine: rounds is 1.5; it must be a whole number, at least 0"),
        ({"fraction": "half"}, "mine: fraction is 'half'; it must be a number"),
        ({"fraction": 2}, "fraction is 2; it must lie between 0 and 1, both excluded"),
        ({"recipe": {"epochs": 2}, "rewind": 2}, "mine: rewind is 2 of 2 epochs"),
        ({"name": "a/b"}, "a study is called 'a/b'; its name must do as the name of a file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(TombolaError) as caught:
        own_rows(OwnStudy(**{"name": "mine", **entries}))
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_toml_and_python_files_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'rounds = 3\nmeasures = ["untrained"]\nbetween = {rounds = ["barrier"]}\n'
        "[recipe]\nmomentum = [0.0, 0.9]\n",
        encoding="utf-8",
    )
    (tmp_path / "mine.py").write_text(
        "import tombola as tb\n"
        "study = tb.OwnStudy('mine', rounds=3, measures=['untrained'], between={'rounds': ['barrier']},\n"
        "    recipe={'momentum': [0.0, 0.9]})\n"
    )
    toml, python = (read_own(tmp_path / f"mine.{kind}") for kind in ("toml", "py"))
    assert toml.studies == python.studies
    assert (toml.code, python.code) == ((), (tmp_path / "mine.py",))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine.toml", "rounds = ", "mine.toml: Invalid value"),
        ("mine.toml", "round = 3", "mine.toml: no entry of a study 'round'; did you mean 'rounds'?"),
        ("mine.toml", "import = 3", "mine.toml: import is 3; give names of Python files"),
        ("mine.py", "import sys\nsys.exit(3)", "mine.py, line 2: SystemExit: 3"),
        ("mine.toml", 'import = "none.py"', "none.py: No such file or directory"),
        (
            "mine.py",
            "import tombola",
            "mine.py makes no study; write study = tombola.OwnStudy(...) at its top",
        ),
        ("mine.txt", "", "mine.txt is neither Python nor TOML; its name must end in .py or .toml"),
    ],
)
def test_a_file_with_an_error_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TombolaError) as caught:
        read_own(tmp_path / name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_studies_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    first.write_text("import tombola as tb\nstudy = again = tb.OwnStudy('a')\n")
    second.write_text("import tombola as tb\none, other = tb.OwnStudy('a'), tb.OwnStudy('a', rounds=2)\n")
    (file,) = read_all_own([first])
    assert [study.name for study in file.studies] == ["a"]
    words = r"second\.py: a study is called 'a' as is another one there; give each a name of its own"
    with pytest.raises(StudyError, match=words):
        read_all_own([second])
    with pytest.raises(StudyError, match=r"second\.py: a study is called 'a' as is one in .*first\.py; give"):
        read_all_own([first, second])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no file '.*none\.py'; give a study of your own that exists"):
        read_own(tmp_path / "none.py")
