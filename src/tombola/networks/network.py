"""The description of a network: a declared name and the images it is for.

A description can be written down, compared and built again anywhere; a factory that was never declared
works too, but only in the process that holds it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from tombola import seeds
from tombola.errors import NetworkError, unknown
from tombola.source import note_use, remember_source

Factory = Callable[..., nn.Module]
F = TypeVar("F", bound=Factory)

_factories: dict[str, Factory] = {}

_BUILT_IN = {
    "resnet18": "tombola.networks.resnet",
    "resnet34": "tombola.networks.resnet",
    "resnet20": "tombola.networks.resnet",
    "vgg16": "tombola.networks.vgg",
    "convnet": "tombola.networks.convnet",
}


def declare_network(name: str) -> Callable[[F], F]:
    """Declare a factory of networks under a lasting name, so that jobs and files can refer to it.

    The factory is called with those of the keyword arguments ``classes`` (int), ``channels`` (int) and
    ``size`` (height and width in pixels) that it takes.
    """

    def register(factory: F) -> F:
        known = _factories.get(name)
        if name in _BUILT_IN or (known is not None and known.__qualname__ != factory.__qualname__):
            raise NetworkError(f"the network name {name!r} is taken; choose another")
        _factories[name] = factory
        remember_source("networks", name, factory)
        return factory

    return register


def network_names() -> list[str]:
    """All declared names, built-in ones first."""
    return [*_BUILT_IN, *_factories]


def _factory(name: str) -> Factory:
    if name in _BUILT_IN:
        factory: Factory = getattr(importlib.import_module(_BUILT_IN[name]), name)
        return factory
    if name not in _factories:
        raise NetworkError(unknown("network", name, network_names()))
    return _factories[name]


@dataclass(frozen=True)
class Network:
    """A network for images of ``channels`` x ``size`` and ``classes`` classes.

    factory: only for a network that was never declared; such a one cannot enter a job.
    """

    name: str
    channels: int
    size: tuple[int, int]
    classes: int
    factory: Factory | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, network: str | Factory, *, channels: int, size: tuple[int, int], classes: int) -> Network:
        """Describe a declared name or any factory; :class:`NetworkError` for an unknown name."""
        if isinstance(network, str):
            _factory(network)
            return cls(network, channels, size, classes)
        if isinstance(network, nn.Module):
            label = type(network).__name__
            raise NetworkError(
                f"network is a built {label}; give what builds a fresh one, such as {label} itself"
            )
        for name, factory in _factories.items():
            if factory is network:
                return cls(name, channels, size, classes)
        label = f"<{getattr(network, '__qualname__', type(network).__qualname__)}>"
        return cls(label, channels, size, classes, network)

    @property
    def own(self) -> bool:
        """Whether the factory is the user's own."""
        return self.name not in _BUILT_IN

    def maker(self) -> Factory:
        """The factory that builds it; of a declared name the one that was declared last."""
        return self.factory or _factory(self.name)

    def build(self) -> nn.Module:
        """A fresh module, its weights drawn from torch's global generator as its constructor does.

        Raises :class:`NetworkError` when the factory fails or returns something else.
        """
        note_use("networks", self.name)
        factory = self.maker()
        offered: dict[str, Any] = {"classes": self.classes, "channels": self.channels, "size": self.size}
        try:
            module = factory(**_taken(factory, offered))
        except Exception as error:  # the caller's own code, which may fail in any way
            cause = " ".join(f"{type(error).__name__}: {error}".split())
            raise NetworkError(f"network {self.name} cannot be built: {cause}") from error
        if not isinstance(module, nn.Module):
            raise NetworkError(f"network {self.name} gave a {type(module).__name__}, not an nn.Module")
        return module

    def initialized(self, seed: int) -> nn.Module:
        """A fresh module whose initial weights come from the stream ``("initialization", seed)``."""
        with seeds.torch_stream("initialization", seed):
            return self.build()

    def description(self) -> dict[str, Any]:
        """The description as plain JSON values."""
        return {
            "name": self.name,
            "channels": self.channels,
            "size": list(self.size),
            "classes": self.classes,
        }


def _taken(factory: Factory, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that the factory has parameters for."""
    parameters = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return offered
    return {p.name: offered[p.name] for p in parameters if p.name in offered}


def prunable_names(module: nn.Module) -> list[str]:
    """Names of the weights that pruning may remove: of convolutions and linear layers, in module order."""
    names = []
    for prefix, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            names.append(f"{prefix}.weight" if prefix else "weight")
    # Tied weights stand under several names; the first one stands for all.
    unique = {name for name, _ in module.named_parameters()}
    return [name for name in names if name in unique]
