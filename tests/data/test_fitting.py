import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tombola as tb
from tombola.data.fitting import fit_images
from tombola.errors import DataError


def noise(channels: int, size: tuple[int, int], count: int = 6) -> tb.Data:
    draws = torch.Generator().manual_seed(sum(size) + channels)
    images = torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=draws)
    labels = torch.arange(count) % 2
    return tb.data_from_tensors(
        (images, labels), (images.flip(0), labels), class_names=("a", "b"), name="noise", mirrored=False
    )


def resized_by_pillow(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """``(C, H, W)``, resized by another library, channel by channel."""
    planes = [Image.fromarray(plane.numpy()) for plane in image]
    small = [plane.resize((size[1], size[0]), Image.Resampling.BILINEAR) for plane in planes]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in small]))


@given(st.sampled_from([1, 3]), st.tuples(*[st.integers(5, 70)] * 2), st.tuples(*[st.integers(5, 40)] * 2))
def test_images_are_resized_as_pillow_does_it(
    channels: int, seen: tuple[int, int], wanted: tuple[int, int]
) -> None:
    data = noise(channels, seen)
    fitted = fit_images(data, size=wanted, channels=channels)
    for split in ("train", "test"):
        made, given_ = getattr(fitted, split).images, getattr(data, split).images
        expected = torch.stack([resized_by_pillow(image, wanted) for image in given_])
        assert made.dtype == torch.uint8
        assert made.shape == expected.shape
        # Both compute in whole numbers; at odd ratios the last rounding may differ.
        assert (made.int() - expected.int()).abs().max() <= 1


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = torch.tensor([0, 200], dtype=torch.uint8).repeat(32).expand(2, 1, 64, 64).contiguous()
    labels = torch.tensor([0, 1])
    data = tb.data_from_tensors((stripes, labels), (stripes, labels))
    fitted = fit_images(data, size=(32, 32), channels=1).train.images
    assert (fitted[:, :, :, 1:-1].int() - 100).abs().max() <= 1


def test_grey_images_are_repeated_to_more_channels(digits: tb.Data) -> None:
    fitted = fit_images(digits)
    assert (fitted.channels, fitted.size) == (3, (32, 32))
    grey = fit_images(digits, channels=1).train.images
    for channel in range(3):
        assert torch.equal(fitted.train.images[:, channel], grey[:, 0])


def test_everything_but_the_images_stays(digits: tb.Data) -> None:
    fitted = fit_images(digits)
    assert torch.equal(fitted.train.labels, digits.train.labels)
    assert torch.equal(fitted.test.labels, digits.test.labels)
    assert (fitted.class_names, fitted.mirrored) == (digits.class_names, digits.mirrored)
    assert fitted.name == "digits-3x32x32"
    assert fitted.source is None  # no worker would find these pixels by the name "digits"


def test_the_normalisation_is_that_of_the_fitted_pixels(digits: tb.Data) -> None:
    fitted = fit_images(digits)
    pixels = fitted.train.images.numpy() / 255
    np.testing.assert_allclose(fitted.mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(fitted.std, pixels.std((0, 2, 3)), rtol=1e-5)


def test_data_that_fits_is_handed_back_as_it_is(colour: tb.Data) -> None:
    assert fit_images(colour, size=(8, 10)) is colour


def test_the_same_fit_is_made_once(digits: tb.Data) -> None:
    assert fit_images(digits) is fit_images(digits)
    assert fit_images(digits, size=(16, 16)) is not fit_images(digits)


@pytest.mark.parametrize(("seen", "wanted"), [(2, 3), (4, 3), (3, 1), (3, 4)])
def test_channels_that_do_not_correspond_are_refused(seen: int, wanted: int) -> None:
    words = (
        f"noise has images of {seen} channels, not {wanted}; only grey images, of one channel, can be given "
        "another number"
    )
    with pytest.raises(DataError, match=words):
        fit_images(noise(seen, (8, 8)), channels=wanted)


@pytest.mark.parametrize("size", [(0, 32), (32,), (32.0, 32)])
def test_an_impossible_size_is_refused(digits: tb.Data, size: tuple[int, int]) -> None:
    with pytest.raises(
        DataError, match=r"size is .*; it must be height and width in pixels, such as \(32, 32\)"
    ):
        fit_images(digits, size=size)
