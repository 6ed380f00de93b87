"""Points between networks: their weights by interpolation, their batch-norm statistics measured anew.

What lies between two runs (:mod:`tombola.measures.connectivity`), on a curve or in a plane, is a network
whose running statistics no training has measured; both readings of them are in use (protocol, reading D3).
"""

from __future__ import annotations

import torch
from torch import nn

from tombola.data.batches import Batches
from tombola.ticket import State
from tombola.training.evaluation import EVALUATION_BATCH, Evaluator
from tombola.training.flat_network import channels_last


def interpolate(live: State, first: State, second: State, index: int, points: int) -> None:
    """Bring ``live`` to position ``index`` of ``points`` on the line from ``first`` to ``second``, in place.

    All three have the same names and lie on one device. Worked from the nearer end, so that the ends are
    exact and swapping the runs mirrors the line to the bit. Integer buffers are taken from the nearer end.
    """
    last = points - 1
    if 2 * index > last:
        first, second, index = second, first, last - index
    with torch.no_grad():
        if index == 0:
            torch._foreach_copy_(list(live.values()), [first[name] for name in live])
            return
        integers = [name for name, value in live.items() if not value.is_floating_point()]
        names = [name for name, value in live.items() if value.is_floating_point()]
        near, far = ([state[name] for name in names] for state in (first, second))
        # Not in the live tensors: two names may stand for one of them (tied weights).
        if 2 * index == last:
            values = torch._foreach_add(near, far)
            torch._foreach_div_(values, 2)
        else:
            values = torch._foreach_sub(far, near)
            torch._foreach_mul_(values, index / last)
            torch._foreach_add_(values, near)
        if names:
            torch._foreach_copy_([live[name] for name in names], values)
        for name in integers:
            live[name].copy_(first[name])


@torch.no_grad()
def recalibrate_batch_norm(
    module: nn.Module, batches: Batches, precision: str, evaluator: Evaluator | None = None
) -> None:
    """Measure the running statistics of batch norm anew, in place, every image weighing the same.

    They are reset, and the images passed with normalisation layers, and nothing else, in training mode,
    :data:`EVALUATION_BATCH` at a time and in order.
    Let batch b have n_b of the n images, and a layer see in it mean m_b and unbiased variance v_b over images
    and pixels. The running mean becomes sum(n_b m_b) / n and the running variance sum(n_b v_b) / n: the mean
    variance within a batch, without what the m_b differ by. A single image left over goes with the batch
    before.

    evaluator: of the same network, which does this by fused passes where it has them.
    """
    spans = batches_for_statistics(len(batches))
    if evaluator is not None and evaluator.measures_batch_norm(batches, spans):
        return
    norms = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._NormBase)]
    momenta = [layer.momentum for layer in norms]
    passed = dict.fromkeys(norms, 0)  # images, once for each pass through the layer
    size = 0

    def weigh(layer: nn.modules.batchnorm._NormBase, inputs: object) -> None:
        # For each pass, not each batch: a layer may stand at several places of a network. Between batches of
        # one size this is one over the number of passes, to the bit PyTorch's own average (momentum None).
        passed[layer] += size
        layer.momentum = size / passed[layer]

    for layer in norms:
        layer.reset_running_stats()
    hooks = [layer.register_forward_pre_hook(weigh) for layer in norms]
    module.eval()
    for layer in norms:
        layer.train()
    try:
        for first, last in spans:
            size = last - first
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
                module(channels_last(batches.unaugmented(first, last)))
    finally:
        for layer, momentum, hook in zip(norms, momenta, hooks, strict=True):
            layer.momentum = momentum
            hook.remove()


def batches_for_statistics(count: int) -> list[tuple[int, int]]:
    """First and last (exclusive) index of each batch of so many images."""
    ends = [*range(EVALUATION_BATCH, count, EVALUATION_BATCH), count]
    if len(ends) > 1 and ends[-1] - ends[-2] == 1:
        del ends[-2]  # of a single image batch norm may have no statistics
    return list(zip([0, *ends], ends, strict=False))
