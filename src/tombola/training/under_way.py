"""A training under way: all state that an interruption must not lose, and how an epoch is trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tombola import seeds
from tombola.data.augmentation import draw
from tombola.data.imageset import Data
from tombola.errors import TicketError, reason
from tombola.reading import OTHER_FORM
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.engine import Engine
from tombola.training.history import Epoch, ForgettingRecord, History
from tombola.training.plan import EpochPlan
from tombola.training.recipe import Recipe


@dataclass
class Training:
    """A training under way: all state that an interruption must not lose."""

    engine: Engine
    data: Data
    recipe: Recipe
    streams: tuple[int, int]
    device: torch.device
    precision: str
    identity: dict[str, Any]
    rows: list[Epoch]
    record: ForgettingRecord
    epoch: int
    until: int  # the epoch of the schedule at which it ends
    step: int = 0
    seconds: float = 0.0  # spent in the current epoch before an interruption
    ahead: EpochPlan | None = None  # the next epoch, drawn while a GPU was busy with this one

    def train_epoch(self, watch: Watch, interrupted: Checkpoint | None = None) -> None:
        """Train the current epoch, or what an interruption left of it, and close it."""
        started = time.perf_counter() - self.seconds
        plan = self.ahead or self.plan(self.epoch)
        self.engine.begin(plan)
        if interrupted is not None:
            tally = self.engine.tally()
            tally.losses.copy_(interrupted.tensors["tally.losses"])
            tally.right.copy_(interrupted.tensors["tally.right"])
        together = self.engine.stretch()
        while self.step < plan.steps:
            last = min(self.step + together, plan.steps)
            self.engine.advance(self.step, last)
            self.step = last
            if last < plan.steps:
                watch.advanced(lambda: self.snapshot(started), epoch_end=False)
        following = self.epoch + 1
        self.ahead = self.plan(following) if following < self.until else None
        row = self._finished(plan, started)
        self.rows.append(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        watch.finished_epoch(row, self.recipe.epochs)
        watch.advanced(self.snapshot, epoch_end=True)

    def plan(self, epoch: int) -> EpochPlan:
        """Draw an epoch."""
        count, size = len(self.data.train), self.recipe.batch_size
        steps = -(-count // size)
        noise, round_ = self.streams
        order = torch.from_numpy(seeds.generator("order", noise, round_, epoch).permutation(count))
        draws = draw(self.recipe.augmentation, self.data, noise=noise, round=round_, epoch=epoch)
        rates = [self.recipe.rate(epoch, step, steps) for step in range(steps)]
        return EpochPlan(order, draws, rates, size).to(self.device)

    def _finished(self, plan: EpochPlan, started: float) -> Epoch:
        """The row of the history of an epoch whose steps are all on their way."""
        tally = self.engine.tally()
        count = len(plan.order)
        forgotten = self.record.present(plan.order, tally.right)
        sizes = [min(plan.batch_size, count - step * plan.batch_size) for step in range(plan.steps)]
        weights = torch.tensor(sizes, dtype=torch.float64, device=self.device)
        loss = float((tally.losses.double() * weights).sum()) / count
        seconds = time.perf_counter() - started  # now that a GPU was waited for
        return Epoch(
            self.epoch + 1,
            plan.rates[-1],
            loss,
            100 * int(tally.right.sum()) / count,
            *self.engine.evaluate(self.data.test),
            forgotten,
            seconds,
        )

    def snapshot(self, started: float | None = None) -> Checkpoint:
        """Everything that continuing to the bit needs; ``started``: when the current epoch was, if one is."""
        body, tally = self.engine.body, self.engine.tally()
        tensors = {f"weights.{name}": value for name, value in body.state().items()}
        tensors |= {f"momentum.{name}": value for name, value in body.momentum_state().items()}
        tensors |= History(self.rows).tensors() | self.record.tensors()
        tensors |= {"tally.losses": tally.losses.cpu().clone(), "tally.right": tally.right.cpu().clone()}
        description = {
            "identity": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": 0.0 if started is None else time.perf_counter() - started,
        }
        return Checkpoint(description, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a snapshot was taken; the current epoch's plan must be begun afterwards.

        Raises :class:`~tombola.errors.TicketError` if it is not the snapshot of any such training.
        """
        try:
            self._restore(checkpoint)
        except OTHER_FORM as error:
            raise TicketError(
                f"a checkpoint does not fit its training: {type(error).__name__} {reason(error)}; delete it"
            ) from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        tensors, first = checkpoint.tensors, self.epoch
        self.engine.body.load(_part(tensors, "weights."))
        self.engine.body.load_momentum(_part(tensors, "momentum."))
        self.rows = list(History.from_tensors(tensors))
        self.record = ForgettingRecord.from_tensors(tensors, self.device)
        self.epoch = int(checkpoint.description["epoch"])
        self.step = int(checkpoint.description["step"])
        self.seconds = float(checkpoint.description["seconds"])
        count, steps = len(self.data.train), -(-len(self.data.train) // self.recipe.batch_size)
        if not (first <= self.epoch <= self.until and 0 <= self.step <= steps and self.seconds >= 0):
            raise ValueError(f"epoch {self.epoch}, step {self.step}, {self.seconds} seconds")
        if [row.epoch for row in self.rows] != list(range(first, self.epoch + 1)):
            raise ValueError("its history is of other epochs")
        empty = ForgettingRecord.empty(count, self.device)
        if _forms(self.record.tensors()) != _forms(empty.tensors()):
            raise ValueError("its forgetting record is of other images")
        if self.epoch < self.until:
            sizes = tensors["tally.losses"].shape, tensors["tally.right"].shape
            if sizes != ((steps,), (count,)):
                raise ValueError("its epoch is of other steps")


def _forms(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (value.dtype, value.shape) for name, value in tensors.items()}


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
