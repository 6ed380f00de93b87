"""Which unit of one network is which of another: weight matching and activation matching (Git Re-Basin).

Both solve linear assignment problems, one for each group of interchangeable units
(:mod:`tombola.networks.symmetry`). Weight matching (Ainsworth et al., 2023, section 3.2) maximises the inner
product of all weights of the first network with the permuted ones of the second, one group at a time with the
others held; it ends in a local maximum, so it is begun several times. Activation matching (section 3.1; with
correlations as in Jordan et al., 2023) treats each group by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola import seeds
from tombola.networks.symmetry import Symmetry, UnitAxis, order_along

State = Mapping[str, Tensor]

MOST_PASSES = 100
"""Passes over all groups from one start; a few are enough (Ainsworth et al., 2023)."""
_GAIN = 1e-12
"""Smallest gain that counts, as a share of the product of both norms."""


@dataclass(frozen=True)
class WeightMatch:
    """The best of several starts of weight matching.

    permutations: of each group. products: the inner product that each start ended at, the first begun at the
    identity. passes: over all groups, of each start.
    """

    permutations: list[np.ndarray]
    products: tuple[float, ...]
    passes: tuple[int, ...]


def match_weights(
    symmetry: Symmetry,
    parameters: Iterable[str],
    first: State,
    second: State,
    *,
    starts: int,
    seed: int,
    beat: Callable[[], None],
) -> WeightMatch:
    """The permutations of the second network's units that bring its weights nearest to the first's.

    parameters: names of the tensors that count; the others, such as running statistics, do not.
    starts: how often to begin, first at the identity and then at random permutations.
    seed: number of the stream of these, and of the order in which groups are visited.
    beat: called after every pass.
    """
    problem = _Assignment(symmetry, parameters, first, second)
    best: list[np.ndarray] = symmetry.identity()
    products: list[float] = []
    passes: list[int] = []
    for start in range(starts):
        generator = seeds.generator("weight matching", seed, start)
        permutations = symmetry.drawn(generator) if start else symmetry.identity()
        count = 0
        stale = set(range(len(symmetry.groups)))
        while stale and count < MOST_PASSES:
            for visit in generator.permutation(len(symmetry.groups)).tolist():
                if visit in stale:
                    stale.remove(visit)
                    if problem.improve(permutations, visit):
                        stale |= problem.meeting[visit]
            count += 1
            beat()
        product = problem.product(permutations)
        if not products or product > max(products):
            best = permutations
        products.append(product)
        passes.append(count)
    return WeightMatch(best, tuple(products), tuple(passes))


class _Assignment:
    """The inner product of two networks' weights as a function of the permutations of the second one's
    units."""

    def __init__(self, symmetry: Symmetry, parameters: Iterable[str], first: State, second: State) -> None:
        self._symmetry = symmetry
        names = [name for name in parameters if first[name].is_floating_point()]
        self._first = {name: first[name].double() for name in names}
        self._second = {name: second[name].double() for name in names}
        self._size = _norm(self._first) * _norm(self._second)
        # By tensor and rows, all axes that have units, each with the number of its group.
        self._axes: dict[tuple[str, tuple[int, int]], list[tuple[int, UnitAxis]]] = {}
        for index, group in enumerate(symmetry.groups):
            for axis in group.axes:
                if axis.name in self._first:
                    self._axes.setdefault((axis.name, axis.rows), []).append((index, axis))
        # By group, those whose best assignment may be another once it has moved: they share a tensor.
        self.meeting: list[set[int]] = [set() for _ in symmetry.groups]
        for axes in self._axes.values():
            for index, axis in axes:
                self.meeting[index] |= {number for number, other in axes if other.dim != axis.dim}

    def product(self, permutations: Sequence[np.ndarray]) -> float:
        """The inner product of all weights at these permutations."""
        moved = self._symmetry.permuted(self._second, permutations)
        return sum(float((value * moved[name]).sum()) for name, value in self._first.items())

    def improve(self, permutations: list[np.ndarray], index: int) -> bool:
        """Assign the units of one group anew, the others held; whether the inner product grew."""
        group = self._symmetry.groups[index]
        products, twice = self._products(permutations, index)
        before, after = permutations[index], _assigned(products)
        places = np.arange(group.size)
        gain = float(products[places, after].sum() - products[places, before].sum())
        if twice:  # then the products were those of one side with the other held
            changed = [*permutations]
            changed[index] = after
            gain = self.product(changed) - self.product(permutations)
        if gain <= _GAIN * self._size:
            return False
        permutations[index] = after
        return True

    def _products(self, permutations: Sequence[np.ndarray], index: int) -> tuple[np.ndarray, bool]:
        """Of each unit of the first with each of the second, and whether some tensor has the group twice."""
        group = self._symmetry.groups[index]
        total = torch.zeros(group.size, group.size, dtype=torch.float64)
        twice = False
        for axis in group.axes:
            if axis.name not in self._first:
                continue
            first, second = (values[axis.name][slice(*axis.rows)] for values in (self._first, self._second))
            for number, other in self._axes[axis.name, axis.rows]:
                if other.dim != axis.dim:
                    twice = twice or number == index
                    order = order_along(other, permutations[number], second.shape[other.dim])
                    second = second.index_select(other.dim, order)
            total += _by_unit(first, axis) @ _by_unit(second, axis).T
        return total.numpy(), twice


def _assigned(products: np.ndarray) -> np.ndarray:
    """For each row the column, each taken once, so that the sum of the entries is largest."""
    from scipy.optimize import linear_sum_assignment  # takes a moment, which only an alignment is worth

    columns: np.ndarray = linear_sum_assignment(products, maximize=True)[1]
    return columns


def _by_unit(tensor: Tensor, axis: UnitAxis) -> Tensor:
    """The entries of a tensor that belong to each unit, ``(units, entries)``."""
    places = torch.from_numpy(axis.places)
    values = tensor.movedim(axis.dim, 0)
    return values.index_select(0, places.reshape(-1)).reshape(len(places), -1)


def _norm(state: State) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in state.values()))


def match_activations(
    symmetry: Symmetry,
    modules: Sequence[nn.Module],
    batches: Iterable[Tensor],
    beat: Callable[[], None],
) -> list[np.ndarray]:
    """The permutations of the second of two networks' units that correlate best with the first's on images.

    A unit's activations are what goes into the linear and convolution layers that take it, over all images
    and pixels; where several layers take it, their correlations add up. A unit without variance correlates
    with none, and a group that no such layer takes stays as it is.
    """
    sums: dict[UnitAxis, _Moments] = {}
    for images in batches:
        inputs = [_layer_inputs(module, images) for module in modules]
        for axis in (axis for group in symmetry.groups for axis in group.axes):
            for one, other in zip(
                *(layer_inputs.get((axis.name, axis.dim), []) for layer_inputs in inputs), strict=True
            ):
                moments = sums.setdefault(axis, _Moments.none(len(axis.places)))
                moments.add(one.of_units(axis), other.of_units(axis))
        beat()
    permutations = symmetry.identity()
    for index, group in enumerate(symmetry.groups):
        correlations = [sums[axis].correlations() for axis in group.axes if axis in sums]
        if correlations:
            permutations[index] = _assigned(np.sum(correlations, axis=0))
    return permutations


@dataclass(frozen=True)
class _LayerInput:
    """What went into a layer once.

    values: of any shape, with channels along an axis. columns: of the layer's weight, those of one group.
    """

    values: Tensor
    channels: int
    columns: int

    def of_units(self, axis: UnitAxis) -> Tensor:
        """The values of each unit, float64 ``(units, samples)``."""
        first, last = axis.rows
        # Of a grouped convolution each group takes columns of its own.
        before = first // (last - first) * self.columns if axis.dim == 1 else 0
        places = torch.from_numpy(axis.places).reshape(-1).to(self.values.device) + before
        values = self.values.movedim(self.channels, 0).index_select(0, places)
        return values.reshape(len(axis.places), -1).double()


class _LayerInputs(TorchFunctionMode):
    """Takes down what goes into linear and convolution layers, by weight and the axis that takes it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.inputs: dict[tuple[str, int], list[_LayerInput]] = {}

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        options = options or {}
        label = getattr(function, "__name__", "")
        if label == "linear" or label.startswith("conv"):
            weight = arguments[1] if len(arguments) > 1 else options.get("weight")
            if isinstance(weight, Tensor) and id(weight) in self._names:
                values = arguments[0]
                channels = values.ndim - 1 if label == "linear" else values.ndim - (weight.ndim - 2) - 1
                key = self._names[id(weight)], 0 if "transpose" in label else 1
                # A later layer may work on the values in place.
                layer_input = _LayerInput(values.clone(), channels, weight.shape[1])
                self.inputs.setdefault(key, []).append(layer_input)
        return function(*arguments, **options)


@torch.no_grad()
def _layer_inputs(module: nn.Module, images: Tensor) -> dict[tuple[str, int], list[_LayerInput]]:
    reading = _LayerInputs(module)
    with reading:
        module.eval()(images)
    return reading.inputs


@dataclass
class _Moments:
    """Sums over samples of the units of two networks: of values, squares and products."""

    count: int
    sums: list[Tensor]
    squares: list[Tensor]
    products: Tensor

    @classmethod
    def none(cls, units: int) -> _Moments:
        zeros = [torch.zeros(units, dtype=torch.float64) for _ in range(4)]
        return cls(0, zeros[:2], zeros[2:], torch.zeros(units, units, dtype=torch.float64))

    def add(self, first: Tensor, second: Tensor) -> None:
        """Take in samples, ``(units, samples)`` of each network."""
        self.count += first.shape[1]
        for index, values in enumerate((first, second)):
            self.sums[index] += values.sum(1).cpu()
            self.squares[index] += values.square().sum(1).cpu()
        self.products += (first @ second.T).cpu()

    def correlations(self) -> np.ndarray:
        """Of each unit of the first network with each of the second; 0 where one does not vary."""
        means = [value / self.count for value in self.sums]
        variances = [square / self.count - mean**2 for square, mean in zip(self.squares, means, strict=True)]
        covariance = self.products / self.count - means[0][:, None] * means[1]
        scale = (variances[0].clamp(min=0)[:, None] * variances[1].clamp(min=0)).sqrt()
        return torch.where(scale > _FLAT, covariance / scale, 0).numpy()


_FLAT = 1e-20
"""Product of the standard deviations of two units below which one of them does not vary."""
