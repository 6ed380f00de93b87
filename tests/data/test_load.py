from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tombola.data.imageset import data_from_tensors
from tombola.data.load import digits, load_data
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


def test_digits_are_split_in_two_thirds_and_one_third_of_each_class() -> None:
    data = digits()
    assert (len(data.train), len(data.test)) == (1198, 599)
    assert data.size == (8, 8)
    assert data.channels == 1
    assert data.class_names == tuple("0123456789")
    whole = torch.bincount(data.train.labels) + torch.bincount(data.test.labels)
    share = torch.bincount(data.test.labels) / whole
    assert (share - 1 / 3).abs().max() < 0.005


def test_grey_values_0_to_16_become_0_to_255() -> None:
    data = digits()
    seen = np.unique(torch.cat([data.train.images, data.test.images]).numpy())
    expected = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    assert seen.tolist() == expected
    # 1,797 images with scikit-learn's total of grey values; rounding moves each by half a step at most.
    total = load_digits().images.sum() * 255 / 16
    pixels = int(data.train.images.sum()) + int(data.test.images.sum())
    assert abs(pixels - total) / total < 0.01


def test_digits_are_those_of_every_result_so_far() -> None:
    assert digits().fingerprint == "5f85e42ff61b47e1d93f333373b3836d0c81605ecb99270f5e649bc0fd9982c0"


def test_digits_are_not_mirrored() -> None:
    assert not digits().mirrored


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    here = digits()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert digits().fingerprint == here.fingerprint
