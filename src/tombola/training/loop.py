"""The training loop, and its two uses: training a ticket to the end, and pretraining a start to rewind to.

The loop draws each epoch's order and augmentation from their own streams, lets an engine take the steps, and
keeps the history. It knows nothing of devices beyond naming one, and of storage only that somebody watches.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from tombola import files, seeds
from tombola.data.augmentation import draw
from tombola.data.imageset import Data
from tombola.declared import declare
from tombola.errors import RecipeError
from tombola.ticket import Ticket
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.checks import check_trainable
from tombola.training.device import environment, resolve_device, resolve_precision
from tombola.training.eager import PREPARED_IMAGES, EagerEngine
from tombola.training.engine import Engine, EpochPlan
from tombola.training.history import NOT_MEASURED, Epoch, ForgettingRecord, History
from tombola.training.recipe import Recipe
from tombola.training.run import Run


@declare("train")
def train(
    ticket: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    noise: int = 0,
    noise_round: int | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Run:
    """Train a ticket from its place in the schedule to the end.

    ticket: what to train; a dense network is a ticket with a full mask.
    recipe: how; a 200-epoch recipe trains a ticket taken at epoch 2 for 198 epochs. Momentum starts at zero.
    noise: number of the noise: order and augmentation are drawn from streams of this number, the ticket's
        round and the epoch, so no two rounds of a chain see the same.
    noise_round: draw the noise of this round instead of the ticket's own, as a control.
    device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``.
    watch: somebody to tell of progress, who may keep checkpoints.

    Raises :class:`~tombola.errors.RecipeError` or :class:`~tombola.errors.NetworkError`, before the first
    step, for a training that cannot run as described. A run that diverges is a result, not an error.
    """
    streams = (noise, ticket.round if noise_round is None else noise_round)
    trained = _train_until(ticket, data, recipe, recipe.epochs, streams, resolve_device(device), watch)
    return Run(
        ticket,
        trained.engine.body.state(),
        History(trained.rows),
        trained.record,
        int(noise),
        trained.precision,
        trained.device.type,
    )


@declare("pretrain")
def pretrain(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    epochs: int = 2,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Ticket:
    """Train a dense start for its first epochs, and take a ticket there to rewind to (late rewinding).

    epochs: place in the schedule at which the ticket is taken; part of the recipe's budget.
    The other arguments and errors are as for :func:`train`. With the same noise number, the trunk sees what the
    first epochs of ``train(start, ...)`` see.
    """
    check_rewind(epochs, recipe)
    if epochs <= start.epoch:
        raise RecipeError(
            f"the start was taken at epoch {start.epoch} already; pretrain to a later one than that"
        )
    trained = _train_until(start, data, recipe, epochs, (noise, start.round), resolve_device(device), watch)
    state = trained.engine.body.state()
    # Pretraining a sparse ticket leaves zeros at pruned positions, which are no dense start.
    dense = start.kept == start.total
    return replace(
        start, start=state, epoch=epochs, start_fingerprint=files.fingerprint(state), complete=dense
    )


def check_rewind(epochs: int, recipe: Recipe) -> None:
    """Refuse a rewind point outside the budget."""
    if recipe.epochs == 1:
        raise RecipeError(f"rewind is to epoch {epochs}, but the recipe has 1 epoch; none lies within")
    if epochs not in range(1, recipe.epochs):
        raise RecipeError(
            f"rewind is to epoch {epochs}, but the recipe has {recipe.epochs} epochs; "
            f"allowed are 1 to {recipe.epochs - 1}"
        )


@dataclass
class _Training:
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
    step: int = 0
    seconds: float = 0.0  # spent in the current epoch before an interruption

    def plan(self) -> EpochPlan:
        """Draw the current epoch."""
        count, size = len(self.data.train), self.recipe.batch_size
        steps = -(-count // size)
        noise, round_ = self.streams
        order = torch.from_numpy(seeds.generator("order", noise, round_, self.epoch).permutation(count))
        draws = draw(self.recipe.augmentation, self.data, noise=noise, round=round_, epoch=self.epoch)
        rates = [self.recipe.rate(self.epoch, step, steps) for step in range(steps)]
        return EpochPlan(order, draws, rates, size)

    def finish(self, plan: EpochPlan, seconds: float) -> Epoch:
        """Close the current epoch: its row of the history."""
        tally = self.engine.tally()
        order = plan.order.to(self.device)
        count = len(order)
        forgotten = self.record.present(order, tally.right)
        sizes = [min(plan.batch_size, count - step * plan.batch_size) for step in range(plan.steps)]
        weights = torch.tensor(sizes, dtype=torch.float64, device=self.device)
        return Epoch(
            self.epoch + 1,
            plan.rates[-1],
            float((tally.losses.double() * weights).sum()) / count,
            100 * int(tally.right.sum()) / count,
            *self.engine.evaluate(self.data.test),
            forgotten,
            seconds,
        )

    def snapshot(self, seconds: float) -> Checkpoint:
        """Everything that continuing to the bit needs."""
        body, tally = self.engine.body, self.engine.tally()
        tensors = {f"weights.{name}": value for name, value in body.state().items()}
        tensors |= {f"momentum.{name}": value for name, value in body.momentum_state().items()}
        tensors |= History(self.rows).tensors() | self.record.tensors()
        tensors |= {"tally.losses": tally.losses.cpu().clone(), "tally.right": tally.right.cpu().clone()}
        description = {
            "identity": self.identity,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": seconds,
        }
        return Checkpoint(description, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a snapshot was taken; the current epoch's plan must be begun afterwards."""
        tensors = checkpoint.tensors
        self.engine.body.load(_part(tensors, "weights."))
        self.engine.body.load_momentum(_part(tensors, "momentum."))
        self.rows = list(History.from_tensors(tensors))
        self.record = ForgettingRecord.from_tensors(tensors, self.device)
        self.epoch = int(checkpoint.description["epoch"])
        self.step = int(checkpoint.description["step"])
        self.seconds = float(checkpoint.description["seconds"])


def _train_until(
    ticket: Ticket,
    data: Data,
    recipe: Recipe,
    until: int,
    streams: tuple[int, int],
    device: torch.device,
    watch: Watch | None,
) -> _Training:
    """Train from the ticket's epoch to the end of epoch ``until`` of the recipe's schedule."""
    if not all(isinstance(number, int | np.integer) for number in streams):
        raise RecipeError(f"noise is {streams[0]} of round {streams[1]}; both must be whole numbers")
    watch = watch or Watch()
    precision = resolve_precision(recipe, device)
    check_trainable(ticket.network, data, recipe, ticket.epoch)
    engine = EagerEngine(ticket.network, data, recipe, device, precision)
    engine.body.load(ticket.weights(), ticket.mask)
    identity = {
        "network": ticket.network.description(),
        "start": ticket.start_fingerprint,
        "epoch": ticket.epoch,
        "mask": files.fingerprint(ticket.mask),
        "data": data.fingerprint,
        "recipe": asdict(recipe) | {"milestones": list(recipe.milestones)},
        "streams": [int(number) for number in streams],
        "until": until,
        "environment": environment(device, precision),
    }
    record = ForgettingRecord.empty(len(data.train), device)
    training = _Training(
        engine, data, recipe, streams, device, precision, identity, [], record, ticket.epoch
    )  # fmt: skip
    interrupted = watch.resume()
    if interrupted is not None and interrupted.description.get("identity") == identity:
        training.restore(interrupted)
    else:
        interrupted = None
        before = engine.evaluate(data.test)
        training.rows.append(
            Epoch(ticket.epoch, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, *before, 0, 0.0)
        )  # fmt: skip
    while training.epoch < until:
        _train_epoch(training, watch, interrupted)
        interrupted = None
    return training


def _train_epoch(training: _Training, watch: Watch, interrupted: Checkpoint | None) -> None:
    """Train the current epoch, or what an interruption left of it."""
    started = time.perf_counter() - training.seconds
    plan = training.plan()
    engine = training.engine
    engine.begin(plan)
    if interrupted is not None:
        engine.tally().losses.copy_(interrupted.tensors["tally.losses"])
        engine.tally().right.copy_(interrupted.tensors["tally.right"])
    together = max(1, PREPARED_IMAGES // plan.batch_size)
    while training.step < plan.steps:
        last = min(training.step + together, plan.steps)
        engine.advance(training.step, last)
        training.step = last
        if last < plan.steps:
            watch.advanced(lambda: training.snapshot(time.perf_counter() - started), epoch_end=False)
    row = training.finish(plan, time.perf_counter() - started)
    training.rows.append(row)
    training.epoch, training.step, training.seconds = training.epoch + 1, 0, 0.0
    watch.finished_epoch(row, training.recipe.epochs)
    watch.advanced(lambda: training.snapshot(0.0), epoch_end=True)


def _part(tensors: Any, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
