import pytest
import torch

from tombola.networks.architectures import convnet


def test_parameter_count_by_hand() -> None:
    convolutions = 9 * (1 * 8 + 8 * 16 + 16 * 16 + 16 * 32)
    batch_norms = 2 * (8 + 16 + 16 + 32)
    assert sum(p.numel() for p in convnet(1, 10).parameters()) == convolutions + batch_norms + 32 * 10 + 10


@pytest.mark.parametrize("size", [(8, 8), (8, 10), (28, 28), (3, 3)])
@torch.no_grad()
def test_small_images_of_any_size_give_one_number_a_class(size: tuple[int, int]) -> None:
    assert convnet(3, 5).eval()(torch.zeros(2, 3, *size)).shape == (2, 5)
