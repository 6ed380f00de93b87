"""The description of a network: a declared name with its version, and the images it is for.

A description can be stored, compared and built again in any process; a factory that was never declared, or a
built module, works too, but only in the process that holds it. Tickets, jobs and files contain descriptions,
never modules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tombola import seeds
from tombola.declarations import Definitions, as_written, parsed, written
from tombola.errors import NetworkError, reason
from tombola.networks.factory import Copies, arguments_for
from tombola.networks.factory import Factory as Factory
from tombola.networks.initialization import Scheme, draw_weights, written_init
from tombola.networks.libraries import is_library_name, library_factory, library_version
from tombola.source import note_use

F = TypeVar("F", bound=Factory)
_INITIALIZATION = "initialization"
"""The stream of first weights."""


FROZEN_REST = "frozen-rest:"
"""Before the name of a network whose pruned weights stay at values of their own; see ``frozen_rest.py``."""


def _built_in(*factories: str, module: str = "architectures") -> tuple[Callable[[], Factory], ...]:
    """The versions of a network, in order, each imported when it is built."""
    return tuple(partial(_imported, f"tombola.networks.{module}", factory) for factory in factories)


def _imported(module: str, factory: str) -> Factory:
    """The factory of that name, its module imported only now: jobs need names, not torch layers."""
    imported: Factory = getattr(importlib.import_module(module), factory)
    return imported


_networks: Definitions[Factory] = Definitions(
    "network",
    "networks",
    {
        "resnet18": _built_in("resnet18_version1", "resnet18"),
        "resnet34": _built_in("resnet34_version1", "resnet34"),
        "resnet50": _built_in("resnet50"),
        "resnet20": _built_in("resnet20"),
        "vgg16": _built_in("vgg16_version1", "vgg16"),
        "convnet": _built_in("convnet"),
        **{
            name: _built_in(name, module="classic")
            for name in ("lenet300", "lenet5", "conv2", "conv4", "conv6", "conv8")
        },
    },
)


def declare_network(name: str, *, version: int = 1) -> Callable[[F], F]:
    """Declare a factory of networks under a lasting name, so that jobs and files can refer to it.

    The factory is called with those of the keyword arguments ``classes`` (int), ``channels`` (int) and
    ``size`` (height and width in pixels) that it takes. In their place it may take what others call them:
    ``num_classes``; ``in_chans`` or ``in_channels``; ``img_size`` or ``image_size``, which for a square image
    are one int. For features that are no images ``channels`` is their first dimension and ``size`` are the
    others. For tokens it is called with ``classes``, ``vocabulary`` (or ``vocab_size``), how many tokens
    there are, and ``length`` (or ``seq_len``, ``max_length``).

    version: to be raised when the network changes, in its layers or its first weights; jobs and files then
        have ``name@2``. Older versions may be declared too, for old tickets.

    Raises :class:`~tombola.errors.NetworkError` if the name is taken.
    """
    if is_library_name(name):
        raise NetworkError(f"the network name {name!r} is a library's; choose another")

    def register(factory: F) -> F:
        _networks.declare(name, version, factory)
        return factory

    return register


def network_names() -> list[str]:
    """All declared names, built-in ones first."""
    return _networks.names()


def written_network(network: str | Factory) -> str | None:
    """Name and version of a network as in jobs, ``"resnet18@2"``; the newest version unless one is named.

    None for a factory that was never declared.

    Raises :class:`~tombola.errors.NetworkError` for an unknown name or version, or a built module.
    """
    if isinstance(network, nn.Module):
        raise NetworkError(
            f"network is a built {type(network).__name__}, which no job can name and no other process build; "
            "put @tombola.declare_network('a-name') above a function that builds it"
        )
    described = Network.of(network, channels=1, size=(1, 1), classes=1)
    return described.written if described.factory is None else None


@dataclass(frozen=True)
class Network:
    """Description of a network for images of ``channels`` x ``size`` and ``classes`` classes.

    channels, size: of features their first dimension and the others; of tokens 0 and their number.
    vocabulary: how many tokens there are, for a network that takes tokens; else None.
    factory: only for a network that was never declared; such a one cannot enter a job.
    version: of the declared definition; of a network of timm or torchvision the package's.
    within: the network whose layers another form of it has, as for the learning of masks; else None.
    init: written name of the scheme that draws its first weights; None for the network's default. Networks
        that differ in it alone are equal: they have the same layers.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    classes: int
    factory: Factory | None = field(default=None, compare=False, repr=False)
    version: int | str = 1
    init: str | None = field(default=None, compare=False)
    vocabulary: int | None = None
    within: Network | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        network: str | Factory,
        *,
        channels: int,
        size: tuple[int, ...],
        classes: int,
        init: str | Scheme | None = None,
        vocabulary: int | None = None,
    ) -> Network:
        """The description of a declared name, any factory, or a built module, of which a copy is kept.

        network: without a version, a name means its newest one.
        init: a declared initialisation scheme.

        Raises :class:`NetworkError` for an unknown name, version or scheme, or a module that no copy can be
        made of.
        """
        scheme = None if init is None else written_init(init)
        inputs = channels, size, classes
        if isinstance(network, str):
            name, version = _name_and_version(network)
            return cls(name, *inputs, version=version, init=scheme, vocabulary=vocabulary)
        if isinstance(network, nn.Module):
            label = f"<{type(network).__name__}>"
            return cls(label, *inputs, Copies(network), init=scheme, vocabulary=vocabulary)
        declared = _networks.name_of(network)
        if declared is not None:
            return cls(declared[0], *inputs, version=declared[1], init=scheme, vocabulary=vocabulary)
        label = f"<{getattr(network, '__qualname__', type(network).__qualname__)}>"
        return cls(label, *inputs, network, init=scheme, vocabulary=vocabulary)

    @classmethod
    def described(cls, description: Mapping[str, Any], factory: Factory | None = None) -> Network:
        """The network of a :meth:`description`, in which a name without a version means version 1.

        factory: the function that builds it; needed for one that was never declared.

        Raises :class:`NetworkError` for a network that is not known here.
        """
        init, vocabulary = description.get("init"), description.get("vocabulary")
        return cls.of(
            as_written(str(description["name"])) if factory is None else factory,
            channels=int(description["channels"]),
            size=tuple(int(length) for length in description["size"]),
            classes=int(description["classes"]),
            init=None if init is None else as_written(str(init)),
            vocabulary=None if vocabulary is None else int(vocabulary),
        )

    @property
    def written(self) -> str:
        """Name and version as in jobs and files."""
        return written(self.name, self.version)

    @property
    def definition(self) -> str:
        """Name and version of the declared network whose layers it has."""
        return (self if self.within is None else self.within).written.removeprefix(FROZEN_REST)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self.size if self.vocabulary is not None else (self.channels, *self.size)

    @property
    def inputs(self) -> str:
        """What it takes, in words."""
        shape = "x".join(map(str, self.shape))
        if self.vocabulary is not None:
            return f"{shape} tokens out of {self.vocabulary:,}"
        return f"{shape} images" if len(self.shape) == 3 else f"{shape} features"

    def zeros(self, count: int) -> Tensor:
        """So many inputs, all 0."""
        return torch.zeros(
            count, *self.shape, dtype=torch.float32 if self.vocabulary is None else torch.int64
        )

    @property
    def own(self) -> bool:
        """Whether the factory is not tombola's."""
        return not _networks.is_built_in(self.name.removeprefix(FROZEN_REST))

    def maker(self) -> Factory:
        """The factory that builds it; if a name and version were declared again, the last one declared."""
        if self.factory is not None:
            return self.factory
        if self.name.startswith(FROZEN_REST):
            within = replace(self, name=self.name.removeprefix(FROZEN_REST))
            return _imported("tombola.networks.frozen_rest", "FrozenRestFactory")(within, within.maker())
        if isinstance(self.version, str):
            return library_factory(self.name)
        return _networks.find(self.name, self.version)

    def build(self) -> nn.Module:
        """A fresh module, its weights drawn from torch's global generator as its constructor does.

        Raises :class:`NetworkError` when the factory fails or returns something else.
        """
        note_use("networks", self.written)
        factory = self.maker()
        try:
            module = factory(**arguments_for(factory, self._offered()))
        except NetworkError:
            raise
        except Exception as error:  # the caller's own code, which may fail in any way
            cause = f"{type(error).__name__}: {reason(error)}"
            raise NetworkError(f"network {self.name} cannot be built: {cause}") from error
        if not isinstance(module, nn.Module):
            raise NetworkError(f"network {self.name} gave a {type(module).__name__}, not an nn.Module")
        return module

    def _offered(self) -> dict[str, Any]:
        """What a factory may take, under our names."""
        if self.vocabulary is not None:
            return {"classes": self.classes, "vocabulary": self.vocabulary, "length": self.size[0]}
        return {"classes": self.classes, "channels": self.channels, "size": self.size}

    def initialized(self, seed: int, stream: str = _INITIALIZATION) -> nn.Module:
        """A fresh module whose initial weights come from the stream ``(stream, seed)``.

        Raises :class:`NetworkError` for other weights than those of a built module, unless by a scheme.
        """
        others = seed or stream != _INITIALIZATION
        if others and self.init is None and isinstance(self.factory, Copies):
            raise NetworkError(
                f"network {self.name} is a built module, which has the weights that it has: no seed draws "
                "others; give a function that builds one, or a scheme, such as init='pytorch'"
            )
        with seeds.torch_stream(stream, seed):
            module = self.build()
            if self.init is not None:
                draw_weights(module, self.init, f"network {self.name}")
            return module

    def without_values(self) -> nn.Module:
        """A fresh module whose tensors have names and shapes, and neither memory nor values.

        Raises :class:`NetworkError` for a factory of the user's own that cannot do without values.
        """
        with torch.device("meta"), _Undrawn():
            return self.build()

    def description(self) -> dict[str, Any]:
        """The description as JSON values, from which :meth:`described` restores it."""
        described: dict[str, Any] = {
            "name": self.written,
            "channels": self.channels,
            "size": list(self.size),
            "classes": self.classes,
        }
        if self.vocabulary is not None:
            described["vocabulary"] = self.vocabulary
        return described if self.init is None else described | {"init": self.init}


def _name_and_version(network: str) -> tuple[str, int | str]:
    """Name and version of a named network, by default the newest; NetworkError if there is none such."""
    if network.startswith(FROZEN_REST):
        within, its_version = _name_and_version(network.removeprefix(FROZEN_REST))
        return f"{FROZEN_REST}{within}", its_version
    name, _, wanted = network.partition("@")
    if is_library_name(name):
        return name, library_version(name, wanted or None)
    name, version = parsed(network)
    version = _networks.newest(name) if version is None else version
    _networks.find(name, version)
    return name, version


@cache
def weights_of(name: str) -> int:
    """Number of weights of a declared network for images and classes as CIFAR-10's.

    name: as it stands in a job. The network is built without memory for its weights and without drawing them.

    Raises :class:`~tombola.errors.NetworkError` for a network that cannot be built for such images.
    """
    module = Network.of(as_written(name), channels=3, size=(32, 32), classes=10).without_values()
    return sum(parameter.numel() for parameter in module.parameters())


class _Undrawn(TorchFunctionMode):
    """Within it, nothing is drawn: even without memory, drawing makes torch import its compiler."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", None) in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
