"""The plan of one epoch: which image comes when, with its crop and flip, and each step's rate and seed.

The training loop draws an :class:`EpochPlan`; a GPU engine copies it into a :class:`DevicePlan`, whose
addresses captured steps keep. Both are read by gathering batches from :class:`~tombola.data.batches.Batches`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tombola import seeds
from tombola.data.augmentation import Draws
from tombola.data.batches import Batches, brought_within
from tombola.errors import DeviceLost
from tombola.training.flat_network import channels_last


@dataclass(frozen=True)
class EpochPlan:
    """The random draws of one epoch, in order of presentation, and its learning rates.

    order: int64 ``(N,)``, which image comes when.
    draws: crops and flips of each presentation.
    rates: learning rate of each step.
    batch_size: images a step; the last step may have fewer.
    step_seeds: a seed for each step, from which the modules of a network draw (:func:`step_seeds`).
    """

    order: Tensor
    draws: Draws
    rates: list[float]
    batch_size: int
    step_seeds: Sequence[int] = ()

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.rates)

    def to(self, device: torch.device) -> EpochPlan:
        """The same plan on a device, copied without waiting for a GPU."""
        if device.type == "cpu":
            return self
        order, rows, columns, flips = (
            tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.order, self.draws.rows, self.draws.columns, self.draws.flips)
        )
        return replace(self, order=order, draws=Draws(rows, columns, flips))


@dataclass(frozen=True)
class DevicePlan:
    """The plan of an epoch on a GPU, at addresses that captured steps keep: each new epoch is copied in.

    order, rows, columns: int64 ``(N,)`` and flips: bool ``(N,)``, as in an :class:`EpochPlan`.
    rates: float32 ``(steps,)``.
    step: int64 ``(1,)``, which step comes next.
    strays: int64 ``(1,)``, above 0 if an index met in this epoch lay out of range: memory was overwritten.
    batch_size: images of a full step.
    """

    order: Tensor
    rows: Tensor
    columns: Tensor
    flips: Tensor
    rates: Tensor
    step: Tensor
    strays: Tensor
    batch_size: int

    @classmethod
    def empty(cls, count: int, batch_size: int, device: torch.device) -> DevicePlan:
        """A plan of zeros, to be filled with epochs of ``count`` images."""
        order, rows, columns = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(3))
        return cls(
            order, rows, columns,
            torch.zeros(count, dtype=torch.bool, device=device),
            torch.zeros(-(-count // batch_size), device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
            torch.zeros(1, dtype=torch.int64, device=device),
            batch_size,
        )  # fmt: skip

    @classmethod
    def unaugmented(cls, count: int, batch_size: int, pad: int, device: torch.device) -> DevicePlan:
        """The plan of all images in their own order, cropped in the middle and none mirrored."""
        plan = cls.empty(count, batch_size, device)
        torch.arange(count, out=plan.order)
        plan.rows.fill_(pad)
        plan.columns.fill_(pad)
        return plan

    def begin(self, plan: EpochPlan) -> None:
        """Copy in the plan of the next epoch."""
        rates = torch.tensor(plan.rates)
        if self.rates.device.type == "cuda":
            rates = rates.pin_memory()  # else the copy would be waited for
        for target, source in (
            (self.order, plan.order),
            (self.rows, plan.draws.rows),
            (self.columns, plan.draws.columns),
            (self.flips, plan.draws.flips),
            (self.rates, rates),
        ):
            target.copy_(source, non_blocking=True)
        self.strays.zero_()


def step_seeds(noise: int, round: int, epoch: int, steps: int) -> list[int]:
    """Seeds of the steps of an epoch, in order, from the stream ``("dropout", noise, round, epoch)``.

    Modules that draw in training mode, such as dropout, draw on their device from a generator that is set to
    the seed of the step, so that what they draw depends on noise, round, epoch and step alone.
    """
    seed_of: list[int] = seeds.generator("dropout", noise, round, epoch).integers(2**63, size=steps).tolist()
    return seed_of


def check_strays(strays: Tensor) -> None:
    """Raises :class:`~tombola.errors.DeviceLost` if a gather has met an index out of range; waits for it.

    strays: of a :class:`DevicePlan`.
    """
    if int(strays):
        raise DeviceLost(
            f"indices lay outside the images: memory of {strays.device} was overwritten by something in this "
            "process; begin a new one"
        )


def gathered(
    plan: EpochPlan, batches: Batches, first: int, last: int, together: int, strays: Tensor | None = None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The batches of steps ``first`` to ``last - 1``: step number, images ``(B, C, H, W)``, labels ``(B,)``.

    together: steps whose images are prepared at once; preparing works image by image, so bits do not change.
    strays: where indices out of range are counted, as in a :class:`DevicePlan`; None leaves them to PyTorch.
    """
    size, draws = plan.batch_size, plan.draws
    for start in range(first, last, together):
        stretch = slice(start * size, min(start + together, last) * size)
        indices = plan.order[stretch]
        if strays is not None:
            indices = brought_within(indices, len(batches) - 1, strays)
        crops = draws.rows[stretch], draws.columns[stretch], draws.flips[stretch]
        images = channels_last(batches.images(indices, *crops, strays=strays))
        parts = zip(torch.split(images, size), torch.split(batches.labels(indices), size), strict=True)
        for step, (inputs, labels) in enumerate(parts, start):
            yield step, inputs, labels


def gathered_at_step(plan: DevicePlan, batches: Batches, size: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the batch of ``size`` images that the plan's step counter points to.

    Indices out of range are brought into range and counted among the plan's strays: :func:`check_strays` then
    raises an error that can be read, where an assertion on the device would end its use.
    """
    place = plan.step * plan.batch_size + torch.arange(size, device=plan.step.device)
    place = brought_within(place, len(plan.order) - 1, plan.strays)
    indices = brought_within(plan.order[place], len(batches) - 1, plan.strays)
    crops = plan.rows[place], plan.columns[place], plan.flips[place]
    return channels_last(batches.images(indices, *crops, strays=plan.strays)), batches.labels(indices)
