import os
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch

from tombola.data import hub
from tombola.data.load import load_data

Writer = Callable[..., Path]


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> list[hub.DataOrigin]:
    """Every decoding that takes place."""
    seen: list[hub.DataOrigin] = []
    load = hub.load

    def watched(origin: hub.DataOrigin) -> object:
        seen.append(origin)
        return load(origin)

    monkeypatch.setattr(hub, "load", watched)
    return seen


def kept(cache_folder: Path) -> list[Path]:
    return sorted((cache_folder / "data").iterdir())


def test_the_second_load_gives_the_same_without_the_hub_library(
    simple: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simple("mnist", train=6, test=4)
    first = load_data(folder)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("datasets was asked again")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    second = load_data(folder)
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert {"mean", "std", "fingerprint"} <= vars(second).keys()
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.std, second.std)
    for field in ("name", "source", "class_names", "mirrored", "fingerprint"):
        assert getattr(first, field) == getattr(second, field)


def test_a_changed_folder_is_decoded_anew_into_the_same_file(
    simple: Writer, decoding: list[hub.DataOrigin], cache_folder: Path
) -> None:
    folder = simple(train=6, test=4)
    load_data(folder)
    before = kept(cache_folder)
    file = next(folder.glob("test*"))
    os.utime(file, ns=(0, 0))
    load_data(folder)
    load_data(folder)
    assert len(decoding) == 2
    assert kept(cache_folder) == before


def test_folders_of_the_same_name_do_not_share_a_file(
    simple: Writer, tmp_path: Path, cache_folder: Path
) -> None:
    folder = simple("tiny", train=6, test=4)
    (tmp_path / "other").mkdir()
    moved = folder.rename(tmp_path / "other" / "tiny")
    load_data(moved)
    load_data(simple("tiny", train=8, test=4))
    assert len(load_data(moved).train) == 6
    assert len(kept(cache_folder)) == 2


@pytest.mark.parametrize("damage", ["cut", "garbage", "flipped"])
def test_a_damaged_file_is_rebuilt(
    simple: Writer, decoding: list[hub.DataOrigin], cache_folder: Path, damage: str
) -> None:
    folder = simple(train=6, test=4)
    first = load_data(folder).train.images.clone()
    (file,) = kept(cache_folder)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    file.write_bytes({"cut": content[:-9], "garbage": b"garbage", "flipped": content}[damage])
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(load_data(folder).train.images, first)
    assert torch.equal(load_data(folder).train.images, first)
    assert len(decoding) == 2


def test_a_cache_folder_that_cannot_be_written_gives_a_warning_and_the_data(
    simple: Writer, cache_folder: Path
) -> None:
    cache_folder.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept in .*TOMBOLA_CACHE"):
        data = load_data(simple(train=6, test=4))
    assert len(data.train) == 6


def test_nothing_half_written_stays_behind(simple: Writer, cache_folder: Path) -> None:
    load_data(simple(train=6, test=4))
    assert [file.suffix for file in kept(cache_folder)] == [".safetensors"]
