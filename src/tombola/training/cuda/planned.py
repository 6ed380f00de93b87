"""Convolutions of a fused network that compute by named plans, instead of by cuDNN's heuristics.

:mod:`.plans` has the table, :mod:`.cudnn` what runs a plan. Only batches of the size that an engine trains on
are planned, and full batches of evaluations: a smaller last batch and shapes that no table has go through
PyTorch as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import torch
from torch import Tensor, fx, nn

from tombola.errors import DeviceLost
from tombola.training.cuda.convolution import FewChannels, has_own_weight_gradient, weight_gradient
from tombola.training.cuda.cudnn import (
    ALIGNMENT,
    Algorithm,
    Convolution,
    ConvolutionPlan,
    CudnnError,
    Operation,
    built,
)
from tombola.training.cuda.kernels import empty_channels_last
from tombola.training.cuda.norm import Normed, Note, Parts
from tombola.training.cuda.plans import PlanTable, say_once
from tombola.training.cuda.rewrite import Biasless


class Line(Protocol):
    """A convolution of :mod:`.lines`, or the gradient of its input; that module needs Gluon."""

    def __call__(
        self, x: Tensor, weight: Tensor, y: Tensor, normed: Normed | None = None
    ) -> Parts | None: ...


class Planned(nn.Module):
    """A convolution by plans for batches of one shape, and as it was for all others.

    plans: of training by operation, none before :func:`plan_convolutions`; ``"input"`` is missing for images,
        ``"weight"`` for few channels, whose gradient is that of :mod:`.convolution`.
    gradient: where to write the gradient of the weight, of its shape and layout; None for a new tensor.
    evaluation: of passes in evaluation mode without gradients; None before :func:`plan_evaluation`.
    lines: what computes instead of a plan of training, by operation (:mod:`.pairing`).
    statistics: left for the batch norm after, those of the result. normed: what the norm before has left.
        gradient_sums: left for that norm, those of the gradient of its result. None beside norms that add up
        by themselves.
    """

    statistics: Note[Parts] | None = None
    normed: Note[Normed] | None = None
    gradient_sums: Note[Parts] | None = None

    def __init__(self, layer: nn.Conv2d | Biasless | FewChannels) -> None:
        super().__init__()
        self.layer = layer
        self.plans: Mapping[str, ConvolutionPlan] = {}
        self.gradient: Tensor | None = None
        self.evaluation: ConvolutionPlan | None = None
        self.lines: dict[str, Line] = {}

    def forward(self, x: Tensor) -> Tensor:
        normed = None if self.normed is None else self.normed.take(x)
        forward = self.plans.get("forward") if self.training else self.evaluation
        differentiated = torch.is_grad_enabled() and not self.training
        if forward is None or tuple(x.shape) != forward.convolution.input or differentiated:
            out: Tensor = self.layer(x)
            return out
        weight = _convolution(self.layer).weight
        if not self.training:
            return _output(forward, _laid_out(x), weight)
        planned: Tensor = _Planned.apply(x, weight, self, normed)  # type: ignore[no-untyped-call]
        return planned


def _output(forward: ConvolutionPlan, x: Tensor, weight: Tensor) -> Tensor:
    y = empty_channels_last(x, *forward.convolution.output)
    forward(x, weight, y)
    return y


class _Planned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, op: Planned, normed: Normed | None) -> Tensor:
        x = _laid_out(x)
        ctx.save_for_backward(x, weight, *(normed or ()))
        ctx.op = op
        plan = op.plans["forward"]
        if "forward" not in op.lines:
            return _output(plan, x, weight)
        y = empty_channels_last(x, *plan.convolution.output)
        parts = op.lines["forward"](x, weight, y)
        if parts is not None and op.statistics is not None:
            op.statistics.leave(y, parts)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight, *normed = ctx.saved_tensors
        op, dy = ctx.op, _laid_out(dy)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = empty_channels_last(x, *x.shape)
            if "input" in op.lines:
                parts = op.lines["input"](dy, weight, dx, Normed(*normed) if normed else None)
                if parts is not None:
                    op.gradient_sums.leave(dx, parts)
            else:
                op.plans["input"](dx, weight, dy)
        dweight = empty_channels_last(weight, *weight.shape) if op.gradient is None else op.gradient
        if "weight" in op.plans:
            op.plans["weight"](x, dweight, dy)
        else:
            weight_gradient(dy, x, weight, _convolution(op.layer).stride[0], total=dweight)
        return dx, dweight, None, None


def _laid_out(values: Tensor) -> Tensor:
    """Values in channels_last at an address that a plan takes."""
    values = values.contiguous(memory_format=torch.channels_last)
    return values.clone() if values.data_ptr() % ALIGNMENT else values


@dataclass(frozen=True)
class _Seen:
    """How a layer was called: the shape of its input, and whether that was the network's."""

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    is_image: bool


def plan_convolutions(
    network: fx.GraphModule,
    images: Tensor,
    table: PlanTable,
    leaf: Callable[[Tensor], Tensor],
    gradient: Callable[[Tensor], Tensor | None],
) -> dict[Convolution, Algorithm]:
    """Let the convolutions of a fused network compute by the plans of a table that it has for their shapes.

    images: a batch of the size to plan for, with any values; the network sees it once, in evaluation mode,
        without computing the convolutions that a plan may be for.
    leaf: the tensor that forward passes use for a weight.
    gradient: where the gradient of a weight is to be written, None for a new tensor.

    Returns the algorithms used. If GPU or cuDNN do not have one of them, that is said, and none is used.

    Raises :class:`~tombola.errors.DeviceLost` where cuDNN fails in passing.
    """
    wanted: dict[str, dict[str, Convolution]] = {}
    for name, call in _inputs(network, images).items():
        layer = _unplanned(network.get_submodule(name))
        needed = _convolutions(layer, call, leaf(_convolution(layer).weight))
        if needed and all(one in table.algorithms for one in needed.values()):
            wanted[name] = needed
    algorithms = {one: table.algorithms[one] for needed in wanted.values() for one in needed.values()}
    plans = _built(algorithms)
    if plans is None:
        return {}
    for name, needed in wanted.items():
        planned = _planned(network, name)
        planned.plans = {operation: plans[one] for operation, one in needed.items()}
        planned.gradient = gradient(_convolution(planned.layer).weight)
    return algorithms


def plan_evaluation(
    network: fx.GraphModule, images: Tensor, table: PlanTable, leaf: Callable[[Tensor], Tensor]
) -> dict[Convolution, Algorithm]:
    """Let evaluations of a fused network compute convolutions by the plans of a table, where it has them.

    Arguments, result and errors as for :func:`plan_convolutions`.
    """
    wanted: dict[str, Convolution] = {}
    for name, call in _inputs(network, images).items():
        layer = _unplanned(network.get_submodule(name))
        forward = _convolutions(layer, call, leaf(_convolution(layer).weight)).get("forward")
        if forward is not None and forward in table.algorithms:
            wanted[name] = forward
    algorithms = {one: table.algorithms[one] for one in wanted.values()}
    plans = _built(algorithms)
    if plans is None:
        return {}
    for name, forward in wanted.items():
        _planned(network, name).evaluation = plans[forward]
    return algorithms


def _built(algorithms: Mapping[Convolution, Algorithm]) -> dict[Convolution, ConvolutionPlan] | None:
    """The plans of some algorithms; None, which is said, if one cannot be built.

    Raises :class:`~tombola.errors.DeviceLost` where cuDNN fails in passing, because bits would depend on it.
    """
    try:
        return built(algorithms)
    except CudnnError as error:
        if error.passing:
            raise DeviceLost(
                f"no convolution plans where there should be; begin a new process: {error}"
            ) from error
        say_once(f"convolution plans are left out, cuDNN chooses by its own heuristics: {error}")
        return None


def _planned(network: fx.GraphModule, name: str) -> Planned:
    """The layer of a name, made a planned one unless it is."""
    layer = network.get_submodule(name)
    if not isinstance(layer, Planned):
        layer = Planned(layer)  # type: ignore[arg-type]
        network.set_submodule(name, layer)
    return layer


def _unplanned(layer: nn.Module) -> nn.Module:
    return layer.layer if isinstance(layer, Planned) else layer


def _convolution(layer: nn.Module) -> nn.Conv2d:
    convolution = layer.convolution if isinstance(layer, Biasless | FewChannels) else layer
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def _inputs(network: fx.GraphModule, images: Tensor) -> dict[str, _Seen]:
    """How layers that may be planned are called, by name: those called once whose weight is theirs alone."""
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    once = [str(node.target) for node in calls if times[node.target] == 1 and not node.kwargs]
    layers = {name: _unplanned(network.get_submodule(name)) for name in once}
    layers = {
        name: layer
        for name, layer in layers.items()
        if type(layer) in (nn.Conv2d, Biasless, FewChannels) and type(_convolution(layer)) is nn.Conv2d
    }
    used = Counter(id(_convolution(layer).weight) for layer in layers.values())
    own = {name: layer for name, layer in layers.items() if used[id(_convolution(layer).weight)] == 1}
    shapes = _Shapes(network, own, images)
    network.eval()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        shapes.run(images)
    return shapes.seen


class _Shapes(fx.Interpreter):
    """Runs a network in bfloat16, and notes how some of its convolutions are called.

    Those that a plan may be for are not computed and hand on zeros: cuDNN would look for algorithms, and load
    them, that nothing uses afterwards.
    """

    def __init__(self, network: fx.GraphModule, layers: Mapping[str, nn.Module], images: Tensor) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self.seen: dict[str, _Seen] = {}
        self._layers = layers
        self._images = images

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        layer = self._layers.get(target)
        if layer is None:
            return super().call_module(target, args, kwargs)
        x, convolution = args[0], _convolution(layer)
        self.seen[target] = _Seen(tuple(x.shape), x.dtype, x is self._images)
        if not _is_plain(convolution) or x.ndim != 4:
            return super().call_module(target, args, kwargs)
        product = _product("forward", convolution, tuple(x.shape))
        like = x.new_empty(0, dtype=torch.bfloat16)
        return empty_channels_last(like, *product.output).zero_()


def _product(operation: Operation, convolution: nn.Conv2d, images: Any) -> Convolution:
    """One of the products of a convolution on images of a shape."""
    weight: Any = tuple(convolution.weight.shape)
    padding: Any = convolution.padding
    stride: Any = convolution.stride
    return Convolution(operation, images, weight, stride, padding)


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is one of those that plans are for, by its geometry."""
    return (
        not isinstance(convolution.padding, str)
        and convolution.padding_mode == "zeros"
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
    )


def _convolutions(layer: nn.Module, call: _Seen, leaf: Tensor) -> dict[str, Convolution]:
    """What a layer computes in a step, by operation; empty for what no plan is for."""
    convolution = _convolution(layer)
    if (
        not _is_plain(convolution)
        or (convolution.bias is not None and layer is convolution)
        or not call.dtype == leaf.dtype == torch.bfloat16
        or not leaf.requires_grad
        or leaf.data_ptr() % ALIGNMENT
    ):
        return {}
    products: dict[str, Convolution] = {
        operation: _product(operation, convolution, call.shape) for operation in get_args(Operation)
    }
    if call.is_image:
        del products["input"]
    if isinstance(layer, FewChannels) and has_own_weight_gradient(leaf.shape, products["weight"].output):
        del products["weight"]
    return products
