"""Layouts and names; the hub itself is played by local folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

from tombola.data import hub
from tombola.data.load import load_data
from tombola.errors import DataError

Writer = Callable[..., Path]


def serve(monkeypatch: pytest.MonkeyPatch, repositories: dict[str, Path]) -> None:
    """Let local folders answer for repositories of the hub."""
    split = hub._splits

    def from_folder(source: str, root: str, name: str, **options: Any) -> Any:
        folder = str(repositories.get(source, source))
        return split(folder, folder if source in repositories else root, name, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    monkeypatch.setattr(hub, "_splits", from_folder)


def test_a_folder_of_tables_keeps_pixels_labels_and_class_order(simple: Writer, picture: Any) -> None:
    folder = simple(train=6, test=4)
    data = load_data(folder)
    assert (data.name, data.source, data.class_names) == ("tiny", str(folder), ("zebra", "ant"))
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert (data.size, data.channels, data.mirrored) == ((4, 6), 3, True)
    expected = np.asarray(picture(1003)).transpose(2, 0, 1)
    assert np.array_equal(data.test.images[3].numpy(), expected)


def test_the_image_column_may_be_called_img(simple: Writer) -> None:
    assert len(load_data(simple(column="img", train=4, test=2)).train) == 4


@pytest.mark.parametrize("split", ["valid", "validation", "val"])
def test_a_validation_split_serves_as_test_split(simple: Writer, split: str) -> None:
    data = load_data(simple(train=6, **{split: 4}))
    assert (len(data.train), len(data.test)) == (6, 4)


def test_the_test_split_wins_over_the_validation_split(simple: Writer) -> None:
    assert len(load_data(simple(train=6, validation=4, test=2)).test) == 2


def test_a_lone_split_is_divided_80_to_20_and_always_alike(simple: Writer) -> None:
    data, again = load_data(simple("one", train=20)), load_data(simple("two", train=20))
    assert torch.bincount(data.train.labels).tolist() == [8, 8]
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert data.fingerprint == again.fingerprint


def test_several_splits_without_a_train_split_are_refused(simple: Writer) -> None:
    with pytest.raises(DataError, match="tiny: no split 'train'; splits seen: "):
        load_data(simple(test=2, valid=2))


def test_grey_images_among_colour_ones_are_converted(tables: Writer, picture: Any) -> None:
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    columns = {"image": [picture(0, "L"), picture(1)], "label": [0, 1]}
    grey = {"image": [picture(2, "L"), picture(3, "L")], "label": [0, 1]}
    data = load_data(tables({"train": columns, "valid": grey}, features))
    assert data.channels == 3
    assert torch.equal(data.train.images[0, 0], data.train.images[0, 2])
    assert torch.equal(data.test.images[0, 0], torch.from_numpy(np.array(picture(2, "L"))))


def test_the_fine_label_is_meant_where_a_coarse_one_stands_beside_it(tables: Writer, picture: Any) -> None:
    features = {
        "img": datasets.Image(),
        "fine_label": datasets.ClassLabel(names=["oak", "elm", "cod"]),
        "coarse_label": datasets.ClassLabel(names=["tree", "fish"]),
    }
    columns = {
        "img": [picture(row) for row in range(3)],
        "fine_label": [0, 1, 2],
        "coarse_label": [0, 0, 1],
    }
    data = load_data(tables({"train": columns, "test": columns}, features, "cifar100"))
    assert data.class_names == ("oak", "elm", "cod")


def test_pictures_in_class_folders_are_read(tmp_path: Path, picture: Any) -> None:
    for split, count in (("train", 3), ("test", 1)):
        for index, name in enumerate(["cat", "bat"]):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for row in range(count):
                picture(10 * index + row, "L").save(folder / f"{row}.png")
    data = load_data(str(tmp_path / "pets"))
    assert data.class_names == ("bat", "cat")
    assert (len(data.train), len(data.test), data.channels) == (6, 2, 1)
    bat = int((data.test.labels == 0).nonzero())
    assert torch.equal(data.test.images[bat, 0], torch.from_numpy(np.array(picture(10, "L"))))


def test_class_folders_without_splits_are_divided(tmp_path: Path, picture: Any) -> None:
    for name in ("cat", "bat"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for row in range(5):
            picture(row).save(tmp_path / "pets" / name / f"{row}.png")
    data = load_data(tmp_path / "pets")
    assert (len(data.train), len(data.test)) == (8, 2)


def test_pictures_of_differing_sizes_are_refused(tmp_path: Path) -> None:
    for name, size in (("cat", (4, 4)), ("bat", (5, 4))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", size).save(tmp_path / "pets" / name / "0.png")
    with pytest.raises(DataError, match=r"pets: images of 2 sizes, .*5x4"):
        load_data(tmp_path / "pets")


def test_a_class_that_a_split_lacks_is_named(simple: Writer) -> None:
    with pytest.raises(DataError, match="tiny: the test split has no image of class 'ant'"):
        load_data(simple(train=4, test=1))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty' has no images"):
        load_data(tmp_path / "empty")
    (tmp_path / "empty" / "train.csv").write_text("text,label\nhello,1\n")
    with pytest.raises(DataError, match="no images; columns seen: 'text', 'label'"):
        load_data(tmp_path / "empty")


def test_pictures_without_labels_are_refused(tmp_path: Path, picture: Any) -> None:
    (tmp_path / "flat").mkdir()
    picture(0).save(tmp_path / "flat" / "0.png")
    with pytest.raises(DataError, match="flat: no label column"):
        load_data(tmp_path / "flat")


def test_nothing_of_a_folder_is_left_in_the_hub_cache(simple: Writer, tmp_path: Path) -> None:
    load_data(simple(train=4, test=2))
    assert not (tmp_path / "hub").exists()


def test_a_folder_named_like_a_known_set_is_taken_for_a_copy_of_it(simple: Writer) -> None:
    assert not load_data(simple("MNIST", train=4, test=2)).mirrored
    pooled = load_data(simple("eurosat", train=10, validation=6, test=4))
    assert (len(pooled.train), len(pooled.test)) == (16, 4)


def test_a_known_name_loads_from_its_repository(simple: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = simple(train=4, test=2)
    serve(monkeypatch, {"ylecun/mnist": folder})
    data = load_data("mnist")
    assert (data.name, data.source, data.mirrored) == ("mnist", "mnist", False)
    assert data.fingerprint == load_data(folder).fingerprint


def test_a_hub_name_gives_a_name_without_slash(simple: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, {"someone/flowers": simple(train=4, test=2)})
    data = load_data("someone/flowers")
    assert (data.name, data.source) == ("someone--flowers", "someone/flowers")


def test_a_name_that_is_nowhere_brings_the_nearest_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, name: str, timeout: float) -> None:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(
        DataError, match=r"no data set 'cifra10'; did you mean 'cifar10'.*Hugging Face hub"
    ) as caught:
        load_data("cifra10")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no data set 'a b!'; known: cifar10, "):
        load_data("a b!")
    with pytest.raises(DataError, match="no data set ''"):
        load_data("")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifra10", "no data set 'cifra10'; did you mean 'cifar10'"),
        ("someone/flowers", "no data set 'someone/flowers'; known: "),
        ("cifar100", "data set 'cifar100' is not on this machine yet"),
    ],
)
def test_a_hub_out_of_reach_is_said_in_one_line(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach it\nTraceback of many lines")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(datasets, "load_dataset_builder", unreachable)
    with pytest.raises(DataError, match=f"{message}.*cannot be reached; offline, give a folder") as caught:
        load_data(name)
    assert "\n" not in str(caught.value)


def test_a_failure_of_the_hub_library_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise ValueError("Config name is missing.\nPlease pick one.")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: None)
    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(DataError, match=r"'a/b' cannot be loaded: Config name is missing.$"):
        load_data("a/b")


def test_offline_mode_and_progress_bars_are_put_back() -> None:
    datasets.config.HF_HUB_OFFLINE = False  # the fixture puts it back
    with hub._offline():
        assert datasets.config.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE
    datasets.enable_progress_bars()
    with hub._quiet():
        assert datasets.utils.are_progress_bars_disabled()
    assert not datasets.utils.are_progress_bars_disabled()
