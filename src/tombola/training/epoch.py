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
from tombola.data.batches import Batches, brought_within, cut_out
from tombola.errors import DeviceLost, RecipeError
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

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return replace(self, order=moved(self.order), draws=self.draws.map(moved))


@dataclass(frozen=True)
class DevicePlan:
    """The plan of an epoch on a GPU, at addresses that captured steps keep: each new epoch is copied in.

    order: int64 ``(N,)`` and draws, as in an :class:`EpochPlan`.
    rates: float32 ``(steps,)``.
    step: int64 ``(1,)``, which step comes next.
    strays: int64 ``(1,)``, above 0 if an index met in this epoch lay out of range: memory was overwritten.
    batch_size: images of a full step.
    """

    order: Tensor
    draws: Draws
    rates: Tensor
    step: Tensor
    strays: Tensor
    batch_size: int

    @classmethod
    def empty(
        cls, count: int, batch_size: int, device: torch.device, draws: Draws | None = None
    ) -> DevicePlan:
        """A plan of zeros, to be filled with epochs of ``count`` images.

        draws: of one epoch, for their shapes; None for crops and flips alone.
        """

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        if draws is None:
            draws = Draws(zeros(count), zeros(count), zeros(count, dtype=torch.bool))
        return cls(
            zeros(count),
            draws.map(lambda values: zeros(*values.shape, dtype=values.dtype)),
            zeros(-(-count // batch_size), dtype=torch.float32),
            zeros(1),
            zeros(1),
            batch_size,
        )

    @classmethod
    def unaugmented(cls, count: int, batch_size: int, pad: int, device: torch.device) -> DevicePlan:
        """The plan of all images in their own order, cropped in the middle and none mirrored."""
        plan = cls.empty(count, batch_size, device)
        torch.arange(count, out=plan.order)
        plan.draws.rows.fill_(pad)
        plan.draws.columns.fill_(pad)
        return plan

    def begin(self, plan: EpochPlan) -> None:
        """Copy in the plan of the next epoch.

        Raises :class:`~tombola.errors.RecipeError` for a declared augmentation that draws another form.
        """
        rates = torch.tensor(plan.rates)
        if self.rates.device.type == "cuda":
            rates = rates.pin_memory()  # else the copy would be waited for
        targets, sources = self.draws.tensors(), plan.draws.tensors()
        forms = [[(draws.shape, draws.dtype) for draws in tensors] for tensors in (targets, sources)]
        if forms[0] != forms[1]:
            assert self.draws.transform is not None
            raise RecipeError(
                f"augmentation {self.draws.transform.name} draws other shapes or types from epoch to epoch; "
                "let them be the same"
            )
        for target, source in zip(
            (self.order, self.rates, *targets), (plan.order, rates, *sources), strict=True
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
        A declared augmentation may not, so it gets the images of one step.
    strays: where indices out of range are counted, as in a :class:`DevicePlan`; None leaves them to PyTorch.
    """
    size = plan.batch_size
    together = together if plan.draws.transform is None else 1
    for start in range(first, last, together):
        stretch = slice(start * size, min(start + together, last) * size)
        indices = plan.order[stretch]
        if strays is not None:
            indices = brought_within(indices, len(batches) - 1, strays)
        images = _augmented(batches, indices, plan.draws[stretch], strays)
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
    return _augmented(batches, indices, plan.draws[place], plan.strays), batches.labels(indices)


def _augmented(batches: Batches, indices: Tensor, draws: Draws, strays: Tensor | None) -> Tensor:
    """The images at ``indices`` under their draws, float32 ``(B, C, H, W)``, channels_last."""
    change = None if draws.transform is None else draws.apply
    images = batches.images(indices, draws.rows, draws.columns, draws.flips, strays=strays, change=change)
    return channels_last(images if draws.centres is None else cut_out(images, draws.centres, draws.side))
