"""Error and loss over a plane of weights: through three runs, or around one along random directions.

The plane through three runs shows where a curve or a line between two of them lies (Garipov et al., 2018).
Around one run, random directions are scaled filter by filter to the weights' own norms, so that networks
whose weights are of other size can be compared (Li et al., 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tombola import seeds
from tombola.cost import Cost, Outline, Size, evaluated_images, forward
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError, RecipeError, TicketError
from tombola.measures.alignment import check_one_network
from tombola.measures.connectivity import Split, check_line, common_precision
from tombola.measures.curves import ConnectingCurve, shares
from tombola.measures.interpolation import recalibrate_batch_norm
from tombola.measures.predictions import check_finite_weights
from tombola.measures.repair import has_batch_norm
from tombola.networks.network import Network
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.ticket import State
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.preflight import check_images
from tombola.training.run import Run

MOST_POSITIONS = 10_001
"""On one surface: at each all images are evaluated."""


@dataclass(frozen=True, eq=False, repr=False)
class Surface(OneLine):
    """Errors and losses on a grid over a plane of weights.

    horizontal, vertical: coordinates of the columns and of the rows of the grid: Euclidean distances in a
        plane through runs, multiples of the directions in a slice. A line has one row.
    errors: classification error on the split, in percent, float64 ``(rows, columns)``.
    losses: mean cross-entropy on the split, in nats, float64 ``(rows, columns)``.
    split: ``"test"`` or unaugmented ``"train"``.
    runs: coordinates of the runs, horizontal and vertical; of the plane of a curve its two ends and its bend.
    path: coordinates along that curve; empty without one.
    """

    horizontal: tuple[float, ...]
    vertical: tuple[float, ...]
    errors: Tensor
    losses: Tensor
    split: str
    runs: tuple[tuple[float, float], ...]
    path: tuple[tuple[float, float], ...] = ()

    @property
    def lowest(self) -> float:
        """Smallest error on the grid, in percent."""
        return float(self.errors.min())

    @property
    def highest(self) -> float:
        """Largest error on the grid, in percent."""
        return float(self.errors.max())

    def _in_one_line(self) -> str:
        return (
            f"<surface of {len(self.horizontal)} by {len(self.vertical)} positions with errors from "
            f"{self.lowest:.2f}% to {self.highest:.2f}% on the {self.split} images>"
        )

    def _facts(self) -> dict[str, object]:
        return {
            "positions": f"{len(self.horizontal)} by {len(self.vertical)}",
            "lowest error": f"{self.lowest:.2f}%",
            "highest error": f"{self.highest:.2f}%",
            "images": self.split,
            "runs at": ", ".join(f"({x:.3g}, {y:.3g})" for x, y in self.runs),
        }


def _plane_cost(runs: Sequence[Outline], data: Size, points: int) -> Cost:
    """Evaluations at all positions, with batch norm measured anew."""
    return forward(runs[0], points**2 * evaluated_images(data, True))


@declare("plane", cost=_plane_cost)
def plane(
    runs: Sequence[Run],
    data: DataLike,
    *,
    points: int = 21,
    margin: float = 0.2,
    curve: ConnectingCurve | None = None,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Surface:
    """Errors and losses over the plane of weights through three runs, or through two and a curve.

    runs: three, of one network; the first lies at (0, 0), the second on the horizontal axis, the third above
        it. With a curve the two that it joins.
    curve: between the two runs (:func:`~tombola.curve`), from either; its bend is the third point, and the
        whole curve lies in the plane.
    points: of each side of the grid; at least 3.
    margin: how far the grid reaches beyond the runs on each side, as a share of their extent.
    split: the images that errors and losses are of, without augmentation.
    watch: gets a sign of life after every position.

    Coordinates are distances in all parameters. Batch-norm statistics are measured anew at every position on
    the unaugmented train split. Positions that all three masks prune are 0 everywhere.

    Raises :class:`~tombola.errors.NetworkError` for runs of different networks or images that do not fit,
    :class:`~tombola.errors.Undefined` for a run that diverged, :class:`~tombola.errors.TicketError` for a
    curve that joins others, and :class:`~tombola.errors.RecipeError` for runs that span no plane, runs of
    different precisions and settings out of range.
    """
    data = load_data(data)
    if len(runs) != (3 if curve is None else 2):
        wanted = "3 runs" if curve is None else "the 2 runs of its curve"
        raise RecipeError(f"a plane goes through {wanted}; got {len(runs)}")
    for other in runs[1:]:
        check_one_network(runs[0], other, "a plane")
    _check_grid(points, points, split)
    if not 0 <= margin <= 10:
        raise RecipeError(f"margin is {margin}; it must be from 0 to 10")
    where = resolve_device(device)
    for run in runs:
        check_finite_weights(run, "plane")
        precision = common_precision(runs[0], run, where)
    parameters = _parameters(runs[0].ticket.network)
    corners = [run.weights for run in runs] + ([] if curve is None else [_checked_bend(curve, runs)])
    first, second, third = corners
    base, corner, rise = _triangle(first, second, third, parameters)
    horizontal = _stretch([0.0, base, corner], margin, points)
    vertical = _stretch([0.0, rise], margin, points)

    def mixture(x: float, y: float) -> Sequence[float]:
        of_third = y / rise
        of_second = (x - of_third * corner) / base
        return 1 - of_second - of_third, of_second, of_third

    errors, losses = _measured(
        runs[0].ticket.network, data, split, precision,
        (first, second, third), [[mixture(x, y) for x in horizontal] for y in vertical], True, device, watch,
    )  # fmt: skip
    places = ((0.0, 0.0), (base, 0.0), (corner, rise))
    return Surface(
        horizontal, vertical, errors, losses, split, places, () if curve is None else _path(curve, places)
    )


def _checked_bend(curve: ConnectingCurve, runs: Sequence[Run]) -> State:
    """The bend of a curve; NetworkError for one of another network, TicketError for one of other runs."""
    shapes = [{name: value.shape for name, value in state.items()} for state in (curve.bend, runs[0].weights)]
    if shapes[0] != shapes[1]:
        raise NetworkError(
            f"the curve is not between runs of {runs[0].ticket.network.name}; give the curve of these"
        )
    if curve.ends is not None and set(curve.ends) != {run.fingerprint for run in runs}:
        raise TicketError("the curve joins other runs than these; give the curve of these, or its own runs")
    return curve.bend


_PATH_POINTS = 41


def _path(curve: ConnectingCurve, places: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Coordinates along a curve, by those of its ends and of its bend."""
    first, second, bend = places
    path = []
    for number in range(_PATH_POINTS):
        of_first, of_bend, of_second = shares(number / (_PATH_POINTS - 1), curve.shape)
        x, y = (of_first * first[axis] + of_bend * bend[axis] + of_second * second[axis] for axis in (0, 1))
        path.append((x, y))
    return tuple(path)


def _slice_cost(run: Outline, data: Size, points: int, directions: int, recalibrate: bool) -> Cost:
    """Evaluations at all positions."""
    return forward(run, points**directions * evaluated_images(data, recalibrate))


@declare("slice", cost=_slice_cost)
def loss_slice(
    run: Run,
    data: DataLike,
    *,
    directions: int = 1,
    points: int = 51,
    extent: float = 1.0,
    seed: int = 0,
    recalibrate: bool = False,
    split: Split = "test",
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Surface:
    """Errors and losses around a run along one or two random directions, normalised by filter (Li et al.,
    2018).

    directions: 1 for a line, 2 for a plane.
    points: of each side of the grid, from ``-extent`` to ``extent`` times the direction; at least 3.
    seed: number of the stream of the directions.
    recalibrate: measure batch-norm statistics anew at every position; by default they are the run's.
    split: the images that errors and losses are of, without augmentation.
    watch: gets a sign of life after every position.

    A direction is drawn normally for every weight and made 0 where the ticket's mask prunes; then each row of
    it along the first axis, a filter or the weights of a unit, gets the norm of that row of the weights. Of a
    transposed convolution, whose first axis is that of its inputs, the weights of each output channel do.
    Biases and norms do not move.

    Raises :class:`~tombola.errors.NetworkError` for images that do not fit,
    :class:`~tombola.errors.Undefined` for a run that diverged, and :class:`~tombola.errors.RecipeError` for
    settings out of range.
    """
    data = load_data(data)
    if directions not in (1, 2):
        raise RecipeError(f"directions is {directions}; it must be 1 or 2")
    _check_grid(points, points if directions == 2 else 1, split)
    if not 0 < extent < np.inf:
        raise RecipeError(f"extent is {extent}; it must be above 0 and finite")
    check_finite_weights(run, "slice")
    network = run.ticket.network
    moved = [
        filter_normalized(
            run.weights, run.ticket.mask, _parameters(network), seed, number, _transposed(network)
        )
        for number in range(directions)
    ]
    places = tuple(np.linspace(-extent, extent, points).tolist())
    vertical = places if directions == 2 else (0.0,)
    mixtures = [[(1.0, x, y)[: directions + 1] for x in places] for y in vertical]
    errors, losses = _measured(
        network, data, split, common_precision(run, run, resolve_device(device)), (run.weights, *moved),
        mixtures, recalibrate, device, watch,
    )  # fmt: skip
    return Surface(places, vertical, errors, losses, split, ((0.0, 0.0),))


def filter_normalized(
    weights: State,
    mask: Mapping[str, Tensor],
    parameters: Sequence[str],
    seed: int,
    number: int,
    transposed: Mapping[str, int] = {},
) -> dict[str, Tensor]:
    """A random direction whose rows have the norms of the weights' rows; 0 in biases, norms and buffers.

    parameters: names of what may move. number: of the direction, in the stream ``("slice", seed)``.
    transposed: names of the weights of transposed convolutions, with the groups of each.
    """
    generator = seeds.generator("slice", seed, number)
    direction = {}
    for name, value in weights.items():
        if name not in parameters or value.ndim < 2:
            direction[name] = torch.zeros_like(value)
            continue
        drawn = torch.from_numpy(generator.normal(size=tuple(value.shape)))
        if name in mask:
            drawn = drawn.masked_fill(~mask[name], 0)
        groups = transposed.get(name)
        if groups is None:
            normalised = with_row_norms(drawn, value.double())
        else:
            rows = [_output_rows(tensor, groups) for tensor in (drawn, value.double())]
            scaled = with_row_norms(*(tensor.flatten(0, 1) for tensor in rows)).view_as(rows[0])
            normalised = scaled.transpose(1, 2).reshape(value.shape)
        direction[name] = normalised.to(value.dtype)
    return direction


def with_row_norms(drawn: Tensor, weights: Tensor) -> Tensor:
    """A tensor of two axes or more, each row along the first with the norm of that row of the weights."""
    norms = [tensor.flatten(1).norm(dim=1) for tensor in (weights, drawn)]
    scale = torch.where(norms[1] > 0, norms[0] / norms[1], 0)
    return drawn * scale.view(-1, *[1] * (drawn.ndim - 1))


def _output_rows(weights: Tensor, groups: int) -> Tensor:
    """The weights of a transposed convolution, ``(inputs, outputs a group, ...)``, by group and output."""
    return weights.reshape(groups, -1, *weights.shape[1:]).transpose(1, 2)


def _transposed(network: Network) -> dict[str, int]:
    """The weights of transposed convolutions by name, with the groups of each."""
    modules = network.initialized(0).named_modules()
    return {
        f"{name}.weight" if name else "weight": layer.groups
        for name, layer in modules
        if isinstance(layer, nn.modules.conv._ConvTransposeNd)
    }


def _parameters(network: Network) -> list[str]:
    return [name for name, _ in network.initialized(0).named_parameters()]


def _triangle(
    first: State, second: State, third: State, parameters: Sequence[str]
) -> tuple[float, float, float]:
    """The second's distance from the first; the third's coordinates along that axis and across it.

    Raises RecipeError for runs on one line.
    """
    products = np.zeros((2, 2))
    for name in parameters:
        sides = [(state[name].double() - first[name].double()).flatten() for state in (second, third)]
        products += np.array([[float(one @ other) for other in sides] for one in sides])
    base = float(np.sqrt(products[0, 0]))
    corner = float(products[0, 1] / base) if base else 0.0
    across = float(products[1, 1]) - corner**2
    if not base or not across > 1e-12 * products[1, 1]:
        raise RecipeError("the three runs lie on one line, or two are the same; a plane needs others")
    return base, corner, float(np.sqrt(across))


def _stretch(places: Sequence[float], margin: float, points: int) -> tuple[float, ...]:
    """Evenly spaced coordinates from below the smallest place to above the largest."""
    low, high = min(places), max(places)
    beyond = margin * (high - low)
    return tuple(np.linspace(low - beyond, high + beyond, points).tolist())


def _check_grid(columns: int, rows: int, split: Split) -> None:
    check_line(columns, False, split)
    if columns * rows > MOST_POSITIONS:
        raise RecipeError(
            f"points is {columns}, which makes {columns * rows:,} positions; there may be "
            f"{MOST_POSITIONS:,}, for at each all images are evaluated"
        )


def _measured(
    network: Network,
    data: Data,
    split: Split,
    precision: str,
    states: Sequence[State],
    mixtures: Sequence[Sequence[Sequence[float]]],
    recalibrate: bool,
    device: str | torch.device | None,
    watch: Watch | None,
) -> tuple[Tensor, Tensor]:
    """Errors and losses of sums of states, each times its share, for rows of such shares."""
    check_images(network, data)
    where = resolve_device(device)
    watch = watch or Watch()
    images = data.train if split == "train" else data.test
    rows = []
    with repeatable(where):
        body = FlatNetwork(network, where)
        evaluate = Evaluator(body, precision)
        near = [{name: value.to(where) for name, value in state.items()} for state in states]
        anew = recalibrate and has_batch_norm(body.module)
        for row in mixtures:
            measured = []
            for mixture in row:
                _mix(body.module, near, mixture)
                body.refresh_copy()
                if anew:
                    recalibrate_batch_norm(
                        body.module, device_batches(data, data.train, where), precision, evaluate
                    )
                measured.append(evaluate(data, images))
                watch.beat()
            rows.append(measured)
    values = torch.tensor(rows, dtype=torch.float64)
    return 100 - values[..., 1], values[..., 0].clone()


@torch.no_grad()
def _mix(module: nn.Module, states: Sequence[State], shares: Sequence[float]) -> None:
    """Give a network the sum of states, each times its share; integer buffers are those of the first."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(sum(share * state[name] for share, state in zip(shares, states, strict=True)))
        else:
            value.copy_(states[0][name])
