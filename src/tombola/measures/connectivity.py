"""Linear mode connectivity: the error on the straight line between two runs (Frankle et al., 2020; Eq. 3).

The barrier is the largest error on the line, end points included, minus the mean of the errors at the two
ends, in percentage points. A network whose runs have a barrier of 2 points or more is called unstable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tombola.data.batches import Batches
from tombola.data.imageset import Data
from tombola.declared import declare
from tombola.errors import NetworkError, RecipeError
from tombola.ticket import State
from tombola.training.body import Body
from tombola.training.checkpoint import Watch
from tombola.training.checks import check_images
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import EVALUATION_BATCH, channels_last, device_batches, evaluate
from tombola.training.run import Run


@dataclass(frozen=True)
class Barrier:
    """The line between two runs.

    alphas: positions on the line, 0 at the first run and 1 at the second.
    errors: classification error on the test split at each position, in percent.
    losses: mean cross-entropy on the test split at each position, in nats.
    """

    alphas: tuple[float, ...]
    errors: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def height(self) -> float:
        """Eq. 3: largest error minus the mean of the two end errors, in percentage points."""
        return max(self.errors) - (self.errors[0] + self.errors[-1]) / 2

    @property
    def loss_height(self) -> float:
        """The same for the loss, in nats."""
        return max(self.losses) - (self.losses[0] + self.losses[-1]) / 2


@declare("barrier")
def barrier(
    first: Run,
    second: Run,
    data: Data,
    *,
    points: int = 21,
    recalibrate: bool = False,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Barrier:
    """Errors and losses along the straight line between the final weights of two runs.

    first, second: runs of one network; their masks may differ.
    points: number of evenly spaced positions, both ends included; at least 3.
    recalibrate: batch-norm statistics are interpolated like everything else; with True they are measured
        anew at every position, ends included: reset, then cumulative averages over the unaugmented train
        split.
    watch: somebody to give a sign of life at every position.

    Raises :class:`~tombola.errors.NetworkError` for runs of different networks or images that do not fit.
    """
    networks = first.ticket.network, second.ticket.network
    if networks[0] != networks[1]:
        raise NetworkError(f"a barrier needs two runs of one network; got {networks[0]} and {networks[1]}")
    shapes = [{name: value.shape for name, value in run.weights.items()} for run in (first, second)]
    if shapes[0] != shapes[1]:  # two factories may share a label, such as <lambda>
        raise NetworkError(
            f"a barrier needs two runs of one network; these differ, yet both are {networks[0].name}"
        )
    check_images(networks[0], data)
    if points < 3:
        raise RecipeError(f"points is {points}; a barrier needs at least 3: both ends and the middle")
    where = resolve_device(device)
    watch = watch or Watch()
    precision = _common_precision(first, second, where)
    body = Body(networks[0], where)
    test = device_batches(data, data.test, where)
    measured = []
    with repeatable(where):
        for index in range(points):
            body.load(interpolate(first.weights, second.weights, index, points))
            if recalibrate:
                recalibrate_batch_norm(body.module, device_batches(data, data.train, where), precision)
            measured.append(evaluate(body.module, test, precision))
            watch.beat()
    return Barrier(
        tuple(index / (points - 1) for index in range(points)),
        tuple(100.0 - accuracy for _, accuracy in measured),
        tuple(loss for loss, _ in measured),
    )


def interpolate(first: State, second: State, index: int, points: int) -> dict[str, Tensor]:
    """The state at position ``index`` of ``points`` on the line from ``first`` to ``second``.

    Worked from the nearer end, so that the ends are exact and swapping the runs mirrors the line to the bit.
    Integer buffers are taken from the first state.
    """
    last = points - 1
    if 2 * index > last:
        return interpolate(second, first, last - index, points)
    if index == 0:
        return dict(first)
    if 2 * index == last:
        return {
            name: (value + second[name]) / 2 if value.is_floating_point() else value
            for name, value in first.items()
        }
    share = index / last
    return {
        name: value + share * (second[name] - value) if value.is_floating_point() else value
        for name, value in first.items()
    }


@torch.no_grad()
def recalibrate_batch_norm(module: nn.Module, batches: Batches, precision: str) -> None:
    """Measure batch-norm statistics anew: reset, then cumulative averages over the batches, in place."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
    module.train()
    ends = [*range(EVALUATION_BATCH, len(batches), EVALUATION_BATCH), len(batches)]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]  # of a single image batch norm may have no statistics
    for first, last in zip([0, *ends], ends, strict=False):
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            module(channels_last(batches.plain(first, last)))
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def _common_precision(first: Run, second: Run, device: torch.device) -> str:
    """The precision the runs were trained in, in which they are evaluated too."""
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
