"""The training loop, and its two uses: training a ticket to the end, and pretraining a start to rewind to.

Both run a :class:`Training` epoch by epoch: it draws the plan of an epoch, has an engine take the steps
(:mod:`tombola.training.engines`), keeps the history and hands checkpoints to a
:class:`~tombola.training.checkpoint.Watch`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from tombola import files, seeds
from tombola.data.augmentation import draw
from tombola.data.imageset import Data, DataLike
from tombola.data.load import load_data
from tombola.errors import RecipeError, TicketError, reason
from tombola.registry import declare
from tombola.seeds import NOISES, Streams
from tombola.source import note_use, source_fingerprint
from tombola.ticket import State, Ticket
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.choice import engine_for
from tombola.training.device import Mode, environment, repeatable, resolve_device, resolve_precision
from tombola.training.engines import Engine, EpochTally
from tombola.training.epoch import EpochPlan, check_strays, step_seeds
from tombola.training.estimate import pretrain_cost, train_cost
from tombola.training.length import Length, epochs_of, place_of, steps_of_epoch
from tombola.training.losses import Teacher
from tombola.training.preflight import check_place, check_rewind, check_teacher, check_trainable
from tombola.training.recipe import Recipe
from tombola.training.run import NOT_MEASURED, Epoch, ForgettingRecord, History, Run
from tombola.untrusted import OTHER_FORM
from tombola.warn import warn


@declare("train", cost=train_cost, default_to=NOISES)
def train(
    ticket: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    noise: int = 0,
    noise_round: int | None = None,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Run:
    """Train a ticket from its place in the schedule to the end.

    ticket: what to train; a dense network is a ticket with a full mask. One that was taken within an epoch
        begins with what is left of it: the order of that epoch is drawn for all images, and the steps from
        the ticket's on are taken. So each image is presented, and counts for forgetting, at most once in that
        epoch and once in every other, and under the noise of its pretraining a training goes on as if it had
        not been interrupted. The first row of the history after the start is then of part of an epoch.
    recipe: how; a 200-epoch recipe trains a ticket taken at epoch 2 for 198 epochs. The optimizer's
        state, such as momentum, starts at zero. One of ``epochs="1500it"`` may end within an epoch: its last
        row is then of the part that was trained, at a place such as 3.84, with a test at its end, and does
        not count for forgetting.
    noise: number of the noise: order, augmentation and dropout are drawn from streams of this number, the
        ticket's round and the epoch, so no two rounds of a chain see the same.
    noise_round: draw the noise of this round instead of the ticket's own, as a control.
    order_noise, augmentation_noise: numbers of the two causes of noise apart, data order and augmentation;
        by default both are ``noise``.
    teacher: the run, or the ticket as it is, that a recipe of loss ``"distillation"`` learns from. On a GPU
        the steps are plain ones.
    device: ``"cpu"``, ``"cuda"``, ... or ``"auto"``. A CPU computes with one thread, or as many as
        :func:`tombola.set_num_threads` says: another number gives other last bits.
    mode: what may be chosen on a GPU: by ``"default"`` nothing by timing, so that bits repeat; in
        ``"autotuned"`` convolutions are, which promises no bits and no resuming; in ``"deterministic"``
        PyTorch also refuses operations of which it knows no repeatable form.
    watch: receives progress, and may keep checkpoints.

    Raises :class:`~tombola.errors.RecipeError` or :class:`~tombola.errors.NetworkError`, before the first
    step, for a training that cannot run as described. A run that diverges is a result, not an error.
    """
    data = load_data(data)
    round_ = ticket.round if noise_round is None else noise_round
    streams = Streams.of(noise, round_, order_noise, augmentation_noise)
    end = place_of(recipe.epochs, steps_of_epoch(len(data.train), recipe.batch_size))
    with train_until(ticket, data, recipe, end, streams, device, mode, watch, teacher=teacher) as trained:
        return Run(
            ticket,
            trained.engine.flat_network.state(),
            History(trained.rows),
            ForgettingRecord.from_tensors(trained.record.tensors()),  # on the CPU, like the weights
            streams.noise,
            trained.precision,
            trained.device.type,
            trained.engine.name,
            mode,
            streams.order_noise,
            streams.augmentation_noise,
            data.fingerprint,
        )


@declare("pretrain", cost=pretrain_cost, default_to=NOISES)
def pretrain(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    epochs: Length = 2,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> Ticket:
    """Train a dense start for its first epochs; returns the ticket there, to rewind to (late rewinding).

    epochs: place in the schedule at which the ticket is taken, part of the recipe's budget: 2 or ``"2ep"``,
        or iterations as ``"500it"``, which become epochs and steps here, by the number of images and the
        batch size.

    The other arguments and errors are as for :func:`train`. With the same noise number, the trunk sees what
    the first epochs of ``train(start, ...)`` see.
    """
    data = load_data(data)
    steps = steps_of_epoch(len(data.train), recipe.batch_size)
    check_rewind(epochs, recipe, steps)
    epoch, step = place_of(epochs, steps)
    if (epoch, step) <= (start.epoch, start.step):
        raise RecipeError(f"the start was taken at {start.place} already; pretrain to a later one than that")
    streams = Streams.of(noise, start.round, order_noise, augmentation_noise)
    with train_until(
        start, data, recipe, (epoch, step), streams, device, mode, watch, teacher=teacher
    ) as trained:
        state = trained.engine.flat_network.state()
        return rewind_ticket(start, state, epoch, step, steps if step else 1)


def rewind_ticket(start: Ticket, state: State, epoch: int, step: int = 0, steps: int = 1) -> Ticket:
    """The ticket of a start with the state that its pretraining has at an epoch, or at a step within it."""
    # Pretraining a sparse ticket leaves zeros at pruned positions, which are no dense start.
    dense = start.kept == start.total
    return replace(
        start, start=state, epoch=epoch, step=step, steps=steps, trained=None,
        start_fingerprint=files.fingerprint(state), complete=dense,
    )  # fmt: skip


@contextmanager
def train_until(
    ticket: Ticket,
    data: Data,
    recipe: Recipe,
    until: tuple[int, int],
    streams: Streams,
    device: str | torch.device | None,
    mode: Mode,
    watch: Watch | None,
    optimizer_state: State | None = None,
    teacher: Run | Ticket | None = None,
) -> Iterator[Training]:
    """Train from the ticket's place in the recipe's schedule to another one, or resume.

    until: epoch at which it ends, and step within that epoch.
    streams: numbers of the noise.
    optimizer_state: what the optimizer keeps, to begin with; zero if None.
    teacher: as for :func:`train`.

    The training that is yielded holds the final state only while the context lasts: then its engine is
    reused.
    """
    watch = watch or Watch()
    where = resolve_device(device)
    precision = resolve_precision(recipe, where)
    draws = check_trainable(ticket.network, data, recipe, ticket.epoch, ticket.step)
    check_place(ticket, data, recipe)
    check_teacher(recipe, teacher, ticket.network)
    with (
        repeatable(where, mode, captured=True),
        engine_for(
            ticket.network, data, recipe, where, precision, mode, draws=draws,
            teacher=None if teacher is None else Teacher(teacher, where, precision),
        ) as engine,
    ):  # fmt: skip
        engine.flat_network.load(ticket.weights(), ticket.mask)
        identity = {
            "network": ticket.network.description(),
            "start": ticket.start_fingerprint,
            "epoch": ticket.epoch,
            "mask": files.fingerprint(ticket.mask),
            "data": data.fingerprint,
            "recipe": recipe.identity(),
            "streams": [streams.noise, streams.round],
            "until": list(until) if until[1] else until[0],
            "environment": environment(where, precision, engine.name, mode),
        }
        if (streams.order_noise, streams.augmentation_noise) != (None, None):
            identity["causes"] = [streams.order, streams.augmentation]
        if ticket.step:
            identity["step"] = ticket.step
        if ticket.trained is not None:
            identity["trained"] = files.fingerprint(ticket.trained)
        source = source_fingerprint("networks", ticket.network.definition)
        if source is not None:  # of the user's own: one that was edited meanwhile is another training
            identity["source"] = source.get("text", source["file"])
        for kind, name in recipe.definitions:
            note_use(kind, name)
            own_source = source_fingerprint(kind, name)
            if own_source is not None:
                identity[f"source of {name}"] = own_source.get("text", own_source["file"])
        if optimizer_state is not None:
            engine.flat_network.load_optimizer_state(optimizer_state)
            identity["optimizer_state"] = files.fingerprint(optimizer_state)
        if teacher is not None:
            identity["teacher"] = teacher.fingerprint
        record = ForgettingRecord.empty(len(data.train), where)
        first = (ticket.epoch, ticket.step)
        training = Training(
            engine, data, recipe, streams, where, precision, identity, [], record, first, until, *first
        )
        interrupted = watch.resume()
        if interrupted is not None and mode == "autotuned":
            warn("an autotuned training does not resume: it begins anew")
            interrupted = None
        if interrupted is not None and interrupted.description.get("identity") == identity:
            training.restore(interrupted)
        else:
            interrupted = None
            before = engine.evaluate(data.test)
            training.rows.append(
                Epoch(ticket.epoch, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, *before, 0, 0.0)
            )  # fmt: skip
        while training.place < until:
            training.train_epoch(watch, interrupted)
            interrupted = None
        yield training


@dataclass
class Training:
    """A training in progress: all state that a checkpoint must hold, and the epochs that change it."""

    engine: Engine
    data: Data
    recipe: Recipe
    streams: Streams
    device: torch.device
    precision: str
    identity: dict[str, Any]
    rows: list[Epoch]
    record: ForgettingRecord
    first: tuple[int, int]  # epoch of the schedule and step within it at which it begins
    until: tuple[int, int]  # and at which it ends
    epoch: int
    step: int
    seconds: float = 0.0  # spent in the current epoch before an interruption
    ahead: EpochPlan | None = None  # the next epoch, drawn while a GPU was busy with this one

    @property
    def place(self) -> tuple[int, int]:
        """The current epoch, and how many of its steps lie behind."""
        return self.epoch, self.step

    def train_epoch(self, watch: Watch, interrupted: Checkpoint | None = None) -> None:
        """Train what is left of the current epoch, and enter it in the history.

        If a pretraining ends within it, its last epoch has no row.
        """
        started = time.perf_counter() - self.seconds
        plan = self.ahead or self.plan(self.epoch)
        self.engine.begin(plan)
        if interrupted is not None:
            tally = self.engine.tally()
            tally.losses.copy_(interrupted.tensors["tally.losses"])
            tally.right.copy_(interrupted.tensors["tally.right"])
        together = self.engine.stretch()
        end = self.until[1] if self.epoch == self.until[0] else plan.steps
        while self.step < end:
            last = min(self.step + together, end)
            self.engine.advance(self.step, last)
            self.step = last
            watch.stepped(
                self.epoch + last / plan.steps,
                epochs_of(self.recipe.epochs, plan.steps),
                len(self.data.train),
            )
            # At the end of the whole training its last row belongs to the checkpoint too.
            if last < plan.steps and not (last == end and self.ends_recipe):
                watch.advanced(lambda: self.snapshot(started), epoch_end=False)
        if end < plan.steps and not self.ends_recipe:
            self._trusted_tally()
            return
        following = self.epoch + 1
        self.ahead = self.plan(following) if (following, 0) < self.until else None
        row = self._history_row(plan, started, end)
        self.rows.append(row)
        self.seconds = 0.0
        if end == plan.steps:
            self.epoch, self.step = following, 0
        watch.finished_epoch(row, epochs_of(self.recipe.epochs, plan.steps))
        watch.advanced(self.snapshot, epoch_end=True)

    @property
    def ends_recipe(self) -> bool:
        """Whether it goes on to the end of the recipe's schedule, as a pretraining does not."""
        return self.until == place_of(self.recipe.epochs, self._steps)

    @property
    def _steps(self) -> int:
        """Steps of an epoch."""
        return steps_of_epoch(len(self.data.train), self.recipe.batch_size)

    def plan(self, epoch: int) -> EpochPlan:
        """Draw the order, crops, flips and seeds of an epoch, and compute its learning rates."""
        count, size, steps = len(self.data.train), self.recipe.batch_size, self._steps
        streams = self.streams
        shuffle = seeds.generator("order", streams.order, streams.round, epoch)
        order = torch.from_numpy(shuffle.permutation(count))
        draws = draw(
            self.recipe.augmentation, self.data, noise=streams.augmentation, round=streams.round, epoch=epoch
        )
        rates = [self.recipe.rate(epoch, step, steps) for step in range(steps)]
        seed_of = step_seeds(streams.noise, streams.round, epoch, steps)
        return EpochPlan(order, draws, rates, size, seed_of).to(self.device)

    def _history_row(self, plan: EpochPlan, started: float, end: int) -> Epoch:
        """The history row of the current epoch, whose steps up to ``end`` are launched; waits for them.

        An epoch that is not trained to its end does not enter the forgetting record.
        """
        tally = self._trusted_tally()
        first = self._first_step()
        images = slice(first * plan.batch_size, end * plan.batch_size)
        presented, right = plan.order[images], tally.right[images]
        forgotten = self.record.present(presented, right) if end == plan.steps else 0
        count, size = len(plan.order), plan.batch_size
        sizes = [min(size, count - step * size) for step in range(first, end)]
        weights = torch.tensor(sizes, dtype=torch.float64, device=self.device)
        loss = float((tally.losses[first:end].double() * weights).sum()) / len(presented)
        seconds = time.perf_counter() - started  # now that a GPU was waited for
        return Epoch(
            self.epoch + 1 if end == plan.steps else self.epoch + end / plan.steps,
            plan.rates[end - 1],
            loss,
            100 * int(right.sum()) / len(presented),
            *self.engine.evaluate(self.data.test),
            forgotten,
            seconds,
        )

    def _first_step(self) -> int:
        """The step at which the current epoch began: another than 0 where the training began within it."""
        return self.first[1] if self.epoch == self.first[0] else 0

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
        tensors |= flat_network.optimizer_state()
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
        tensors = checkpoint.tensors
        self.engine.flat_network.load(_with_prefix(tensors, "weights."))
        self.engine.flat_network.load_optimizer_state(tensors)
        self.rows = list(History.from_tensors(tensors))
        self.record = ForgettingRecord.from_tensors(tensors, self.device)
        self.epoch = int(checkpoint.description["epoch"])
        self.step = int(checkpoint.description["step"])
        self.seconds = float(checkpoint.description["seconds"])
        count, steps = len(self.data.train), self._steps
        if not (self.first <= self.place <= self.until and 0 <= self.step <= steps and self.seconds >= 0):
            raise ValueError(f"epoch {self.epoch}, step {self.step}, {self.seconds} seconds")
        places: list[float] = list(range(self.first[0], self.epoch + 1))
        if self.step and self.place == self.until and self.ends_recipe:
            places.append(self.epoch + self.step / steps)
        if [row.epoch for row in self.rows] != places:
            raise ValueError("its history is of other epochs")
        empty = ForgettingRecord.empty(count, self.device)
        if _dtypes_and_shapes(self.record.tensors()) != _dtypes_and_shapes(empty.tensors()):
            raise ValueError("its forgetting record is of other images")
        if self.place < self.until:
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
