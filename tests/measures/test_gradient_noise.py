"""The gradient noise scale against an explicit covariance of single gradients, and its two estimators."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import tombola as tb
from tombola.errors import RecipeError


def small(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, classes))


@pytest.fixture(scope="module")
def few(digits: tb.Data) -> tb.Data:
    return tb.take(digits, list(range(90)))


@pytest.fixture(scope="module")
def runs(few: tb.Data) -> list[tb.Run]:
    """A dense run and one of half the weights."""
    recipe = tb.Recipe(epochs=2, batch_size=30, lr=0.1, momentum=0.9)
    return list(tb.imp(tb.initialize(small, few), few, recipe, rounds=1, fraction=0.5))


def single_gradients(run: tb.Run, data: tb.Data) -> np.ndarray:
    """The gradient of each train image by the kept weights in float64, by one backward pass each."""
    module = tb.module(run).double()
    named = dict(module.named_parameters())
    kept = torch.cat([run.ticket.mask.get(n, torch.ones_like(v).bool()).flatten() for n, v in named.items()])
    [(images, labels)] = tb.batches(data, "train", batch_size=1000)

    def gradient(image: Tensor, label: Tensor) -> Tensor:
        loss = cross_entropy(functional_call(module, named, (image[None].double(),)), label[None])
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(named.values()))])

    rows = [gradient(image, label)[kept] for image, label in zip(images, labels, strict=True)]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("place", [0, 1])
def test_of_single_images_it_is_the_sample_covariance(runs: list[tb.Run], few: tb.Data, place: int) -> None:
    gradients = single_gradients(runs[place], few)
    covariance = np.cov(gradients, rowvar=False)  # over one less than the images
    noise = tb.gradient_noise(runs[place], few)
    assert (noise.images, noise.batch_size) == (90, 1)
    np.testing.assert_allclose(noise.trace, np.trace(covariance), rtol=1e-4)
    # The squared norm of a mean over n images is too large by the trace over n.
    squared = np.square(gradients.mean(0)).sum() - np.trace(covariance) / 90
    np.testing.assert_allclose(noise.squared_gradient, squared, rtol=1e-3)
    np.testing.assert_allclose(noise.scale, np.trace(covariance) / squared, rtol=1e-3)


def test_small_batches_estimate_the_same_on_average(runs: list[tb.Run], few: tb.Data) -> None:
    exact = tb.gradient_noise(runs[0], few)
    orders = [tb.gradient_noise(runs[0], few, batch_size=10, seed=seed) for seed in range(24)]
    for name in ("trace", "squared_gradient"):
        values = np.array([getattr(one, name) for one in orders])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - getattr(exact, name)) < 4 * error
    assert orders[0] == tb.gradient_noise(runs[0], few, batch_size=10) != orders[1]


def test_where_the_gradient_has_vanished_there_is_no_scale() -> None:
    assert np.isnan(tb.GradientNoise(trace=1.0, squared_gradient=-0.1, images=9, batch_size=1).scale)


@pytest.mark.parametrize("batch_size", [0, 46])
def test_a_batch_size_out_of_range_is_refused(runs: list[tb.Run], few: tb.Data, batch_size: int) -> None:
    with pytest.raises(RecipeError, match="of 90 images it must be from 1 to 45"):
        tb.gradient_noise(runs[0], few, batch_size=batch_size)
