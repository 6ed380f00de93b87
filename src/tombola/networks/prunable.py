"""Which parameters of a network are pruned: the weights of its linear, convolution and attention layers.

All else stays dense: embeddings, norms, biases, and parameters that belong to a network itself, such as
positions and class tokens. :class:`Coverage` says how many parameters that leaves, and which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from tombola import seeds
from tombola.errors import NetworkError
from tombola.networks.network import Network

_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
# As many kinds of parameters as a line can name.
_MOST_KINDS = 6


def prunable_names(module: nn.Module) -> list[str]:
    """Names of the weights that can be pruned, in module order.

    They are the weights of linear layers, of convolutions (grouped, depthwise and transposed ones too) and of
    the projections of ``nn.MultiheadAttention``, all of two dimensions or more. Tied weights stand under
    several names and are pruned once, under the first; if that is an embedding's, they are left out.
    """
    names = []
    for prefix, layer in module.named_modules():
        path = f"{prefix}." if prefix else ""
        names += [path + name for name in _weights_of(layer)]
    unique = {name for name, _ in module.named_parameters()}
    return [name for name in names if name in unique]


def _weights_of(layer: nn.Module) -> tuple[str, ...]:
    """Names within a layer of the weights that can be pruned, as far as it has them."""
    if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
        return ("weight",)
    return _ATTENTION_WEIGHTS if isinstance(layer, nn.MultiheadAttention) else ()


def tied_names(module: nn.Module) -> dict[str, str]:
    """The further names of tied parameters, each with the first name of the same parameter."""
    first = {parameter: name for name, parameter in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: first[parameter] for name, parameter in every if name != first[parameter]}


@dataclass(frozen=True)
class Coverage:
    """How many of a network's parameters can be pruned.

    prunable, total: numbers of parameters, frozen ones included.
    left_out: the kinds of the others, those of the most parameters first: ``"biases"``, ``"norms"``, or names
        with ``*`` for numbers.
    """

    prunable: int
    total: int
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        if not self.left_out:
            return f"all {self.total:,} parameters are prunable"
        more = len(self.left_out) - _MOST_KINDS
        kinds = ", ".join(self.left_out[:_MOST_KINDS]) + (f" and {more} more" if more > 0 else "")
        return f"{self.prunable:,} of {self.total:,} parameters are prunable; left out: {kinds}"


def coverage(network: Network, prunable: Collection[str]) -> Coverage:
    """The share of a network's parameters that has these names, and what kinds the others are of.

    Raises :class:`~tombola.errors.NetworkError` for a network that cannot be built here.
    """
    parameters = layout(network).parameters
    left: dict[str, int] = {}
    for name, (kind, count) in parameters.items():
        if name not in prunable:
            left[kind] = left.get(kind, 0) + count
    total = sum(count for _, count in parameters.values())
    return Coverage(
        total - sum(left.values()), total, tuple(sorted(left, key=left.__getitem__, reverse=True))
    )


@dataclass(frozen=True)
class NetworkLayout:
    """The tensors of a network without their values.

    shapes: of each entry of the ``state_dict``, in its order. prunable: names of the weights to prune.
    tied: further names of tied parameters. parameters: kind and size of each parameter by name.
    """

    shapes: Mapping[str, tuple[int, ...]]
    prunable: tuple[str, ...]
    tied: Mapping[str, str]
    parameters: Mapping[str, tuple[str, int]]

    @property
    def prunes_attention(self) -> bool:
        """Whether weights of ``nn.MultiheadAttention`` are among the prunable ones."""
        return any(name.endswith(_ATTENTION_WEIGHTS) for name in self.prunable)


def layout(network: Network) -> NetworkLayout:
    """The layout of a network.

    Raises :class:`~tombola.errors.NetworkError` for a network that cannot be built here.
    """
    # A network of the user's own may be declared again at any time, so its layout is not kept.
    return _layout(network) if network.own else _built_in_layout(network)


def _layout(network: Network) -> NetworkLayout:
    with seeds.torch_stream("layout"):  # whatever a factory draws
        module = _without_values(network)
    kinds = {}
    for prefix, layer in module.named_modules():
        path = f"{prefix}." if prefix else ""
        for name, parameter in layer.named_parameters(path.removesuffix("."), recurse=False):
            kinds[name] = (_kind(name, layer), parameter.numel())
    return NetworkLayout(
        {name: tuple(value.shape) for name, value in module.state_dict().items()},
        tuple(prunable_names(module)),
        tied_names(module),
        {name: kinds[name] for name, _ in module.named_parameters()},
    )


_built_in_layout = lru_cache(maxsize=64)(_layout)


def _without_values(network: Network) -> nn.Module:
    """The module without memory for its values, if it can be built so.

    An untrusted file may name any number of classes and channels, and so any amount of memory.
    """
    try:
        return network.without_values()
    except NetworkError:
        if not network.own:
            raise
        return network.initialized(0)


def _kind(name: str, layer: nn.Module) -> str:
    """What a parameter is called in a line about a network: its kind, or its name with * for numbers."""
    if "norm" in type(layer).__name__.lower():
        return "norms"
    if name.rpartition(".")[2].endswith("bias"):
        return "biases"
    return re.sub(r"(?<![^.])\d+(?![^.])", "*", name)
