"""The training loop, and its two uses: training a ticket to the end, and pretraining a start to rewind to.

Both run a :class:`Training` epoch by epoch: it draws the plan of an epoch, has an engine take the steps
(:mod:`tombola.training.engines`), keeps the history and hands checkpoints to a
:class:`~tombola.training.checkpoint.Watch`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from tombola import files, seeds
from tombola.data.augmentation import draw
from tombola.data.imageset import Data
from tombola.errors import RecipeError, TicketError, reason
from tombola.registry import declare
from tombola.source import source_fingerprint
from tombola.ticket import State, Ticket
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.choice import engine_for
from tombola.training.device import Mode, environment, repeatable, resolve_device, resolve_precision
from tombola.training.engines import Engine, EpochTally
from tombola.training.epoch import EpochPlan, check_strays
from tombola.training.estimate import pretrain_cost, train_cost
from tombola.training.preflight import check_trainable
from tombola.training.recipe import Recipe
from tombola.training.run import NOT_MEASURED, Epoch, ForgettingRecord, History, Run
from tombola.untrusted import OTHER_FORM


@declare("train", cost=train_cost)
def train(
    ticket: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    noise: int = 0,
    noise_round: int | None = None,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Run:
    """Train a ticket from its place in the schedule to the end.

    ticket: what to train; a dense network is a ticket with a full mask.
    recipe: how; a 200-epoch recipe trains a ticket taken at epoch 2 for 198 epochs. Momentum starts at zero.
    noise: number of the noise: order and augmentation are drawn from streams of this number, the ticket's
        round and the epoch, so no two rounds of a chain see the same.
    noise_round: draw the noise of this round instead of the ticket's own, as a control.
    device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``. A CPU computes with one thread, or as many as
        :func:`tombola.set_num_threads` says: another number gives other last bits.
    mode: what may be chosen on a GPU: by ``"default"`` nothing by timing, so that bits repeat; in
        ``"autotuned"`` convolutions are, which promises no bits and no resuming; in ``"deterministic"``
        PyTorch also refuses operations of which it knows no repeatable form.
    watch: receives progress, and may keep checkpoints.

    Raises :class:`~tombola.errors.RecipeError` or :class:`~tombola.errors.NetworkError`, before the first
    step, for a training that cannot run as described. A run that diverges is a result, not an error.
    """
    streams = (noise, ticket.round if noise_round is None else noise_round)
    with train_until(ticket, data, recipe, recipe.epochs, streams, device, mode, watch) as trained:
        return Run(
            ticket,
            trained.engine.flat_network.state(),
            History(trained.rows),
            ForgettingRecord.from_tensors(trained.record.tensors()),  # on the CPU, like the weights
            int(noise),
            trained.precision,
            trained.device.type,
            trained.engine.name,
            mode,
        )


@declare("pretrain", cost=pretrain_cost)
def pretrain(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    epochs: int = 2,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Ticket:
    """Train a dense start for its first epochs; returns the ticket there, to rewind to (late rewinding).

    epochs: place in the schedule at which the ticket is taken; part of the recipe's budget.

    The other arguments and errors are as for :func:`train`. With the same noise number, the trunk sees what
    the first epochs of ``train(start, ...)`` see.
    """
    check_rewind(epochs, recipe)
    if epochs <= start.epoch:
        raise RecipeError(
            f"the start was taken at epoch {start.epoch} already; pretrain to a later one than that"
        )
    with train_until(start, data, recipe, epochs, (noise, start.round), device, mode, watch) as trained:
        return rewind_ticket(start, trained.engine.flat_network.state(), epochs)


def rewind_ticket(start: Ticket, state: State, epoch: int) -> Ticket:
    """The ticket of a start with the state that its pretraining has at an epoch."""
    # Pretraining a sparse ticket leaves zeros at pruned positions, which are no dense start.
    dense = start.kept == start.total
    return replace(
        start, start=state, epoch=epoch, start_fingerprint=files.fingerprint(state), complete=dense
    )


def check_rewind(epochs: int, recipe: Recipe) -> None:
    """Raises RecipeError for a rewind point outside the budget."""
    if recipe.epochs == 1:
        raise RecipeError(f"rewind is to epoch {epochs}, but the recipe has 1 epoch; none lies within")
    if epochs not in range(1, recipe.epochs):
        raise RecipeError(
            f"rewind is to epoch {epochs}, but the recipe has {recipe.epochs} epochs; "
            f"allowed are 1 to {recipe.epochs - 1}"
        )


@contextmanager
def train_until(
    ticket: Ticket,
    data: Data,
    recipe: Recipe,
    until: int,
    streams: tuple[int, int],
    device: str | torch.device | None,
    mode: Mode,
    watch: Watch | None,
    momentum: State | None = None,
) -> Iterator[Training]:
    """Train from the ticket's epoch to the end of epoch ``until`` of the recipe's schedule, or resume.

    streams: number and round of the noise.
    momentum: that of each trainable parameter to begin with; zero if None.

    The training that is yielded holds the final state only while the context lasts: then its engine is
    reused.
    """
    if not all(isinstance(number, int | np.integer) for number in streams):
        raise RecipeError(f"noise is {streams[0]} of round {streams[1]}; both must be whole numbers")
    watch = watch or Watch()
    where = resolve_device(device)
    precision = resolve_precision(recipe, where)
    check_trainable(ticket.network, data, recipe, ticket.epoch)
    with (
        repeatable(where, mode, captured=True),
        engine_for(ticket.network, data, recipe, where, precision, mode) as engine,
    ):
        engine.flat_network.load(ticket.weights(), ticket.mask)
        identity = {
            "network": ticket.network.description(),
            "start": ticket.start_fingerprint,
            "epoch": ticket.epoch,
            "mask": files.fingerprint(ticket.mask),
            "data": data.fingerprint,
            "recipe": asdict(recipe) | {"milestones": list(recipe.milestones)},
            "streams": [int(number) for number in streams],
            "until": until,
            "environment": environment(where, precision, engine.name, mode),
        }
        source = source_fingerprint("networks", ticket.network.written)
        if source is not None:  # of the user's own: one that was edited meanwhile is another training
            identity["source"] = source.get("text", source["file"])
        if momentum is not None:
            engine.flat_network.load_momentum(momentum)
            identity["momentum"] = files.fingerprint(momentum)
        record = ForgettingRecord.empty(len(data.train), where)
        training = Training(
            engine, data, recipe, streams, where, precision, identity, [], record, ticket.epoch, until
        )  # fmt: skip
        interrupted = watch.resume()
        if interrupted is not None and mode == "autotuned":
            warnings.warn("an autotuned training does not resume: it begins anew", stacklevel=3)
            interrupted = None
        if interrupted is not None and interrupted.description.get("identity") == identity:
            training.restore(interrupted)
        else:
            interrupted = None
            before = engine.evaluate(data.test)
            training.rows.append(
                Epoch(ticket.epoch, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, *before, 0, 0.0)
            )  # fmt: skip
        while training.epoch < until:
            training.train_epoch(watch, interrupted)
            interrupted = None
        yield training


@dataclass
class Training:
    """A training in progress: all state that a checkpoint must hold, and the epochs that change it."""

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
        """Train the current epoch, or what an interruption left of it, and enter it in the history."""
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
        row = self._history_row(plan, started)
        self.rows.append(row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        watch.finished_epoch(row, self.recipe.epochs)
        watch.advanced(self.snapshot, epoch_end=True)

    def plan(self, epoch: int) -> EpochPlan:
        """Draw the order, crops and flips of an epoch, and compute its learning rates."""
        count, size = len(self.data.train), self.recipe.batch_size
        steps = -(-count // size)
        noise, round_ = self.streams
        order = torch.from_numpy(seeds.generator("order", noise, round_, epoch).permutation(count))
        draws = draw(self.recipe.augmentation, self.data, noise=noise, round=round_, epoch=epoch)
        rates = [self.recipe.rate(epoch, step, steps) for step in range(steps)]
        return EpochPlan(order, draws, rates, size).to(self.device)

    def _history_row(self, plan: EpochPlan, started: float) -> Epoch:
        """The history row of the current epoch, all of whose steps are launched; waits for them."""
        tally = self._trusted_tally()
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

    def _trusted_tally(self) -> EpochTally:
        """The tally of the steps so far; waits for them, and raises if the GPU erred in silence."""
        tally = self.engine.tally()
        check_strays(tally.strays)
        return tally

    def snapshot(self, started: float | None = None) -> Checkpoint:
        """A checkpoint of the current state, from which the training continues to the same bits.

        started: when the current epoch began, in seconds of ``time.perf_counter``; None between epochs.
        """
        flat_network, tally = self.engine.flat_network, self._trusted_tally()
        tensors = {f"weights.{name}": value for name, value in flat_network.state().items()}
        tensors |= {f"momentum.{name}": value for name, value in flat_network.momentum_state().items()}
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
        """Set the state to that of a snapshot; the current epoch's plan must be begun afterwards.

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
        self.engine.flat_network.load(_with_prefix(tensors, "weights."))
        self.engine.flat_network.load_momentum(_with_prefix(tensors, "momentum."))
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
        if _dtypes_and_shapes(self.record.tensors()) != _dtypes_and_shapes(empty.tensors()):
            raise ValueError("its forgetting record is of other images")
        if self.epoch < self.until:
            sizes = tensors["tally.losses"].shape, tensors["tally.right"].shape
            if sizes != ((steps,), (count,)):
                raise ValueError("its epoch is of other steps")


def _dtypes_and_shapes(
    tensors: Mapping[str, torch.Tensor],
) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (value.dtype, value.shape) for name, value in tensors.items()}


def _with_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of the name."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
