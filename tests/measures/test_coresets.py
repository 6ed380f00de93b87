"""Herding and k-center against brute force over all that could be chosen."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tombola as tb
from tombola.errors import DataError, TicketError
from tombola.measures.coresets import farthest_first, nearest_to_mean

POINTS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=9)


def tensor(points: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


@given(POINTS, st.integers(1, 4))
def test_herding_takes_what_keeps_the_mean_closest(story: list[tuple[int, int]], count: int) -> None:
    points = tensor(story)
    mean = points.mean(0)
    chosen = nearest_to_mean(points, count).tolist()
    assert len(set(chosen)) == count
    for place, index in enumerate(chosen):
        before = points[chosen[:place]].sum(0)

        def away(other: int, place: int = place, before: Tensor = before) -> float:
            return float(((place + 1) * mean - before - points[other]).norm())

        left = [other for other in range(len(points)) if other not in chosen[:place]]
        assert away(index) == pytest.approx(min(map(away, left)), abs=1e-9)


@given(POINTS, st.integers(1, 4), st.integers(0, 3))
def test_k_center_leaves_at_most_twice_the_least_distance(
    story: list[tuple[int, int]], count: int, first: int
) -> None:
    points = tensor(story)
    distances = torch.cdist(points, points)

    def left(chosen: tuple[int, ...] | list[int]) -> float:
        return float(distances[:, list(chosen)].amin(1).max())

    chosen = farthest_first(points, count, first).tolist()
    assert chosen[0] == first
    assert len(set(chosen)) == count
    for place in range(1, count):
        nearest = distances[:, chosen[:place]].amin(1)
        assert float(nearest[chosen[place]]) == pytest.approx(float(nearest.max()), abs=1e-9)
    best = min(map(left, itertools.combinations(range(len(points)), count)))
    assert left(chosen) <= 2 * best + 1e-9


def test_features_are_what_goes_into_the_last_layer(run: tb.Run, digits: tb.Data) -> None:
    module, seen = tb.module(run), []
    list(module.children())[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for images, _ in tb.batches(digits, "train"):
            module(images)
    features = torch.cat(seen).double()
    selection = tb.herding(run, digits, share=0.02)
    assert torch.equal(selection.indices, nearest_to_mean(features, 24))
    balanced = tb.herding(run, digits, share=0.02, balanced=True)
    for label in range(10):
        members = (digits.train.labels == label).nonzero().flatten()
        own = balanced.indices[digits.train.labels[balanced.indices] == label]
        count = math.floor(0.02 * len(members) + 0.5)
        assert torch.equal(own, members[nearest_to_mean(features[members], count)])
    centers = tb.k_center(run, digits, share=0.02, seed=5)
    assert torch.equal(centers.indices, farthest_first(features, 24, int(centers.indices[0])))
    assert tb.k_center(run, digits, share=0.02, seed=6).indices[0] != centers.indices[0]
    assert tb.k_center(run, digits, share=0.02, balanced=True).count == balanced.count


def test_what_diverged_and_shares_out_of_range_are_refused(run: tb.Run, digits: tb.Data) -> None:
    broken = replace(run, weights={name: value * math.nan for name, value in run.weights.items()})
    with pytest.raises(TicketError, match="there is no herding of this run: its features"):
        tb.herding(broken, digits, share=0.1)
    with pytest.raises(DataError, match="share is 2; it must lie above 0 and be at most 1"):
        tb.k_center(run, digits, share=2)
