"""Linear mode connectivity: the error on the straight line between two runs (Frankle et al., 2020; Eq. 3).

The barrier is the largest error on the line, end points included, minus the mean of the errors at the two
ends, in percentage points. A ticket whose runs have a mean barrier of 2 points or more is called unstable
(:mod:`tombola.measures.instability`). Batch-norm statistics on the line are interpolated like the weights, or
measured anew at every point (reading D3).

Where a loss on the line is not finite, as between a run that diverged and any other, there are no predictions
to speak of: the barrier is NaN, which tables show as undefined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from tombola.cost import Cost, Outline, Size, evaluated_images, forward
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.data.sizes import train_images
from tombola.errors import RecipeError
from tombola.measures import alignment
from tombola.measures.alignment import By, check_one_network
from tombola.measures.interpolation import batches_for_statistics, interpolate, recalibrate_batch_norm
from tombola.measures.repair import HiddenUnits, has_batch_norm
from tombola.one_line import OneLine
from tombola.registry import declare
from tombola.ticket import State
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import Evaluator, device_batches
from tombola.training.flat_network import FlatNetwork
from tombola.training.preflight import check_images
from tombola.training.run import End, Run

Recalibrate = bool | Literal["beside"]
Split = Literal["test", "train"]


@dataclass(frozen=True, repr=False)
class Barrier(OneLine):
    """Errors and losses on the line between two runs.

    alphas: positions on the line, 0 at the first run and 1 at the second.
    errors: classification error on the split at each position, in percent.
    losses: mean cross-entropy on the split at each position, in nats.
    split: which images it was measured on, ``"test"`` or unaugmented ``"train"``.
    sparsities: of the first and of the second run's ticket; None where that was not recorded.
    same_mask: whether the two tickets have one mask; None where that was not recorded.
    recalibrated: the same line with batch-norm statistics measured anew, if that was asked for as well.
    ends: how the training of the first and of the second run ended; None where that was not recorded.
    """

    alphas: tuple[float, ...]
    errors: tuple[float, ...]
    losses: tuple[float, ...]
    split: str = "test"
    sparsities: tuple[float, float] | None = None
    same_mask: bool | None = None
    recalibrated: Barrier | None = None
    ends: tuple[End, End] | None = None

    def _in_one_line(self) -> str:
        what = "undefined" if math.isnan(self.height) else f"of {self.height:.2f} points"
        failed = f"; {failures}" if (failures := self.failures()) else ""
        return f"<barrier {what} on the {self.split} images, {len(self.alphas)} positions{failed}>"

    def _facts(self) -> dict[str, object]:
        middle = len(self.alphas) // 2
        places = {"first run": 0, "the middle": middle, "second run": len(self.alphas) - 1}
        errors = {f"error at {place}": f"{self.errors[index]:.2f}%" for place, index in places.items()}
        sparsities = [f"{100 * sparsity:.2f}%" for sparsity in self.sparsities or ()]
        return {
            "height": "undefined" if math.isnan(self.height) else f"{self.height:.2f} points",
            "height of the loss": f"{self.loss_height:.4g} nats",
            **errors,
            "images": self.split,
            "positions": len(self.alphas),
            "sparsities": " and ".join(sparsities) or "not recorded",
            "ends": " and ".join(self.ends or ()) or "not recorded",
        }

    def __post_init__(self) -> None:
        if self.ends is not None and (len(self.ends) != 2 or any(end not in _ENDS for end in self.ends)):
            raise ValueError(f"ends is {self.ends!r:.60}; it must be two of {', '.join(_ENDS)}")

    @property
    def height(self) -> float:
        """Eq. 3: largest error minus the mean of the two end errors, in percentage points.

        NaN where a loss on the line is not finite.
        """
        return self._height(self.errors)

    @property
    def loss_height(self) -> float:
        """The same for the loss, in nats."""
        return self._height(self.losses)

    @property
    def excess(self) -> float:
        """Largest error above the straight line between the two end errors, in percentage points.

        max over a of E(a) - ((1 - a) E(0) + a E(1)), as in Entezari et al. (2022) and Paul et al. (2023), who
        have it of the loss; at least 0, and at most :attr:`height` plus half the difference of the ends. NaN
        where a loss on the line is not finite.
        """
        return self._excess(self.errors)

    @property
    def loss_excess(self) -> float:
        """The same for the loss, in nats."""
        return self._excess(self.losses)

    def _height(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, self.losses)):
            return math.nan
        return max(values) - (values[0] + values[-1]) / 2

    def _excess(self, values: Sequence[float]) -> float:
        if not all(map(math.isfinite, self.losses)):
            return math.nan
        ends = values[0], values[-1]
        between = [(1 - alpha) * ends[0] + alpha * ends[1] for alpha in self.alphas]
        # At the ends there is none, whatever rounding leaves.
        inner = list(zip(values, between, strict=True))[1:-1]
        return max(0.0, *(value - mean for value, mean in inner))

    def failures(self, names: tuple[str, str] = ("the first run", "the second run")) -> str:
        """Which runs failed, such as "the second run diverged"; empty if none did, or it is not known."""
        failed = [(name, end) for name, end in zip(names, self.ends or (), strict=False) if end != "trained"]
        return " and ".join(f"{name} {_FAILED[end]}" for name, end in failed)


MOST_POINTS = 10_001
"""On one line, a ten-thousandth of it apart."""
_ENDS = get_args(End)
_FAILED = {"at chance": "stayed at chance", "diverged": "diverged"}


def lines_cost(run: Outline, data: Size, points: int, recalibrate: Recalibrate, *, lines: float = 1) -> Cost:
    """The cost of evaluations at all points of some lines between runs."""
    return forward(run, points * evaluated_images(data, recalibrate) * lines)


def weighs_batches_alike(call: Mapping[str, object]) -> bool:
    """Whether a call has the numbers of version 1, which gave all batches of train images the same weight.

    Version 2 weighs a shorter last batch of train images by its size where statistics are measured anew.
    call: its arguments by name, ``data`` among them. Data whose size only loading would tell count as short.
    """
    if not (call.get("recalibrate") or call.get("repair")):
        return True
    count = train_images(call["data"])
    return count is not None and len({last - first for first, last in batches_for_statistics(count)}) == 1


def _barrier_cost(first: Outline, data: Size, points: int, recalibrate: Recalibrate, repair: bool) -> Cost:
    """Evaluations at all points of one line."""
    return lines_cost(first, data, points, recalibrate or repair)


@declare("barrier", version=2, unchanged={2: weighs_batches_alike}, cost=_barrier_cost)
def barrier(
    first: Run,
    second: Run,
    data: DataLike,
    *,
    points: int = 21,
    recalibrate: Recalibrate = False,
    split: Split = "test",
    align: By | None = None,
    repair: bool = False,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Barrier:
    """Errors and losses along the straight line between the final weights of two runs.

    first, second: runs of one network; their masks may differ, which is recorded.
    points: number of evenly spaced positions, both ends included; at least 3, at most 10,001.
    recalibrate: batch-norm statistics are interpolated like everything else; with True they are measured
        anew at every position, ends included, by :func:`recalibrate_batch_norm` on the unaugmented train
        split. With ``"beside"`` the line is the interpolated one and carries the other as a second reading.
    split: the images that errors and losses are of, ``"test"`` or ``"train"``, without augmentation.
    align: bring the hidden units of the second run into the order of the first's before, by ``"weights"`` or
        ``"activations"``, as :func:`~tombola.align` does by default; for an alignment of your own give
        ``aligned_run(second, alignment)``. The second run's mask goes along. Swapping the runs mirrors the
        line up to another alignment only.
    repair: at every position between the ends, give hidden units the mean and standard deviation over the
        train images that lie between those they have at the ends (REPAIR: Jordan et al., 2023). With batch
        norm that is to measure its statistics anew, to the bit ``recalibrate=True``, ends included; without
        it, layers are rescaled (:mod:`tombola.measures.repair`), and the ends are the runs as they are.
    watch: gets a sign of life after every pass over images.

    Raises :class:`~tombola.errors.NetworkError` for runs of different networks, images that do not fit, and
    networks that cannot be aligned or repaired.
    """
    data = load_data(data)
    check_one_network(first, second, "a barrier")
    network = first.ticket.network
    check_images(network, data)
    check_line(points, recalibrate, split)
    if repair and recalibrate:
        raise RecipeError(
            "repair=True measures batch norm anew already; leave recalibrate out, or ask for two barriers"
        )
    where = resolve_device(device)
    watch = watch or Watch()
    if align is not None:
        second = alignment.aligned_run(
            second, alignment.align(first, second, data, by=align, device=device, watch=watch)
        )
    precision = common_precision(first, second, where)
    images = data.train if split == "train" else data.test
    interpolated, recalibrated = [], []
    with repeatable(where):
        body = FlatNetwork(network, where)
        evaluate = Evaluator(body, precision)
        ends = [_on_device(run.weights, body) for run in (first, second)]
        units = None
        if repair and has_batch_norm(body.module):
            recalibrate = True
        elif repair:
            units = HiddenUnits(body, ends, device_batches(data, data.train, where), precision)
            watch.beat()
        for index in range(points):
            # Looked up at every point: a module may have put another tensor in a buffer's place.
            interpolate(body.module.state_dict(), ends[0], ends[1], index, points)
            if units is not None and 0 < index < points - 1:
                units.repair(index, points)
                watch.beat()
            body.refresh_copy()
            if recalibrate is not True:
                interpolated.append(evaluate(data, images))
                watch.beat()
            if recalibrate:
                recalibrate_batch_norm(
                    body.module, device_batches(data, data.train, where), precision, evaluate
                )
                watch.beat()
                recalibrated.append(evaluate(data, images))
                watch.beat()

    def line(measured: list[tuple[float, float]], second_reading: Barrier | None = None) -> Barrier:
        return Barrier(
            tuple(index / (points - 1) for index in range(points)),
            tuple(100.0 - accuracy for _, accuracy in measured),
            tuple(loss for loss, _ in measured),
            split,
            (first.ticket.sparsity, second.ticket.sparsity),
            all(torch.equal(keep, second.ticket.mask[name]) for name, keep in first.ticket.mask.items()),
            second_reading,
            (_end(first, measured[0][0]), _end(second, measured[-1][0])),
        )

    if recalibrate == "beside":
        return line(interpolated, line(recalibrated))
    return line(recalibrated if recalibrate else interpolated)


def _end(run: Run, loss: float) -> End:
    """How a training ended that has this loss at its end of a line."""
    if not math.isfinite(loss):
        return "diverged"
    return run.end if len(run.history) else "trained"


def check_line(points: int, recalibrate: Recalibrate, split: Split) -> None:
    """Raises RecipeError for settings of a line that are out of range."""
    check_points(points)
    check_recalibrate(recalibrate)
    if split not in ("test", "train"):
        raise RecipeError(f"split is {split!r}; it must be 'test' or 'train'")


def check_points(points: int) -> None:
    """Raises RecipeError for too few or too many positions on a line."""
    if points < 3:
        raise RecipeError(f"points is {points}; a barrier needs at least 3: both ends and the middle")
    if points > MOST_POINTS:
        raise RecipeError(
            f"points is {points}; it must be at most {MOST_POINTS:,}, for at each all images are evaluated"
        )


def check_recalibrate(recalibrate: Recalibrate) -> None:
    """Raises RecipeError for an unknown reading of batch norm."""
    if not isinstance(recalibrate, bool) and recalibrate != "beside":  # 1 is no reading, though equal to True
        raise RecipeError(f"recalibrate is {recalibrate!r}; it must be False, True or 'beside'")


def _on_device(state: State, body: FlatNetwork) -> dict[str, Tensor]:
    """A copy of the state on the body's device, in the body's memory layout."""
    body.load(state)
    return {name: value.clone() for name, value in body.module.state_dict().items()}


def common_precision(first: Run, second: Run, device: torch.device) -> str:
    """The precision that both runs were trained in, in which they are evaluated.

    Raises :class:`~tombola.errors.RecipeError` for runs of different precisions or devices, or if the device
    does not have the precision.
    """
    if (first.precision, first.device) != (second.precision, second.device):
        raise RecipeError(
            f"the runs were trained in {first.precision} on {first.device} and "
            f"{second.precision} on {second.device}; no line mixes them"
        )
    if first.precision == "bfloat16" and device.type == "cpu":
        raise RecipeError(
            "the runs were trained in bfloat16 on a GPU; say device='cuda' to measure them there"
        )
    return first.precision
