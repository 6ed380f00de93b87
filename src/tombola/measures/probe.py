"""Linear probes: how well each block of a network tells the classes apart (section 5.1, Appendix E.1).

After every residual block, or every convolution stage of a plain network, features are averaged over each
channel's pixels and given to a linear layer of their own (:mod:`tombola.measures.heads`). The network below
is frozen (:mod:`tombola.measures.frozen`).

The features of a transformer's block are averaged over its tokens, class token and padding among them, as
Chen et al. (2020, "Generative pretraining from pixels") do for their probes. It is what the average over
pixels is for convolutions, and every transformer has it; of a class token only the last layers need to have
gathered anything. For the class token name the head, where it is what goes into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tombola.cost import Cost, Outline, Size
from tombola.data.imageset import DataLike
from tombola.data.load import load_data
from tombola.errors import NetworkError
from tombola.measures.frozen import BatchNorm, FrozenBody, body_precision, network_of
from tombola.measures.heads import HEAD_RECIPE, evaluate_heads, heads_cost, train_heads
from tombola.registry import declare
from tombola.ticket import Ticket
from tombola.training.checkpoint import Watch
from tombola.training.device import repeatable, resolve_device
from tombola.training.evaluation import device_batches
from tombola.training.preflight import check_images
from tombola.training.recipe import Recipe
from tombola.training.run import Run


@dataclass(frozen=True)
class Probes:
    """Accuracy and loss of the linear probe after each block of a network.

    blocks: names of the blocks, in order. ResNet-18 has 8, of which the paper tables the 4th and the 8th;
        ResNet-34 has 16, of which its words fit the 8th and the 16th (protocol, B6).
    accuracy: accuracy of each block's probe on the test split, in percent.
    losses: its mean cross-entropy there, in nats.
    """

    blocks: tuple[str, ...]
    accuracy: tuple[float, ...]
    losses: tuple[float, ...]


def _probe_cost(subject: Outline, data: Size, recipe: Recipe) -> Cost:
    """Heads trained once, all in one pass."""
    return heads_cost(subject, data, recipe)


@declare("probe", cost=_probe_cost)
def probe(
    subject: Ticket | Run,
    data: DataLike,
    *,
    recipe: Recipe = HEAD_RECIPE,
    batch_norm: BatchNorm = "adapting",
    blocks: Sequence[str] | None = None,
    head: str | None = None,
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Probes:
    """Accuracy and loss of linear probes after every block of a frozen network, all trained in one pass.

    subject: what is probed: the masked start of an (untrained) ticket, or the final weights of a run.
    data: the images that the network is for; probes train on the train split, accuracy is on the test split.
    recipe: of the probes: 5 epochs at a constant learning rate of 0.005, weight decay 1e-4 (Appendix G),
        momentum 0.9 and batch size 100 (protocol, G1). Augmentation is that of trainings; it can be changed
        here. Precision is the body's, ``"auto"`` for a run's own; probes are float32.
    batch_norm: ``"adapting"`` lets the running statistics of batch norm follow the images while the probes
        train; ``"frozen"`` keeps those that the subject has. Parameters never move.
    blocks: names of the modules to probe after, for a network of one's own; the head's own name stands for
        what goes into it. By default every residual block of a ResNet, every convolution stage of a VGG.
        Outputs are ``(B, C, H, W)``, averaged over pixels, ``(B, tokens, C)``, averaged over tokens, or
        ``(B, C)``; 3 dimensions are refused in a network with one-dimensional convolutions, whose are not
        tokens.
    head: name of the final linear layer, before which the body ends; needed together with ``blocks`` for a
        network of one's own.
    seed: number of the streams from which the probes' initial weights, order and augmentation are drawn.
    watch: gets a sign of life at every step while heads are trained.

    Raises :class:`~tombola.errors.NetworkError` for images that do not fit, blocks that do not exist, cannot
    be pooled or must be named, and :class:`~tombola.errors.RecipeError` for a recipe that cannot be followed.
    """
    data = load_data(data)
    if blocks is not None and len(blocks) == 0:
        raise NetworkError("blocks is empty; name at least one block, or leave it out for all")
    check_images(network_of(subject), data)
    where = resolve_device(device)
    watch = watch or Watch()
    with repeatable(where):
        body = FrozenBody(subject, blocks, head, where, body_precision(subject, recipe, where))
        heads = train_heads(body, data, recipe, batch_norm=batch_norm, seed=seed, watch=watch)
        losses, accuracy = evaluate_heads(body, heads, device_batches(data, data.test, where), watch)
    return Probes(body.places, accuracy, losses)
