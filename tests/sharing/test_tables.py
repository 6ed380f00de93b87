"""Tables pushed as data sets to a hub on loopback: read by datasets, by tombola and by people."""

from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import yaml

import tombola as tb
from tombola.errors import ExperimentError, HubError
from tombola.sharing.table_card import COLUMN_MEANINGS, Shown, table_card
from tombola.table.key import Key
from tombola.table.number import Curve, Number
from tombola.table.table import COLUMNS


@pytest.fixture
def table() -> tb.Table:
    """An accuracy, a barrier with its curve and a gap, with a further axis."""
    accuracy = Key(
        metric="val_accuracy", network="convnet", momentum=0.9, batch_size=100, more=(("lr", 0.1),)
    )
    line = Key(metric="barrier", over="pairs", more=(("lr", 0.2),))
    return tb.Table(
        [
            Number(key=accuracy, epochs=3, seed=0, value=91.5, jobs=("ab", "cd")),
            Number(key=accuracy, epochs=3, seed=1, value=None, state="missing"),
            Number(key=line, epochs=3, seed=0, pair=0, value=1.5, curve=Curve((0.0, 1.0), (8.0, 9.5))),
        ]
    )


def test_a_table_comes_back_whole_with_its_curves(hub: Any, table: tb.Table) -> None:
    push = table.push_to_hub("me/numbers", title="A title")
    assert push.origin is not None
    assert hub.files("me/numbers", "dataset") == dict(push.files)
    assert push.address == f"{hub.address}/datasets/me/numbers"
    again = tb.Table.from_hub("me/numbers")
    assert again.numbers == table.numbers
    assert again.hub == push.origin
    with pytest.raises(HubError, match="no repository 'me/numbers'"):
        tb.Run.from_hub("me/numbers")


def test_datasets_loads_what_was_pushed(
    hub: Any, table: tb.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, content in table.push_to_hub("me/numbers").files.items():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    frame = loaded.to_pandas().convert_dtypes(convert_floating=False)
    expected = table.frame()
    assert list(frame.columns) == list(expected.columns)
    for name in expected.columns:
        pandas.testing.assert_series_equal(
            frame[name].astype(expected[name].dtype), expected[name], check_names=False
        )


def test_the_card_has_every_metric_and_column_with_its_unit(table: tb.Table) -> None:
    assert COLUMN_MEANINGS.keys() == set(COLUMNS)
    card = table.push_to_hub("me/numbers", title="A <b> title", license="cc0-1.0", dry_run=True).card
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["license"] == "cc0-1.0"
    assert metadata["configs"][0]["data_files"] == [{"split": "train", "path": "numbers.parquet"}]
    assert "A \\<b\\> title" in card
    assert "3 numbers of 2 keys, a row each, 1 missing" in card
    assert "| val\\_accuracy | test accuracy | percent | 2 | 1 |" in card
    assert "| barrier | barrier | percentage points | 1 | 0 |" in card
    assert "| batch\\_size | whole | images a step" in card
    assert "| lr | real | a further axis" in card


def test_the_card_of_an_experiment_has_its_tables(table: tb.Table) -> None:
    card = table_card(table, Shown("Title", "About\nit."), "me/numbers", None)
    assert "\nTitle\n\nAbout it.\n" in card


def test_an_empty_table_is_not_pushed() -> None:
    with pytest.raises(ExperimentError, match="the table has no numbers"):
        tb.Table([]).push_to_hub("me/numbers", dry_run=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{}]", "row 1"),
        (b"{", "the table cannot be read"),
        (b"\xff", "table.json"),
        (b"[" * 100_000, "the table cannot be read"),
    ],
)
def test_a_damaged_table_ends_in_one_line(hub: Any, content: bytes, message: str) -> None:
    hub.put("me/numbers", {"table.json": content}, "dataset")
    with pytest.raises(ExperimentError, match=r"^me/numbers@\w{12}: table.json: .*") as refused:
        tb.Table.from_hub("me/numbers")
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_data_set_that_is_no_table_is_told(hub: Any) -> None:
    hub.put("me/pictures", {"data.parquet": b""}, "dataset")
    with pytest.raises(
        HubError, match=r"holds no table of tombola: it has no table.json; it holds data.parquet"
    ):
        tb.Table.from_hub("me/pictures")
