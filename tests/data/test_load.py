from pathlib import Path

import numpy as np
import pytest
import torch

from tombola.data import load
from tombola.data.imageset import data_from_tensors
from tombola.data.load import digits, load_data
from tombola.data.splits import stratified_split
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


def test_digits_are_those_of_scikit_learn_and_of_every_result_so_far() -> None:
    assert digits().fingerprint == "5f85e42ff61b47e1d93f333373b3836d0c81605ecb99270f5e649bc0fd9982c0"
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(np.rint(theirs.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(theirs.target.astype(np.int64))
    parts = stratified_split(labels, 1 / 3)
    for split, part in zip((digits().train, digits().test), parts, strict=True):
        assert torch.equal(split.images, images[part])
        assert torch.equal(split.labels, labels[part])


def test_digits_are_shipped_with_whose_they_are_and_are_small() -> None:
    folder = Path(load.__file__).parent
    assert (folder / "digits.npz").stat().st_size < 60_000
    assert "Creative Commons Attribution 4.0" in (folder / "digits.txt").read_text()


def test_digits_are_not_mirrored() -> None:
    assert not digits().mirrored
