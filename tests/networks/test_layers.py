import pytest
import torch

from tombola.networks.architectures import conv3x3


@pytest.mark.parametrize(("stride", "side"), [(1, 9), (2, 5)])
def test_a_3x3_convolution_keeps_the_image_size_but_for_its_stride(stride: int, side: int) -> None:
    assert conv3x3(2, 4, stride)(torch.zeros(1, 2, 9, 9)).shape == (1, 4, side, side)
