"""Curves: their training against autograd through the curve itself, their shape by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import tombola as tb
from tombola import seeds
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.lab.job import job
from tombola.lab.lab import Lab
from tombola.measures.curves import CURVE_RECIPE, Shape, place_on_curve, shares

PLAIN = tb.Augmentation(pad=0, flip=False)
SHORT = tb.Recipe(
    epochs=2, batch_size=300, lr=0.1, momentum=0.9, weight_decay=0.01, schedule="ramp", augmentation=PLAIN
)


def smooth(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, classes))


def trained(data: tb.Data, network: object = smooth) -> list[tb.Run]:
    recipe = tb.Recipe(epochs=4, batch_size=50, lr=0.1)
    return [tb.train(tb.initialize(network, data, seed=seed), data, recipe, noise=seed) for seed in (0, 1)]


def test_shares_of_both_shapes_are_those_of_the_formulas() -> None:
    for place in np.linspace(0, 1, 9).tolist():
        assert shares(place, "bezier") == pytest.approx(((1 - place) ** 2, 2 * place * (1 - place), place**2))
        piece = (1 - 2 * place, 2 * place, 0) if place <= 0.5 else (0, 2 - 2 * place, 2 * place - 1)
        assert shares(place, "chain") == pytest.approx(piece)


@pytest.mark.parametrize("shape", ["bezier", "chain"])
def test_the_bend_is_that_of_autograd_through_the_curve(digits: tb.Data, shape: Shape) -> None:
    """torch.optim.SGD on the bend as the only parameter, weight decay as a penalty on the weights at t."""
    runs = trained(digits)
    found = tb.curve(*runs, digits, shape=shape, recipe=SHORT, noise=3, points=3)
    module = runs[0].module()
    ends = [run.weights for run in runs]
    bend = {name: ((value + ends[1][name]) / 2).requires_grad_() for name, value in ends[0].items()}
    optimizer = torch.optim.SGD(bend.values(), lr=SHORT.lr, momentum=SHORT.momentum)
    images, labels = next(tb.batches(digits, "train", batch_size=2000))
    losses = []
    for epoch in range(2):
        order = torch.from_numpy(seeds.generator("curve order", 3, epoch).permutation(len(images)))
        places = seeds.generator("curve", 3, epoch).random(4)
        for step, (indices, place) in enumerate(zip(order.split(300), places.tolist(), strict=True)):
            share = (epoch + step / 4) / 2  # of all epochs
            optimizer.param_groups[0]["lr"] = 0.1 * np.interp(share, [0, 0.5, 0.9, 1], [1, 1, 0.01, 0.01])
            of_first, of_bend, of_second = shares(place, shape)
            weights = {
                name: of_first * ends[0][name] + of_bend * value + of_second * ends[1][name]
                for name, value in bend.items()
            }
            loss = functional.cross_entropy(
                functional_call(module, weights, images[indices]), labels[indices]
            )
            penalty = sum((value**2).sum() for value in weights.values())
            optimizer.zero_grad()
            (loss + SHORT.weight_decay / 2 * penalty).backward()
            optimizer.step()
            losses.append((loss.item(), len(indices)))
    for name, value in bend.items():
        torch.testing.assert_close(found.bend[name], value.detach(), rtol=1e-3, atol=1e-5)
    by_epoch = [sum(loss * size for loss, size in part) / 1198 for part in (losses[:4], losses[4:])]
    assert found.train_losses == pytest.approx(by_epoch, rel=1e-4)


def test_errors_along_the_curve_are_those_of_its_networks(digits: tb.Data) -> None:
    runs = trained(digits)
    found = tb.curve(*runs, digits, recipe=SHORT, points=5)
    assert found.positions == (0, 0.25, 0.5, 0.75, 1)
    assert (found.errors[0], found.errors[-1]) == tuple(100 - run.accuracy for run in runs)
    images, labels = next(tb.batches(digits, "test", batch_size=2000))
    module = runs[0].module()
    quarter = {
        name: (9 * value + 6 * found.bend[name] + runs[1].weights[name]) / 16
        for name, value in runs[0].weights.items()
    }
    module.load_state_dict(quarter)
    with torch.no_grad():
        outputs = module(images)
    assert found.losses[1] == pytest.approx(functional.cross_entropy(outputs, labels).item(), rel=1e-4)
    assert found.errors[1] == pytest.approx(100 * (outputs.argmax(1) != labels).double().mean().item())
    assert found.height == max(found.errors) - (found.errors[0] + found.errors[-1]) / 2


def test_a_curve_goes_round_the_barrier(digits: tb.Data) -> None:
    runs = trained(digits, "convnet")
    recipe = replace(CURVE_RECIPE, epochs=5, batch_size=50, lr=0.05)
    line = tb.barrier(*runs, digits, points=5, recalibrate=True)
    found = {
        shape: tb.curve(*runs, digits, shape=shape, recipe=recipe, points=5) for shape in ("bezier", "chain")
    }
    for shape in found.values():
        # Batch-norm statistics are measured anew at the ends, too.
        assert (shape.errors[0], shape.errors[-1]) == (line.errors[0], line.errors[-1])
        assert shape.height < line.height / 2
    assert line.height > 30


def test_of_tickets_of_one_mask_the_curve_stays_within_it(
    chain: list[tb.Run], digits: tb.Data, recipe: tb.Recipe
) -> None:
    run = chain[-1]
    copy = tb.train(run.ticket, digits, recipe, noise=9)
    found = tb.curve(run, copy, digits, recipe=replace(SHORT, augmentation=tb.Augmentation()), points=3)
    assert found.same_mask
    assert all(not found.bend[name][~keep].any() for name, keep in run.ticket.mask.items())
    assert any(
        (found.bend[name] != (run.weights[name] + copy.weights[name]) / 2).any() for name in run.ticket.mask
    )
    other = tb.curve(chain[1], run, digits, recipe=SHORT, points=3)
    assert not other.same_mask
    assert all(not other.bend[name][~keep].any() for name, keep in chain[1].ticket.mask.items())


def test_a_place_on_the_curve_has_the_nearer_ends_integers() -> None:
    ends: list[dict[str, Tensor]] = [
        {"weight": torch.tensor([float(value)]), "count": torch.tensor(value)} for value in (0, 4, 2)
    ]
    live = {name: value.clone() for name, value in ends[0].items()}
    place_on_curve(live, *ends, 0.75, "bezier")
    assert live == {"weight": torch.tensor([4 * 2 * 0.75 * 0.25 + 2 * 0.75**2]), "count": torch.tensor(2)}


def test_a_curve_is_a_job(tmp_path: Path, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    lab = Lab(tmp_path / "store")
    runs = [job(tb.train, start, digits, recipe, noise=noise) for noise in (1, 2)]
    described = job(tb.curve, *runs, digits, recipe=SHORT, points=3)
    lab.run([described])
    direct = tb.curve(*(lab.result(each) for each in runs), digits, recipe=SHORT, points=3)
    stored = lab.result(described)
    assert stored.errors == direct.errors
    assert all(torch.equal(value, stored.bend[name]) for name, value in direct.bend.items())


def test_what_cannot_be_is_refused(run: tb.Run, digits: tb.Data) -> None:
    other = tb.initialize(smooth, digits)
    with pytest.raises(NetworkError, match="a curve needs two runs of one network"):
        tb.curve(run, replace(run, ticket=other, weights=other.start), digits)
    with pytest.raises(RecipeError, match="shape of a curve 'spline'"):
        tb.curve(run, run, digits, shape="spline")
    with pytest.raises(RecipeError, match="a curve is trained by 'sgd' or 'nesterov'"):
        tb.curve(run, run, digits, recipe=replace(SHORT, optimizer="adamw"))
    with pytest.raises(RecipeError, match="a curve has no teacher"):
        tb.curve(run, run, digits, recipe=replace(SHORT, loss="distillation"))
    with pytest.raises(RecipeError, match="points is 2; "):
        tb.curve(run, run, digits, points=2)


def test_a_run_that_diverged_is_no_end_of_a_curve(run: tb.Run, digits: tb.Data) -> None:
    """Neither that of a whole training of a bend, nor of errors that are those of chance at the other end."""
    broken = replace(run, weights=run.weights | {"0.weight": run.weights["0.weight"] * torch.inf})
    for ends in ((run, broken), (broken, run)):
        with pytest.raises(TicketError, match=r"no curve of this run: values of 0.weight are not"):
            tb.curve(*ends, digits, recipe=SHORT, points=3)
