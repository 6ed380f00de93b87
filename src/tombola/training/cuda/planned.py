"""Convolutions of a fused network that compute by named plans in training, instead of by cuDNN's heuristics.

:mod:`.plans` has the table, :mod:`.cudnn` what runs a plan. Only batches of the size that an engine trains on
are planned: a smaller last batch, evaluations and shapes that no table has go through PyTorch as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tombola.training.cuda.convolution import FewChannels, has_own_weight_gradient, weight_gradient
from tombola.training.cuda.cudnn import ALIGNMENT, Convolution, ConvolutionPlan, CudnnError, plan
from tombola.training.cuda.kernels import empty_channels_last
from tombola.training.cuda.plans import PlanTable, fingerprint, say_once
from tombola.training.cuda.rewrite import Biasless


class Planned(nn.Module):
    """A convolution by plans for training batches of one shape, and as it was for all others.

    plans: by operation; ``"input"`` is missing for images, ``"weight"`` for few channels, whose gradient
        is that of :mod:`.convolution`.
    gradient: where to write the gradient of the weight, of its shape and layout; None for a new tensor.
    """

    def __init__(
        self,
        layer: nn.Conv2d | Biasless | FewChannels,
        plans: Mapping[str, ConvolutionPlan],
        gradient: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.plans = plans
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        shape = self.plans["forward"].convolution.input
        if not self.training or tuple(x.shape) != shape:
            out: Tensor = self.layer(x)
            return out
        planned: Tensor = _Planned.apply(x, _convolution(self.layer).weight, self)  # type: ignore[no-untyped-call]
        return planned


class _Planned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, op: Planned) -> Tensor:
        x = _laid_out(x)
        forward = op.plans["forward"]
        y = empty_channels_last(x, *forward.convolution.output)
        forward(x, weight, y)
        ctx.save_for_backward(x, weight)
        ctx.op = op
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        op, dy = ctx.op, _laid_out(dy)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = empty_channels_last(x, *x.shape)
            op.plans["input"](dx, weight, dy)
        dweight = empty_channels_last(weight, *weight.shape) if op.gradient is None else op.gradient
        if "weight" in op.plans:
            op.plans["weight"](x, dweight, dy)
        else:
            weight_gradient(dy, x, weight, _convolution(op.layer).stride[0], total=dweight)
        return dx, dweight, None


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
) -> str | None:
    """Let the convolutions of a fused network compute by the plans of a table that it has for their shapes.

    images: a batch of the size to plan for, with any values; the network sees it once, in evaluation mode.
    leaf: the tensor that forward passes use for a weight.
    gradient: where the gradient of a weight is to be written, None for a new tensor.

    Returns the :func:`~tombola.training.cuda.plans.fingerprint` of the algorithms used, or None for none. If
    one cannot be built, that is said, and none is used.
    """
    seen = _inputs(network, images)
    wanted: dict[str, dict[str, Convolution]] = {}
    for name, call in seen.items():
        layer = network.get_submodule(name)
        needed = _convolutions(layer, call, leaf(_convolution(layer).weight))
        if needed and all(one in table.algorithms for one in needed.values()):
            wanted[name] = needed
    algorithms = {one: table.algorithms[one] for needed in wanted.values() for one in needed.values()}
    try:
        plans = {one: plan(one, algorithm) for one, algorithm in algorithms.items()}
    except CudnnError as error:
        say_once(f"convolution plans are left out, cuDNN chooses by its own heuristics: {error}")
        return None
    for name, needed in wanted.items():
        layer = network.get_submodule(name)
        by_operation = {operation: plans[one] for operation, one in needed.items()}
        place = gradient(_convolution(layer).weight)
        network.set_submodule(name, Planned(layer, by_operation, place))  # type: ignore[arg-type]
    return fingerprint(algorithms) if algorithms else None


def _convolution(layer: nn.Module) -> nn.Conv2d:
    convolution = layer.convolution if isinstance(layer, Biasless | FewChannels) else layer
    assert isinstance(convolution, nn.Conv2d)
    return convolution


def _inputs(network: fx.GraphModule, images: Tensor) -> dict[str, _Seen]:
    """How layers that may be planned are called, by name: those called once whose weight is theirs alone."""
    calls = [node for node in network.graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in calls)
    once = [str(node.target) for node in calls if times[node.target] == 1 and not node.kwargs]
    layers = {name: network.get_submodule(name) for name in once}
    layers = {
        name: layer
        for name, layer in layers.items()
        if type(layer) in (nn.Conv2d, Biasless, FewChannels) and type(_convolution(layer)) is nn.Conv2d
    }
    used = Counter(id(_convolution(layer).weight) for layer in layers.values())
    seen: dict[str, _Seen] = {}
    hooks = []
    for name, layer in layers.items():
        if used[id(_convolution(layer).weight)] == 1:

            def note(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                seen[name] = _Seen(tuple(inputs[0].shape), inputs[0].dtype, inputs[0] is images)  # type: ignore[arg-type]

            hooks.append(layer.register_forward_pre_hook(note))
    network.eval()
    try:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _convolutions(layer: nn.Module, call: _Seen, leaf: Tensor) -> dict[str, Convolution]:
    """What a layer computes in a step, by operation; empty for what no plan is for."""
    convolution = _convolution(layer)
    padding = convolution.padding
    if (
        isinstance(padding, str)
        or convolution.padding_mode != "zeros"
        or convolution.dilation != (1, 1)
        or convolution.groups != 1
        or (convolution.bias is not None and layer is convolution)
        or not call.dtype == leaf.dtype == torch.bfloat16
        or not leaf.requires_grad
        or leaf.data_ptr() % ALIGNMENT
    ):
        return {}
    weight: Any = tuple(leaf.shape)
    products = {
        operation: Convolution(operation, call.shape, weight, convolution.stride, padding)  # type: ignore[arg-type]
        for operation in ("forward", "input", "weight")
    }
    if call.is_image:
        del products["input"]
    if isinstance(layer, FewChannels) and has_own_weight_gradient(weight, products["weight"].output):
        del products["weight"]
    return products
