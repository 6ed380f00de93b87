"""A network that computes with its prunable weights plus a rest that never moves.

Pruned weights are 0 everywhere here. Where they shall stay at other values (Zhou et al., 2019: freezing them
at their initialisation), those stand in buffers beside them, so that training, masks and files are as for any
network. Its name is that of the network with ``frozen-rest:`` before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from tombola.errors import NetworkError, TicketError
from tombola.networks.network import FROZEN_REST, Factory, Network
from tombola.networks.prunable import prunable_names

NETWORK = "network."
"""Before the names of the network's own tensors."""

_REST = "rest."


class WithFrozenRest(nn.Module):
    """A network of whose prunable weights each has a buffer that is added to it; all are 0 at first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rest = nn.Module()
        self._names = prunable_names(network)
        for name in self._names:
            self.rest.register_buffer(_slashed(name), torch.zeros(network.get_parameter(name).shape))

    def forward(self, inputs: Tensor) -> Tensor:
        if isinstance(inputs, fx.Proxy):
            raise NetworkError("a rest is added to weights in each step, which no trace would see")
        # Not get_parameter: derivatives put plain tensors in place of parameters.
        weights = {
            name: attrgetter(name)(self.network) + self.rest.get_buffer(_slashed(name))
            for name in self._names
        }
        outputs: Tensor = functional_call(self.network, weights, (inputs,))
        return outputs


@dataclass(frozen=True)
class FrozenRestFactory:
    """Builds a network with a frozen rest; equal ones share captured engines.

    maker: of the network, which two networks of one name may differ in.
    """

    network: Network
    maker: Factory

    def __call__(self) -> nn.Module:
        return WithFrozenRest(self.network.build())


def has_rest(network: Network) -> bool:
    """Whether a network computes with a frozen rest."""
    return network.name.startswith(FROZEN_REST)


def rest_name(name: str) -> str:
    """The name of the rest of a prunable weight, by the name that the network itself has for it."""
    return f"{_REST}{_slashed(name)}"


def state_with_rest(state: Mapping[str, Tensor], rests: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network with a frozen rest, from those of the network and the rests of its weights."""
    within = {f"{NETWORK}{name}": value for name, value in state.items()}
    return within | {rest_name(name): value for name, value in rests.items()}


def state_without_rest(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network itself, by its own names; of a mask, too."""
    return {name.removeprefix(NETWORK): value for name, value in state.items() if name.startswith(NETWORK)}


def overlaps(state: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> bool:
    """Whether a rest in a state has values where the mask keeps weights, which would be counted twice."""
    rests = {name: state[rest_name(name.removeprefix(NETWORK))] for name in mask}
    return any(
        not rests[name].is_meta and bool((rests[name].ne(0) & keep).any()) for name, keep in mask.items()
    )


def check_nothing_frozen(network: Network, state: Mapping[str, Tensor]) -> None:
    """Raises TicketError where a rest has values, which other weights would be added to."""
    if has_rest(network) and any(
        value.any() for name, value in state.items() if name.startswith(_REST) and not value.is_meta
    ):
        raise TicketError(
            f"{network.name} has frozen values beside its weights, which were those of the start; take "
            "controls and mask actions before freeze_pruned"
        )


def _slashed(name: str) -> str:
    # The name of a buffer has no dot.
    return name.replace(".", "/")
