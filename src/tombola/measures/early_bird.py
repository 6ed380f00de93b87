"""Early-Bird tickets (You et al., 2020): how early in a training its pruning mask stops changing.

After each epoch the network is pruned on paper, and the mask compared with those of the epochs before. The
published masks are over channels, by the scales of batch norm; those over weights, by magnitude, are an
addition of ours. At high or low shares any two masks agree by chance, so each distance stands beside what it
is relative to that of independent masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tombola.cost import RESULT_BYTES, Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError, RecipeError, TicketError, Undefined, reason, unknown
from tombola.pruning.allocation import Kept, keep_highest, nearest_count
from tombola.registry import declare
from tombola.seeds import Streams
from tombola.ticket import Mask, State, Ticket
from tombola.training.checkpoint import Checkpoint, Watch
from tombola.training.device import Mode
from tombola.training.estimate import train_cost
from tombola.training.length import place_of, steps_of_epoch
from tombola.training.loop import train_until
from tombola.training.recipe import Recipe
from tombola.training.run import Epoch
from tombola.untrusted import OTHER_FORM

Pruned = Literal["channels", "weights"]


@dataclass(frozen=True)
class EarlyBird:
    """When the masks of a training settle, and how far they are apart until then.

    epoch: after which the ticket is drawn: the newest mask is nearer than the threshold to each of the others
        in the window. None if that never comes, as in fewer epochs than the window has masks.
    corrected_epoch: the same by distances relative to chance.
    distances: after each epoch from the second on, the largest distance of its mask to those before it in the
        window: the share of entries that differ, 0 to 1.
    chance: the mean distance of two independent masks that keep as many, 2 k (1 - k).
    """

    epoch: int | None
    corrected_epoch: int | None
    distances: tuple[float, ...]
    chance: float

    @property
    def corrected(self) -> tuple[float, ...]:
        """The distances over that of chance: 0 for equal masks, about 1 for independent ones.

        1 minus it is Cohen's kappa of two masks.
        """
        return tuple(distance / self.chance for distance in self.distances)

    @property
    def latest(self) -> float:
        """The last distance that was looked at, relative to chance; with a window of 2 that of two epochs in
        a row. NaN of a single mask."""
        return self.corrected[-1] if self.distances else math.nan


def _early_bird_cost(start: Outline, data: Size, recipe: Recipe, epochs: int | None) -> Cost:
    """A training up to the last epoch that is looked at."""
    part = recipe if epochs is None else replace(recipe, epochs=epochs)
    return replace(train_cost(start, data, part), disk=RESULT_BYTES)


@declare("early-bird", cost=_early_bird_cost)
def early_bird(
    start: Ticket,
    data: DataLike,
    recipe: Recipe,
    *,
    of: Pruned = "channels",
    fraction: float = 0.5,
    window: int = 5,
    threshold: float = 0.1,
    epochs: int | None = None,
    noise: int = 0,
    device: str | torch.device | None = "cpu",
    mode: Mode = "default",
    watch: Watch | None = None,
) -> EarlyBird:
    """After how many epochs of a dense training the mask that it would be pruned to stays the same.

    start: any ticket; of a sparse one the weights that it keeps are ranked. The training is
        ``train(start, data, recipe, noise=noise)`` to the bit.
    of: what is pruned on paper: ``"channels"`` by the absolute scale of their batch norm, all layers ranked
        together, as published; or ``"weights"`` by magnitude, all layers together.
    fraction: share of these that is pruned, between 0 and 1, both excluded, as for :func:`tombola.prune`;
        published are 0.3, 0.5 and 0.7.
    window: how many masks there must be, the newest one included; 5 as published.
    threshold: a distance below which masks count as equal; 0.1 as published, for relative distances too.
    epochs: how many epochs of the recipe to train and look at; None for all whole ones.
    device, mode, watch: as for :func:`tombola.train`.

    The paper also draws scales towards 0 by an L1 penalty of 1e-4; an optimizer that has it is in
    docs/extend.md. The mask before
    the first step is left out: all scales are 1 then. The ticket over weights is
    ``prune(pretrain(start, data, recipe, epochs=found.epoch), fraction=fraction)``, that over channels
    ``prune_channels`` of the same. Source: You et al.
    (2020), "Drawing early-bird tickets".

    Raises :class:`~tombola.errors.NetworkError` for channels of a network without batch norm,
    :class:`~tombola.errors.RecipeError` for settings out of range, :class:`~tombola.errors.Undefined` for a
    training that diverges, whose masks would be equal, and what ``train`` raises.
    """
    data = load_data(data)
    budget, _ = place_of(recipe.epochs, steps_of_epoch(len(data.train), recipe.batch_size))
    last = budget if epochs is None else epochs
    _check_settings(of, fraction, window, threshold)
    if isinstance(last, bool) or not isinstance(last, int) or not start.epoch < last <= budget:
        raise RecipeError(
            f"epochs is {last!r}; the recipe has {budget}, so allowed are {start.epoch + 1} to {budget}"
        )
    ranked = norm_scales(start) if of == "channels" else start.mask
    count = sum(int(entries.sum()) for entries in ranked.values())
    kept = nearest_count(count, 1 - fraction)
    if not 0 < kept < count:
        raise RecipeError(
            f"fraction is {fraction}, which keeps {kept} of {count:,} {of}; all masks would be equal"
        )
    masks = _MaskWatch(
        watch or Watch(), lambda state: _mask(state, ranked, kept), {"of": of, "kept": kept}, start, window
    )
    streams = Streams.of(noise, start.round)
    with train_until(start, data, recipe, (last, 0), streams, device, mode, masks):
        distances = tuple(masks.distances)
    chance = 2 * kept * (count - kept) / count**2
    first = start.epoch + 1

    def settled(limit: float) -> int | None:
        """The epoch of the first distance below a limit that is to a full window of masks."""
        epochs_at = enumerate(distances, first + 1)
        return next((at for at, far in epochs_at if at - first >= window - 1 and far < limit), None)

    return EarlyBird(settled(threshold), settled(threshold * chance), distances, chance)


class _MaskWatch(Watch):
    """Takes the mask of each epoch of a training, and passes on to another watch what it is told.

    distances: of each mask from the second on the largest to those before it in the window.

    Checkpoints carry both, so that a resumed training has the masks from before.
    """

    def __init__(
        self,
        watch: Watch,
        mask_of: Callable[[State], Kept | None],
        settings: Mapping[str, Any],
        start: Ticket,
        window: int,
    ) -> None:
        self._watch = watch
        self._mask_of = mask_of
        self._settings = {**settings, "window": window}
        self._first = start.epoch
        self._others = window - 1
        self._masks: list[Kept] = []
        self.distances: list[float] = []

    def resume(self) -> Checkpoint | None:
        checkpoint = self._watch.resume()
        if checkpoint is None or checkpoint.description.get("masks") != self._settings:
            return None
        try:
            packed = checkpoint.tensors["masks.packed"].numpy()
            length = int(checkpoint.tensors["masks.length"])
            self._masks = [np.unpackbits(bits, count=length).astype(bool) for bits in packed]
            self.distances = list(map(float, checkpoint.tensors["masks.distances"]))
        except OTHER_FORM as error:
            raise TicketError(
                f"a checkpoint does not fit its training: {type(error).__name__} {reason(error)}; delete it"
            ) from error
        return checkpoint

    def beat(self) -> None:
        self._watch.beat()

    def advanced(self, snapshot: Callable[[], Checkpoint], *, epoch_end: bool) -> None:
        if epoch_end:
            checkpoint = snapshot()
            if checkpoint.description["epoch"] == self._first + 1:  # a training that did not resume
                self._masks, self.distances = [], []
            self._take(checkpoint.tensors, checkpoint.description["epoch"])
        self._watch.advanced(lambda: self._with_masks(snapshot()), epoch_end=epoch_end)

    def stepped(self, epoch: float, epochs: float, images: int) -> None:
        self._watch.stepped(epoch, epochs, images)

    def finished_epoch(self, row: Epoch, epochs: float) -> None:
        self._watch.finished_epoch(row, epochs)

    def _take(self, tensors: Mapping[str, Tensor], epoch: int) -> None:
        mask = self._mask_of({name.removeprefix("weights."): value for name, value in tensors.items()})
        if mask is None:
            raise Undefined(
                f"the training diverged in epoch {epoch}, so there is no mask to look at", "take a lower rate"
            )
        if self._masks:
            self.distances.append(max(distance(mask, other) for other in self._masks))
        self._masks = [*self._masks, mask][-self._others :]

    def _with_masks(self, checkpoint: Checkpoint) -> Checkpoint:
        length = len(self._masks[0]) if self._masks else 0
        packed = np.stack([np.packbits(mask) for mask in self._masks]) if self._masks else np.zeros((0, 0))
        tensors = {
            "masks.packed": torch.from_numpy(packed.astype(np.uint8)),
            "masks.length": torch.tensor(length),
            "masks.distances": torch.tensor(self.distances, dtype=torch.float64),
        }
        description = {**checkpoint.description, "masks": self._settings}
        return Checkpoint(description, {**checkpoint.tensors, **tensors})


def distance(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The share of entries in which two masks differ."""
    return float(np.mean(first != second))


def _mask(state: State, ranked: Mask, kept: int) -> Kept | None:
    """The flat mask of the largest absolute values among the ranked ones; None where some are not finite."""
    scores = torch.cat([state[name][entries] for name, entries in ranked.items()]).abs().numpy()
    return keep_highest(scores, np.ones(len(scores), dtype=bool), kept) if np.isfinite(scores).all() else None


def norm_scales(start: Ticket) -> dict[str, Tensor]:
    """All scales of batch norm as what is ranked, by name; NetworkError for a network without any."""
    scales = {
        f"{name}.weight": torch.ones(layer.num_features, dtype=torch.bool)
        for name, layer in start.network.initialized(0).named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine
    }
    if not scales:
        raise NetworkError(
            f"network {start.network.name} has no batch norm, by whose scales channels are ranked; say "
            "of='weights'"
        )
    return scales


def _check_settings(of: str, fraction: float, window: int, threshold: float) -> None:
    """Raises RecipeError for a setting out of range."""
    if of not in get_args(Pruned):
        raise RecipeError(unknown("mask", str(of), get_args(Pruned)))
    if not 0 < fraction < 1:
        raise RecipeError(f"fraction is {fraction}; it must lie between 0 and 1, both excluded")
    if isinstance(window, bool) or not isinstance(window, int) or window < 2:
        raise RecipeError(f"window is {window!r}; it must be a whole number, at least 2")
    if not 0 < threshold <= 1:
        raise RecipeError(f"threshold is {threshold}; it must be above 0 and at most 1")
