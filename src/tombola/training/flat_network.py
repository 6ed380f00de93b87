"""A network whose trainable parameters are views into one flat tensor: optimizer and mask are one pass each.

The addresses stay the same while weights and masks are copied in: a captured step, or a chain of runs, uses
the same :class:`FlatNetwork` again and again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from tombola.errors import NetworkError, TicketError
from tombola.networks.network import Network
from tombola.networks.prunable import prunable_names
from tombola.ticket import Mask, State


class OwnOptimizer(Protocol):
    """What a :class:`FlatNetwork` has of an optimizer that keeps its state itself."""

    def reset(self) -> None:
        """Begin without any state."""

    def move(self, rate: float) -> None:
        """Move the parameters by their gradients."""

    def select_kept(self, kept: Mapping[str, Tensor]) -> None:
        """Set to 0 what is kept of pruned weights; ``kept`` has the mask of each parameter by its name."""

    def tensors(self) -> Mapping[str, Tensor]:
        """A copy of the state."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state."""


class FlatNetwork:
    """A built network with its weights, gradients, optimizer state and mask in flat tensors, on one device.

    module: the network, its parameters viewing ``weights``.
    weights: float32 ``(D,)``; the prunable weights are the first ``M``.
    states: by name what an optimizer keeps for each weight, such as its momentum; float32 ``(D,)``, the rows
        below the weights in one tensor.
    declared: the optimizer of a user that follows loads, masks and checkpoints; None without.
    steps_taken: float32 ``()``, since the last load; counted by optimizers that rest on it.
    gradient: float32 ``(D,)``, where backward passes add.
    kept: integers ``(M,)``, the mask: all bits 1 or all bits 0.
    copy: bfloat16 ``(M,)``, the prunable weights as convolutions take them; None before :meth:`keep_copy`.
    prunable, others: names of the parameters behind the first ``M`` weights and behind the rest, in order.
    images: shape of one image, ``(C, H, W)``, or of what else a network takes.
    """

    def __init__(self, network: Network, device: torch.device, states: Sequence[str] = ("momentum",)) -> None:
        # load() overwrites the values drawn here; the keyed stream leaves the global generator untouched.
        self.module: nn.Module = network.initialized(0).to(device)
        self.images = network.shape
        maskable = prunable_names(self.module)
        self._maskable = frozenset(maskable)
        trainable = self.trainable()
        for name, parameter in trainable.items():
            if parameter.dtype != torch.float32:
                raise NetworkError(
                    f"{network.name}: parameter {name} is {parameter.dtype}; it must be float32"
                )
        # Prunable weights come first, so that the mask covers one contiguous stretch.
        self.prunable = [name for name in maskable if name in trainable]
        self.others = [name for name in trainable if name not in self._maskable]
        self._spans: dict[str, tuple[int, torch.Size]] = {}
        masked = self._lay_out(self.prunable, trainable, 0)
        count = self._lay_out(self.others, trainable, masked)
        rows = torch.zeros(1 + len(states), count, device=device)
        self.weights, self._state_rows = rows[0], rows[1:]
        self.states: dict[str, Tensor] = dict(zip(states, self._state_rows, strict=True))
        self.steps_taken = torch.zeros((), device=device)
        self.declared: OwnOptimizer | None = None
        self.gradient = torch.zeros(count, device=device)
        self._prunable_bits = rows.view(torch.int32)[:, :masked]
        # On a CPU bits of one width are compared twenty times faster; a GPU has fewer bytes to read.
        width = torch.int32 if device.type == "cpu" else torch.int8
        self.kept = torch.full((masked,), -1, dtype=width, device=device)
        self.copy: Tensor | None = None
        # Buffers that no state holds begin every training as they were built.
        kept_in_states = self.module.state_dict().keys()
        self._transient = {
            name: value.clone() for name, value in self.module.named_buffers() if name not in kept_in_states
        }
        self._sparse = False
        for name, parameter in trainable.items():
            parameter.data = self.view(self.weights, name)
            parameter.grad = self.view(self.gradient, name)

    def _lay_out(self, names: list[str], parameters: dict[str, nn.Parameter], offset: int) -> int:
        """Assign each parameter its stretch from ``offset`` on; returns where the next one begins."""
        for name in names:
            self._spans[name] = (offset, parameters[name].shape)
            offset += parameters[name].numel()
        # Stretches begin at multiples of 16, so that kernels can read several weights at once.
        return -(-offset // 16) * 16

    def view(self, flat: Tensor, name: str) -> Tensor:
        """The stretch of a flat tensor that belongs to a parameter, in that parameter's shape.

        Convolution weights lie in memory as channels_last, which is faster on GPUs and CPUs alike.
        """
        offset, shape = self._spans[name]
        stretch = flat[offset : offset + math.prod(shape)]
        if len(shape) == 4:
            out, channels, height, width = shape
            return stretch.view(out, height, width, channels).permute(0, 3, 1, 2)
        return stretch.view(shape)

    @property
    def momentum(self) -> Tensor:
        """The state of an optimizer that keeps a momentum, float32 ``(D,)``."""
        return self.states["momentum"]

    def load(self, state: State, mask: Mask | None = None) -> None:
        """Copy in a state and, unless None, a mask; the optimizer's state starts at zero.

        Raises :class:`~tombola.errors.TicketError` for a mask over something that cannot be pruned.
        """
        self.module.load_state_dict(dict(state))
        self._state_rows.zero_()
        self.steps_taken.zero_()
        self.gradient.zero_()
        for name, value in self._transient.items():
            self.module.get_buffer(name).copy_(value)
        if mask is not None:
            self.kept.fill_(-1)
            self._sparse = not all(bool(keep.all()) for keep in mask.values())
            for name, keep in mask.items():
                if name not in self._maskable:
                    raise TicketError(f"the mask has {name!r}, which is no weight that can be pruned")
                if name in self._spans:
                    bits = torch.where(keep, -1, 0).to(self.kept.dtype)
                    self.view(self.kept, name).copy_(bits)
            self.enforce_mask()
        self.refresh_copy()
        if self.declared is not None:
            self.declared.reset()

    def refresh_copy(self) -> None:
        """Update the bfloat16 copy of the weights, after they were changed in place."""
        if self.copy is not None:
            self.copy.copy_(self.weights[: len(self.copy)])

    def keep_copy(self) -> None:
        """Keep a bfloat16 copy of the prunable weights from now on; code that changes them updates it."""
        if self.copy is None:
            self.copy = self.weights[: len(self.kept)].bfloat16()

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def leaf(self, name: str) -> Tensor:
        """The tensor that forward passes use for a parameter: its bfloat16 copy if there is one, else it."""
        if self.copy is not None and name in self._maskable:
            return self.view(self.copy, name).requires_grad_()
        return self.module.get_parameter(name)

    def enforce_mask(self) -> None:
        """Set weight and optimizer state to exactly 0 wherever the mask is 0, in one pass.

        The bits are selected, not multiplied: an infinite or undefined weight becomes 0 too. On a CPU this is
        twenty times faster than ``masked_fill_``.
        """
        if self._sparse:
            self.select_kept()

    def select_kept(self) -> None:
        """Set pruned weights and their optimizer state to 0 without asking first whether any is pruned."""
        self._prunable_bits.bitwise_and_(self.kept)
        if self.declared is not None:
            self.declared.select_kept({name: self.view(self.kept, name) for name in self.prunable})

    def state(self) -> dict[str, Tensor]:
        """A copy of the network's ``state_dict`` on the CPU, in contiguous tensors."""
        return _on_cpu(self.module.state_dict())

    def optimizer_state(self) -> dict[str, Tensor]:
        """A copy on the CPU of all that the optimizer keeps, by names such as ``momentum.conv.weight``."""
        own = {} if self.declared is None else self.declared.tensors()
        return _on_cpu(self._optimizer_tensors()) | dict(own)

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what :meth:`optimizer_state` returned."""
        for name, value in self._optimizer_tensors().items():
            value.copy_(state[name])
        if self.declared is not None:
            self.declared.load(state)

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"{state}.{name}": self.view(row, name)
            for state, row in self.states.items()
            for name in self._spans
        }
        return tensors | ({"steps_taken": self.steps_taken} if "second_moment" in self.states else {})


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # A fresh tensor each: to() alone would hand out views of the live weights on a CPU.
    return {
        name: value.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def channels_last(images: Tensor) -> Tensor:
    """Images with the memory layout of the weights of a :class:`FlatNetwork`; other inputs as they are."""
    if images.ndim != 4:
        return images
    return images.contiguous(memory_format=torch.channels_last)
