"""A run: one finished training of a ticket."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from tombola import files
from tombola.errors import TicketError, reason
from tombola.networks.network import Factory
from tombola.reading import OTHER_FORM
from tombola.ticket import State, Ticket, pack_state, unpack_state
from tombola.training.history import ForgettingRecord, History

_KIND = "tombola.run/1"


@dataclass(frozen=True, eq=False)
class Run:
    """One finished training.

    ticket: what was trained.
    weights: the final ``state_dict`` on the CPU, exactly 0 where the ticket's mask is 0.
    history: one row an epoch.
    forgetting: what happened to each training image.
    noise: number of the noise it was trained under.
    precision: of convolutions and products, ``"float32"`` or ``"bfloat16"``.
    device: kind of device, ``"cpu"`` or ``"cuda"``.
    engine: what took the steps: ``"eager"``, ``"graphed, fused"`` or ``"graphed, plain"``.
    mode: what could be chosen by timing: nothing in ``"default"``.
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

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last epoch, in percent."""
        return float(self.history[-1].test_accuracy)

    @property
    def best_accuracy(self) -> float:
        """Highest test accuracy after any epoch, in percent; logged only, never selected by."""
        return float(max(row.test_accuracy for row in self.history[1:]))

    @property
    def diverged(self) -> bool:
        """Whether a loss of the last epoch is infinite or undefined."""
        last = self.history[-1]
        return not (math.isfinite(last.train_loss) and math.isfinite(last.test_loss))

    @property
    def failed(self) -> bool:
        """Whether the run diverged or stayed below twice chance. A failed run is a result, shown with a star.

        With fewer than five classes, where twice chance is too high: below a quarter of the way from chance
        to perfect.
        """
        chance = 100 / self.ticket.network.classes
        return self.diverged or self.accuracy < min(2 * chance, chance + (100 - chance) / 4)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the ticket, the final weights and the noise."""
        parts = (self.ticket.fingerprint, files.fingerprint(self.weights), str(self.noise))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

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

        with_start: also keep the pruned weights of the dense start, as controls need them.
        """
        if with_start:
            self.ticket.dense_start()
        files.write_tensors(path, _KIND, *self.pack(start="whole" if with_start else "surviving"))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, network: str | Factory | None = None) -> Run:
        """Read a run that :meth:`save` wrote; arguments and errors as :meth:`Ticket.load`."""
        return cls.unpack(*files.read_tensors(path, _KIND), network=network)

    def pack(self, *, start: str = "surviving") -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Description and tensors of this run; ``start`` as in :meth:`Ticket.pack`."""
        ticket, tensors = self.ticket.pack(start=start)
        tensors |= pack_state(self.weights, self.ticket.mask, prefix="final.")
        tensors |= self.history.tensors() | self.forgetting.tensors()
        description = {
            "ticket": ticket,
            "noise": self.noise,
            "precision": self.precision,
            "device": self.device,
            "engine": self.engine,
            "mode": self.mode,
        }
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
        """The run that :meth:`pack` described; ``start`` is needed if it was packed without one."""
        try:
            ticket = Ticket.unpack(description["ticket"], tensors, network=network, start=start)
            return cls(
                ticket,
                unpack_state(tensors, ticket.mask, prefix="final."),
                History.from_tensors(tensors),
                ForgettingRecord.from_tensors(tensors),
                int(description["noise"]),
                str(description["precision"]),
                str(description["device"]),
                str(description["engine"]),
                str(description.get("mode", "default")),
            )
        except OTHER_FORM as error:
            raise TicketError(f"not a run: {type(error).__name__} {reason(error)}") from error
