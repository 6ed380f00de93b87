import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola as tb
from tombola.data.fitting import fit_images
from tombola.errors import DataError, NetworkError
from tombola.lab.execute import Settings
from tombola.measures.heads import HEAD_RECIPE
from tombola.measures.probe import probe
from tombola.measures.transfer import transfer
from tombola.networks.architectures import ResNet

Same = Callable[..., bool]
QUICK = replace(HEAD_RECIPE, epochs=2, lr=0.1)


def small_resnet(channels: int, classes: int) -> ResNet:
    # Not 4 channels: on processors with AVX2 alone oneDNN crashes on their strided 1x1 convolutions.
    return ResNet((1, 1), 8, channels, classes)


@pytest.fixture(scope="module")
def colour_run(colour: tb.Data) -> tb.Run:
    """A small residual network trained on 3x8x10 images of four classes."""
    return tb.train(tb.initialize(small_resnet, colour), colour, tb.Recipe(epochs=2, batch_size=70))


def first(data: tb.Data, train: int, test: int) -> tb.Data:
    """The data with the first images of each split only."""
    return tb.data_from_tensors(
        (data.train.images[:train], data.train.labels[:train]),
        (data.test.images[:test], data.test.labels[:test]),
        mirrored=data.mirrored,
    )


# What transfer finds


@pytest.mark.parametrize("of", ["ticket", "run"])
def test_it_is_the_probe_in_the_heads_place_with_adapted_and_with_frozen_statistics(
    run: tb.Run, digits: tb.Data, of: str
) -> None:
    subject = run if of == "run" else run.ticket
    found = transfer(subject, digits, recipe=QUICK, size=(8, 8))
    adapting, frozen = (
        probe(subject, digits, recipe=QUICK, blocks=["14"], batch_norm=batch_norm)
        for batch_norm in ("adapting", "frozen")
    )
    assert (found.accuracy, found.loss) == (adapting.accuracy[0], adapting.losses[0])
    assert (found.frozen_accuracy, found.frozen_loss) == (frozen.accuracy[0], frozen.losses[0])
    assert found.accuracy != found.frozen_accuracy


def test_a_network_for_colour_takes_grey_images_of_other_classes_resized_to_32(
    colour_run: tb.Run, digits: tb.Data
) -> None:
    some = first(digits, 300, 100)
    found = transfer(colour_run, some, recipe=QUICK)
    assert found == transfer(colour_run, fit_images(some), recipe=QUICK)
    # The same by hand: the frozen body of the run under the target's own normalisation.
    target = fit_images(some)
    body = replace(
        colour_run.ticket,
        network=replace(colour_run.ticket.network, size=(32, 32), classes=10),
        start={name: value for name, value in colour_run.weights.items() if not name.startswith("linear")}
        | {"linear.weight": torch.zeros(10, 16), "linear.bias": torch.zeros(10)},
        mask={
            name: torch.ones_like(keep)
            for name, keep in colour_run.ticket.mask.items()
            if name != "linear.weight"
        }
        | {"linear.weight": torch.ones(10, 16, dtype=torch.bool)},
        start_fingerprint="",
    )
    by_hand = probe(body, target, recipe=QUICK, blocks=["linear"])
    assert (found.accuracy, found.loss) == (by_hand.accuracy[0], by_hand.losses[0])


def test_a_head_of_all_pixels_is_made_anew_for_the_new_size(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10))

    found = transfer(
        tb.initialize(factory, digits), first(digits, 200, 100), recipe=QUICK, size=(6, 6), head="2"
    )
    assert found.accuracy == found.frozen_accuracy > 20  # there is no batch norm to adapt


def test_the_same_call_gives_the_same_bits_and_another_seed_others(run: tb.Run, digits: tb.Data) -> None:
    first, again, other = (transfer(run, digits, recipe=QUICK, size=(8, 8), seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_a_longer_training_of_the_head_is_a_recipe(run: tb.Run, digits: tb.Data) -> None:
    short, long = (
        transfer(run, digits, recipe=replace(QUICK, epochs=epochs), size=(8, 8)) for epochs in (1, 10)
    )
    assert long.loss < short.loss


def test_the_upper_limit_is_a_dense_network_trained_on_the_fitted_target(digits: tb.Data) -> None:
    target = fit_images(first(digits, 200, 100), size=(16, 16))
    start = tb.initialize(small_resnet, target)
    run = tb.train(start, target, tb.Recipe(epochs=1, batch_size=50))
    assert start.network.channels == 3
    assert start.network.size == (16, 16)
    assert len(run.history) == 2


# Jobs


def test_as_a_job_it_gives_the_same_numbers(digits: tb.Data, start: tb.Ticket, tmp_path: Path) -> None:
    lab = tb.Lab(tmp_path / "store", settings=Settings(device="cpu"))
    begun = tb.job(tb.initialize, "convnet", "digits")
    made = tb.job(transfer, begun, "digits", recipe=QUICK, size=(10, 10))
    assert lab.result(made) == transfer(start, digits, recipe=QUICK, size=(10, 10))
    assert tb.job(transfer, begun, "digits", size=(32, 32)).name == tb.job(transfer, begun, "digits").name


# What is refused


@pytest.mark.parametrize("channels", [2, 4])
def test_a_target_without_the_networks_channels_is_refused(colour_run: tb.Run, channels: int) -> None:
    images = torch.zeros(4, channels, 8, 8, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    target = tb.data_from_tensors((images, labels), (images, labels), name="odd")
    with pytest.raises(DataError, match=f"odd has images of {channels} channels, not 3; only grey images"):
        transfer(colour_run, target)


def test_a_colour_target_for_a_grey_network_is_refused(run: tb.Run, colour: tb.Data) -> None:
    with pytest.raises(DataError, match="colour has images of 3 channels, not 1; only grey images"):
        transfer(run, colour)


def test_a_network_that_cannot_take_the_size_is_refused(digits: tb.Data) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 7), nn.Flatten(), nn.Linear(16, 10))

    start = tb.initialize(factory, digits)
    with pytest.raises(NetworkError, match=r"cannot take the 1x4x4 images of digits-1x4x4: .*[Kk]ernel size"):
        transfer(start, digits, size=(4, 4), head="2")


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (None, "is not one of tombola's own; say head='...': names of its modules (0, 1)"),
        ("3", "no head of"),
        ("0", "is a Flatten; it must be its final linear layer, such as '1'"),
    ],
)
def test_a_head_that_is_not_there_is_refused(digits: tb.Data, head: str | None, words: str) -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    with pytest.raises(NetworkError, match=re.escape(words)):
        transfer(tb.initialize(factory, digits), digits, head=head)


# The whole network trained (Morcos et al., 2019)


def test_a_ticket_trained_on_another_set_is_the_training_of_the_moved_one(
    chain: list[tb.Run], digits: tb.Data
) -> None:
    ticket = chain[1].ticket
    some = replace(first(digits, 300, 100), name="some")
    recipe = tb.Recipe(epochs=2, batch_size=100)
    found = tb.transfer_training(ticket, some, recipe, size=(9, 9), seed=3, noise=5)
    target = fit_images(some, size=(9, 9), channels=1)
    assert (
        found.fingerprint == tb.train(tb.rehead(ticket, target, seed=3), target, recipe, noise=5).fingerprint
    )
    assert found.ticket.network.size == (9, 9)
    # At the size that the ticket was found with, unless another is said.
    assert tb.transfer_training(ticket, some, recipe).ticket.network.size == (8, 8)


def test_in_an_experiment_tickets_are_trained_on_a_target_by_the_recipe_of_the_chains(
    start: tb.Ticket, digits: tb.Data, tmp_path: Path
) -> None:
    recipe = tb.Recipe(epochs=1, batch_size=400)
    experiment = tb.Experiment(
        "elsewhere", recipe=recipe, rounds=1,
        measures={"transfer-training.accuracy": {"data": "digits", "seed": 1}},
    )  # fmt: skip
    lab = tb.Lab(tmp_path / "store")
    bound = experiment.at()
    jobs = [job for item in bound.items if getattr(item, "measure", "") for job in item.jobs]
    lab.run(jobs).raise_failures()
    _, sparse = tb.imp(start, digits, recipe, rounds=1)
    numbers = [one for one in bound.numbers(lab.results()) if one.key.metric == "transfer-training.accuracy"]
    assert [one.key.sparsity for one in numbers] == [0.0, 20.0]
    expected = tb.transfer_training(sparse.ticket, digits, recipe, seed=1)
    assert numbers[1].value == expected.accuracy
