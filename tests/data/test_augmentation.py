import subprocess
import sys

import pytest
import torch

from tombola.data.augmentation import Augmentation, draw
from tombola.data.imageset import Data, data_from_tensors
from tombola.errors import RecipeError


def data(side: int = 8, count: int = 400, mirrored: bool = True) -> Data:
    split = torch.zeros(count, 1, side, side, dtype=torch.uint8), torch.arange(count) % 2
    return data_from_tensors(split, split, name="x", mirrored=mirrored)


@pytest.mark.parametrize(("side", "pad"), [(8, 1), (28, 4), (32, 4), (64, 8)])
def test_the_usual_padding_is_an_eighth_of_the_side(side: int, pad: int) -> None:
    assert Augmentation().padding(data(side, count=2)) == pad


def test_offsets_cover_the_whole_padding_evenly() -> None:
    draws = draw(Augmentation(pad=2), data(count=5000), noise=0, round=0, epoch=0)
    for offsets in (draws.rows, draws.columns):
        counts = torch.bincount(offsets)
        assert len(counts) == 5
        assert (counts - 1000).abs().max() < 5 * 800**0.5  # five standard deviations of the binomial
    assert not torch.equal(draws.rows, draws.columns)


def test_half_of_the_images_are_flipped() -> None:
    flips = draw(Augmentation(), data(count=10000), noise=0, round=0, epoch=0).flips
    assert abs(int(flips.sum()) - 5000) < 5 * 50


def test_flips_follow_the_data_unless_asked_for() -> None:
    digits = data(mirrored=False)
    assert not draw(Augmentation(), digits, noise=0, round=0, epoch=0).flips.any()
    assert draw(Augmentation(flip=True), digits, noise=0, round=0, epoch=0).flips.any()
    assert not draw(Augmentation(flip=False), data(), noise=0, round=0, epoch=0).flips.any()


def test_noise_round_and_epoch_each_give_other_draws() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    rows = [draw(Augmentation(), data(), noise=n, round=r, epoch=e).rows.tolist() for n, r, e in keys]
    assert rows[0] == draw(Augmentation(), data(), noise=0, round=0, epoch=0).rows.tolist()
    assert len({tuple(row) for row in rows}) == 4


def test_switching_the_crop_off_leaves_the_flips_alone() -> None:
    with_crop = draw(Augmentation(), data(), noise=3, round=1, epoch=2)
    without = draw(Augmentation(pad=0), data(), noise=3, round=1, epoch=2)
    assert torch.equal(with_crop.flips, without.flips)
    assert not without.rows.any()
    assert not without.columns.any()


def test_draws_are_of_the_types_that_index_images() -> None:
    draws = draw(Augmentation(), data(), noise=0, round=0, epoch=0, count=7).to("cpu")
    assert (draws.rows.dtype, draws.columns.dtype, draws.flips.dtype) == (
        torch.int64,
        torch.int64,
        torch.bool,
    )
    assert draws.rows.shape == draws.columns.shape == draws.flips.shape == (7,)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(RecipeError, match="pad -1 is negative; allowed 0"):
        Augmentation(pad=-1)
    with pytest.raises(RecipeError, match="no augmentation fill 'blac'; did you mean 'black'"):
        Augmentation(fill="blac")  # type: ignore[arg-type]


def test_the_description_loads_no_torch() -> None:
    code = "import sys, tombola.data.augmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
