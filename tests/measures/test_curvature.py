"""Hessian quantities of small networks against dense Hessians in float64, and Lanczos against LAPACK."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.curvature import largest_eigenvalues, random_signs
from tombola.measures.loss_surface import SURFACE_BATCH, LossSurface

CPU = torch.device("cpu")


def small(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, classes, bias=False)
    )


@pytest.fixture(scope="module")
def few(digits: tb.Data) -> tb.Data:
    """More images than a batch, the last of which is short."""
    return tb.take(digits, list(range(SURFACE_BATCH + 30)))


@pytest.fixture(scope="module")
def runs(few: tb.Data) -> list[tb.Run]:
    """A dense run and one of half the weights."""
    recipe = tb.Recipe(epochs=4, batch_size=40, lr=0.1, momentum=0.9)
    return list(tb.imp(tb.initialize(small, few), few, recipe, rounds=1, fraction=0.5))


def dense_hessian(run: tb.Run, images: Tensor, labels: Tensor) -> np.ndarray:
    """The whole Hessian of the mean over images in float64, by the kept weights."""
    module = tb.module(run).double()
    named = {name: values.detach() for name, values in module.named_parameters()}
    flat = torch.cat([values.flatten() for values in named.values()])
    kept = torch.cat(
        [run.ticket.mask.get(name, torch.ones_like(v).bool()).flatten() for name, v in named.items()]
    )

    def loss(weights: Tensor) -> Tensor:
        parts = torch.split(weights, [values.numel() for values in named.values()])
        state = {name: part.view_as(v) for (name, v), part in zip(named.items(), parts, strict=True)}
        return cross_entropy(functional_call(module, state, (images.double(),)), labels)

    return torch.autograd.functional.hessian(loss, flat)[kept][:, kept].numpy()


@pytest.mark.parametrize("place", [0, 1])
def test_the_largest_eigenvalues_are_those_of_the_dense_hessian(
    runs: list[tb.Run], few: tb.Data, place: int
) -> None:
    run = runs[place]
    images, labels = next(tb.batches(few, "train", batch_size=1000))
    hessian = dense_hessian(run, images, labels)
    found = tb.hessian_eigenvalues(run, few, count=3)
    expected = np.linalg.eigvalsh(hessian)[::-1][:3]
    assert found.parameters == len(hessian) == (64 * 4 + 4 + 8 + 40 if place == 0 else 4 + 8 + 148)
    np.testing.assert_allclose(found.values, expected, rtol=2e-3)
    assert found.largest == found.values[0]
    assert max(found.residuals) <= 1e-3 * found.largest


@pytest.mark.parametrize("place", [0, 1])
def test_the_trace_and_its_standard_error_are_those_of_the_dense_hessians_of_batches(
    runs: list[tb.Run], few: tb.Data, place: int
) -> None:
    run = runs[place]
    expected = variance = 0.0
    for images, labels in tb.batches(few, "train", batch_size=SURFACE_BATCH):
        hessian, share = dense_hessian(run, images, labels), len(labels) / len(few.train)
        expected += share * np.trace(hessian)
        variance += 2 * share**2 * ((hessian**2).sum() - (np.diag(hessian) ** 2).sum())
    found = tb.hessian_trace(run, few, draws=100)
    assert abs(found.trace - expected) < 4 * found.standard_error
    assert found.standard_error == pytest.approx(math.sqrt(variance / 100), rel=0.25)
    assert found.standard_error < 0.2 * expected
    assert found.mean_curvature == found.trace / found.parameters
    images, labels = next(tb.batches(few, "train", batch_size=1000))
    assert np.trace(dense_hessian(run, images, labels)) == pytest.approx(expected, rel=1e-6)


def attentive(vocabulary: int, length: int, classes: int) -> nn.Module:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.head = nn.Linear(8, classes)

        def forward(self, tokens: Tensor) -> Tensor:
            words = self.embedding(tokens)
            return self.head(self.attention(words, words, words, need_weights=False)[0].mean(1))

    return Attentive()


def smooth(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, classes),
    )


@pytest.mark.parametrize("kind", ["tokens", "images"])
def test_products_are_differences_of_gradients(kind: str, colour: tb.Data) -> None:
    if kind == "tokens":
        draws = torch.Generator().manual_seed(0)
        splits = [(torch.randint(0, 9, (20, 5), generator=draws), torch.arange(20) % 3) for _ in range(2)]
        data = tb.data_from_tensors(*splits, name="words", vocabulary=9)
        ticket = tb.initialize(attentive, data)
    else:
        data = tb.take(colour, list(range(20)))
        ticket = tb.initialize(smooth, data)
    surface = LossSurface(ticket, data, what="Hessian", device=CPU)
    vector = random_signs(len(surface.kept), "test", 0)
    product = surface.product(vector)
    step = 1e-3

    def gradient(distance: float) -> Tensor:
        surface.move(distance * vector)
        return surface.gradient()[1].double()

    slope = (gradient(step) - gradient(-step)) / (2 * step)
    error = (slope - product).norm() / slope.norm()
    assert error < 0.02, error


def test_a_second_product_is_not_added_to_the_first(runs: list[tb.Run], few: tb.Data) -> None:
    surface = LossSurface(runs[0], few, what="Hessian", device=CPU)
    vector = random_signs(len(surface.kept), "test", 0)
    once = surface.product(vector)
    again = LossSurface(runs[0], few, what="Hessian", device=CPU)
    again.product(vector)
    assert torch.equal(again.product(vector), once)
    assert torch.equal(surface.product(vector), once)


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_lanczos_finds_the_largest_and_not_the_largest_in_absolute_value(
    eigenvalues: list[int], count: int, seed: int
) -> None:
    dimension = len(eigenvalues)
    count = min(count, dimension)
    draws = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(draws.standard_normal((dimension, dimension)))
    matrix = torch.from_numpy(basis @ np.diag(np.array(eigenvalues, dtype=float)) @ basis.T)
    found = largest_eigenvalues(
        lambda vector: matrix @ vector,
        lambda number: torch.from_numpy(np.random.default_rng(number).standard_normal(dimension)),
        dimension,
        count=count,
        tolerance=1e-9,
        steps=100,
    )
    np.testing.assert_allclose(found.values, sorted(eigenvalues)[::-1][:count], atol=1e-6)


def test_steps_that_do_not_suffice_are_told(runs: list[tb.Run], few: tb.Data) -> None:
    with pytest.raises(RecipeError, match="after 4 steps the residual of the largest 3 eigenvalues is"):
        tb.hessian_eigenvalues(runs[0], few, count=3, steps=4)


def test_random_signs_are_as_many_of_each() -> None:
    signs = random_signs(100_001, "test", 1)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.sum())) < 4 * math.sqrt(100_001)
    assert torch.equal(random_signs(50, "test", 1), signs[:50])
    assert not torch.equal(random_signs(50, "test", 2), signs[:50])


def test_what_diverged_has_no_hessian(runs: list[tb.Run], few: tb.Data) -> None:
    weights = {name: value * math.inf for name, value in runs[0].weights.items()}
    words = "there is no Hessian of this run: the loss on the train images of digits-part-.* not all finite"
    for measure in (tb.hessian_eigenvalues, tb.hessian_trace):
        with pytest.raises(TicketError, match=words if measure is tb.hessian_eigenvalues else "no Hessian"):
            measure(replace(runs[0], weights=weights), few)
    diverging = tb.Recipe(epochs=1, batch_size=40, lr=1e30, momentum=0.9)
    run = tb.train(tb.initialize("convnet", few), few, diverging)
    assert run.diverged
    with pytest.raises(TicketError, match="the run diverged, so there is no Hessian of it; measure one that"):
        tb.hessian_trace(run, few)


def test_options_out_of_range_are_refused(runs: list[tb.Run], few: tb.Data) -> None:
    for options, words in (
        ({"count": 0}, "count is 0 and steps is 100; count must be at least 1"),
        ({"count": 5, "steps": 4}, "count is 5 and steps is 4"),
        ({"tolerance": 0.0}, "tolerance is 0.0; it must lie between 0 and 1"),
        ({"count": 400, "steps": 500}, "count is 400; the Hessian is by 308 parameters"),
    ):
        with pytest.raises(RecipeError, match=words):
            tb.hessian_eigenvalues(runs[0], few, **options)
    with pytest.raises(RecipeError, match="draws is 1; it must be at least 2"):
        tb.hessian_trace(runs[0], few, draws=1)
