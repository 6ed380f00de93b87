"""REPAIR: hidden units of an interpolated network get back the spread that interpolation takes (Jordan et
al., 2023).

On the line between two networks a unit is a mixture of two that are not perfectly correlated, so it varies
less than either, and layer by layer a deep network's signal fades. With batch norm it is enough to measure
the running statistics anew. Without it, each unit of the linear and convolution layers but the last is
rescaled and moved so that its mean and standard deviation over the train images lie between those of the two
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from tombola.data.batches import Batches
from tombola.errors import NetworkError
from tombola.measures.interpolation import batches_for_statistics, interpolate
from tombola.ticket import State
from tombola.training.flat_network import FlatNetwork, channels_last

_EPSILON = 1e-5
"""Added to variances, as batch norm does."""

_TRIED = 8
_SHIFT = 4.0
_EVEN = 1e-3
"""Images, and the shift of a layer's units, by which layers of outputs are found, and their tolerance."""

_Layer = nn.Linear | nn.modules.conv._ConvNd


def has_batch_norm(module: nn.Module) -> bool:
    """Whether a network keeps running statistics, which can be measured anew."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    return any(layer.track_running_stats for layer in norms)


class HiddenUnits:
    """Means and standard deviations of the hidden units at both ends of a line, and what lies between them.

    body: the network, with any weights; it has those of the second end afterwards.
    ends: the weights at both ends, on its device.
    batches: of the train images, passed without augmentation.

    Raises :class:`~tombola.errors.NetworkError` for a network without hidden linear or convolution layers,
    with one that has no bias, or with several layers of outputs, such as two heads that are added.
    """

    def __init__(self, body: FlatNetwork, ends: Iterable[State], batches: Batches, precision: str) -> None:
        self._module, self._batches, self._precision = body.module, batches, precision
        self._layers = {
            name: layer for name, layer in body.module.named_modules() if isinstance(layer, _Layer)
        }
        self._check_one_output()
        self._ends = []
        for weights in ends:
            body.load(weights)
            moments = self._measured({})
            del moments[list(moments)[-1]]  # outputs are no hidden units
            self._ends.append(moments)
        self._hidden = list(self._ends[0])
        if not self._hidden:
            raise NetworkError("repair found no hidden linear or convolution layers; leave it out")
        for name in self._hidden:
            if self._layers[name].bias is None:
                raise NetworkError(
                    f"repair moves the bias of hidden layers, and {name!r} has none; leave it out"
                )

    @torch.no_grad()
    def _check_one_output(self) -> None:
        """Raises NetworkError for a network whose outputs come of several layers: none of them is hidden.

        Such a layer has as many units as there are classes, and the outputs rise in proportion to its own.
        """
        images = channels_last(self._batches.unaugmented(0, min(_TRIED, len(self._batches))))
        outputs = self._module.eval()(images)
        heads = []
        for name, layer in self._layers.items():
            shifted = [_shifted(self._module, layer, images, times * _SHIFT) - outputs for times in (1, 2)]
            units = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            moved = float(shifted[0].abs().max())
            if units == outputs.shape[1] and moved:
                even = float((shifted[1] - 2 * shifted[0]).abs().max())
                heads += [name] * (even <= _EVEN * moved)
        if len(heads) > 1:
            raise NetworkError(
                f"repair takes one layer of outputs, and {' and '.join(map(repr, heads))} both are; "
                "leave it out"
            )

    @torch.no_grad()
    def repair(self, index: int, points: int) -> None:
        """Rescale the hidden units of the network as it is, at position ``index`` of ``points``, in place.

        While they are measured, the units of earlier layers are as they will be, but by the mean and
        deviation of each batch, as batch norm in training.
        """
        wanted = {name: torch.empty_like(moments) for name, moments in self._ends[0].items()}
        interpolate(wanted, self._ends[0], self._ends[1], index, points)
        seen = self._measured(wanted)
        for name, (mean, deviation) in wanted.items():
            layer = self._layers[name]
            assert layer.bias is not None
            scale = deviation / seen[name][1]
            layer.bias.sub_(seen[name][0]).mul_(scale).add_(mean)
            shape = [1] * layer.weight.ndim
            shape[1 if isinstance(layer, nn.modules.conv._ConvTransposeNd) else 0] = -1
            layer.weight.mul_(scale.view(shape))

    @torch.no_grad()
    def _measured(self, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean and standard deviation of each layer's outputs, ``(2, units)``, in the order of their calls.

        wanted: those that outputs are given in each batch, by layer; others stay as they are.
        """
        sums: dict[str, Tensor] = {}
        images = dict.fromkeys(self._layers, 0)
        size = 0

        def reader(name: str, layer: nn.Module) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
            def read(layer: nn.Module, arguments: object, outputs: Tensor) -> Tensor | None:
                channels = outputs.ndim - 1 if isinstance(layer, nn.Linear) else 1
                values = outputs.float().movedim(channels, 0).flatten(1)
                variance, mean = torch.var_mean(values, 1)
                moments = torch.stack([mean, variance])
                sums[name] = sums.get(name, 0) + size * moments
                images[name] += size
                if name not in wanted:
                    return None
                shape = [1] * outputs.ndim
                shape[channels] = -1
                scale = wanted[name][1] / (variance + _EPSILON).sqrt()
                moved = (outputs - mean.view(shape)) * scale.view(shape) + wanted[name][0].view(shape)
                return moved.to(outputs.dtype)

            return read

        hooks = [layer.register_forward_hook(reader(name, layer)) for name, layer in self._layers.items()]
        self._module.eval()
        try:
            for first, last in batches_for_statistics(len(self._batches)):
                size = last - first
                with torch.autocast("cuda", torch.bfloat16, enabled=self._precision == "bfloat16"):
                    self._module(channels_last(self._batches.unaugmented(first, last)))
        finally:
            for hook in hooks:
                hook.remove()
        means = {name: value / images[name] for name, value in sums.items()}
        return {
            name: torch.stack([mean, (variance + _EPSILON).sqrt()])
            for name, (mean, variance) in means.items()
        }


def _shifted(module: nn.Module, layer: nn.Module, images: Tensor, shift: float) -> Tensor:
    """The outputs of a network where the units of a layer are raised, each by another amount."""

    def raised(layer: nn.Module, arguments: object, outputs: Tensor) -> Tensor:
        channels = outputs.ndim - 1 if isinstance(layer, nn.Linear) else 1
        shape = [1] * outputs.ndim
        shape[channels] = -1
        amounts = torch.linspace(-shift, shift, outputs.shape[channels], device=outputs.device)
        return outputs + amounts.view(shape)

    hook = layer.register_forward_hook(raised)
    try:
        outputs: Tensor = module(images)
    finally:
        hook.remove()
    return outputs
