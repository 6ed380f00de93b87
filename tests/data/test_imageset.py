import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tombola.data.batches import Batches
from tombola.data.imageset import Data, ImageSet, data_from_tensors
from tombola.errors import DataError


def tensors(count: int = 12, channels: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    images = torch.from_numpy(generator.integers(0, 256, (count, channels, 5, 4), dtype=np.uint8))
    return images, torch.arange(count) % 3


def test_moments_are_those_of_the_float_pixels() -> None:
    data = data_from_tensors(tensors(), tensors(6, seed=1))
    floats = data.train.images.numpy().astype(np.float64) / 255
    assert np.allclose(data.mean.numpy(), floats.mean(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(data.std.numpy(), floats.std(axis=(0, 2, 3)), rtol=1e-6)


def test_a_channel_without_contrast_is_not_scaled() -> None:
    images, labels = tensors(channels=1)
    data = data_from_tensors((torch.full_like(images, 51), labels), (images, labels))
    assert data.mean.tolist() == pytest.approx([0.2])
    assert data.std.tolist() == [1.0]


def test_one_pixel_or_one_class_name_changes_the_fingerprint() -> None:
    train, test = tensors(), tensors(6, seed=1)
    before = data_from_tensors(train, test, name="x").fingerprint
    assert data_from_tensors(train, test, name="y").fingerprint == before
    assert data_from_tensors(train, test, name="x", class_names="abc").fingerprint != before
    changed = test[0].clone()
    changed[3, 1, 2, 0] ^= 1
    assert data_from_tensors(train, (changed, test[1]), name="x").fingerprint != before


def test_own_tensors_are_named_after_their_fingerprint() -> None:
    data = data_from_tensors(tensors(), tensors(6, seed=1))
    assert data.name == f"tensors-{data.fingerprint[:12]}"
    assert data.class_names == ("0", "1", "2")
    assert data.source is None


def test_a_class_missing_from_a_split_is_named() -> None:
    train, test = tensors(), tensors(2)
    with pytest.raises(DataError, match="x: the test split has no image of class 'c'"):
        data_from_tensors(train, test, name="x", class_names="abc")


def test_arrays_are_the_tensors_of_their_values() -> None:
    draws = np.random.default_rng(0)
    features, labels = draws.normal(size=(9, 4)).astype(np.float32), np.arange(9) % 3
    expected = data_from_tensors(
        (torch.tensor(features), torch.tensor(labels)), (torch.tensor(features), torch.tensor(labels))
    )
    read_only = features.copy()
    read_only.flags.writeable = False
    swapped = features.astype(">f4"), labels.astype(">i2")  # as files of other machines have them
    backwards = features[::-1].copy()[::-1], labels.astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pair in ((features, labels), (read_only, labels), swapped, backwards):
            assert data_from_tensors(pair, pair).fingerprint == expected.fingerprint
    words = draws.integers(0, 5, (9, 6))
    tokens = data_from_tensors((words, labels), (words, labels))
    assert (tokens.kind, tokens.vocabulary) == ("tokens", words.max() + 1)


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (
            np.zeros((3, 4)),
            np.arange(3),
            r"such as features.astype\('float32'\) of an array; got torch.float64",
        ),
        (np.zeros((3, 4), np.float32), np.zeros(3), r"labels are torch.float64 \(3,\); give class indices"),
        (np.array([["a"]]), np.arange(1), "inputs: a ndarray is no tensor: "),
        ("abc", np.arange(3), "inputs: a str is no tensor: "),
    ],
)
def test_arrays_that_would_be_rounded_or_are_no_numbers_are_refused(
    inputs: Any, labels: Any, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        data_from_tensors((inputs, labels), (inputs, labels))


def test_labels_outside_the_classes_are_refused_with_their_range() -> None:
    train, test = tensors(), tensors(6)
    with pytest.raises(DataError, match="train labels run from 0 to 2; allowed 0 to 1"):
        data_from_tensors(train, test, name="x", class_names="ab")


def test_wrong_types_and_shapes_are_refused() -> None:
    images, labels = tensors()
    with pytest.raises(DataError, match="images must be uint8"):
        ImageSet(images.double(), labels)
    with pytest.raises(DataError, match=r"labels must be int64 \(12,\)"):
        ImageSet(images, labels[:3])
    with pytest.raises(DataError, match="no images"):
        ImageSet(images[:0], labels[:0])
    with pytest.raises(DataError, match="both must be alike"):
        Data("x", ImageSet(images, labels), ImageSet(images[:, :1], labels), ("a", "b", "c"))


def test_given_moments_normalise_the_images_and_count_in_the_fingerprint() -> None:
    data = data_from_tensors(tensors(channels=2), tensors(6, channels=2, seed=1), name="x")
    own = tuple(data.mean.tolist()), tuple(data.std.tolist())
    other = replace(data, normalization=((0.25, 0.5), (0.125, 2.0)))
    assert other.mean.tolist() == [0.25, 0.5]
    assert other.std.tolist() == [0.125, 2.0]
    # (pixel / 255 - mean) / std
    pixels = data.test.images[:1].double() / 255
    expected = (pixels - torch.tensor([0.25, 0.5])[:, None, None]) / torch.tensor([0.125, 2])[:, None, None]
    assert torch.allclose(Batches(other.test, other).unaugmented(0, 1).double(), expected, atol=1e-5)
    assert len({each.fingerprint for each in (data, other, replace(data, normalization=own))}) == 3


@pytest.mark.parametrize("given", [((0.5,), (1.0, 1.0)), ((0.5, 0.5), (1.0,)), ((0.5, 0.5), (1.0, 0.0))])
def test_moments_that_do_not_fit_are_refused(given: tuple) -> None:
    data = data_from_tensors(tensors(channels=2), tensors(6, channels=2, seed=1), name="x")
    with pytest.raises(DataError, match=r"x: normalization is .* must be 2 means and 2 standard deviations"):
        replace(data, normalization=given)
