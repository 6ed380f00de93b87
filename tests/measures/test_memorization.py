"""Memorisation by hand, and of trainings on random parts of the digits."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import DataError, RecipeError, TicketError
from tombola.measures.memorization import memorization_of


def test_the_difference_of_two_shares_by_hand() -> None:
    members = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]]).bool()
    right = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 0], [1, 0, 1, 1]]).bool()
    # Seen: 2 of 2, 2 of 2, 2 of 3, 3 of 4; unseen: 1 of 2, 0 of 2, 1 of 1, none.
    values = memorization_of(right, members).tolist()
    assert values[:3] == pytest.approx([0.5, 1.0, 2 / 3 - 1])
    assert math.isnan(values[3])


def wide(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, classes))


def test_images_with_wrong_labels_are_memorised(digits: tb.Data) -> None:
    """Nothing but training on an image tells its wrong label, and a wide network learns it there."""
    images, labels = digits.train.images[:120], digits.train.labels[:120].clone()
    labels[:12] = (labels[:12] + 1) % 10
    data = tb.data_from_tensors(
        (images, labels), (digits.test.images, digits.test.labels), name="mislabelled"
    )
    still = tb.Augmentation(pad=0, flip=False)
    recipe = tb.Recipe(epochs=30, batch_size=20, lr=0.1, momentum=0.9, augmentation=still)
    start = tb.initialize(wide, data)
    parts = [tb.random_selection(data, share=0.7, seed=seed) for seed in range(6)]
    runs = [tb.train(start, tb.selected(data, part), recipe) for part in parts]
    scores = tb.memorization(runs, data)
    given = tb.memorization(runs, data, selections=parts)
    np.testing.assert_array_equal(scores.values.numpy(), given.values.numpy())
    known = scores.values.isfinite()
    assert scores.unknown == int((~known).sum()) < 40
    assert scores.values[:12][known[:12]].mean() > 0.7
    assert scores.values[12:][known[12:]].mean() < 0.3
    with pytest.raises(TicketError, match="a run was trained on 84 images, but its part has 60"):
        tb.memorization(runs, data, share=0.5)
    with pytest.raises(
        TicketError, match=r"runs\[0\] was trained on other data than its part; give the share"
    ):
        tb.memorization(runs, data, seeds=range(1, 7))
    with pytest.raises(TicketError, match=r"runs\[5\] was trained on other data than its part"):
        tb.memorization(runs, data, seeds=[0, 1, 2, 3, 4, 6])
    with pytest.raises(RecipeError, match="there are 6 runs and 2 parts of the data"):
        tb.memorization(runs, data, seeds=[0, 1])
    with pytest.raises(DataError, match="the selections are of 120, 1198 images"):
        tb.memorization(runs[:2], data, selections=[parts[0], tb.random_selection(digits, share=0.7)])


def test_parts_that_are_everything_or_told_twice_are_refused(digits: tb.Data, run: tb.Run) -> None:
    whole = tb.random_selection(digits, share=1.0)
    with pytest.raises(RecipeError, match="every part is all of the images"):
        tb.memorization([run, run], digits, selections=[whole, whole])
    with pytest.raises(RecipeError, match="seeds are given beside selections"):
        tb.memorization([run, run], digits, selections=[whole, whole], seeds=[0, 1])
