"""A run, the result of one training: final weights, history by epoch, and forgetting record.

The training loop returns it, measures and pruning read it, and it is saved as one safetensors file.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from tombola import files
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import TicketError, reason
from tombola.networks.module import loaded_module
from tombola.networks.network import Factory
from tombola.one_line import OneLine
from tombola.ticket import State, Ticket, pack_state, unpack_state
from tombola.training.logged_values import LoggedValues
from tombola.untrusted import OTHER_FORM

if TYPE_CHECKING:
    import pandas as pd

    from tombola.sharing.hub_traffic import Push
    from tombola.training.recipe import Recipe

_KIND = "tombola.run/1"

End = Literal["trained", "at chance", "diverged"]
"""How a training ended; the latter two are failures, and results all the same."""

NOT_MEASURED = float("nan")
"""In training columns of a history, for the row before any step."""


@dataclass(frozen=True, eq=False, repr=False)
class Run(OneLine):
    """The result of one training of a ticket.

    ticket: what was trained.
    weights: the final ``state_dict`` on the CPU, exactly 0 where the ticket's mask is 0.
    history: one row an epoch.
    forgetting: how often each training image was forgotten.
    noise: number of the noise that it was trained under.

    A run that was trained elsewhere (:func:`~tombola.run_from`) has no history by epoch, noise -1, and a
    forgetting record only if one was given; a measure that asks for what is absent says so.

    precision: of convolutions and products, ``"float32"`` or ``"bfloat16"``.
    device: kind of device, ``"cpu"`` or ``"cuda"``.
    engine: what took the steps: ``"eager"``, ``"graphed, fused"`` or ``"graphed, plain"``; after ``"eager"``,
        what of the recipe is never captured; after ``"fused"``, the fingerprints of convolution plans and
        of the tiles of our own convolutions, if any.
    mode: what could be chosen by timing: nothing in ``"default"``.
    order_noise, augmentation_noise: numbers of the data order and of the augmentation; None for ``noise``.
    data: fingerprint of the data that it was trained on; None where that is not known, as of a run that was
        trained elsewhere, or written before there was this field.
    """

    ticket: Ticket
    weights: State
    history: History
    forgetting: ForgettingRecord
    noise: int
    precision: str
    device: str
    engine: str = "eager"
    mode: str = "default"
    order_noise: int | None = None
    augmentation_noise: int | None = None
    data: str | None = None

    @property
    def foreign(self) -> bool:
        """Whether it was trained elsewhere, so that its weights are all that is known."""
        return not len(self.history)

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in percent."""
        return float(self.history[-1].test_accuracy)

    def _in_one_line(self) -> str:
        ticket = self.ticket
        if self.foreign:
            return (
                f"<run of {ticket.network.written}: {100 * ticket.sparsity:.2f}% sparse, trained elsewhere>"
            )
        end = "" if self.end == "trained" else f", {self.end}"
        noises = [f"noise {self.noise}"]
        noises += [f"{name.replace('_', ' ')} {number}" for name, number in self._noises_apart().items()]
        return (
            f"<run of {ticket.network.written}: {self.accuracy:.2f}% on the test images{end}, "
            f"{100 * ticket.sparsity:.2f}% sparse, epochs {ticket.epoch} to {self.history[-1].epoch:.6g}, "
            f"{', '.join(noises)}, trained on {self.device}>"
        )

    def _facts(self) -> dict[str, object]:
        trained: dict[str, object] = {"trained": "elsewhere"}
        if not self.foreign:
            trained = {
                "test accuracy": f"{self.accuracy:.2f}%",
                "end": self.end,
                "epochs": f"{self.ticket.epoch} to {self.history[-1].epoch:.6g}",
                "noise": self.noise,
                "trained": f"in {self.precision} on {self.device}, {self.engine}",
            }
        return self.ticket._facts() | trained

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy after any epoch, in percent; logged only, never selected by."""
        return float(max(row.test_accuracy for row in self.history[1:]))

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch is infinite or undefined; a weight, where none is known."""
        if self.foreign:
            return not all(bool(value.isfinite().all()) for value in self.weights.values())
        last = self.history[-1]
        return not (math.isfinite(last.train_loss) and math.isfinite(last.test_loss))

    @property
    def failed(self) -> bool:
        """Whether the run diverged or stayed below twice chance. A failed run is a result, shown with a star.

        With fewer than five classes twice chance is too high; the limit is then a quarter of the way from
        chance to 100%. Of a foreign run only divergence is known.
        """
        if self.foreign:
            return self.diverged
        chance = 100 / self.ticket.network.classes
        return self.diverged or self.accuracy < min(2 * chance, chance + (100 - chance) / 4)

    @property
    def end(self) -> End:
        """How the training ended."""
        return "diverged" if self.diverged else "at chance" if self.failed else "trained"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ticket, the final weights and the numbers of the noise.

        A record that was given to a foreign run counts too, its log does not, which no measure reads; of a
        native one both follow from the rest.
        """
        parts = [self.ticket.fingerprint, files.fingerprint(self.weights), str(self.noise)]
        parts += [f"{name} {number}" for name, number in self._noises_apart().items()]
        if self.foreign and not isinstance(self.forgetting, NoForgettingRecord):
            parts.append(files.fingerprint(self.forgetting.tensors()))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def _noises_apart(self) -> dict[str, int]:
        """The numbers of causes of noise that are not that of the noise."""
        numbers = {"order_noise": self.order_noise, "augmentation_noise": self.augmentation_noise}
        return {name: number for name, number in numbers.items() if number is not None}

    def module(self, *, normalize: DataLike | None = None) -> nn.Module:
        """The trained network as a plain module in evaluation mode; ``normalize`` as for a ticket's."""
        return loaded_module(self.ticket.network, self.weights, normalize)

    def summary(self) -> dict[str, Any]:
        """The numbers of the run as plain JSON values."""
        return {
            "accuracy": self.accuracy,
            "best_accuracy": self.best_accuracy,
            "sparsity": self.ticket.sparsity,
            "round": self.ticket.round,
            "failed": self.failed,
            "diverged": self.diverged,
            "nonfinite_at_pruning": self.ticket.nonfinite,
        }

    def save(self, path: str | os.PathLike[str], *, with_start: bool = False) -> None:
        """Write the run, its ticket included, to one safetensors file.

        with_start: also keep the pruned weights of the dense start, which controls need.
        """
        if with_start:
            self.ticket.dense_start()
        files.write_tensors(path, _KIND, *self.pack(start="whole" if with_start else "surviving"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, network: str | Factory | None = None) -> Run:
        """Read a run that :meth:`save` wrote; arguments and errors as :meth:`Ticket.load`."""
        return cls.unpack(*files.read_tensors(path, _KIND, follow=True), network=network)

    def push_to_hub(
        self,
        repository: str,
        *,
        data: DataLike | None = None,
        recipe: Recipe | None = None,
        private: bool = False,
        license: str | None = None,
        with_start: bool = False,
        dry_run: bool = False,
    ) -> Push:
        """Upload the run to a model repository of the Hugging Face hub, which is made if it is not there.

        data, recipe: what it was trained on and how, for the model card; a run does not know them itself.
        Of a finished job ``tombola push`` tells both.

        All else, and errors, as for :meth:`Ticket.push_to_hub`; the plain weights are the trained ones, and
        the card has the learning curve.
        """
        from tombola.sharing.model_card import Background
        from tombola.sharing.models import push

        background = Background(None if data is None else load_data(data), recipe=recipe)
        return push(
            self,
            repository,
            background,
            private=private,
            license=license,
            with_start=with_start,
            dry_run=dry_run,
        )

    @classmethod
    def from_hub(
        cls, repository: str, *, revision: str | None = None, network: str | Factory | None = None
    ) -> Run:
        """The run of a model repository of the Hugging Face hub; as :meth:`Ticket.from_hub`.

        The exact revision is in ``run.ticket.hub``. A repository that holds a ticket alone is refused.
        """
        from tombola.sharing.models import pull_run

        return pull_run(repository, revision, network)

    def pack(self, *, start: str = "surviving") -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors of this run; ``start`` as in :meth:`Ticket.pack`."""
        ticket, tensors = self.ticket.pack(start=start)
        tensors |= pack_state(self.weights, self.ticket.mask, prefix="final.")
        if not self.foreign:
            tensors |= self.history.tensors()
        elif self.history.logged is not None:
            tensors |= self.history.logged.tensors()
        if not isinstance(self.forgetting, NoForgettingRecord):
            tensors |= self.forgetting.tensors()
        description: dict[str, Any] = {
            "ticket": ticket,
            "noise": self.noise,
            "precision": self.precision,
            "device": self.device,
            "engine": self.engine,
            "mode": self.mode,
            **self._noises_apart(),
        }
        if self.foreign:
            description["foreign"] = True
        if self.data is not None:
            description["data"] = self.data
        return description, tensors

    @classmethod
    def unpack(
        cls,
        description: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        network: str | Factory | None = None,
        start: State | None = None,
    ) -> Run:
        """The run that :meth:`pack` packed; ``start`` is needed if it was packed without one.

        Raises :class:`~tombola.errors.TicketError` for a description or tensors of another form.
        """
        try:
            ticket = Ticket.unpack(description["ticket"], tensors, network=network, start=start)
            foreign = description.get("foreign") is True
            unrecorded = foreign and "forgetting.events" not in tensors
            return cls(
                ticket,
                unpack_state(tensors, ticket.mask, prefix="final."),
                History((), LoggedValues.from_tensors(tensors)) if foreign else History.from_tensors(tensors),
                NoForgettingRecord() if unrecorded else ForgettingRecord.from_tensors(tensors),
                int(description["noise"]),
                str(description["precision"]),
                str(description["device"]),
                str(description["engine"]),
                str(description.get("mode", "default")),
                _optional_whole(description.get("order_noise")),
                _optional_whole(description.get("augmentation_noise")),
                None if (data := description.get("data")) is None else str(data),
            )
        except OTHER_FORM as error:
            raise TicketError(f"not a run: {type(error).__name__} {reason(error)}") from error


def _optional_whole(value: Any) -> int | None:
    return None if value is None else int(value)


@dataclass(frozen=True)
class Epoch:
    """One row of a history. Losses are mean cross-entropies in nats, accuracies in percent.

    The first row is the state before any step: its training columns are not a number. A training whose length
    is given in iterations may end within an epoch. Its last row is then of that part of an epoch.
    """

    epoch: float
    """Place in the schedule: how many epochs lie behind, whole but where a training ends within one."""
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    forgetting_events: int
    """Over all training images, in this epoch; not counted, and 0, in a part of an epoch at the end."""
    seconds: float
    """Wall time; the one column that is not reproducible."""


class History(Sequence[Epoch]):
    """The rows of a training, one an epoch, beginning with the state before any step.

    That of a part of an epoch at the end is a row too.

    logged: what the library logged that a foreign run was trained by; there are no rows then, and
        :meth:`table` and :meth:`frame` show the log.
    """

    def __init__(self, rows: Sequence[Epoch], logged: LoggedValues | None = None) -> None:
        self._rows = tuple(rows)
        self.logged = logged

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Epoch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Epoch]: ...
    def __getitem__(self, index: int | slice) -> Epoch | Sequence[Epoch]:
        if not self._rows:
            rest = "only its weights are known"
            if self.logged is not None:
                rest = f"its log has {self.logged.in_words()}; .history.frame() shows it"
            raise TicketError(f"there is no history by epoch: the run was trained elsewhere, and {rest}")
        return self._rows[index]

    def __iter__(self) -> Iterator[Epoch]:
        return iter(self._rows)

    def __repr__(self) -> str:
        if self.logged is not None:
            return f"<history logged elsewhere: {self.logged.in_words()}>"
        if not self._rows:
            return "<history of no epochs>"
        first, last = self._rows[0], self._rows[-1]
        return (
            f"<history of epochs {first.epoch:.6g} to {last.epoch:.6g}: train loss {last.train_loss:.4g}, "
            f"test accuracy {last.test_accuracy:.2f}%>"
        )

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(max_rows=10, index=False))

    def column(self, name: str) -> list[Any]:
        """One column of the history, first row first."""
        return [getattr(row, name) for row in self[:]]

    def tensors(self) -> dict[str, Tensor]:
        """All columns as float64 tensors ``(rows,)``, for a file."""
        return {
            f"history.{field.name}": torch.tensor(self.column(field.name), dtype=torch.float64)
            for field in fields(Epoch)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> History:
        """The history of which :meth:`tensors` returned the columns.

        Raises :class:`~tombola.errors.TicketError` for columns of different lengths or none.
        """
        columns = {field.name: tensors[f"history.{field.name}"].tolist() for field in fields(Epoch)}
        if len({len(column) for column in columns.values()}) != 1:
            raise TicketError("history columns of different lengths")
        if not columns["epoch"]:
            raise TicketError("a history without rows")
        columns["epoch"] = [value if value > int(value) else int(value) for value in columns["epoch"]]
        columns["forgetting_events"] = [int(value) for value in columns["forgetting_events"]]
        return cls(
            [Epoch(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        )

    def table(self) -> list[dict[str, Any]]:
        """The rows as dictionaries; of a log those of its iterations, with what was logged at each."""
        return [asdict(row) for row in self._rows] if self.logged is None else self.logged.table()

    def frame(self) -> pd.DataFrame:
        """The rows as a data frame, whose columns are the fields of :class:`Epoch`, or the log's names."""
        import pandas as pd

        return pd.DataFrame(self.table())


@dataclass(frozen=True, eq=False)
class ForgettingRecord:
    """Forgetting events of each training image (Toneva et al., 2019).

    events: int16 ``(N,)``, how often it was right at one presentation and wrong at the next.
    learned: bool ``(N,)``, whether it was ever right.
    correct: bool ``(N,)``, whether it was right at its last presentation.

    Only epochs that are trained to their end count: all images have then had equally many chances to be
    forgotten. What a training presents of an epoch within which it ends does not enter the record.
    """

    events: Tensor
    learned: Tensor
    correct: Tensor

    @classmethod
    def empty(cls, count: int, device: torch.device | None = None) -> ForgettingRecord:
        """The record before any presentation."""
        none = torch.zeros(count, dtype=torch.bool, device=device)
        return cls(torch.zeros(count, dtype=torch.int16, device=device), none, none.clone())

    def present(self, indices: Tensor, right: Tensor) -> int:
        """Enter one presentation of each of the images; returns the number of forgetting events among them.

        indices: int64 ``(B,)``, no image twice; right: bool ``(B,)``, whether each was classified correctly.
        """
        forgotten = self.correct[indices] & ~right
        self.events[indices] += forgotten.to(torch.int16)
        self.correct[indices] = right
        self.learned[indices] |= right
        return int(forgotten.sum())

    def tensors(self) -> dict[str, Tensor]:
        """The record as CPU tensors, for a file."""
        return {
            "forgetting.events": self.events.cpu().clone(),
            "forgetting.learned": self.learned.cpu().clone(),
            "forgetting.correct": self.correct.cpu().clone(),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], device: torch.device | None = None
    ) -> ForgettingRecord:
        """The record of which :meth:`tensors` returned the columns, on a device."""
        names = ("events", "learned", "correct")
        return cls(*(tensors[f"forgetting.{name}"].to(device, copy=True) for name in names))


class NoForgettingRecord(ForgettingRecord):
    """In place of the record of a run that was trained elsewhere; raises TicketError when it is looked at."""

    def __init__(self) -> None:
        pass

    def __getattr__(self, name: str) -> Tensor:
        if name not in ("events", "learned", "correct"):
            raise AttributeError(name)
        raise TicketError(
            "there is no forgetting record: the run was trained elsewhere, and only its weights are known"
        )
