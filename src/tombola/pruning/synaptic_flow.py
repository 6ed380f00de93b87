"""The synaptic flow of a network and SynFlow's score by it, in one pass or as weights go round by round.

Source: Tanaka et al. (2020), "Pruning neural networks without any data by iteratively conserving synaptic
flow". A hundred rounds look at the same network a hundred times, so it is built once and weights close in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from tombola.errors import TicketError
from tombola.networks.prunable import tied_names
from tombola.pruning.allocation import Indices, Kept, Values
from tombola.pruning.subject import Subject, ticket_of
from tombola.training.losses import weights_of

_Number = TypeVar("_Number", bound=np.generic)
Places = npt.NDArray[np.int64]
"""Where weights of a layer stand in memory, the layer by itself."""


def synflow(subject: Subject) -> dict[str, Tensor]:
    """Weight times gradient of the synaptic flow, absolute (Tanaka et al., 2020, "SynFlow").

    The flow is the sum of the outputs for an image of ones, with every parameter and buffer replaced by its
    absolute value and batch norm in evaluation mode. In float64: the flow is a product over all layers,
    beyond what float32 holds. No data are looked at. It keeps its promise (no layer loses all its weights
    while others have some) only where it is asked again as weights go: 100 rounds of
    :func:`tombola.prune_at_initialization`.

    Raises :class:`~tombola.errors.TicketError` where the flow is not finite, or for a network of tokens.
    """
    flow = SynapticFlow(subject)
    gradients = flow.gradients()
    return {
        name: (weight.detach() * gradients[name]).abs().contiguous() for name, weight in flow.weights.items()
    }


class SynapticFlow:
    """The flow through a run's or ticket's network, whose weights can be closed.

    Convolutions of tombola's own networks are laid out with channels last, in which float64 takes two thirds
    of the time; a network of the user's own may ask for the usual layout.

    weights: the prunable ones, absolute and in float64. shapes: those that they have in the network.

    Raises :class:`~tombola.errors.TicketError` for a network of tokens.
    """

    weights: dict[str, Tensor]
    shapes: Mapping[str, torch.Size]

    def __init__(self, subject: Subject) -> None:
        network = ticket_of(subject).network
        if network.vocabulary is not None:
            raise TicketError("synflow passes an input of ones, and tokens are none; prune by another score")
        self._channels_last = not network.own
        self._module = network.initialized(0).eval()  # computes with the state alone, by functional_call
        self._state = {
            name: self._laid_out(value.double().abs()) if value.is_floating_point() else value
            for name, value in weights_of(subject)[1].items()
        }
        tied = tied_names(self._module)
        for name, first in tied.items():
            self._state[name] = self._state[first]
        self.weights = {name: self._state[name].requires_grad_() for name in ticket_of(subject).mask}
        self.shapes = {name: weight.shape for name, weight in self.weights.items()}
        self._ones = self._laid_out(torch.ones_like(network.zeros(1), dtype=torch.float64))
        self._convolutions = (
            {} if tied or network.own else _narrowable_convolutions(self._module, self.weights)
        )

    def gradients(self) -> dict[str, Tensor]:
        """The derivative of the flow by each prunable weight.

        Raises :class:`~tombola.errors.TicketError` where the flow is not finite.
        """
        flow = self._flow()
        return dict(zip(self.weights, torch.autograd.grad(flow, list(self.weights.values())), strict=True))

    def pass_gradients(self, names: Sequence[str], receive: Callable[[str, Values], None]) -> None:
        """Call ``receive`` with the derivative by each of some layers as soon as it is known, as stored.

        None is kept: together they take as much memory as the network, which is slow to come by. Errors as of
        :meth:`gradients`.
        """

        def hand_over(name: str, weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            if gradient is not None:
                receive(name, self.stored(gradient))

        weights = [self.weights[name] for name in names]
        hooks = [
            weight.register_post_accumulate_grad_hook(partial(hand_over, name))  # type: ignore[no-untyped-call]
            for name, weight in zip(names, weights, strict=True)
        ]
        try:
            self._flow().backward(inputs=weights)  # type: ignore[no-untyped-call]
        finally:
            for hook in hooks:
                hook.remove()

    def _flow(self) -> Tensor:
        flow: Tensor = functional_call(self._module, self._state, (self._ones,)).sum()
        if not torch.isfinite(flow):
            raise TicketError(
                "the synaptic flow is not finite, so synflow ranks nothing; prune by another score"
            )
        return flow

    def narrow(self, name: str, places: Places) -> Places:
        """Leave out the channels of a convolution that only closed weights read or write, where it can be.

        places: of all its open weights; where they stand then comes back.
        """
        convolution = self._convolutions.get(name)
        if convolution is None:
            return places
        weight = self.weights[name].detach()
        channels, sources, *kernel = weight.shape
        used = np.zeros((channels, math.prod(kernel), sources), dtype=bool)
        used.reshape(-1)[places] = True
        outputs: Kept = np.any(used, axis=(1, 2))
        inputs: Kept = np.any(used, axis=(0, 1))
        if not outputs.any():
            outputs[0] = inputs[0] = True
        if np.count_nonzero(outputs) * np.count_nonzero(inputs) > _WORTH_NARROWING * channels * sources:
            return places
        narrowed = weight[torch.from_numpy(outputs)][:, torch.from_numpy(inputs)]
        self.weights[name] = self._state[name] = self._laid_out(narrowed).requires_grad_()
        convolution.narrow(outputs, inputs)
        used[:] = outputs[:, None, None] & inputs
        return (np.cumsum(used) - 1)[places]

    def positions(self, name: str, places: Places) -> Places:
        """The positions in a layer of the weights at these places."""
        shape = self.shapes[name]
        if not self._is_laid_out(self.weights[name]):
            return places
        inputs, kernel = self.weights[name].shape[1], shape[2:].numel()
        output, rest = np.divmod(places, inputs * kernel)
        within, source = np.divmod(rest, inputs)
        if name in self._convolutions:
            convolution = self._convolutions[name]
            output, source = convolution.outputs[output], convolution.inputs[source]
        return (output * shape[1] + source) * kernel + within

    def mask(self, name: str, places: Places) -> Tensor:
        """The mask of a layer that keeps the weights at these places."""
        mask = torch.zeros(self.shapes[name], dtype=torch.bool)
        mask.view(-1)[torch.from_numpy(self.positions(name, places))] = True
        return mask

    def _laid_out(self, tensor: Tensor) -> Tensor:
        """The tensor in the layout that it is computed with."""
        if not self._is_laid_out(tensor):
            return tensor.contiguous()
        return tensor.contiguous(memory_format=torch.channels_last)

    def _is_laid_out(self, tensor: Tensor) -> bool:
        """Whether this tensor has its channels last in memory."""
        return self._channels_last and tensor.dim() == 4

    def _in_memory(self, tensor: Tensor) -> Tensor:
        """The tensor with its dimensions as they follow each other in memory."""
        return tensor.permute(0, 2, 3, 1) if self._is_laid_out(tensor) else tensor

    def stored(self, tensor: Tensor) -> Values:
        """The numbers of a weight or of its gradient as they stand in memory, flat and not copied."""
        stored: Values = self._in_memory(self._laid_out(tensor.detach())).view(-1).numpy()
        return stored


class _NarrowedConvolution:
    """A convolution of which only some channels are computed; the others are 0, as their weights are.

    outputs, inputs: the channels that are left.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        self._module = module
        self.outputs, self.inputs = np.arange(module.out_channels), np.arange(module.in_channels)
        self._hooks: list[RemovableHandle] = []

    def narrow(self, outputs: Kept, inputs: Kept) -> None:
        """Leave some of the channels that were left before."""
        self.outputs, self.inputs = self.outputs[outputs], self.inputs[inputs]
        written, read = torch.from_numpy(self.outputs), torch.from_numpy(self.inputs)

        def narrowed(_: nn.Module, images: tuple[Tensor]) -> Tensor:
            return images[0].index_select(1, read).contiguous(memory_format=torch.channels_last)

        def widened(module: nn.Module, _: object, images: Tensor) -> Tensor:
            shape = (len(images), self._module.out_channels, *images.shape[2:])
            zeros = torch.zeros(shape, dtype=images.dtype).contiguous(memory_format=torch.channels_last)
            return zeros.index_copy(1, written, images)

        for hook in self._hooks:
            hook.remove()
        self._hooks = [
            self._module.register_forward_pre_hook(narrowed),
            self._module.register_forward_hook(widened),
        ]


def _narrowable_convolutions(
    network: nn.Module, weights: Mapping[str, Tensor]
) -> dict[str, _NarrowedConvolution]:
    """The convolutions of a network by the names of their weights, as far as channels can be left out."""
    return {
        f"{path}.weight": _NarrowedConvolution(module)
        for path, module in network.named_modules()
        if type(module) is nn.Conv2d and module.groups == 1 and module.bias is None
        if f"{path}.weight" in weights and _differ(weights[f"{path}.weight"])
    }


def _differ(weights: Tensor) -> bool:
    """Whether magnitudes come from a continuous distribution, by a thousand of them.

    If there are a few only, scores are equal to the bit, and narrowing adds up in another order.
    """
    some = weights.detach().reshape(-1)[:1000].numpy()
    return len(np.unique(some)) > 0.9 * len(some)


# Share of a convolution that is left where narrowing it pays, and of open weights since it was looked at.
_WORTH_NARROWING, _NARROWED_AGAIN = 0.9, 0.9


class OpenWeights:
    """The weights of some layers that are not closed, with their scores round by round.

    All arrays are of one number a weight, layer after layer and within a layer as they stand in memory, which
    is the order in which they are read fastest.
    """

    def __init__(self, flow: SynapticFlow, names: Sequence[str]) -> None:
        self._flow, self._names = flow, tuple(names)
        stored = [flow.stored(flow.weights[name]) for name in names]
        self._places = np.concatenate([np.arange(len(layer)) for layer in stored])
        self._weights = np.concatenate(stored)
        self._parts = _parts(list(map(len, stored)))
        self._starts = np.array([part.start for part in self._parts])
        self._scores = np.empty_like(self._weights)
        self._narrowed = len(self)

    def __len__(self) -> int:
        return len(self._places)

    def scores(self) -> Values:
        """Their scores, until the next call; errors as of :meth:`SynapticFlow.gradients`."""
        parts = dict(zip(self._names, self._parts, strict=True))
        scores = self._scores[: len(self)]

        def receive(name: str, gradient: Values) -> None:
            layer = scores[parts[name]]
            np.take(gradient, self._places[parts[name]], out=layer, mode="clip")
            np.multiply(layer, self._weights[parts[name]], out=layer)
            np.abs(layer, out=layer)

        self._flow.pass_gradients(self._names, receive)
        return scores

    def by_layer(self, values: Values) -> list[Values]:
        """The parts of an array that belong to the layers."""
        return [values[part] for part in self._parts]

    def order(self, indices: Indices) -> Indices:
        """Numbers that sort some of them by layer and position."""
        layers = np.searchsorted([part.stop for part in self._parts], indices, side="right")
        keys = np.empty_like(indices)
        for layer in np.unique(layers):
            chosen = layers == layer
            positions = self._flow.positions(self._names[layer], self._places[indices[chosen]])
            keys[chosen] = self._starts[layer] + positions
        return keys

    def close(self, kept: Kept) -> None:
        """Close all but some of them."""
        for name, part in zip(self._names, self._parts, strict=True):
            closed = self._places[part][np.flatnonzero(~kept[part])]
            self._flow.stored(self._flow.weights[name])[closed] = 0
        self._parts = _parts([int(np.count_nonzero(kept[part])) for part in self._parts])
        self._places, self._weights = _closed_up(self._places, kept), _closed_up(self._weights, kept)
        if len(self) < _NARROWED_AGAIN * self._narrowed:
            self._narrowed = len(self)
            for name, part in zip(self._names, self._parts, strict=True):
                self._places[part] = self._flow.narrow(name, self._places[part])

    def mask(self) -> dict[str, Tensor]:
        """The mask of each layer that keeps them."""
        return {
            name: self._flow.mask(name, self._places[part])
            for name, part in zip(self._names, self._parts, strict=True)
        }


def _closed_up(values: npt.NDArray[_Number], kept: Kept) -> npt.NDArray[_Number]:
    """The values that are kept, moved to the front of their own memory: new memory is slow to come by."""
    end, stretch = 0, 1 << 16
    for start in range(0, len(values), stretch):
        chosen = values[start : start + stretch][kept[start : start + stretch]]
        values[end : end + len(chosen)] = chosen
        end += len(chosen)
    return values[:end]


def _parts(lengths: Sequence[int]) -> list[slice]:
    """Where arrays of these lengths lie in their concatenation."""
    ends = np.cumsum(lengths).tolist()
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
