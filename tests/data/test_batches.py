import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tombola.data.augmentation import Augmentation, draw
from tombola.data.batches import Batches, framed
from tombola.data.imageset import Data, data_from_tensors


def make(channels: int, height: int = 6, width: int = 5, count: int = 20) -> Data:
    generator = np.random.default_rng(channels)
    images = torch.from_numpy(generator.integers(0, 256, (count, channels, height, width), dtype=np.uint8))
    return data_from_tensors((images, torch.arange(count) % 4), (images[:8], torch.arange(8) % 4), name="x")


def slowly(data: Data, index: int, row: int, column: int, flip: bool, pad: int, fill: str) -> np.ndarray:
    """One augmented image, made channel by channel with PIL and numpy: the independent implementation."""
    height, width = data.size
    channels = []
    for plane, mean, std in zip(data.train.images[index].numpy(), data.mean, data.std, strict=True):
        cropped = []
        # The second plane tells the image (255) from the padding (0).
        for layer in (plane, np.full_like(plane, 255)):
            image = ImageOps.expand(Image.fromarray(layer), border=pad, fill=0)
            image = image.crop((column, row, column + width, row + height))
            cropped.append(np.asarray(ImageOps.mirror(image) if flip else image, dtype=np.float64))
        normalised = (cropped[0] / 255 - float(mean)) / float(std)
        channels.append(np.where(cropped[1] == 0, 0, normalised) if fill == "mean" else normalised)
    return np.stack(channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", ["black", "mean"])
def test_crop_flip_and_normalisation_agree_with_pil(channels: int, fill: str) -> None:
    data = make(channels)
    augmentation = Augmentation(pad=2, fill=fill)  # type: ignore[arg-type]
    draws = draw(augmentation, data, noise=0, round=0, epoch=0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    batches = Batches(data.train, data, pad=2, fill=augmentation.fill)
    made = batches.images(order, draws.rows, draws.columns, draws.flips)
    for k, index in enumerate(order.tolist()):
        row, column, flip = int(draws.rows[k]), int(draws.columns[k]), bool(draws.flips[k])
        expected = slowly(data, index, row, column, flip, 2, fill)
        assert np.allclose(made[k].numpy(), expected, atol=2e-6)
    assert made.dtype == torch.float32
    assert made.is_contiguous()


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_the_bits_do_not_depend_on_how_an_epoch_is_cut(fill: str) -> None:
    data = make(3, 8, 8)
    draws = draw(Augmentation(), data, noise=0, round=0, epoch=0)
    batches = Batches(data.train, data, pad=1, fill=fill)  # type: ignore[arg-type]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    whole = batches.images(order, draws.rows, draws.columns, draws.flips)
    for size in (1, 3, 7):
        parts = [
            batches.images(
                order[k : k + size],
                draws.rows[k : k + size],
                draws.columns[k : k + size],
                draws.flips[k : k + size],
            )
            for k in range(0, 20, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
def test_images_that_a_gpu_lays_into_their_frames_are_those_padded_with_black(at_once: int) -> None:
    images = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8)
    expected = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    frames = framed(images, 2, torch.device("cpu"), at_once)
    assert frames.is_contiguous()
    assert np.array_equal(frames.numpy(), expected)


def test_plain_images_are_only_normalised() -> None:
    data = make(3)
    plain = Batches(data.test, data, pad=2).unaugmented(2, 7)
    mean, std = (values.double().numpy()[:, None, None] for values in (data.mean, data.std))
    expected = (data.test.images[2:7].numpy() / 255 - mean) / std
    assert np.allclose(plain.numpy(), expected, atol=2e-6)
    assert plain.is_contiguous()


def test_the_middle_crop_is_the_plain_image_to_the_bit() -> None:
    data = make(3)
    for pad in (0, 2):
        batches = Batches(data.train, data, pad=pad)
        middle = torch.full((20,), pad)
        assert torch.equal(batches.images(torch.arange(20), middle, middle), batches.unaugmented(0, 20))


def test_making_batches_leaves_the_data_alone() -> None:
    data = make(1)
    before = data.train.images.clone()
    zero = torch.zeros(20, dtype=torch.int64)
    Batches(data.train, data).images(torch.arange(20), zero, zero)
    Batches(data.train, data).unaugmented(0, 20)
    assert torch.equal(data.train.images, before)


def test_labels_come_in_the_order_asked_for() -> None:
    data = make(1)
    batches = Batches(data.train, data)
    assert batches.labels(torch.tensor([5, 0, 7])).tolist() == [1, 0, 3]
    assert len(batches) == 20


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_no_shape_depends_on_values(fill: str) -> None:
    # Tensors of the meta device have shapes but no values, so anything that waits for a value fails on them.
    data = make(3)
    batches = Batches(data.train, data, pad=2, fill=fill, device="meta")  # type: ignore[arg-type]
    index, flips = (
        torch.empty(9, dtype=torch.int64, device="meta"),
        torch.empty(9, dtype=torch.bool, device="meta"),
    )
    assert batches.images(index, index, index, flips).shape == (9, 3, 6, 5)
    assert batches.labels(index).shape == (9,)
