import random
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import NetworkError, RecipeError
from tombola.networks.network import Network
from tombola.training.preflight import check_trainable


def batch_norm_over_one_pixel() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def batch_norm_over_features() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))


def first(data: tb.Data, count: int) -> tb.Data:
    """The data with the first images of its train split only."""
    return tb.data_from_tensors(
        (data.train.images[:count], data.train.labels[:count]), (data.test.images, data.test.labels)
    )


@pytest.mark.parametrize("factory", [batch_norm_over_one_pixel, batch_norm_over_features])
def test_a_last_batch_of_one_image_under_batch_norm_is_refused_with_a_batch_size_that_works(
    factory: Callable[[], nn.Module], digits: tb.Data
) -> None:
    data = first(digits, 301)
    start = tb.initialize(factory, data)
    with pytest.raises(RecipeError) as caught:
        tb.train(start, data, tb.Recipe(epochs=1, batch_size=100))
    words = str(caught.value)
    assert words.startswith(
        "301 images in batches of 100 leave a last batch of 1, on which batch norm is undefined"
    )
    better = int(re.search(r"such as (\d+)$", words)[1])  # type: ignore[index]
    assert abs(better - 100) == 1
    assert len(tb.train(start, data, tb.Recipe(epochs=1, batch_size=better)).history) == 2


@pytest.mark.parametrize(("count", "size"), [(301, 1), (300, 1), (301, 300), (301, 2), (61, 60)])
def test_the_batch_size_that_is_suggested_is_always_one_that_works(
    digits: tb.Data, count: int, size: int
) -> None:
    data = first(digits, count)
    network = Network.of(batch_norm_over_features, channels=1, size=(8, 8), classes=10)
    with pytest.raises(RecipeError) as caught:
        check_trainable(network, data, tb.Recipe(batch_size=size), 0)
    better = int(re.search(r"such as (\d+)$", str(caught.value))[1])  # type: ignore[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may be larger than the data
        check_trainable(network, data, tb.Recipe(batch_size=better), 0)


def test_a_last_batch_of_one_image_is_fine_where_batch_norm_sees_several_pixels(digits: tb.Data) -> None:
    data = first(digits, 301)
    run = tb.train(tb.initialize("convnet", data), data, tb.Recipe(epochs=1, batch_size=100))
    assert len(run.history) == 2


def test_a_batch_larger_than_the_data_warns_and_trains_one_partial_batch_an_epoch(digits: tb.Data) -> None:
    data = first(digits, 60)
    start = tb.initialize("convnet", data)
    words = "batch size 256 is larger than the 60 training images: every epoch is one partial batch"
    with pytest.warns(UserWarning, match=words):
        run = tb.train(start, data, tb.Recipe(epochs=2, batch_size=256))
    assert int(run.weights["1.num_batches_tracked"]) == 2
    exact = tb.train(start, data, tb.Recipe(epochs=2, batch_size=60))
    assert torch.equal(run.weights["0.weight"], exact.weights["0.weight"])


def test_a_batch_of_just_the_data_does_not_warn(digits: tb.Data) -> None:
    data = first(digits, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_trainable(tb.initialize("convnet", data).network, data, tb.Recipe(batch_size=60), 0)


@pytest.mark.parametrize("epoch", [3, 5])
def test_a_ticket_from_beyond_the_budget_is_refused(
    start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe, epoch: int
) -> None:
    with pytest.raises(RecipeError, match=f"taken at epoch {epoch}, .* 3 epochs; rewind to at most epoch 2"):
        check_trainable(start.network, digits, recipe, epoch)


def test_images_that_do_not_fit_the_network_are_refused(
    start: tb.Ticket, colour: tb.Data, recipe: tb.Recipe
) -> None:
    words = "network convnet is for 1x8x8 images of 10 classes; colour has 3x8x10 images of 4 classes"
    with pytest.raises(NetworkError, match=words):
        tb.train(start, colour, recipe)


def with_dropout(share: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(share), nn.Linear(64, 10))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_whether_a_network_draws_is_noticed_by_a_trial(digits: tb.Data, share: float) -> None:
    start = tb.initialize(lambda: with_dropout(share), digits)
    before = torch.get_rng_state()
    assert check_trainable(start.network, digits, tb.Recipe(epochs=1), 0) is (share > 0)
    assert torch.equal(before, torch.get_rng_state())


class Drawing(nn.Module):
    """A linear layer beside which something is drawn."""

    def __init__(self, draw: Callable[[nn.Module], object]) -> None:
        super().__init__()
        self.linear, self.draw = nn.Linear(64, 10), draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.draw(self)
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda module: np.random.rand(), "global generator of numpy, which no stream covers"),  # noqa: NPY002
        (lambda module: random.random(), "global generator of random, which no stream covers"),
        (lambda module: torch.rand(1), "in evaluation mode too; give its dropout training=self.training"),
    ],
)
def test_draws_that_no_stream_covers_are_refused(
    digits: tb.Data, draw: Callable[[nn.Module], object], words: str
) -> None:
    start = tb.initialize(lambda: Drawing(draw), digits)
    with pytest.raises(NetworkError, match=words):
        tb.train(start, digits, tb.Recipe(epochs=1))


def test_the_checks_leave_a_networks_own_errors_alone(digits: tb.Data) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                raise ValueError("not while training")
            return self.linear(x.flatten(1))

    with pytest.raises(ValueError, match="not while training"):
        tb.train(tb.initialize(Odd, digits), digits, tb.Recipe(epochs=1))


def test_a_network_that_needs_another_memory_layout_is_told_what_to_call(digits: tb.Data) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(1, 8, 3), nn.Linear(288, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.conv(x).view(x.size(0), -1))

    start = tb.initialize(Viewing, digits)
    with pytest.raises(
        NetworkError, match=r"calls view\(\) on activations, .*; let it call flatten\(\) or reshape"
    ):
        tb.train(start, digits, tb.Recipe(epochs=1))
