"""Activation matching: which unit of one network is which of another, by what they do on images.

Each group of interchangeable units is one linear assignment problem of its own (Ainsworth et al., 2023,
section 3.1), here over correlations, as in Jordan et al. (2023). The groups of a grouped convolution stay in
their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola.measures.matching import assigned
from tombola.networks.symmetry import Symmetry, UnitAxis


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
            permutations[index] = assigned(np.sum(correlations, axis=0))
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
