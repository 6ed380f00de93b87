"""The synaptic flow of a network and SynFlow's score by it, in one pass or as weights go round by round.

Source: Tanaka et al. (2020), "Pruning neural networks without any data by iteratively conserving synaptic
flow". A hundred rounds look at the same network a hundred times, so it is built once and weights close in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call

from tombola.errors import TicketError
from tombola.networks.prunable import tied_names
from tombola.pruning.allocation import Values
from tombola.pruning.subject import Subject, ticket_of
from tombola.training.losses import weights_of

Places = npt.NDArray[np.int64]
"""Where weights of a layer stand in memory, by their positions in the layer."""


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

    weights: the prunable ones, absolute and in float64.

    Raises :class:`~tombola.errors.TicketError` for a network of tokens.
    """

    weights: Mapping[str, Tensor]

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
        for name, first in tied_names(self._module).items():
            self._state[name] = self._state[first]
        self.weights = {name: self._state[name].requires_grad_() for name in ticket_of(subject).mask}
        self._ones = self._laid_out(torch.ones_like(network.zeros(1), dtype=torch.float64))

    def gradients(self) -> dict[str, Tensor]:
        """The derivative of the flow by each prunable weight.

        Raises :class:`~tombola.errors.TicketError` where the flow is not finite.
        """
        flow = functional_call(self._module, self._state, (self._ones,)).sum()
        if not torch.isfinite(flow):
            raise TicketError(
                "the synaptic flow is not finite, so synflow ranks nothing; prune by another score"
            )
        return dict(zip(self.weights, torch.autograd.grad(flow, list(self.weights.values())), strict=True))

    def places(self, name: str) -> Places:
        """Where the weights of a layer stand, by position."""
        shape = self.weights[name].shape
        places = np.arange(shape.numel())
        if not self._is_laid_out(self.weights[name]):
            return places
        outputs, inputs, *kernel = shape
        return places.reshape(outputs, *kernel, inputs).transpose(0, 3, 1, 2).reshape(-1)

    def scores(self, places: Mapping[str, Places]) -> list[Values]:
        """The scores of the weights at these places, an array a layer; errors as of :meth:`gradients`."""
        gradients = self.gradients()
        return [
            np.abs(self._stored(self.weights[name]).take(at) * self._stored(gradients[name]).take(at))
            for name, at in places.items()
        ]

    def close(self, name: str, places: Places) -> None:
        """Set the weights at these places to 0."""
        self._stored(self.weights[name])[places] = 0

    def mask(self, name: str, places: Places) -> Tensor:
        """The mask of a layer that keeps the weights at these places."""
        mask = torch.zeros_like(self.weights[name], dtype=torch.bool)
        self._in_memory(mask).view(-1)[torch.from_numpy(places)] = True
        return mask.contiguous()

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

    def _stored(self, tensor: Tensor) -> Values:
        """The numbers of a weight or of its gradient as they stand in memory, flat and not copied."""
        stored: Values = self._in_memory(self._laid_out(tensor.detach())).view(-1).numpy()
        return stored
