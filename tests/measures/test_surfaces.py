"""Surfaces: positions by hand, directions by row norms and against the loss-landscapes package."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.lab.job import job
from tombola.lab.lab import Lab
from tombola.measures.curves import ConnectingCurve, place_on_curve
from tombola.measures.surfaces import filter_normalized, with_row_norms
from tombola.report.figure import draw
from tombola.table.number import Plane
from tombola.views.chain_panels import reliefs_of
from tombola.views.picture import Picture


def smooth(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, classes))


@pytest.fixture(scope="module")
def three(digits: tb.Data) -> list[tb.Run]:
    recipe = tb.Recipe(epochs=2, batch_size=50, lr=0.1)
    return [
        tb.train(tb.initialize(smooth, digits, seed=seed), digits, recipe, noise=seed) for seed in range(3)
    ]


def flat(state: dict[str, torch.Tensor]) -> np.ndarray:
    return torch.cat([value.double().flatten() for value in state.values()]).numpy()


def measured(run: tb.Run, weights: np.ndarray, data: tb.Data) -> tuple[float, float]:
    """Error and loss of a network with all its weights in one vector."""
    module = run.module().double()
    nn.utils.vector_to_parameters(torch.from_numpy(weights), module.parameters())
    images, labels = next(tb.batches(data, "test", batch_size=2000))
    with torch.no_grad():
        outputs = module(images.double())
    wrong = (outputs.argmax(1) != labels).double().mean()
    return 100 * float(wrong), float(nn.functional.cross_entropy(outputs, labels))


def test_positions_of_a_plane_are_those_of_gram_and_schmidt(three: list[tb.Run], digits: tb.Data) -> None:
    surface = tb.plane(three, digits, points=4, margin=0.5)
    first, second, third = (flat(run.weights) for run in three)
    along = (second - first) / np.linalg.norm(second - first)
    across = third - first - ((third - first) @ along) * along
    across /= np.linalg.norm(across)
    expected = [((run - first) @ along, (run - first) @ across) for run in (first, second, third)]
    assert np.array(surface.runs) == pytest.approx(np.array(expected), abs=1e-6)
    xs, ys = (sorted(place[axis] for place in expected) for axis in (0, 1))
    for coordinates, places in ((surface.horizontal, xs), (surface.vertical, ys)):
        beyond = 0.5 * (places[-1] - places[0])
        assert coordinates == pytest.approx(np.linspace(places[0] - beyond, places[-1] + beyond, 4))
    for row, column in ((0, 0), (1, 3), (3, 2)):
        weights = first + surface.horizontal[column] * along + surface.vertical[row] * across
        error, loss = measured(three[0], weights, digits)
        assert float(surface.losses[row, column]) == pytest.approx(loss, rel=1e-4)
        assert float(surface.errors[row, column]) == pytest.approx(error, abs=0.2)


def test_batch_norm_is_measured_anew_on_a_plane(chain: list[tb.Run], digits: tb.Data) -> None:
    surface = tb.plane(chain, digits, points=3, margin=0)
    line = tb.barrier(*chain[:2], digits, points=3, recalibrate=True)
    assert surface.horizontal[0] == pytest.approx(0)  # the first run
    assert float(surface.losses[0, 0]) == pytest.approx(line.losses[0], rel=1e-4)


def test_rows_of_a_direction_have_the_norms_of_the_weights(chain: list[tb.Run]) -> None:
    run = chain[-1]
    names = [name for name, _ in run.module().named_parameters()]
    direction, other = (
        filter_normalized(run.weights, run.ticket.mask, names, 0, number) for number in (0, 1)
    )
    for name, value in run.weights.items():
        if name in run.ticket.mask:
            norms = [tensor.flatten(1).norm(dim=1) for tensor in (value, direction[name])]
            torch.testing.assert_close(*norms)
            assert not direction[name][~run.ticket.mask[name]].any()
            assert not torch.equal(direction[name], other[name])
        else:
            assert not direction[name].any()


@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_transposed_convolution_each_output_channel_has_the_norm_of_its_weights(groups: int) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    weight = layer.weight.detach().clone()
    moved = filter_normalized({"weight": weight}, {}, ["weight"], 0, 0, {"weight": groups})["weight"]
    # The weights of an output channel are those that its outputs depend on.
    channel = 0
    for group in range(groups):
        inputs = slice(group * 4 // groups, (group + 1) * 4 // groups)
        for place in range(6 // groups):
            images = torch.zeros(1, 4, 1, 1)
            images[:, inputs] = 1
            with torch.no_grad():
                layer.weight.copy_(torch.zeros_like(weight))
                layer.weight[inputs, place] = 1
            assert (layer(images) - layer(torch.zeros(1, 4, 1, 1))).abs().sum((0, 2, 3)).nonzero() == channel
            norms = [value[inputs, place].norm() for value in (weight, moved)]
            torch.testing.assert_close(*norms)
            channel += 1


def test_directions_are_normalised_as_by_the_loss_landscapes_package(three: list[tb.Run]) -> None:
    landscapes = pytest.importorskip("loss_landscapes.model_interface.model_parameters")
    run = three[0]
    raw = [torch.from_numpy(np.random.default_rng(index).normal(size=tuple(run.weights[name].shape))).float()
           for index, name in enumerate(("1.weight", "3.weight"))]  # fmt: skip
    weights = [run.weights[name] for name in ("1.weight", "3.weight")]
    theirs = landscapes.ModelParameters([value.clone() for value in raw])
    theirs.filter_normalize_(landscapes.ModelParameters(weights))
    for value, weight, normalised in zip(raw, weights, theirs.parameters, strict=True):
        torch.testing.assert_close(normalised, with_row_norms(value, weight), rtol=1e-4, atol=1e-6)


def test_a_slice_is_measured_at_multiples_of_its_directions(three: list[tb.Run], digits: tb.Data) -> None:
    run = three[0]
    names = [name for name, _ in run.module().named_parameters()]
    directions = [
        flat(filter_normalized(run.weights, run.ticket.mask, names, 5, number)) for number in (0, 1)
    ]
    line = tb.loss_slice(run, digits, points=5, extent=0.5, seed=5)
    assert line.horizontal == (-0.5, -0.25, 0, 0.25, 0.5)
    assert line.errors.shape == (1, 5)
    assert float(line.errors[0, 2]) == pytest.approx(100 - run.accuracy)
    error, loss = measured(run, flat(run.weights) + 0.25 * directions[0], digits)
    assert float(line.losses[0, 3]) == pytest.approx(loss, rel=1e-4)
    assert float(line.errors[0, 3]) == pytest.approx(error, abs=0.2)
    square = tb.loss_slice(run, digits, directions=2, points=3, seed=5)
    _, loss = measured(run, flat(run.weights) - directions[0] + directions[1], digits)
    assert float(square.losses[2, 0]) == pytest.approx(loss, rel=1e-4)
    assert square.errors.shape == (3, 3)


def test_surfaces_are_jobs(tmp_path: Path, start: tb.Ticket, digits: tb.Data, recipe: tb.Recipe) -> None:
    lab = Lab(tmp_path / "store")
    recipe = replace(recipe, epochs=1)
    runs = [job(tb.train, start, digits, recipe, noise=noise) for noise in (1, 2, 3)]
    jobs = [job(tb.plane, runs, digits, points=3), job(tb.loss_slice, runs[0], digits, points=3)]
    lab.run(jobs)
    surface = lab.result(jobs[0])
    assert torch.equal(surface.errors, tb.plane([lab.result(run) for run in runs], digits, points=3).errors)
    assert lab.result(jobs[1]).lowest <= 100


def test_what_cannot_be_is_refused(run: tb.Run, three: list[tb.Run], digits: tb.Data) -> None:
    with pytest.raises(RecipeError, match="a plane goes through 3 runs; got 2"):
        tb.plane(three[:2], digits)
    with pytest.raises(NetworkError, match="a plane needs two runs of one network"):
        tb.plane([three[0], three[1], run], digits)
    with pytest.raises(RecipeError, match="lie on one line"):
        tb.plane([three[0], three[1], three[1]], digits, points=3)
    with pytest.raises(RecipeError, match="margin is -1"):
        tb.plane(three, digits, margin=-1)
    with pytest.raises(RecipeError, match="points is 101, which makes 10,201 positions"):
        tb.plane(three, digits, points=101)
    with pytest.raises(RecipeError, match="directions is 3; it must be 1 or 2"):
        tb.loss_slice(run, digits, directions=3)
    with pytest.raises(RecipeError, match="extent is 0"):
        tb.loss_slice(run, digits, extent=0)
    other = replace(three[2], precision="bfloat16", device="cuda")
    with pytest.raises(RecipeError, match="no line mixes them"):
        tb.plane([*three[:2], other], digits, points=3)


def test_runs_that_diverged_have_no_surface(three: list[tb.Run], digits: tb.Data) -> None:
    broken = replace(three[2], weights={name: value * np.nan for name, value in three[2].weights.items()})
    with pytest.raises(TicketError, match=r"no plane of this run: values of 1.weight are not"):
        tb.plane([*three[:2], broken], digits, points=3)
    with pytest.raises(TicketError, match="there is no slice of this run"):
        tb.loss_slice(broken, digits, points=3)


def test_a_plane_holds_the_whole_curve_of_its_two_runs(three: list[tb.Run], digits: tb.Data) -> None:
    first, second = three[:2]
    curve = ConnectingCurve("bezier", (0.0, 1.0), (0.0, 0.0), (0.0, 0.0), "test", three[2].weights, (), True)
    surface = tb.plane([first, second], digits, points=3, curve=curve)
    through_three = tb.plane(three, digits, points=3)
    assert torch.equal(surface.errors, through_three.errors)
    assert surface.runs == through_three.runs
    assert through_three.path == ()
    # Distances of a point of the curve from its ends, in all parameters.
    names = [name for name, _ in tb.module(first).named_parameters()]
    live = {name: value.clone() for name, value in first.weights.items()}
    place_on_curve(live, first.weights, curve.bend, second.weights, 0.25, "bezier")
    x, y = surface.path[10]
    for run, (at, height) in zip((first, second), surface.runs, strict=False):
        squares = sum(float(((live[n] - run.weights[n]).double() ** 2).sum()) for n in names)
        assert math.hypot(x - at, y - height) == pytest.approx(math.sqrt(squares), rel=1e-5)
    with pytest.raises(RecipeError, match="a plane goes through the 2 runs of its curve; got 3"):
        tb.plane(three, digits, curve=curve)


def test_a_curve_that_joins_other_runs_is_refused(three: list[tb.Run], digits: tb.Data) -> None:
    first, second, third = three
    recipe = tb.Recipe(epochs=1, batch_size=200, lr=0.01)
    curve = tb.curve(first, second, digits, recipe=recipe, points=3)
    there, back = (tb.plane(ends, digits, points=3, curve=curve).runs for ends in (three[:2], three[1::-1]))
    assert there[1][0] == pytest.approx(back[1][0])  # the distance of its ends, from either
    for others in ([first, third], [second, second]):
        with pytest.raises(TicketError, match="the curve joins other runs than these; give the curve of"):
            tb.plane(others, digits, points=3, curve=curve)
    # One that was stored without its ends is taken at its word.
    tb.plane([first, third], digits, points=3, curve=replace(curve, ends=None))


def test_a_plane_is_drawn_with_its_runs_and_curve() -> None:
    runs = ((0.0, 0.0), (1.0, 2.0))
    plane = Plane((0.0, 1.0), (0.0, 2.0), ((1.0, 2.0), (3.0, 90.0)), ((0.1,) * 2,) * 2, runs)
    figure = draw(Picture("plane", "", "", reliefs_of(replace(plane, path=runs))))
    error, loss = [axes for axes in figure.axes if axes.get_xlabel()]
    assert error.get_xlabel() == loss.get_ylabel() == "distance in weights"
    assert [text.get_text() for text in error.texts] == ["1", "2"]
    assert any(list(line.get_xdata()) == [0.0, 1.0] for line in error.lines)
