"""A network whose weights stay as they are, under masks that scores decide: to learn a mask is to train them.

Its parameters are one score for each prunable weight, so that the training loop, its engines and its
checkpoints train masks as they train weights. A rule turns the scores of a layer into its mask. The mask is
exactly 0 or 1, and the gradient passes straight through it to what the rule ranks or draws by (Bengio et al.,
2013): dL/dm of a weight w is w times the gradient of its layer with respect to m * w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from tombola.errors import NetworkError
from tombola.networks.network import Factory, Network
from tombola.networks.prunable import prunable_names
from tombola.pruning.allocation import nearest_count
from tombola.ticket import State, Ticket

_SCORES, _NETWORK = "scores.", "network."


class MaskRule(Protocol):
    """From the scores of a layer's weights to what these are multiplied by."""

    def __call__(self, scores: Tensor, *, training: bool) -> Tensor:
        """Factors in the shape of the scores, 0 where a weight is off; the gradient reaches the scores."""


@dataclass(frozen=True)
class HighestScores:
    """The rule of edge-popup (Ramanujan et al., 2020): on are the weights of the largest absolute scores.

    sparsity: share of each layer that is off; the number that is on is the nearest, half up.
    """

    sparsity: float

    def __call__(self, scores: Tensor, *, training: bool) -> Tensor:
        sizes = scores.abs()
        return _straight_through(
            mask_of_highest(sizes.detach(), nearest_count(scores.numel(), 1 - self.sparsity)), sizes
        )


@dataclass(frozen=True)
class Bernoulli:
    """The rule of learned supermasks (Zhou et al., 2019): a weight is on with probability sigmoid(score).

    Masks are drawn anew in each training step, for all images of a batch together. In evaluation mode nothing
    is drawn: on is what has probability 1/2 at least.

    dynamic_scaling: multiply a layer by its number of weights over the number of those that are on.
    """

    dynamic_scaling: bool = False

    def __call__(self, scores: Tensor, *, training: bool) -> Tensor:
        probabilities = scores.sigmoid()
        if training:
            # Not rand_like: numbers go by position, however the scores lie in memory.
            drawn = torch.rand(scores.shape, device=scores.device)
            mask = (drawn < probabilities.detach()).to(scores.dtype)
        else:
            mask = (scores >= 0).to(scores.dtype)
        factors = _straight_through(mask, probabilities)
        return factors * (mask.numel() / mask.sum().clamp(min=1)) if self.dynamic_scaling else factors


def mask_of_highest(scores: Tensor, count: int) -> Tensor:
    """1 at the ``count`` highest scores and 0 elsewhere; of equal ones the first positions are 0 first."""
    order = scores.reshape(-1).sort(stable=True).indices
    mask = torch.ones(scores.numel(), dtype=scores.dtype, device=scores.device)
    return mask.scatter_(0, order[: scores.numel() - count], 0.0).view(scores.shape)


def _straight_through(mask: Tensor, values: Tensor) -> Tensor:
    """The mask to the bit, with the gradient of the values."""
    return mask + (values - values.detach())


class MaskedNetwork(nn.Module):
    """A network with frozen parameters whose prunable weights are multiplied by what a rule makes of scores.

    network: with batch norm as it is otherwise; in training mode its running statistics move.
    scores: one tensor for each prunable weight, in module order, 0 at first.
    """

    def __init__(self, network: nn.Module, rule: MaskRule) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._rule = rule
        self._names = prunable_names(network)
        shapes = [network.get_parameter(name).shape for name in self._names]
        self.scores = nn.ParameterList(torch.zeros(shape) for shape in shapes)

    def forward(self, inputs: Tensor) -> Tensor:
        if isinstance(inputs, fx.Proxy):
            # A trace would keep the weights without their masks.
            raise NetworkError("masks follow scores from step to step, which no trace would see")
        masked = {
            name: self.network.get_parameter(name) * self._rule(scores, training=self.training)
            for name, scores in zip(self._names, self.scores, strict=True)
        }
        outputs: Tensor = functional_call(self.network, masked, (inputs,))
        return outputs


@dataclass(frozen=True)
class _MaskedFactory:
    """Builds the masked form of a network; equal ones share captured engines.

    maker: of the network, which two networks of one name may differ in.
    """

    network: Network
    maker: Factory
    rule: MaskRule

    def __call__(self) -> nn.Module:
        return MaskedNetwork(self.network.build(), self.rule)


def masked_start(start: Ticket, rule: MaskRule, scores: Mapping[str, Tensor]) -> Ticket:
    """A start of the masked network, at epoch 0, with the weights of a dense one and the first scores.

    scores: of each prunable weight of ``start``.
    """
    network = start.network
    masked = Network(
        f"{network.written} under {rule}", network.channels, network.size, network.classes,
        factory=_MaskedFactory(network, network.maker(), rule), vocabulary=network.vocabulary, within=network,
    )  # fmt: skip
    state = {f"{_NETWORK}{name}": value for name, value in start.weights().items()}
    state |= {f"{_SCORES}{index}": scores[name] for index, name in enumerate(start.mask)}
    return Ticket(masked, state, {}, round=start.round)


def scores_of(state: State, start: Ticket) -> dict[str, Tensor]:
    """The scores in a state of the masked network, by the names of the prunable weights of its start."""
    return {name: state[f"{_SCORES}{index}"] for index, name in enumerate(start.mask)}


def network_state_of(state: State) -> dict[str, Tensor]:
    """The ``state_dict`` of the network itself within that of its masked form."""
    return {name.removeprefix(_NETWORK): v for name, v in state.items() if name.startswith(_NETWORK)}
