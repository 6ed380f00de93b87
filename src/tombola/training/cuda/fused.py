"""The fused training step and the fused evaluation: in as few passes over memory as a network allows.

:mod:`.rewrite` fuses the network, :mod:`.kernels` and :mod:`.norm` have the passes, and
:mod:`tombola.training.engines` captures the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tombola import seeds
from tombola.data.batches import Batches
from tombola.training.cuda.capture import capture
from tombola.training.cuda.cudnn import ALIGNMENT, Algorithm, Convolution
from tombola.training.cuda.kernels import adamw, adamw_numbers, crop, cross_entropy, sgd
from tombola.training.cuda.norm import FusedNorm
from tombola.training.cuda.pairing import use_lines
from tombola.training.cuda.planned import plan_convolutions, plan_evaluation
from tombola.training.cuda.plans import PlanTable, fingerprint, table_for
from tombola.training.cuda.rewrite import fused
from tombola.training.cuda.tiles import LineProduct, Tiles, TileTable, tiles_for, triton_version
from tombola.training.device import lent_streams
from tombola.training.epoch import DevicePlan, check_strays, gathered_at_step
from tombola.training.flat_network import FlatNetwork, channels_last
from tombola.training.losses import mean_loss
from tombola.training.recipe import Recipe

TOGETHER = 2
"""Batches of an evaluation under way at once."""


class FusedStep:
    """A :class:`~tombola.training.step.Step` of fused passes.

    size: images of a full batch, for which convolutions are planned.
    name: with the fingerprints of the convolution plans that it and evaluations compute by, and of the tiles
        of our own convolutions that take their place, if any.
    """

    def __init__(
        self, flat_network: FlatNetwork, network: FusedNetwork, batches: Batches, recipe: Recipe, size: int
    ) -> None:
        self._optimizer, self._recipe = recipe.optimizer, recipe
        self._flat_network = flat_network
        self._network = network
        self._batches = batches
        split = len(flat_network.kept)
        weights = flat_network.weights[:split] if flat_network.copy is None else flat_network.copy
        self._gradients = torch.zeros_like(weights), torch.zeros_like(flat_network.weights[split:])
        self._all_kept = torch.full_like(self._gradients[1], -1, dtype=torch.int8)
        network.plan_convolutions(size, self._gradients[0])
        self.name = "fused"
        if network.algorithms:
            self.name += f", convolution plans {fingerprint(network.algorithms)}"
        if network.tiles:
            self.name += f", tiles {fingerprint(network.tiles)}"
        self._numbers = self._numbers_of(recipe).to(flat_network.weights.device)
        self._count_together()

    def _count_together(self) -> None:
        """Make the batch counters of all fused batch norms views of one tensor, to be raised at once."""
        norms = self._network.norms()
        counted = list(dict.fromkeys(norms))
        self._counts: Tensor | None = None
        if counted:
            self._counts = torch.stack([norm.num_batches_tracked for norm in counted])  # type: ignore[misc]
            for norm, count in zip(counted, self._counts, strict=True):
                norm.num_batches_tracked = count
            calls = [norms.count(norm) for norm in counted]
            self._calls = torch.tensor(calls, device=self._counts.device)

    def set_numbers(self, recipe: Recipe) -> bool:
        self._numbers.copy_(self._numbers_of(recipe))
        return True

    def _numbers_of(self, recipe: Recipe) -> Tensor:
        """What the optimizer's pass reads on the device besides rate and step count."""
        if self._optimizer == "adamw":
            return adamw_numbers(recipe.betas, recipe.eps, recipe.weight_decay)
        return torch.tensor([recipe.momentum, recipe.weight_decay])

    def inputs(self, plan: DevicePlan, size: int) -> tuple[Tensor, Tensor]:
        if plan.draws.centres is None and plan.draws.transform is None:
            return crop(self._batches, plan, size, self._network.dtype)
        images, targets = gathered_at_step(plan, self._batches, size)
        return images.to(self._network.dtype), targets

    def learn(self, inputs: Tensor, targets: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._network(inputs, training=True)
        leaves = self._network.leaves
        if self._recipe.loss == "cross-entropy":
            losses, right, gradient = cross_entropy(outputs, targets, self._recipe.label_smoothing)
            loss = losses.mean()
            gradients = torch.autograd.grad(outputs, leaves, gradient, allow_unused=True)
        else:
            loss = mean_loss(self._recipe, outputs.float(), targets)
            right = outputs.argmax(1) == targets
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        with torch.no_grad():
            flat = [
                _flat(torch.zeros_like(leaf) if gradient is None else gradient)
                for leaf, gradient in zip(leaves, gradients, strict=True)
            ]
            prunable = len(self._flat_network.prunable)
            self._move(flat[:prunable], flat[prunable:], rate)
            if self._counts is not None:
                self._counts += self._calls
            return loss.detach(), right

    def _move(self, prunable: list[Tensor], others: list[Tensor], rate: Tensor) -> None:
        """One step by flat gradients, the prunable weights under their mask and the others under none."""
        flat_network, split = self._flat_network, len(self._flat_network.kept)
        if self._optimizer == "adamw":
            flat_network.steps_taken.add_(1)
        stretches = (
            (slice(split), flat_network.kept, flat_network.copy),
            (slice(split, None), self._all_kept, None),
        )
        for parts, gradient, (stretch, kept, copy) in zip(
            (prunable, others), self._gradients, stretches, strict=True
        ):
            if parts:
                _collect(parts, gradient)
                weights = flat_network.weights[stretch]
                states = [row[stretch] for row in flat_network.states.values()]
                if self._optimizer == "adamw":
                    steps_taken = flat_network.steps_taken
                    adamw(weights, gradient, states, kept, copy, rate, steps_taken, self._numbers)
                else:
                    nesterov = self._optimizer == "nesterov"
                    sgd(weights, gradient, states[0], kept, copy, rate, self._numbers, nesterov=nesterov)


def _collect(parts: list[Tensor], gradient: Tensor) -> None:
    """Lay flat gradients one behind the other into one tensor; those that were written there stay."""
    first, place, apart = 0, 0, list[Tensor]()
    for part in parts:
        if part.data_ptr() == gradient[place:].data_ptr():
            if apart:
                torch.cat(apart, out=gradient[first:place])
            first, apart = place + len(part), []
        else:
            apart.append(part)
        place += len(part)
    if apart:
        torch.cat(apart, out=gradient[first:place])


def _flat(gradient: Tensor) -> Tensor:
    """A gradient in one dimension, in the order in which a FlatNetwork lays out that parameter."""
    return (gradient.permute(0, 2, 3, 1) if gradient.dim() == 4 else gradient).reshape(-1)


class FusedNetwork:
    """The fused form of a flat network, on the same weights.

    dtype: of images and convolutions.
    leaves: the tensors to differentiate by, in the order of the flat network's ``prunable`` and ``others``.
    algorithms: of the convolutions that compute by named plans, in training or in evaluation.
    tiles: of those that are our own in training instead.

    Raises what tracing raises for a network whose path depends on values.
    """

    def __init__(self, flat_network: FlatNetwork, precision: str) -> None:
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._flat_network = flat_network
        self._network = fused(flat_network.module)
        self._measuring: list[FusedNorm] = []
        self.algorithms: dict[Convolution, Algorithm] = {}
        self.tiles: dict[LineProduct, Tiles] = {}
        # Convolutions compute with the bfloat16 copies themselves: nothing is cast, forward or backward.
        if self.dtype == torch.bfloat16:
            flat_network.keep_copy()
        names = [*flat_network.prunable, *flat_network.others]
        self.leaves = [flat_network.leaf(name) for name in names]
        self._name_of = {id(flat_network.module.get_parameter(name)): name for name in names}
        leaf_of = {
            id(flat_network.module.get_parameter(name)): leaf
            for name, leaf in zip(names, self.leaves, strict=True)
        }
        # Each module once, under however many names it stands: exchanged twice, a weight would not come back.
        self._places = [
            (module._parameters, key, leaf_of[id(parameter)])
            for module in self._network.modules()
            for key, parameter in module._parameters.items()
            if id(parameter) in leaf_of
        ]

    def __call__(self, inputs: Tensor, *, training: bool) -> Tensor:
        """Outputs ``(B, classes)``; in training the statistics of batch norms are updated."""
        self._network.train(training)
        for layer in self._measuring:
            layer.train()
        own = [parameters[key] for parameters, key, _ in self._places]
        try:
            for parameters, key, leaf in self._places:
                parameters[key] = leaf  # type: ignore[assignment]
            with torch.autocast("cuda", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                outputs: Tensor = self._network(inputs)
        finally:
            for (parameters, key, _), parameter in zip(self._places, own, strict=True):
                parameters[key] = parameter
        return outputs

    def plan_convolutions(self, size: int, gradient: Tensor) -> None:
        """Compute convolutions of training batches of that size by named plans, where a table has them.

        Where another has tiles for them, our own take the place of plans.

        gradient: of the prunable weights, one behind the other; what plans compute is written there at once.
        """
        table = self._plan_table()
        if table is None:
            return
        prunable = set(self._flat_network.prunable)

        def place(parameter: Tensor) -> Tensor | None:
            name = self._name_of[id(parameter)]
            view = self._flat_network.view(gradient, name) if name in prunable else None
            return None if view is None or view.data_ptr() % ALIGNMENT else view

        with seeds.torch_stream("check", device=gradient.device):
            self.algorithms |= plan_convolutions(self._network, self._zeros(size), table, self._leaf, place)
        tiles = self._tile_table()
        if tiles is not None:
            self.tiles |= use_lines(self._network, tiles.tiles, gradient.device)

    def plan_evaluation(self, size: int) -> None:
        """Compute convolutions of evaluated batches of that size by named plans, where a table has them."""
        table = self._plan_table()
        if table is None or not any(
            one.operation == "forward" and one.input[0] == size for one in table.algorithms
        ):
            return
        with seeds.torch_stream("check", device=self._flat_network.weights.device):
            self.algorithms |= plan_evaluation(self._network, self._zeros(size), table, self._leaf)

    def _plan_table(self) -> PlanTable | None:
        """The table of plans for these convolutions on this GPU, if there is one."""
        version = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        gpu = self._named_gpu()
        return None if gpu is None else table_for(gpu, version)

    def _tile_table(self) -> TileTable | None:
        """The table of tiles for these convolutions on this GPU, if there is one."""
        gpu = self._named_gpu()
        return None if gpu is None else tiles_for(gpu, triton_version())

    def _named_gpu(self) -> str | None:
        """The name of the GPU whose tables say what computes; None where there is no such choice."""
        device = self._flat_network.weights.device
        # In mode "autotuned" cuDNN chooses by timing.
        if device.type != "cuda" or self.dtype != torch.bfloat16 or torch.backends.cudnn.benchmark:
            return None
        return torch.cuda.get_device_name(device)

    def _zeros(self, size: int) -> Tensor:
        """So many black images."""
        device = self._flat_network.weights.device
        return channels_last(torch.zeros(size, *self._flat_network.images, dtype=self.dtype, device=device))

    def _leaf(self, parameter: Tensor) -> Tensor:
        """The tensor that forward passes use for a parameter."""
        name = self._name_of.get(id(parameter))
        return parameter if name is None else self._flat_network.leaf(name)

    def norms(self) -> list[nn.BatchNorm2d]:
        """The batch norms whose batches the fused network does not count, once for each call."""
        return [layer.norm for layer in self._fused_norms()]

    def fuses_every_norm(self) -> bool:
        """Whether all layers that keep statistics of batches are among :meth:`norms`."""
        norms = self.norms()
        return all(
            layer in norms
            for layer in self._network.modules()
            if isinstance(layer, nn.modules.batchnorm._NormBase)
        )

    @contextmanager
    def measuring(self, passed: Mapping[nn.BatchNorm2d, Tensor]) -> Iterator[None]:
        """Context in which the fused norms measure means over images, whatever mode the rest is in.

        passed: for each norm by how many images it was measured so far, float32 ``(C,)``.
        """
        self._measuring = self._fused_norms()
        for layer in self._measuring:
            layer.passed = passed[layer.norm]
        try:
            yield
        finally:
            for layer in self._measuring:
                layer.passed = None
            self._measuring = []

    def _fused_norms(self) -> list[FusedNorm]:
        return [layer for layer in self._network.modules() if isinstance(layer, FusedNorm)]


class GraphedEvaluation:
    """Loss and accuracy of a network on one split, with the weights that it has when called.

    Batches pass several at a time, each in a stream of its own: what waits for memory in one of them computes
    in another. Each batch has the bits that it has alone.
    """

    def __init__(
        self, network: FusedNetwork, batches: Batches, batch_size: int, together: int = TOGETHER
    ) -> None:
        device = batches.padded.device
        self._network, self._batches = network, batches
        size = min(batch_size, len(batches))
        full, last = divmod(len(batches), size)
        together = min(together, full)
        plan = DevicePlan.unaugmented(len(batches), size, batches.pad, device)
        self._strays = plan.strays
        # Each stream counts its own batches.
        self._step = torch.zeros(together, dtype=torch.int64, device=device)
        self._plans = [replace(plan, step=step) for step in self._step.split(1)]
        self._first = torch.arange(together, device=device)
        self._sums = torch.zeros(full + 1, 2, dtype=torch.float64, device=device)
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        parts = [[size] * together, [size] * (full % together) + [last] * bool(last)]
        with lent_streams(device, together - 1) as streams:
            self._graphs = [
                capture(partial(self._take, sizes, streams), pool, before=self._begin)
                for sizes in parts
                if sizes
            ]
        self._repeats = full // together

    def __call__(self) -> tuple[float, float]:
        """Mean cross-entropy in nats and accuracy in percent."""
        self._begin()
        for graph, repeats in zip(self._graphs, (self._repeats, 1), strict=False):
            for _ in range(repeats):
                graph.replay()
        loss = right = 0.0
        for batch_loss, batch_right in self._sums.tolist():  # in order, however they passed
            loss += batch_loss
            right += batch_right
        check_strays(self._strays)
        return loss / len(self._batches), 100 * right / len(self._batches)

    def _begin(self) -> None:
        self._step.copy_(self._first)
        self._sums.zero_()

    def _take(self, sizes: Sequence[int], streams: Sequence[torch.cuda.Stream]) -> None:
        """Pass one batch of each size, the first in the current stream and the others beside it."""
        current = torch.cuda.current_stream()
        used = [current, *streams][: len(sizes)]
        for stream in used[1:]:
            stream.wait_stream(current)
        for plan, size, stream in zip(self._plans, sizes, used, strict=False):
            with torch.cuda.stream(stream):
                self._pass(plan, size, len(self._plans))
        for stream in used[1:]:
            current.wait_stream(stream)

    @torch.no_grad()
    def _pass(self, plan: DevicePlan, size: int, stride: int) -> None:
        """Enter the sums of one batch, the one that a step counter points to."""
        images, targets = crop(self._batches, plan, size, self._network.dtype)
        losses, right, _ = cross_entropy(self._network(images, training=False), targets)
        sums = torch.stack([losses.double().sum(), right.sum()])
        self._sums.index_copy_(0, plan.step, sums.view(1, 2))
        plan.step.add_(stride)


class GraphedStatistics:
    """The running statistics of a network's batch norms, measured anew over all images of one split.

    spans: first and last (exclusive) index of each batch, all of one size but the last.

    Every image weighs the same: :func:`~tombola.measures.interpolation.recalibrate_batch_norm` says how.
    """

    def __init__(self, network: FusedNetwork, batches: Batches, spans: Sequence[tuple[int, int]]) -> None:
        self._network = network
        sizes = [last - first for first, last in spans]
        self._full = len(sizes) - 1
        device = batches.padded.device
        self._plan = DevicePlan.unaugmented(len(batches), sizes[0], batches.pad, device)
        self._batches = batches
        norms = network.norms()
        self._calls = {norm: norms.count(norm) * len(sizes) for norm in norms}
        self._passed = {norm: torch.zeros_like(norm.weight.detach()) for norm in norms}
        pool = torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        with network.measuring(self._passed):
            self._graphs = [
                capture(partial(self._take, size), pool, before=self._begin)
                for size in dict.fromkeys((sizes[0], sizes[-1]))
            ]

    def __call__(self) -> None:
        """Measure them, in place."""
        self._begin()
        for _ in range(self._full):
            self._graphs[0].replay()
        self._graphs[-1].replay()
        for norm, calls in self._calls.items():
            norm.num_batches_tracked.fill_(calls)  # type: ignore[union-attr]
        check_strays(self._plan.strays)

    def _begin(self) -> None:
        self._plan.step.zero_()
        for norm, passed in self._passed.items():
            passed.zero_()
            norm.reset_running_stats()

    @torch.no_grad()
    def _take(self, size: int) -> None:
        """Pass one batch, the one that the step counter points to."""
        images, _ = crop(self._batches, self._plan, size, self._network.dtype)
        self._network(images, training=False)
        self._plan.step.add_(1)
