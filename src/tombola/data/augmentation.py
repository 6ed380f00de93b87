"""Random crops and flips: the setting of a recipe, and its draws for one epoch.

Every image of an epoch gets its own draw from the stream of that epoch, on the CPU and in the order of
presentation, so the draws depend neither on the device nor on how the epoch is cut into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tombola.errors import RecipeError, unknown
from tombola.seeds import generator

if TYPE_CHECKING:  # The command line reads Augmentation and must not wait for torch.
    import torch
    from torch import Tensor

    from tombola.data.imageset import Data


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: a random crop after padding, and a random horizontal flip.

    Raises :class:`~tombola.errors.RecipeError` for a negative pad or an unknown fill.
    """

    pad: int | None = None
    """Pixels added on each side before the crop. None: an eighth of the image side (1 at 8x8, 4 at 28x28 and
    32x32, 8 at 64x64); 0: no crop."""
    flip: bool | None = None
    """Whether each image is mirrored left to right with probability one half. None: as the data says."""
    fill: Literal["black", "mean"] = "black"
    """Added pixels: "black" is raw pixel 0 before normalisation, as the field's loaders have it; "mean" is
    zero after normalisation."""

    def __post_init__(self) -> None:
        if self.pad is not None and self.pad < 0:
            raise RecipeError(f"augmentation pad {self.pad} is negative; allowed 0 (no crop) and above")
        if self.fill not in ("black", "mean"):
            raise RecipeError(unknown("augmentation fill", self.fill, ("black", "mean")))

    def padding(self, data: Data) -> int:
        """Pixels added on each side of this data's images."""
        if data.kind != "images":
            return 0
        return self.pad if self.pad is not None else (min(data.size) + 4) // 8

    def flips(self, data: Data) -> bool:
        """Whether this data's images are mirrored at random."""
        return self.flip if self.flip is not None else data.mirrored


@dataclass(frozen=True, eq=False)
class Draws:
    """The crop and flip of each image of an epoch, in the order of presentation.

    rows, columns: int64 ``(N,)``, where the crop starts in the padded image, 0 to twice the padding.
    flips: bool ``(N,)``, whether the crop is then mirrored left to right.
    """

    rows: Tensor
    columns: Tensor
    flips: Tensor

    def to(self, device: torch.device | str) -> Draws:
        """The same draws on a device."""
        return Draws(self.rows.to(device), self.columns.to(device), self.flips.to(device))


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

    noise: the SGD noise's seed. round: the pruning round. epoch: from 0 on.
    count: number of images presented; by default all of the train split.
    stream: first word of the stream; heads on a frozen network draw from one of their own.
    """
    import torch

    count = len(data.train) if count is None else count
    draws = generator(stream, noise, round, epoch)
    # The flips come first and are drawn even if unused, so that switching one part leaves the other alone.
    flips = torch.from_numpy(draws.integers(0, 2, size=count, dtype="int8")).bool()
    offsets = torch.from_numpy(draws.integers(0, 2 * augmentation.padding(data) + 1, size=(2, count)))
    return Draws(offsets[0], offsets[1], flips if augmentation.flips(data) else torch.zeros_like(flips))
