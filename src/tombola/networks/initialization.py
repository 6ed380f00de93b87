"""Initialisation schemes: functions that draw the first weights of a built network, by declared name.

Every network has a default (reading B4: the ResNets keep the weights that PyTorch draws, VGG16 has
Kaiming-normal convolutions); another is chosen by ``tb.initialize("resnet18", data, init="kaiming-normal")``.
A scheme draws from torch's global generator, layer by layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import nn

from tombola.declarations import Definitions, only_version, parsed
from tombola.errors import NetworkError, reason
from tombola.source import note_use

Scheme = Callable[[nn.Module], None]

_Layer = nn.Linear | nn.modules.conv._ConvNd

_SPREAD_WITHIN_TWO = 0.8796256610342398
"""Standard deviation of a standard normal variable that is cut off at -2 and 2."""


def pytorch(module: nn.Module) -> None:
    """PyTorch's default: weights and biases uniform between +-1/sqrt(fan in) (Kaiming uniform, a = sqrt 5).

    The standard deviation is 1/sqrt(3 fan in).
    """
    for layer in _layers(module):
        layer.reset_parameters()


def kaiming_normal(module: nn.Module) -> None:
    """Convolutions normal with variance 2/fan out (He et al., 2015), biases 0; linear layers as they are.

    Version 1 of tombola's ResNets and VGG16 started so.
    """
    for layer in _layers(module):
        if not isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            _zero_bias(layer)


def kaiming_normal_fan_in(module: nn.Module) -> None:
    """Convolutions and linear layers normal with variance 2/fan in (He et al., 2015), biases 0."""
    for layer in _layers(module):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        _zero_bias(layer)


def glorot_normal(module: nn.Module) -> None:
    """Convolutions and linear layers normal with variance 2/(fan in + fan out), biases 0.

    Source: Glorot & Bengio (2010). The first lottery tickets started so (Frankle & Carbin, 2019).
    """
    for layer in _layers(module):
        nn.init.xavier_normal_(layer.weight)
        _zero_bias(layer)


def lecun_normal(module: nn.Module) -> None:
    """Convolutions and linear layers normal with variance 1/fan in (LeCun et al., 1998), biases 0.

    Cut off at two standard deviations, and as much wider before: so TensorFlow's "variance scaling" draws,
    by which the networks of SNIP start (Lee et al., 2019).
    """
    for layer in _layers(module):
        width = 1 / math.sqrt(layer.weight[0].numel()) / _SPREAD_WITHIN_TWO
        nn.init.trunc_normal_(layer.weight, std=width, a=-2 * width, b=2 * width)
        _zero_bias(layer)


def signed_constant(module: nn.Module) -> None:
    """Convolutions and linear layers of one magnitude each, sqrt(2/fan in), with PyTorch's signs; biases 0.

    The best draw of edge-popup (Ramanujan et al., 2020), by its public code.
    """
    for layer in _layers(module):
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        with torch.no_grad():
            layer.weight.copy_(layer.weight.sign() * math.sqrt(2 / layer.weight[0].numel()))
        _zero_bias(layer)


def orthogonal(module: nn.Module) -> None:
    """Each layer's matrix orthogonal (Saxe et al., 2014), times sqrt 2 for ReLU; biases 0."""
    for layer in _layers(module):
        nn.init.orthogonal_(layer.weight, gain=math.sqrt(2))
        _zero_bias(layer)


_schemes: Definitions[Scheme] = Definitions(
    "initialisation",
    "inits",
    {
        "pytorch": only_version(pytorch),
        "kaiming-normal": only_version(kaiming_normal),
        "kaiming-normal-fan-in": only_version(kaiming_normal_fan_in),
        "glorot-normal": only_version(glorot_normal),
        "lecun-normal": only_version(lecun_normal),
        "signed-constant": only_version(signed_constant),
        "orthogonal": only_version(orthogonal),
    },
    decorator="declare_init",
)


def declare_init(name: str, *, version: int = 1) -> Callable[[Scheme], Scheme]:
    """Declare an initialisation scheme under a lasting name, for ``init=`` of :func:`tombola.initialize`.

    The function takes a built ``nn.Module`` and draws its weights in place, from torch's global generator.

    version: to be raised when what it draws changes.

    Raises :class:`~tombola.errors.NetworkError` if the name is taken.
    """

    def register(scheme: Scheme) -> Scheme:
        _schemes.declare(name, version, scheme)
        return scheme

    return register


def init_names() -> list[str]:
    """All declared schemes, built-in ones first."""
    return _schemes.names()


def written_init(init: str | Scheme) -> str:
    """Name and version of a scheme as in jobs and files; the newest version unless one is named.

    Raises :class:`~tombola.errors.NetworkError` for an unknown name or version, or a function that was
    never declared.
    """
    return _schemes.written(init)


def draw_weights(module: nn.Module, init: str, network: str) -> None:
    """Draw the weights of a module anew by a scheme, from torch's global generator.

    init: as :func:`written_init` returns it. network: its name, for errors.

    Raises :class:`~tombola.errors.NetworkError` if the scheme cannot be applied to that module.
    """
    note_use("inits", init)
    name, version = parsed(init)
    scheme = _schemes.find(name, version or 1)
    if _schemes.is_built_in(name) and not any(_layers(module)):
        raise NetworkError(
            f"initialisation {init!r} cannot be applied to {network}: it has no convolution or linear layer; "
            "leave init out for the network's own"
        )
    try:
        scheme(module)
    except Exception as error:  # a user's function, or layers of a shape that the scheme is not for
        raise NetworkError(
            f"initialisation {init!r} cannot be applied to {network}: {type(error).__name__}: {reason(error)}"
        ) from error


def _layers(module: nn.Module) -> Iterator[_Layer]:
    """The convolutions and linear layers, in module order."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            yield layer


def _zero_bias(layer: _Layer) -> None:
    """Set the bias to 0, if the layer has one."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
