"""Networks of timm and torchvision by name, such as ``timm:vit_tiny_patch16_224``, where those are installed.

Their definitions change with the package, so its version stands where other networks have a number: jobs and
files have ``timm:vit_tiny_patch16_224@1.0.31``, and are read beside that version only. Weights are drawn as
the library draws them; pretrained ones are no part of a network. The packages are imported when needed.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from functools import cache, partial
from importlib import metadata
from types import ModuleType

import torch
from torch import nn

from tombola.errors import NetworkError, reason

_LIBRARIES = ("timm", "torchvision")


def is_library_name(name: str) -> bool:
    """Whether a name without version is of a network of timm or torchvision."""
    return name.partition(":")[0] in _LIBRARIES and ":" in name


def library_version(name: str, wanted: str | None) -> str:
    """The version of a library's network: that of the package, which must be the wanted one, if any.

    Where none is wanted the name is checked too, which imports the package.

    Raises :class:`~tombola.errors.NetworkError` for a package that is not installed, or of another version,
    and for a network that it does not have.
    """
    library = name.partition(":")[0]
    try:
        installed = metadata.version(library).partition("+")[0]
    except metadata.PackageNotFoundError:
        raise NetworkError(
            f"network {name!r} needs {library}, which is not installed; pip install 'tombola[{library}]'"
        ) from None
    if wanted is None:
        _check_name(name)
    elif wanted != installed:
        raise NetworkError(
            f"network {name!r} is of {library} {wanted}, and here is {installed}; install "
            f"{library}=={wanted}, or leave the version out to begin anew with what is here"
        )
    return installed


@cache
def library_factory(name: str) -> Callable[..., nn.Module]:
    """The factory of a library's network; it takes our three arguments."""
    return partial(_timm if name.startswith("timm:") else _torchvision, name)


def _timm(name: str, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    create = partial(
        _check_name(name).create_model, _model(name), pretrained=False, num_classes=classes, in_chans=channels
    )
    return _sized(create, "img_size", size)


def _torchvision(name: str, classes: int, channels: int, size: tuple[int, int]) -> nn.Module:
    if channels != 3:
        raise NetworkError(
            f"torchvision's networks are for images of 3 channels, not {channels}; tb.fit_images gives grey "
            "images three"
        )
    create = partial(_check_name(name).models.get_model, _model(name), weights=None, num_classes=classes)
    return _sized(create, "image_size", size[0] if size[0] == size[1] else size)


def _sized(create: Callable[..., nn.Module], argument: str, size: object) -> nn.Module:
    """The network for images of a size; most take any, and have no such argument."""
    try:
        return create(**{argument: size})
    except TypeError as error:
        if argument not in str(error):
            raise
    return create()


def _model(name: str) -> str:
    """The name that the library itself has for a network."""
    return name.partition(":")[2]


def _check_name(name: str) -> ModuleType:
    """The package of a network; raises NetworkError for one that cannot be imported or lacks the network."""
    library, _, model = name.partition(":")
    try:
        package = importlib.import_module(library)
        importlib.import_module(f"{library}.models")
    except Exception as error:  # operators of another torch, say
        raise NetworkError(
            f"{library} {metadata.version(library)} cannot be imported beside torch {torch.__version__} "
            f"({reason(error)}); install the version that is made for it"
        ) from error
    names = package.list_models() if library == "timm" else package.models.list_models(package.models)
    if model not in names:
        near = difflib.get_close_matches(model, names, n=1)
        hint = f"did you mean '{library}:{near[0]}'?" if near else f"{library}'s list_models() names all"
        raise NetworkError(f"no network {name!r}; {hint}")
    return package
