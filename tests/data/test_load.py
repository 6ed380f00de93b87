from pathlib import Path

import pytest
import torch

from tombola.data.imageset import data_from_tensors
from tombola.data.load import load_data
from tombola.errors import DataError


def test_data_is_handed_back_unchanged() -> None:
    split = torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.arange(2)
    data = data_from_tensors(split, split)
    assert load_data(data) is data


def test_digits_need_neither_hub_nor_cache(cache_folder: Path) -> None:
    assert load_data("digits").name == "digits"
    assert load_data("digits").source == "digits"
    assert not cache_folder.exists()


def test_a_known_name_wins_over_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_data("digits").train) == 1198
    with pytest.raises(DataError, match="has no images"):
        load_data("./digits")


def test_anything_else_is_refused() -> None:
    with pytest.raises(DataError, match="a name, a folder or a Data; got int 5"):
        load_data(5)  # type: ignore[arg-type]
