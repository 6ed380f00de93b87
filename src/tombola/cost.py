"""What a call costs, told from its arguments alone: plans add these up, and nothing is loaded or trained.

A declared function states its cost in a small function beside it, ``declare(name, cost=...)``. That function
names the arguments it needs; for a ticket or run it gets an :class:`Outline`, for data a
:class:`Size`. An epoch is a pass of training over the full train split, so 200 epochs on
1% of it are 2, as in the paper's own count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tombola.declarations import bare_name

FORWARD = 1 / 3
"""Work of an image that only passes forward, in images of training."""

FORWARD_BATCH = 256
"""Batch size whose speed counts where images only pass forward."""

RESULT_BYTES = 4_096
"""Disk that a result takes without tensors."""

HEADER_BYTES = 10_240
"""Disk that the description of a tensor file takes."""


@dataclass(frozen=True)
class Size:
    """Images in the train and test split, and classes; ``share``: of the full train split, for a subset."""

    train: int
    test: int
    classes: int
    share: float = 1.0

    def part(self, share: float | None = None, shots: int | None = None) -> Size:
        """The size of a subset with that share of the train images, or with ``shots`` of each class."""
        if shots is not None and self.train:
            share = shots * self.classes / self.train
        return replace(self, share=self.share * (1.0 if share is None else share))


@dataclass(frozen=True)
class Outline:
    """What is known of a ticket or run before it is computed.

    network: its name, with its version if it has one; "" if unknown.
    weights: number of weights, pruned ones included; 0 if unknown.
    epoch: the place in the schedule at which the ticket was taken; within an epoch with a fraction.
    density: share of weights that its mask keeps, about.
    """

    network: str = ""
    weights: int = 0
    epoch: float = 0
    density: float = 1.0


@dataclass(frozen=True)
class Cost:
    """What one call costs, without the calls behind it.

    epochs: of training. heads: whether linear heads are trained.
    images: work, in images as a training takes them; see :func:`forward`.
    network, batch_size: what the images pass through, and how many at a time; says at which speed.
    disk: bytes of the result.
    result: what the call returns, as calls that take it see it. By default the outline of the ticket or run
        that it takes, or for a function that returns data the size of its data.
    """

    epochs: float = 0.0
    heads: bool = False
    images: float = 0.0
    network: str = ""
    batch_size: int = FORWARD_BATCH
    disk: float = RESULT_BYTES
    result: Outline | Size | None = None

    @property
    def speed(self) -> tuple[str, int]:
        """The network and the batch size whose speed counts; versions of a network train alike."""
        return bare_name(self.network), self.batch_size


def forward(subject: Outline, images: float) -> Cost:
    """The cost of passing images through a ticket or run without training, each counting a third."""
    return Cost(images=FORWARD * images, network=subject.network)


def evaluated_images(data: Size, recalibrate: bool | str) -> float:
    """Images of one evaluation: the test split and, to measure batch norm anew, the train split."""
    return data.test + (data.train * data.share if recalibrate else 0)
