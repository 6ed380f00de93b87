"""Alignment: against scipy and brute force, on planted orders, and with all that travels along."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import tombola as tb
from tombola.errors import NetworkError, RecipeError
from tombola.lab.job import job
from tombola.lab.lab import Lab
from tombola.networks.symmetry import symmetry
from tombola.training.run import ForgettingRecord, History

State = dict[str, Tensor]


def one_hidden(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, classes))


def tiny(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, classes)
    )


class Stream(nn.Module):
    """A residual stream with nine blocks, without normalisation."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(64, 24)
        blocks = [nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)) for _ in range(9)]
        self.blocks = nn.ModuleList(blocks)
        self.last = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


def stream(classes: int) -> nn.Module:
    return Stream(classes)


def grouped(classes: int) -> nn.Module:
    """Four groups of 3 channels in and 2 out."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3, groups=4), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, classes),
    )  # fmt: skip


def run_of(network: object, data: tb.Data, state: State | None = None, seed: int = 0) -> tb.Run:
    """A run with given weights, or those that a network starts with."""
    ticket = tb.initialize(network, data, seed=seed)
    record = ForgettingRecord.empty(len(data.train))
    return tb.Run(ticket, ticket.start if state is None else state, History([]), record, 0, "float32", "cpu")


def planted(run: tb.Run, seed: int) -> tb.Run:
    """The run with its units in an order drawn at random."""
    found = symmetry(run.ticket.network)
    return replace(run, weights=found.permuted(run.weights, found.drawn(np.random.default_rng(seed))))


def outputs(subject: tb.Run | tb.Ticket, data: tb.Data) -> Tensor:
    images = next(tb.batches(data, "test", batch_size=100))[0]
    with torch.no_grad():
        return subject.module()(images)


def product(first: State, second: State) -> float:
    return sum(float((value.double() * second[name].double()).sum()) for name, value in first.items())


def test_one_hidden_layer_is_one_assignment_problem(digits: tb.Data) -> None:
    first, second = (run_of(one_hidden, digits, seed=seed) for seed in (1, 2))
    products = sum(
        first.weights[name].double().numpy() @ second.weights[name].double().numpy().T
        for name in ("1.weight",)
    )
    products = products + np.outer(first.weights["1.bias"].double(), second.weights["1.bias"].double())
    products = (
        products + first.weights["3.weight"].double().numpy().T @ second.weights["3.weight"].double().numpy()
    )
    _, expected = linear_sum_assignment(-products)
    alignment = tb.align(first, second, digits, starts=1)
    (order,) = alignment.permutations.values()
    assert order.tolist() == expected.tolist()
    outside = product({"3.bias": first.weights["3.bias"]}, second.weights)
    assert alignment.products[0] == pytest.approx(products[np.arange(12), expected].sum() + outside)


def test_two_hidden_layers_reach_the_best_of_all_orders(digits: tb.Data) -> None:
    """Brute force over the 4! times 3! orders."""
    for seed in range(4):
        first, second = (run_of(tiny, digits, seed=number) for number in (2 * seed, 2 * seed + 1))
        best = -np.inf
        for one in itertools.permutations(range(4)):
            for other in itertools.permutations(range(3)):
                weights = dict(second.weights)
                weights["1.weight"], weights["1.bias"] = (
                    weights[f"1.{name}"][[*one]] for name in ("weight", "bias")
                )
                weights["3.weight"] = weights["3.weight"][[*other]][:, [*one]]
                weights["3.bias"], weights["5.weight"] = (
                    weights["3.bias"][[*other]],
                    weights["5.weight"][:, [*other]],
                )
                best = max(best, product(first.weights, weights))
        alignment = tb.align(first, second, digits, starts=10)
        assert max(alignment.products) == pytest.approx(best)
        moved = tb.aligned_run(second, alignment)
        assert product(first.weights, moved.weights) == pytest.approx(best)


@pytest.mark.parametrize("network", ["convnet", "resnet20", grouped])
def test_a_planted_order_is_found(network: object, digits: tb.Data) -> None:
    first = run_of(network, digits)
    second = planted(first, 3)
    assert not all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())
    alignment = tb.align(first, second, digits, starts=2)
    found = tb.aligned_run(second, alignment)
    assert all(torch.equal(value, found.weights[name]) for name, value in first.weights.items())
    assert alignment.similarity == pytest.approx(1)
    assert alignment.moved > 0.5


def test_a_stream_needs_several_starts(digits: tb.Data) -> None:
    """From the identity alone an order may be missed; the objective is compared with the planted one's."""
    reached = []
    for trial in (2, 11, 14):
        first = run_of(stream, digits, seed=trial)
        alignment = tb.align(first, planted(first, 100 + trial), digits, seed=trial)
        best = product(first.weights, first.weights)
        reached.append([value == pytest.approx(best, rel=1e-9) for value in alignment.products])
    assert not all(found for found, *_ in reached)
    assert all(map(any, reached))


def test_activations_are_matched_by_correlation(digits: tb.Data) -> None:
    first, second = (run_of(one_hidden, digits, seed=seed) for seed in (1, 2))
    images = next(tb.batches(digits, "train", batch_size=300))[0].flatten(1).double().numpy()
    hidden = []
    for run in (first, second):
        weight, bias = (run.weights[f"1.{name}"].double().numpy() for name in ("weight", "bias"))
        hidden.append(np.maximum(images @ weight.T + bias, 0))
    correlations = np.corrcoef(*hidden, rowvar=False)[:12, 12:]
    _, expected = linear_sum_assignment(-correlations)
    alignment = tb.align(first, second, digits, by="activations", images=300)
    (order,) = alignment.permutations.values()
    assert order.tolist() == expected.tolist()


@pytest.mark.parametrize("network", ["convnet", stream])
def test_activations_find_a_planted_order(network: object, digits: tb.Data, run: tb.Run) -> None:
    first = run if network == "convnet" else run_of(network, digits)
    found = tb.aligned_run(planted(first, 5), tb.align(first, planted(first, 5), digits, by="activations"))
    assert all(torch.equal(value, found.weights[name]) for name, value in first.weights.items())


def test_masks_and_starts_travel_along(chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe) -> None:
    """A ticket in another order trains to the run in that order."""
    run = chain[-1]
    other = run_of("convnet", digits, seed=8)
    alignment = tb.align(other, run, digits)
    moved = tb.aligned_run(run, alignment)
    assert all(not moved.weights[name][~keep].any() for name, keep in moved.ticket.mask.items())
    assert moved.ticket.sparsity == run.ticket.sparsity
    assert moved.ticket.start_fingerprint != run.ticket.start_fingerprint
    ticket = tb.aligned_ticket(run.ticket, alignment)
    assert ticket.fingerprint == moved.ticket.fingerprint
    for before, after in ((run, moved), (run.ticket, ticket)):
        torch.testing.assert_close(outputs(after, digits), outputs(before, digits))
    trained = tb.train(ticket, digits, recipe, noise=3)
    for name, value in tb.train(run.ticket, digits, recipe, noise=3).weights.items():
        expected = tb.aligned_run(replace(run, weights=run.weights | {name: value}), alignment).weights[name]
        torch.testing.assert_close(trained.weights[name], expected, rtol=1e-2, atol=1e-3)


def test_a_ticket_without_its_dense_start_is_aligned(
    chain: list[tb.Run], tmp_path: Path, digits: tb.Data
) -> None:
    chain[-1].ticket.save(tmp_path / "ticket")
    ticket = tb.Ticket.load(tmp_path / "ticket")
    alignment = tb.align(run_of("convnet", digits), chain[0], digits)
    moved = tb.aligned_ticket(ticket, alignment)
    assert not moved.complete
    torch.testing.assert_close(outputs(moved, digits), outputs(ticket, digits))
    stay = replace(
        alignment, permutations={k: torch.arange(len(v)) for k, v in alignment.permutations.items()}
    )
    assert tb.aligned_ticket(chain[0].ticket, stay).fingerprint == chain[0].ticket.fingerprint


def test_a_planted_order_has_a_barrier_and_none_when_aligned(run: tb.Run, digits: tb.Data) -> None:
    other = planted(run, 4)
    assert tb.barrier(run, other, digits, points=3).height > 20
    for align in ("weights", "activations"):
        line = tb.barrier(run, other, digits, points=3, align=align)
        assert line.height == 0
        assert line.same_mask


def test_one_order_serves_a_whole_chain(chain: list[tb.Run], digits: tb.Data) -> None:
    """Found between the dense networks, it aligns the runs of every round."""
    copies = [planted(run, 6) for run in chain]
    alignment = tb.align(chain[0], copies[0], digits)
    for run, copy in zip(chain, copies, strict=True):
        assert tb.barrier(run, tb.aligned_run(copy, alignment), digits, points=3).height == 0


def test_a_diverged_run_is_a_result(run: tb.Run, digits: tb.Data) -> None:
    broken = replace(run, weights=run.weights | {"0.weight": run.weights["0.weight"] * torch.inf})
    alignment = tb.align(run, broken, digits)
    assert alignment.moved == 0
    assert np.isnan(alignment.similarity)
    assert np.isnan(tb.barrier(run, broken, digits, points=3, align="weights").height)


def test_an_alignment_is_a_job_and_an_argument_of_others(
    tmp_path: Path, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe
) -> None:
    lab = Lab(tmp_path / "store")
    runs = [job(tb.train, start, digits, recipe, noise=noise) for noise in (1, 2)]
    alignment = job(tb.align, *runs, digits)
    by_name = job(tb.barrier, *runs, digits, points=3, align="weights")
    moved = job(tb.barrier, runs[0], job(tb.aligned_run, runs[1], alignment), digits, points=3)
    lab.run([by_name, moved])
    assert lab.result(by_name) == lab.result(moved)
    stored = lab.result(alignment)
    direct = tb.align(*(lab.result(each) for each in runs), digits)
    assert all(torch.equal(order, stored.permutations[name]) for name, order in direct.permutations.items())
    assert stored.products == direct.products
    assert str(stored).startswith("<alignment of convnet by weights: ")


def test_what_cannot_be_is_refused(run: tb.Run, digits: tb.Data, colour: tb.Data) -> None:
    other = run_of(tiny, digits)
    alignment = tb.align(run, run, digits)
    twice = replace(alignment, permutations={k: 0 * v for k, v in alignment.permutations.items()})
    refused: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (NetworkError, "an alignment needs two runs of one network", lambda: tb.align(run, other, digits)),
        (RecipeError, "way to align 'weight'", lambda: tb.align(run, run, digits, by="weight")),
        (RecipeError, "way to align 'no'", lambda: tb.barrier(run, run, digits, align="no")),
        (RecipeError, "starts is 0; it must be from 1", lambda: tb.align(run, run, digits, starts=0)),
        (RecipeError, "images is 1; ", lambda: tb.align(run, run, digits, images=1)),
        (NetworkError, "convnet is for", lambda: tb.align(run, run, colour, by="activations")),
        (NetworkError, "the alignment is damaged: it has units twice", lambda: tb.aligned_run(run, twice)),
        (NetworkError, "the alignment is of runs of convnet", lambda: tb.aligned_run(other, alignment)),
    ]
    for error, message, call in refused:
        with pytest.raises(error, match=message):
            call()
