import math

import numpy as np
import torch

from tombola.pruning.prune import magnitude


def test_the_score_is_the_magnitude_in_order_of_position() -> None:
    scores = magnitude(torch.tensor([[1.0, -3.0], [0.0, -0.5]]))
    assert scores.dtype == np.float32
    assert scores.tolist() == [1.0, 3.0, 0.0, 0.5]


def test_non_finite_weights_score_below_every_finite_one() -> None:
    assert magnitude(torch.tensor([math.nan, 0.0, math.inf, -math.inf, 1e-45])).tolist() == [
        -1.0, 0.0, -1.0, -1.0, float(np.float32(1e-45)),
    ]  # fmt: skip


def test_positions_do_not_depend_on_the_layout_in_memory() -> None:
    weights = torch.arange(24.0).reshape(1, 2, 3, 4)
    laid_out = weights.contiguous(memory_format=torch.channels_last)
    assert magnitude(laid_out).tolist() == magnitude(weights).tolist() == list(range(24))
