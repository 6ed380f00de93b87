"""docs/extend.md: every file in it runs as it stands."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.data import transform
from tombola.lab.store import Store
from tombola.networks import initialization, network
from tombola.pruning import scores
from tombola.training import definitions as recipes

Result = tuple[int, str, str]
Tombola = Callable[..., Result]

DOCUMENT = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:python|toml)\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = re.findall(r"^tombola (.+)$", DOCUMENT, re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the document in a folder of their own, which is the present one; nothing is declared."""
    for text in BLOCKS:
        name = re.match(r"# (\S+)\n", text)
        assert name
        (tmp_path / name[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    of_recipes = (recipes.SCHEDULES, recipes.LOSSES, recipes.OPTIMIZERS, transform._augmentations)
    for definitions in (network._networks, initialization._schemes, scores._scores, *of_recipes):
        monkeypatch.setattr(definitions, "_declared", {})
    for module in [module for module in sys.modules if module.startswith("tombola_own_")]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path


def test_the_experiment_runs_with_all_that_is_declared(tombola: Tombola, files: Path) -> None:
    assert COMMANDS[-1] == "run mine.toml"
    code, _, err = tombola(*COMMANDS[-1].split(), "--workers", 0)
    assert code == 0, err
    assert tombola("report", "mine.toml", "--out", "page")[0] == 0
    with (files / "page" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["state"] for row in rows} == {"measured"}
    accuracies = [row for row in rows if row["metric"] == "val_accuracy"]
    # Networks, scores and rounds.
    assert {(row["network"], row["score"], float(row["sparsity"])) for row in accuracies} == {
        (name, score, sparsity)
        for name in ("two-layers", "convnet")
        for score in ("magnitude", "against-start", "sensitivity")
        for sparsity in (0, 50, 60)
    }
    assert len(accuracies) == 2 * 3 * 3
    assert len([row for row in rows if row["metric"] == "sign-changes"]) == 2 * 3 * 3
    described = [json.loads(path.read_text()) for path in files.glob("store/**/job.json")]
    recipes_used = [call["arguments"]["recipe"] for call in described if call["function"] == "train"]
    own = {"schedule": "triangle@1", "loss": "focal@1", "optimizer": "rmsprop@1"}
    own |= {"augmentation": {"declared": "brightness", "cutout": 2}}
    assert recipes_used == [{"epochs": 1, "batch_size": 100, "lr": 0.01, **own}] * (2 * 3 * 3 - 4)


def test_the_score_and_the_measure_are_known_on_the_command_line(tombola: Tombola, files: Path) -> None:
    chain, focal, _, measure, _ = COMMANDS
    quick = ("--recipe.epochs", 1, "--recipe.batch-size", 400)
    code, out, err = tombola(*chain.split(), *quick)
    assert code == 0, err
    job = re.findall(r"\b[0-9a-f]{8,}\b", out)[-1]
    code, out, err = tombola(*measure.replace("JOB", job).split())
    assert code == 0, err
    assert 0 <= float(out.splitlines()[1].removeprefix("value: ")) < 50
    code, _, err = tombola(*focal.split(), *quick)
    assert code == 0, err


def test_the_augmentation_is_known_on_the_command_line(tombola: Tombola, files: Path) -> None:
    quick = ("--recipe.epochs", 1, "--recipe.batch-size", 400)
    code, _, err = tombola(*COMMANDS[2].split(), *quick)
    assert code == 0, err
    store = Store(files / "store")
    described = [store.description(name) for name in store.names()]
    recipes = [call["arguments"]["recipe"] for call in described if call["function"] == "train"]
    assert [recipe["augmentation"] for recipe in recipes] == [{"declared": "brightness", "cutout": 2}] * 2
    sources = [store.provenance(name).get("source", {}) for name in store.names()]
    assert sum("brightness" in source.get("augmentations", {}) for source in sources) == 2


@pytest.mark.parametrize("name", ["score", "schedule", "loss", "optimizer", "augmentation"])
def test_one_of_your_own_takes_less_than_ten_lines(name: str) -> None:
    (text,) = (text for text in BLOCKS if text.startswith(f"# {name}.py"))
    assert len(text.splitlines()[1:]) < 10
