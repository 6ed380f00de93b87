"""Augmentation: the setting of a recipe, and its draws for one epoch.

Every image of an epoch gets its own draws from the streams of that epoch, on the CPU and in the order of
presentation, so they depend neither on the device nor on how the epoch is cut into batches. A training image
is cropped and mirrored, changed by a declared augmentation, normalised, and cut out, in this order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tombola import seeds
from tombola.data.transform import OwnDraws, Transform, declared_transform
from tombola.errors import RecipeError, unknown
from tombola.source import note_use, source_fingerprint

if TYPE_CHECKING:  # The command line reads Augmentation and must not wait for torch.
    import torch
    from torch import Tensor

    from tombola.data.imageset import Data

# Not written with its version by the recipe itself, as losses, schedules and optimizers are. Version 1 of an
# augmentation stands in jobs without a number, unlike theirs: in a recipe a bare name could then be version 1
# or the newest. To write "@1" would give jobs that exist another name.
AugmentationName = Annotated[str, "declared augmentation"]
"""The name of a declared augmentation, whose version must enter a job."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: by default a random crop after padding, and a random horizontal flip.

    Raises :class:`~tombola.errors.RecipeError` for a value outside its range.
    """

    pad: int | None = None
    """Pixels added on each side before the crop. None: an eighth of the image side (1 at 8x8, 4 at 28x28 and
    32x32, 8 at 64x64); 0: no crop."""
    flip: bool | None = None
    """Whether each image is mirrored left to right with probability one half. None: as the data says."""
    fill: Literal["black", "mean"] = "black"
    """Added pixels: "black" is raw pixel 0 before normalisation, as the field's loaders have it; "mean" is
    zero after normalisation."""
    cutout: int = 0
    """Side in pixels of a square that is set to zero after normalisation (DeVries & Taylor, 2017). Its centre
    is drawn uniformly from the image, and the border clips it. 0: none."""
    declared: AugmentationName | None = None
    """Name of a declared augmentation, applied to raw pixels after crop and flip; None: none."""

    def __post_init__(self) -> None:
        for name, value in (("pad", self.pad), ("cutout", self.cutout)):
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))
        if self.pad is not None and (not isinstance(self.pad, int) or isinstance(self.pad, bool)):
            raise RecipeError(f"augmentation pad is {self.pad!r:.60}; it must be a whole number of pixels")
        if self.pad is not None and self.pad < 0:
            raise RecipeError(f"augmentation pad {self.pad} is negative; allowed 0 (no crop) and above")
        if self.fill not in ("black", "mean"):
            raise RecipeError(unknown("augmentation fill", self.fill, ("black", "mean")))
        if not isinstance(self.cutout, int) or isinstance(self.cutout, bool) or self.cutout < 0:
            raise RecipeError(
                f"augmentation cutout is {self.cutout!r:.60}; it must be a whole number of pixels, 0 for none"
            )
        if self.declared is not None and not isinstance(self.declared, str):
            raise RecipeError(
                f"augmentation declared is {self.declared!r:.60}; give the name of a declared one"
            )

    def __str__(self) -> str:
        """The fields that are not as usual, in words: ``"pad 0, cutout 2"``."""
        values = [(entry, getattr(self, entry.name)) for entry in fields(self)]
        changed = [f"{entry.name} {value}" for entry, value in values if value != entry.default]
        return ", ".join(changed) or "as usual"

    def padding(self, data: Data) -> int:
        """Pixels added on each side of this data's images."""
        if data.kind != "images":
            return 0
        return self.pad if self.pad is not None else (min(data.size) + 4) // 8

    def flips(self, data: Data) -> bool:
        """Whether this data's images are mirrored at random."""
        return self.flip if self.flip is not None else data.mirrored

    def transform(self) -> Transform | None:
        """The declared augmentation; None if there is none.

        Raises :class:`~tombola.errors.RecipeError` for one that is not declared here.
        """
        return None if self.declared is None else declared_transform(self.declared)

    def identity(self) -> dict[str, Any]:
        """The fields as JSON values, for checkpoints; without later ones that are at their defaults."""
        values: dict[str, Any] = {"pad": self.pad, "flip": self.flip, "fill": self.fill}
        if self.cutout:
            values["cutout"] = self.cutout
        if (transform := self.transform()) is not None:
            values["declared"] = [transform.name, source_fingerprint("augmentations", transform.name)]
        return values


@dataclass(frozen=True, eq=False)
class Draws:
    """The draws of each image of an epoch or of a part of it, in the order of presentation.

    rows, columns: int64 ``(N,)``, where the crop starts in the padded image, 0 to twice the padding.
    flips: bool ``(N,)``, whether the crop is then mirrored left to right.
    centres: int64 ``(N, 2)``, row and column of the middle of the square that is cut out; None for none.
    side: its side in pixels.
    own: tensors ``(N, ...)`` of a declared augmentation.
    transform: the declared augmentation; None for none.
    """

    rows: Tensor
    columns: Tensor
    flips: Tensor
    centres: Tensor | None = None
    side: int = 0
    own: OwnDraws | None = None
    transform: Transform | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Draws:
        """The same draws with each tensor changed: moved to a device, say, or cut."""
        own = self.own
        if isinstance(own, dict):
            own = {name: change(values) for name, values in own.items()}
        elif own is not None:
            own = change(own)
        centres = None if self.centres is None else change(self.centres)
        crops = change(self.rows), change(self.columns), change(self.flips)
        return Draws(*crops, centres, self.side, own, self.transform)

    def __getitem__(self, places: slice | Tensor) -> Draws:
        """The draws of some of the presentations."""
        return self.map(lambda values: values[places])

    def tensors(self) -> list[Tensor]:
        """All of its tensors."""
        own = self.own
        more = [] if own is None else list(own.values()) if isinstance(own, dict) else [own]
        return [self.rows, self.columns, self.flips, *([] if self.centres is None else [self.centres]), *more]

    def to(self, device: torch.device | str) -> Draws:
        """The same draws on a device."""
        return self.map(lambda values: values.to(device))

    def apply(self, pixels: Tensor) -> Tensor:
        """The raw pixels of these images, changed by the declared augmentation if there is one."""
        if self.transform is None:
            return pixels
        assert self.own is not None
        return self.transform.applied(pixels, self.own)


def draw(
    augmentation: Augmentation,
    data: Data,
    *,
    noise: int,
    round: int,
    epoch: int,
    count: int | None = None,
    stream: str = "augmentation",
) -> Draws:
    """The draws of one epoch, from the stream ``("augmentation", noise, round, epoch)``, on the CPU.

    A declared augmentation draws from the stream ``("augmentation NAME", noise, round, epoch)``.

    noise: the SGD noise's seed. round: the pruning round. epoch: from 0 on.
    count: number of images presented; by default all of the train split.
    stream: first word of the stream; heads on a frozen network draw from one of their own.

    Raises :class:`~tombola.errors.RecipeError` for a declared augmentation that is not known here.
    """
    import torch

    count = len(data.train) if count is None else count
    draws = seeds.generator(stream, noise, round, epoch)
    # The flips come first and are drawn even if unused, so that switching one part leaves the other alone.
    flips = torch.from_numpy(draws.integers(0, 2, size=count, dtype="int8")).bool()
    offsets = torch.from_numpy(draws.integers(0, 2 * augmentation.padding(data) + 1, size=(2, count)))
    if not augmentation.flips(data):
        flips = torch.zeros_like(flips)
    centres, own, transform = None, None, augmentation.transform()
    if augmentation.cutout:
        centres = torch.from_numpy(draws.integers(0, data.size, size=(count, 2)))
    if transform is not None:
        note_use("augmentations", transform.name)
        own = transform.drawn(count, seeds.generator(f"{stream} {transform.name}", noise, round, epoch))
    return Draws(offsets[0], offsets[1], flips, centres, augmentation.cutout, own, transform)
