"""Rewrites the traced graph of a network to use fused passes, and checks that it computes the same.

Batch norms become one pass with the addition and ReLU after them, 1x1 convolutions and 2x2 pooling the passes
of :mod:`.kernels`, 3x3 convolutions of few channels those of :mod:`.convolution`; all else stays. The module
itself is not changed.
"""

from __future__ import annotations

import copy
import itertools
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from tombola import seeds
from tombola.errors import NetworkError
from tombola.training.cuda.convolution import (
    FewChannels,
    FirstConvolution,
    is_of_few_channels,
    is_of_images,
)
from tombola.training.cuda.kernels import HalvingPool, Pointwise
from tombola.training.cuda.norm import FusedNorm
from tombola.training.cuda.tracing import traced


@dataclass
class Passes:
    """Which passes beyond those of batch norm are taken: all, but where a benchmark times them apart."""

    first_convolution: bool = True
    few_channels: bool = True
    sampled_shortcuts: bool = True
    relu_signs: bool = True


PASSES = Passes()

_RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


class Biasless(nn.Module):
    """A convolution whose bias is left to the batch norm after it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.convolution._conv_forward(x, self.convolution.weight, None)
        return out


def fused(module: nn.Module) -> fx.GraphModule:
    """A network of the same parameters and buffers, in fewer passes over memory.

    Its batch norms update their running statistics, but do not count batches.

    Raises :class:`~tombola.errors.NetworkError` for a network that does more than its graph shows, and what
    tracing raises for one whose path depends on values.
    """
    _check_graph_shows_all(module)
    rewritten = traced(module)
    graph = rewritten.graph
    if any(not node.users and node.op not in ("placeholder", "output") for node in graph.nodes):
        raise NetworkError("it has operations whose results nobody uses, which may work in place")
    for node in list(graph.nodes):
        layer = _module(rewritten, node)
        if _is_strided_pointwise(layer) and _called_once(rewritten, node):
            node.target = _added(rewritten, Pointwise(layer))
        elif _is_halving_pool(layer):
            node.target = _added(rewritten, HalvingPool())
        elif type(layer) is nn.BatchNorm2d and _is_fusible(layer):
            _fuse(rewritten, node, layer)
    for node in graph.nodes:  # now that biases before batch norms are left out
        own = _own_convolution(rewritten, node)
        if own is not None and _called_once(rewritten, node):
            node.target = _added(rewritten, own)
    graph.lint()
    rewritten.recompile()
    return rewritten


def _check_graph_shows_all(module: nn.Module) -> None:
    """Raises NetworkError for hooks and own ``train`` methods, which a graph does not show."""
    for layer in module.modules():
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            raise NetworkError("it has hooks")
        if type(layer).train is not nn.Module.train:
            raise NetworkError(f"{type(layer).__name__} has a train() of its own")


def _added(module: fx.GraphModule, layer: nn.Module) -> str:
    """Add a layer under an unused name; returns the name."""
    used = {name for name, _ in module.named_modules(remove_duplicate=False)}
    name = next(name for count in itertools.count() if (name := f"fused_{count}") not in used)
    module.add_submodule(name, layer)
    return name


def _fuse(module: fx.GraphModule, node: fx.Node, norm: nn.BatchNorm2d) -> None:
    """Replace a batch norm and the addition and ReLU after it by one pass."""
    last, residual, relu = _followers(module, node)
    source: Any = node.args[0]
    bias = _bias_before(module, source)
    if bias is not None:
        source.target = _added(module, Biasless(_module(module, source)))
    users = list(last.users)
    # Returned twice, both are one tensor: a user that works in place would change the other's input too.
    twice = len(users) == 2 and not any(_in_place(module, user) for user in users)
    # One that leaves out pixels comes second: it gets those it does not leave out.
    shortcut = next((user for user in users if twice and _can_be_sampled(module, user)), None)
    stride = None
    if shortcut is not None:
        users.sort(key=lambda user: user is shortcut)
        convolution = _module(module, shortcut)
        stride = convolution.stride
        shortcut.target = _added(module, Pointwise(convolution, sampled=True))
    signs = PASSES.relu_signs
    fused_norm = FusedNorm(norm, relu=relu, conv_bias=bias, twice=twice, stride=stride, signs=signs)
    name = _added(module, fused_norm)
    with module.graph.inserting_before(last):
        new = module.graph.call_module(name, (source, residual) if residual else (source,))
        outs = [module.graph.call_function(operator.getitem, (new, index)) for index in range(2 * twice)]
    for user, out in zip(users, outs or [new] * len(users), strict=True):
        user.replace_input_with(last, out)
    while last is not node:  # the ReLU, then the addition
        replaced = last
        last = next(arg for arg in replaced.args if isinstance(arg, fx.Node) and arg is not residual)
        module.graph.erase_node(replaced)
    module.graph.erase_node(node)


def _can_be_sampled(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node is a convolution that can do with the pixels that its stride leaves."""
    strided = _is_strided_pointwise(_module(module, node)) and _called_once(module, node)
    return strided and PASSES.sampled_shortcuts


def _own_convolution(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """What computes a convolution of few channels; None where that is left to PyTorch."""
    layer = _module(module, node)
    convolution = layer.convolution if type(layer) is Biasless else layer
    if type(convolution) is not nn.Conv2d or (convolution is layer and layer.bias is not None) or node.kwargs:
        return None
    source = node.args[0]
    is_first = isinstance(source, fx.Node) and source.op == "placeholder" and len(source.users) == 1
    if is_first and is_of_images(convolution) and PASSES.first_convolution:
        return FirstConvolution(convolution)
    return FewChannels(convolution) if is_of_few_channels(convolution) and PASSES.few_channels else None


def _in_place(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node may change its input."""
    if getattr(_module(module, node), "inplace", False) or node.kwargs.get("inplace"):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.op == "call_function" and hasattr(operator, name):
        return name.startswith("i")  # iadd, imul, ...
    return node.op != "call_module" and name.endswith("_")


def _followers(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node | None, bool]:
    """The last node that can be fused with a batch norm, the node added to it, and whether ReLU follows."""
    last, residual = node, None
    after = _only_user(last)
    if after is not None and after.target in _ADDITIONS and not after.kwargs:
        others = [arg for arg in after.args if arg is not node]
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


def _is_strided_pointwise(layer: nn.Module | None) -> bool:
    """Whether a layer is a 1x1 convolution that leaves out pixels."""
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and layer.bias is None
    )


def _is_halving_pool(layer: nn.Module | None) -> bool:
    """Whether a layer is the max-pooling of 2x2 pixels."""
    if type(layer) is not nn.MaxPool2d or layer.ceil_mode or layer.return_indices:
        return False
    sizes = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return all(size in (number, (number, number)) for size, number in zip(sizes, (2, 2, 0, 1), strict=True))


def _is_relu(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("relu", "relu_")
    return type(_module(module, node)) is nn.ReLU or node.target in _RELUS


def _is_fusible(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm learns scale and shift and tracks running statistics by a fixed momentum."""
    return bool(norm.affine and norm.track_running_stats and norm.momentum is not None)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _module(module: fx.GraphModule, node: object) -> Any:
    """The submodule that a node calls, if it calls one."""
    if isinstance(node, fx.Node) and node.op == "call_module":
        return module.get_submodule(str(node.target))
    return None


CHECKED_IMAGES = 4
"""Images of the check."""
# Of the norm of the expected gradient. Rounding decides about a ReLU here and there, and its gradient with
# it: in deep networks a few percent. A gradient computed by another formula is off by its own size.
_ALLOWED = 0.15


def check_fused(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Compare outputs, gradients and buffers of a network and its fused form, in training and in evaluation.

    shape: of one image, ``(C, H, W)``.

    Raises :class:`~tombola.errors.NetworkError` where they differ, and what :func:`fused` raises.
    """
    device = next(module.parameters()).device
    draws = torch.Generator().manual_seed(0)
    original, other = copy.deepcopy(module), copy.deepcopy(module)
    # Initial values hide mistakes: scales of 1, shifts of 0.
    for ours, theirs in zip(_values(original), _values(other), strict=True):
        noise = torch.rand(ours.shape, generator=draws).to(ours)
        with torch.no_grad():
            ours.add_(0.5 * noise * (ours.abs().mean() + 0.1))
            theirs.copy_(ours)
    rewritten = fused(other)
    images = torch.randn(CHECKED_IMAGES, *shape, generator=draws).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    for training in (True, False):
        original.train(training)
        other.train(training)
        rewritten.train(training)
        with seeds.torch_stream("check", device=device):
            expected = original(images.clone())
        with seeds.torch_stream("check", device=device):
            outputs = rewritten(images.clone())
        _compare("outputs", outputs, expected)
        if training:
            weight = torch.randn(expected.shape, generator=draws).to(expected)
            _compare_gradients((outputs * weight).sum(), other, (expected * weight).sum(), original)
        buffers = dict(other.named_buffers())
        for name, value in original.named_buffers():
            if not name.endswith("num_batches_tracked"):  # FusedStep counts
                _compare(name, buffers[name], value)


def _compare_gradients(fused_loss: Tensor, ours: nn.Module, loss: Tensor, original: nn.Module) -> None:
    """Raises NetworkError where gradients of the two losses by the parameters differ beyond rounding."""
    loss.backward()  # type: ignore[no-untyped-call]
    fused_loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in ours.named_parameters()}
    size = sum(float(p.grad.norm()) ** 2 for p in original.parameters() if p.grad is not None) ** 0.5
    for name, value in original.named_parameters():
        expected = torch.zeros_like(value) if value.grad is None else value.grad
        gradient = gradients[name]
        # The bias of a convolution before batch norm has no gradient but rounding; it is left out altogether.
        off = float((expected if gradient is None else gradient - expected).norm())
        if not off <= _ALLOWED * float(expected.norm()) + 1e-3 * size:
            raise NetworkError(f"its fused form has other gradients of {name}")


def _compare(what: str, actual: Tensor, expected: Tensor) -> None:
    """Raises NetworkError, naming ``what``, where two tensors differ beyond rounding."""
    off = float((actual.detach().double() - expected.detach().double()).norm())
    if actual.shape != expected.shape or not off <= 1e-3 * float(expected.detach().double().norm()) + 1e-6:
        raise NetworkError(f"its fused form has other {what}")


def _values(module: nn.Module) -> list[Tensor]:
    """All parameters and floating-point buffers."""
    return [value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()]
