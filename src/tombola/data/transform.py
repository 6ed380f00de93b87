"""Declared augmentations: what users do to training images, by name.

One is two functions: the first draws for all images of an epoch at once, the second changes a batch by its
draws. So what an image becomes does not depend on how the epoch is cut. Recipes name them
(:class:`~tombola.data.augmentation.Augmentation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from tombola import seeds
from tombola.declarations import Definitions, written
from tombola.errors import RecipeError

if TYPE_CHECKING:  # The command line reads recipes and must not wait for torch.
    import numpy as np
    from torch import Tensor

A = TypeVar("A", bound=Callable[..., Any])
OwnDraws: TypeAlias = "Tensor | dict[str, Tensor]"


class Draw(Protocol):
    """Draws what an augmentation needs for an epoch: see :func:`declare_augmentation`."""

    def __call__(self, count: int, generator: np.random.Generator, /) -> Any: ...


class Apply(Protocol):
    """Changes a batch of images by their draws: see :func:`declare_augmentation`."""

    def __call__(self, images: Tensor, draws: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Transform:
    """A declared augmentation: its name with version, and its two functions."""

    name: str
    draw: Draw
    apply: Apply

    def drawn(self, count: int, generator: np.random.Generator) -> OwnDraws:
        """What ``draw`` returns, as tensors ``(count, ...)``; float64 becomes float32.

        Raises :class:`~tombola.errors.RecipeError` for anything else than one draw an image.
        """
        import torch

        def tensor(values: Any) -> Tensor:
            drawn = torch.as_tensor(values)
            if drawn.ndim == 0 or len(drawn) != count:
                raise RecipeError(
                    f"augmentation {self.name} drew {tuple(drawn.shape)} for {count} images; draw must "
                    "return an array, or a dict of arrays, with an entry for each"
                )
            return drawn.float() if drawn.dtype == torch.float64 else drawn

        returned = self.draw(count, generator)
        if isinstance(returned, Mapping):
            return {name: tensor(values) for name, values in returned.items()}
        return tensor(returned)

    def applied(self, images: Tensor, draws: OwnDraws) -> Tensor:
        """What ``apply`` returns for raw pixels; RecipeError if its shape, type or device is another."""
        before = _form(images)
        changed = self.apply(images, draws)
        if (after := _form(changed)) != before:
            raise RecipeError(f"augmentation {self.name} makes {after} of {before}; it must leave that alone")
        return changed


def _form(images: object) -> str:
    """Shape, type and device of images in words; of something else, what it is."""
    import torch

    if not isinstance(images, torch.Tensor):
        return f"a {type(images).__name__}"
    shape = "x".join(map(str, images.shape))
    return f"{shape} {str(images.dtype).removeprefix('torch.')} on {images.device}"


_augmentations: Definitions[Callable[..., Any]] = Definitions(
    "augmentation", "augmentations", {}, RecipeError
)
_transforms: dict[str, Transform] = {}


def declare_augmentation(name: str, *, draw: Draw | None = None, version: int = 1) -> Callable[[A], A]:
    """Declare an augmentation under a lasting name, for ``tb.Augmentation(declared=name)``.

    The declared function changes a batch: it takes ``(images, draws)`` and returns images of the same shape,
    type and device. Images are raw pixels as the data has them, uint8 ``(B, C, H, W)``, after crop and flip
    and before normalisation, on the device of the training; where they are padded with ``fill="mean"``, added
    pixels become zero all the same. It draws nothing itself.

    draw: takes ``(count, generator)``, a numpy generator at the start of the stream of noise, round and
        epoch, once an epoch. It returns an array ``(count, ...)``, or a dict of such arrays, in the order in
        which images are presented; the declared function gets those of its batch, as tensors.
        None: the declared function takes a single image ``(C, H, W)`` on the CPU and draws from torch's
        global generator, as torchvision's transforms do. The generator is set to a seed of its own for each
        image, and images are changed one by one. Seed and first draw take about 20 microseconds an image
        besides the function's own time, and on a GPU steps are plain ones.
    version: to be raised when what it does changes.

    Raises :class:`~tombola.errors.RecipeError` if the name is taken or something is not a function.
    """

    def register(function: A) -> A:
        for what, declared in (("augmentation", function), ("draw of augmentation", draw)):
            if declared is not None and not callable(declared):
                raise RecipeError(f"{what} {name!r} is {declared!r:.60}; it must be a function")
        _augmentations.declare(name, version, function)
        functions = (_image_seeds, _ImageByImage(function)) if draw is None else (draw, function)
        _transforms[written(name, version)] = Transform(written(name, version), *functions)
        return function

    return register


def augmentation_names() -> list[str]:
    """All declared augmentations."""
    return _augmentations.names()


def written_augmentation(name: str) -> str:
    """Name and version of an augmentation as in jobs; the newest version unless one is named.

    Raises :class:`~tombola.errors.RecipeError` for an unknown name or version.
    """
    return _augmentations.written(name)


def declare_transform(name: str, version: int, apply: Apply, transform: Transform) -> None:
    """Declare an augmentation that was declared in another process; ``apply`` is the declared function."""
    _augmentations.declare(name, version, apply)
    _transforms[transform.name] = transform


def declared_transform(name: str) -> Transform:
    """The augmentation of that name; errors as of :func:`written_augmentation`."""
    return _transforms[written_augmentation(name)]


def _image_seeds(count: int, generator: np.random.Generator, /) -> Any:
    """A seed for each image."""
    return generator.integers(2**63, size=count)


@dataclass(frozen=True)
class _ImageByImage:
    """An :class:`Apply` by a function of one image that draws from torch's global generator."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor, draws: Tensor, /) -> Tensor:
        import torch

        changed = []
        with seeds.borrowing, torch.random.fork_rng(devices=[]):
            for image, seed in zip(images.cpu(), draws.tolist(), strict=True):
                torch.default_generator.manual_seed(seed)
                changed.append(self.function(image))
        return torch.stack(changed).to(images.device)
