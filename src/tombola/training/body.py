"""A network laid out for training: all trainable parameters are views into one flat tensor.

So the optimizer and the mask are one pass over memory each, at addresses that stay the same while weights and
masks are copied in: a captured step, or a chain of runs, can use the same body again and again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.errors import NetworkError, TicketError
from tombola.networks.network import Network, prunable_names
from tombola.ticket import Mask, State


class Body:
    """A built network with its weights, gradients, momentum and mask in flat tensors.

    module: the network, its parameters viewing ``weights``.
    weights, momentum: float32 ``(D,)``, the two rows of one tensor.
    gradient: float32 ``(D,)``, where backward passes add.
    """

    def __init__(self, network: Network, device: torch.device) -> None:
        # load() overwrites the values drawn here; the keyed stream leaves the global generator untouched.
        self.module: nn.Module = network.initialized(0).to(device)
        prunable = self._prunable = prunable_names(self.module)
        named = dict(self.module.named_parameters())
        trainable = {name: p for name, p in named.items() if p.requires_grad}
        for name, parameter in trainable.items():
            if parameter.dtype != torch.float32:
                raise NetworkError(
                    f"{network.name}: parameter {name} is {parameter.dtype}; it must be float32"
                )
        # Prunable weights come first, so that the mask covers one contiguous stretch.
        self._order = [name for name in prunable if name in trainable]
        self._masked = sum(trainable[name].numel() for name in self._order)
        self._order += [name for name in trainable if name not in set(self._order)]
        count = sum(parameter.numel() for parameter in trainable.values())
        both = torch.zeros(2, count, device=device)
        self.weights, self.momentum = both[0], both[1]
        self.gradient = torch.zeros(count, device=device)
        self._prunable_bits = both.view(torch.int32)[:, : self._masked]
        self._kept_bits = torch.full((self._masked,), -1, dtype=torch.int32, device=device)
        self._sparse = False
        self._spans: dict[str, tuple[int, torch.Size]] = {}
        offset = 0
        for name in self._order:
            parameter = trainable[name]
            self._spans[name] = (offset, parameter.shape)
            parameter.data = self._view(self.weights, name)
            parameter.grad = self._view(self.gradient, name)
            offset += parameter.numel()

    def _view(self, flat: Tensor, name: str) -> Tensor:
        """The stretch of a flat tensor that belongs to a parameter, in that parameter's shape.

        Convolution weights lie in memory as channels_last, which is faster on GPUs and CPUs alike.
        """
        offset, shape = self._spans[name]
        stretch = flat[offset : offset + math.prod(shape)]
        if len(shape) == 4:
            out, channels, height, width = shape
            return stretch.view(out, height, width, channels).permute(0, 3, 1, 2)
        return stretch.view(shape)

    def load(self, state: State, mask: Mask | None = None) -> None:
        """Copy in a state and, if given, a mask; momentum starts at zero."""
        self.module.load_state_dict(dict(state))
        self.momentum.zero_()
        self.gradient.zero_()
        if mask is not None:
            self._sparse = not all(bool(keep.all()) for keep in mask.values())
            for name, keep in mask.items():
                if name not in self._prunable:
                    raise TicketError(f"the mask has {name!r}, which is no weight that can be pruned")
                if name in self._spans:
                    bits = torch.where(keep, -1, 0).to(torch.int32)
                    self._view(self._kept_bits, name).copy_(bits)
            self.enforce_mask()

    def enforce_mask(self) -> None:
        """Set weight and momentum to exactly 0 wherever the mask is 0, in one pass.

        The bits are selected, not multiplied: an infinite or undefined weight becomes 0 too. On a CPU this is
        twenty times faster than ``masked_fill_``.
        """
        if self._sparse:
            self.select_kept()

    def select_kept(self) -> None:
        """The pass itself, also under a mask that keeps everything."""
        self._prunable_bits.bitwise_and_(self._kept_bits)

    def state(self) -> dict[str, Tensor]:
        """A copy of the network's ``state_dict`` on the CPU, in contiguous tensors."""
        return _on_cpu(self.module.state_dict())

    def momentum_state(self) -> dict[str, Tensor]:
        """A copy of the momentum of each trainable parameter on the CPU."""
        return _on_cpu({name: self._view(self.momentum, name) for name in self._order})

    def load_momentum(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what :meth:`momentum_state` gave."""
        for name in self._order:
            self._view(self.momentum, name).copy_(state[name])


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # A fresh tensor each: to() alone would hand out views of the live weights on a CPU.
    return {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
