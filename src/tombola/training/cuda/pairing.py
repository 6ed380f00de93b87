"""Convolutions of a fused network that add up the sums of the batch norms beside them (:mod:`.lines`).

Forward, a convolution adds up the statistics of the norm that alone uses its result. Backward, the gradient
of its input is that of the result of the norm before it: if no other node uses this result, and ReLU follows
the norm directly, its mask and its two sums are taken along. Elsewhere norms add up by themselves, but the
plain gradient may still be the faster one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import fx

from tombola.training.cuda.norm import FusedNorm, Note
from tombola.training.cuda.planned import Line, Planned
from tombola.training.cuda.tiles import LineOperation, LineProduct, Tiles


def lines_of(tiles: Mapping[LineProduct, Tiles], device: torch.device) -> Mapping[LineProduct, Line]:
    """What computes convolutions so on a GPU; Gluon is imported here first."""
    from tombola.training.cuda.lines import compiled

    return compiled(tiles, device)


def use_lines(
    network: fx.GraphModule, tiles: Mapping[LineProduct, Tiles], device: torch.device
) -> dict[LineProduct, Tiles]:
    """Let planned convolutions of a network compute by lines where there are tiles for them; returns those.

    All else stays as planned: gradients of weights, evaluations, and batches of other sizes.
    """
    chosen: list[tuple[Planned, LineOperation, LineProduct]] = []
    for node in network.graph.nodes:
        planned = _called(network, node)
        if not isinstance(planned, Planned) or "forward" not in planned.plans:
            continue
        planned.lines = {}
        norms: dict[LineOperation, FusedNorm | None] = {
            "forward": norm_after(network, node), "input": norm_before(network, node),
        }  # fmt: skip
        for operation, norm in norms.items():
            product = _product(planned, operation, norm is not None, tiles)
            if product is not None:
                chosen.append((planned, operation, product))
                if product.sums and norm is not None:
                    _link(planned, operation, norm)
    used = {product: tiles[product] for _, _, product in chosen}
    lines = lines_of(used, device) if used else {}
    for planned, operation, product in chosen:
        planned.lines[operation] = lines[product]
    return used


def _product(
    planned: Planned, operation: LineOperation, sums: bool, tiles: Mapping[LineProduct, Tiles]
) -> LineProduct | None:
    """The operation of a convolution that there are tiles for, with sums if possible; None for its plan."""
    if operation not in planned.plans:  # as of images, whose gradient nobody needs
        return None
    convolution = planned.plans[operation].convolution
    wanted = [LineProduct.of(convolution, operation, each) for each in ((True, False) if sums else (False,))]
    return next((product for product in wanted if product is not None and product in tiles), None)


def _link(planned: Planned, operation: LineOperation, norm: FusedNorm) -> None:
    """Let a convolution leave the sums of one operation to a norm."""
    if operation == "forward":
        planned.statistics = norm.statistics = Note()
    else:
        planned.normed = norm.normed = Note()
        planned.gradient_sums = norm.gradient_sums = Note()


def norm_after(network: fx.GraphModule, node: fx.Node) -> FusedNorm | None:
    """The batch norm that alone uses the result of a convolution; None if there is no such norm."""
    user = next(iter(node.users)) if len(node.users) == 1 else None
    norm = _called(network, user)
    return norm if isinstance(norm, FusedNorm) and user is not None and user.args[0] is node else None


def norm_before(network: fx.GraphModule, node: fx.Node) -> FusedNorm | None:
    """The batch norm, with nothing but ReLU behind it, whose result a convolution alone uses, if any."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or len(source.users) != 1 or len(source.args) != 1:
        return None  # the second argument is a shortcut, which would be part of the mask
    norm = _called(network, source)
    return norm if isinstance(norm, FusedNorm) and norm.relu and not norm.twice else None


def _called(network: fx.GraphModule, node: fx.Node | None) -> object:
    """The module that a node calls; None for one that calls none."""
    calls = node is not None and node.op == "call_module"
    return network.get_submodule(str(node.target)) if node is not None and calls else None
