"""Data from arrays, tensors, and the data sets of PyTorch and Hugging Face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

import tombola as tb
from tombola.data.hub import TEST_FRACTION
from tombola.data.splits import stratified_split
from tombola.errors import DataError


class Items(Dataset[Any]):
    """Images of another kind, as torchvision's data sets give them."""

    classes = ("zero", "one", "two")

    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), int(self.labels[index])


@pytest.fixture(scope="module")
def split() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (30, 3, 6, 5), generator=draws, dtype=torch.uint8), torch.arange(30) % 3


def to_pil(image: torch.Tensor) -> PIL.Image.Image:
    return PIL.Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("transform", [to_pil, torch.Tensor.clone, lambda image: image.float() / 255])
def test_items_of_a_torch_data_set_are_taken_over_exactly(split: Any, transform: Any) -> None:
    items = Items(*split, transform)
    data = tb.data_from(items, items)
    assert torch.equal(data.train.images, split[0])
    assert torch.equal(data.test.labels, split[1])
    assert data.class_names == Items.classes
    part = tb.data_from(Subset(items, range(9)), TensorDataset(*split))
    assert torch.equal(part.train.images, split[0][:9])
    assert part.class_names == ("0", "1", "2")


def test_arrays_and_tensors_are_the_same_data_and_grey_ones_need_no_channel(split: Any) -> None:
    arrays = split[0].numpy(), split[1].numpy().astype(np.int32)
    assert tb.data_from(arrays, split).fingerprint == tb.data_from_tensors(split, split).fingerprint
    grey = tb.data_from((arrays[0][:, 0], arrays[1]), mirrored=False)
    train, test = stratified_split(split[1], TEST_FRACTION)
    assert torch.equal(grey.train.images, split[0][train][:, :1])
    assert torch.equal(grey.test.images, split[0][test][:, :1])
    assert not grey.mirrored


def test_a_hugging_face_data_set_has_the_pixels_and_class_names_of_its_columns(split: Any) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    columns = {"img": [to_pil(image) for image in split[0]], "label": split[1].tolist()}
    table = datasets.Dataset.from_dict(columns, features=features)
    data = tb.data_from(datasets.DatasetDict({"train": table, "validation": table}), name="tables")
    assert torch.equal(data.train.images, split[0])
    assert torch.equal(data.test.labels, split[1])
    assert (data.name, data.class_names) == ("tables", ("a", "b", "c"))
    assert len(tb.data_from(table).test) == 6


def test_names_and_data_are_loaded_as_ever(digits: tb.Data) -> None:
    assert tb.data_from(digits) is digits
    assert tb.data_from("digits").fingerprint == digits.fingerprint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda x, y: (x.float() / 255, y), r"images are torch.float32; give uint8 .* \(images \* 255\)"),
        (
            lambda x, y: (x.permute(0, 2, 3, 1), y),
            r"images are \(30, 6, 5, 3\); give \(N, C, H, W\), such as",
        ),
        (lambda x, y: (x, y.float()), r"labels are torch.float32 \(30,\); give class indices"),
        (lambda x, y: Items(x, y, lambda i: i / 255 - 0.5), "image 0 of Items is float and not whole pixel"),
        (
            lambda x, y: Items(x, y, lambda i: i.roll(int(torch.randint(1, 99, ())))),
            "another image each time",
        ),
        (lambda x, y: Items(x, y, lambda i: i.permute(1, 2, 0)), r"image 0 of Items is \(6, 5, 3\); tensors"),
        (lambda x, y: {"test": (x, y)}, "no split 'train'; splits seen: 'test'"),
        (lambda x, y: iter([]), "a list_iterator cannot be read; give a pair of images and labels"),
        (lambda x, y: Path("nowhere-at-all"), "nowhere-at-all"),
    ],
)
def test_what_would_need_a_guess_is_refused_with_what_to_do(split: Any, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        tb.data_from(given(*split))
    assert "\n" not in str(raised.value)


def test_tensors_that_share_memory_can_be_stored(split: Any, tmp_path: Path, start: tb.Ticket) -> None:
    data = tb.data_from_tensors(split, split)
    ticket = tb.initialize("convnet", data)
    lab = tb.Lab(tmp_path)
    run = tb.job(tb.train, ticket, data, tb.Recipe(epochs=1, batch_size=10))
    assert (
        lab.result(run).fingerprint == tb.train(ticket, data, tb.Recipe(epochs=1, batch_size=10)).fingerprint
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": 3}, "train is no pair; give inputs and labels"),
        ({"test": (np.zeros((2, 1, 4, 4), np.uint8),)}, "test is no pair"),
        ({"normalization": [0.5, 0.25]}, r"normalization is \[0.5, 0.25\]; give means and deviations, such"),
    ],
)
def test_what_is_no_pair_is_refused(changed: dict[str, Any], message: str) -> None:
    split = np.zeros((2, 1, 4, 4), np.uint8), np.arange(2)
    with pytest.raises(tb.TombolaError, match=message):
        tb.data_from_tensors(**{"train": split, "test": split, **changed})
