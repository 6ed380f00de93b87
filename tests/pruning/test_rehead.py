"""Tickets for other data: what moves, what is drawn anew, and what is refused."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import NetworkError, TicketError
from tombola.lab.job import job
from tombola.pruning.prune import prune
from tombola.table.key import Key

Same = Callable[..., bool]
HEAD = ("14.weight", "14.bias")
"""Of the convnet."""


@pytest.fixture(scope="module")
def even(digits: tb.Data) -> tb.Data:
    """The digits, of which is to be told whether they are even."""
    train, test = ((split.images, 1 - split.labels % 2) for split in (digits.train, digits.test))
    return tb.data_from_tensors(train, test, name="even")


@pytest.fixture(scope="module")
def ticket(chain: list[tb.Run]) -> tb.Ticket:
    """A quarter of the weights, rewound to epoch 1."""
    return chain[2].ticket


# What moves, and what is new


def test_start_and_mask_of_the_body_move_under_a_dense_head_of_the_new_classes(
    ticket: tb.Ticket, even: tb.Data
) -> None:
    moved = tb.rehead(ticket, even)
    assert moved.network == replace(ticket.network, classes=2)
    assert list(moved.start) == list(ticket.start)
    for name, value in ticket.start.items():
        if name not in HEAD:
            assert torch.equal(moved.start[name], value), name
    for name, keep in ticket.mask.items():
        if name not in HEAD:
            assert torch.equal(moved.mask[name], keep), name
    assert moved.start["14.weight"].shape == (2, 32)
    assert moved.start["14.bias"].shape == (2,)
    assert moved.mask["14.weight"].all()
    in_body = ticket.kept - int(ticket.mask["14.weight"].sum())
    assert (moved.kept, moved.total) == (in_body + 64, 8456 - 320 + 64)
    assert moved.density == moved.kept / moved.total
    # Of no step on the new data; the round is that whose noise a training draws.
    assert (moved.epoch, moved.step, moved.steps, moved.round) == (0, 0, 1, ticket.round)
    assert (ticket.epoch, ticket.round) == (1, 2)


def test_the_outputs_are_those_of_the_masked_body_under_the_new_head(
    ticket: tb.Ticket, even: tb.Data
) -> None:
    moved = tb.rehead(ticket, even, seed=4)
    body = nn.Sequential(*list(tb.module(ticket).children())[:-1])
    images, _ = next(tb.batches(even, "test", batch_size=50))
    head = nn.functional.linear(body(images), moved.start["14.weight"], moved.start["14.bias"])
    assert torch.equal(tb.module(moved)(images), head)


def test_a_head_is_drawn_from_its_seed_and_never_as_at_an_initialisation(
    start: tb.Ticket, digits: tb.Data, same_bits: Same
) -> None:
    first, again, other = (tb.rehead(start, digits, seed=seed) for seed in (0, 0, 1))
    assert same_bits(first.start, again.start)
    heads = [one.start["14.weight"] for one in (start, first, other)]
    assert not any(torch.equal(one, two) for one, two in itertools.pairwise(heads))
    # As PyTorch draws a linear layer of 32 inputs: uniform up to 1 over their root.
    assert float(heads[1].abs().max()) <= 32**-0.5


def test_a_scheme_draws_the_new_head_too(digits: tb.Data, even: tb.Data) -> None:
    moved = tb.rehead(tb.initialize("convnet", digits, init="orthogonal"), even)
    products = moved.start["14.weight"] @ moved.start["14.weight"].T
    assert torch.allclose(products, products[0, 0] * torch.eye(2), atol=1e-5)


def test_trained_weights_go_along_from_a_run_and_by_learning_rate_rewinding(
    chain: list[tb.Run], even: tb.Data, same_bits: Same
) -> None:
    run = chain[1]
    moved = tb.rehead(run, even)
    weights = moved.weights()
    assert all(torch.equal(weights[name], value) for name, value in run.weights.items() if name not in HEAD)
    assert torch.equal(weights["14.weight"], moved.start["14.weight"])
    assert torch.equal(moved.start["0.weight"], run.ticket.start["0.weight"])
    pruned = prune(run, rewinding="learning_rate")
    after = tb.rehead(pruned, even).weights()
    for name, keep in pruned.mask.items():
        if name not in HEAD:
            assert torch.equal(after[name], run.weights[name] * keep)


# What can be done with it


def test_it_is_trained_pruned_and_controlled_like_any_ticket(
    ticket: tb.Ticket, even: tb.Data, same_bits: Same
) -> None:
    moved = tb.rehead(ticket, even)
    quick = tb.Recipe(epochs=2, batch_size=100)
    first, second = tb.imp(moved, even, quick, rounds=1, fraction=0.5)
    assert first.accuracy > 60  # where one of two can be guessed
    assert all((first.weights[name][~keep] == 0).all() for name, keep in moved.mask.items())
    assert second.ticket.kept == round(moved.kept / 2)
    # Back to the moved start, its head included.
    rewound = second.ticket.weights()
    assert all(
        torch.equal(rewound[name], moved.start[name] * keep) for name, keep in second.ticket.mask.items()
    )
    for control in (tb.permute(moved), tb.randomize(moved, scope="layerwise")):
        assert control.mask["14.weight"].all()
        assert control.kept == moved.kept
    assert same_bits(tb.reinitialize(moved, seed=7).start, tb.initialize("convnet", even, seed=7).start)


def test_a_file_gives_it_back(ticket: tb.Ticket, even: tb.Data, tmp_path: Path, same_bits: Same) -> None:
    moved = tb.rehead(ticket, even)
    moved.save(tmp_path / "ticket.safetensors")
    loaded = tb.Ticket.load(tmp_path / "ticket.safetensors")
    assert loaded.fingerprint == moved.fingerprint
    assert same_bits(loaded.weights(), moved.weights())


def test_images_of_another_size_are_taken_where_the_body_takes_them(
    ticket: tb.Ticket, digits: tb.Data
) -> None:
    larger = tb.fit_images(digits, size=(12, 12), channels=1)
    assert tb.rehead(ticket, larger).network.size == (12, 12)


def test_a_network_of_ones_own_says_which_layer_its_head_is(digits: tb.Data, even: tb.Data) -> None:
    def factory(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, classes))

    start = tb.initialize(factory, digits)
    moved = tb.rehead(start, even, head="3")
    assert moved.start["3.weight"].shape == (2, 20)
    assert torch.equal(moved.start["1.weight"], start.start["1.weight"])
    with pytest.raises(NetworkError, match="is not one of tombola's own; say head"):
        tb.rehead(start, even)


# Jobs


def test_the_training_of_a_moved_ticket_is_a_job_with_a_key_of_its_own(
    tmp_path: Path, digits: tb.Data
) -> None:
    lab = tb.Lab(tmp_path / "store")
    quick = tb.Recipe(epochs=1, batch_size=400)
    start = job(tb.initialize, "convnet", "digits", seed=3)
    found = job(prune, job(tb.train, start, "digits", quick, noise=3), fraction=0.5)
    moved = job(tb.rehead, found, "digits", seed=3)
    trained = job(tb.train, moved, "digits", quick, noise=3)
    plain = tb.train(tb.initialize("convnet", digits, seed=3), digits, quick, noise=3)
    by_hand = tb.train(tb.rehead(prune(plain, fraction=0.5), digits, seed=3), digits, quick, noise=3)
    assert lab.result(trained).fingerprint == by_hand.fingerprint
    (number,) = [one for one in lab.table(trained) if one.key.metric == "val_accuracy"]
    assert number.key == Key(
        metric="val_accuracy", network="convnet", dataset="digits", momentum=0.9, batch_size=400,
        pretrained=False, sparsity=50.0, more=(("rehead", True),),
    )  # fmt: skip
    other = job(tb.train, job(tb.rehead, found, "cifar10", seed=4), "cifar10", quick, noise=3)
    (number,) = lab.table(other)
    assert (number.key.dataset, number.key.sparsity) == ("cifar10", 50.0)
    assert dict(number.key.more) == {"rehead": True, "rehead.seed": "seed+1", "search_dataset": "digits"}


# What is refused


def test_a_body_that_does_not_fit_is_refused_with_the_remedy(ticket: tb.Ticket, colour: tb.Data) -> None:
    words = (
        "convnet for 1x8x8 images does not fit colour: 0.weight is (8, 1, 3, 3), and would be (8, 3, 3, 3); "
        "fit them first: fit_images(data, size=(8, 8), channels=1)"
    )
    with pytest.raises(NetworkError, match=re.escape(words)):
        tb.rehead(ticket, colour)


def test_a_built_module_and_a_tied_head_cannot_have_another(digits: tb.Data, even: tb.Data) -> None:
    built = tb.initialize(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits)
    for data in (digits, even):
        with pytest.raises(NetworkError, match="is a built module"):
            tb.rehead(built, data, head="1")

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(64, 64), nn.Linear(64, 64)
            self.head.weight = self.first.weight

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(images.flatten(1)))[:, :10]

    with pytest.raises(NetworkError, match=r"head 'head' of .* shares head.weight with another layer"):
        tb.rehead(tb.initialize(Tied, digits), digits, head="head")


def test_a_ticket_without_its_dense_start_is_refused(
    ticket: tb.Ticket, even: tb.Data, tmp_path: Path
) -> None:
    ticket.save(tmp_path / "ticket.safetensors")
    with pytest.raises(TicketError, match="does not carry its dense start"):
        tb.rehead(tb.Ticket.load(tmp_path / "ticket.safetensors"), even)
