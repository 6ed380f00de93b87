"""Where the fused passes fit a network: its traced graph, with batch norms and what follows them made one.

Networks stay as they are written; this reads them. What is not recognised is left as it was.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from tombola.training.fused.norm import FusedNorm
from tombola.training.fused.pointwise import Pointwise
from tombola.training.fused.pool import HalvingPool

_RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class _Biasless(nn.Module):
    """A convolution whose bias is left to the batch norm after it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolution._conv_forward(x, self.convolution.weight, None)
        return out


def fused(module: nn.Module) -> fx.GraphModule:
    """The same network in training mode, on the same parameters and buffers, in fewer passes over memory.

    Its batch norms update their running statistics, but do not count batches. Raises what tracing raises for
    a network whose path depends on values.
    """
    rewritten = fx.GraphModule(module, fx.Tracer().trace(module))
    graph = rewritten.graph
    for index, node in enumerate(list(graph.nodes)):
        if _strides_over_pixels(_module(rewritten, node)) and _called_once(rewritten, node):
            rewritten.add_submodule(f"pointwise_{index}", Pointwise(_module(rewritten, node)))
            node.target = f"pointwise_{index}"
        if _halves(_module(rewritten, node)):
            rewritten.add_submodule(f"pool_{index}", HalvingPool())
            node.target = f"pool_{index}"
        norm = _module(rewritten, node)
        if type(norm) is not nn.BatchNorm2d or not _plain(norm):
            continue
        last, residual, relu = _followers(rewritten, node)
        source = node.args[0]
        bias = _bias_before(rewritten, source)
        if bias is not None:
            rewritten.add_submodule(f"biasless_{index}", _Biasless(_module(rewritten, source)))
            source.target = f"biasless_{index}"
        twice = len(last.users) == 2
        rewritten.add_submodule(f"fused_{index}", FusedNorm(norm, relu=relu, conv_bias=bias, twice=twice))
        with graph.inserting_before(last):
            new = graph.call_module(f"fused_{index}", (source, residual) if residual else (source,))
            if twice:
                outs = [graph.call_function(operator.getitem, (new, each)) for each in range(2)]
        if twice:
            for user, out in zip(list(last.users), outs, strict=True):
                user.replace_input_with(last, out)
        else:
            last.replace_all_uses_with(new)
        graph.eliminate_dead_code()
    graph.lint()
    rewritten.recompile()
    return rewritten


def _followers(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node | None, bool]:
    """The last node that can be made one with a batch norm, what is added to it, and whether ReLU follows."""
    last, residual = node, None
    after = _only_user(last)
    if after is not None and after.target in _ADDITIONS and not after.kwargs:
        others = [each for each in after.args if each is not node]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            last, residual = after, others[0]
            after = _only_user(last)
    if after is not None and _is_relu(module, after):
        return after, residual, True
    return last, residual, False


def _bias_before(module: fx.GraphModule, source: Any) -> Tensor | None:
    """The bias of a convolution that only a batch norm uses."""
    convolution = _module(module, source)
    if type(convolution) is not nn.Conv2d or _only_user(source) is None:
        return None
    return convolution.bias if _called_once(module, source) else None


def _called_once(module: fx.GraphModule, node: fx.Node) -> bool:
    return [other.target for other in module.graph.nodes].count(node.target) == 1


def _strides_over_pixels(layer: Any) -> bool:
    """Whether a layer is a 1x1 convolution that leaves out pixels."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and layer.bias is None
    )


def _halves(layer: Any) -> bool:
    """Whether a layer is the max-pooling of 2x2 pixels."""
    if type(layer) is not nn.MaxPool2d or layer.ceil_mode or layer.return_indices:
        return False
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return all(size in (number, (number, number)) for size, number in zip(sizes, (2, 2, 0, 1), strict=True))


def _is_relu(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return type(_module(module, node)) is nn.ReLU or node.target in _RELUS


def _plain(norm: nn.BatchNorm2d) -> bool:
    return bool(norm.affine and norm.track_running_stats and norm.momentum is not None)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _module(module: fx.GraphModule, node: Any) -> Any:
    """The submodule that a node calls, if it calls one."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return module.get_submodule(str(node.target))
    return None
