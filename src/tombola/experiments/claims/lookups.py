"""How claims ask for numbers: a function for each kind, which writes the key of what was measured.

``find`` looks a key up. So a claim names only what it is about.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tombola.experiments.claims.claim import Find
from tombola.experiments.claims.quantities import Quantity
from tombola.experiments.paper.settings import (
    LAST_BLOCK,
    R18_C10,
    R34_TIN,
    SEARCH_SHARES,
    STABLE,
    Configuration,
    Pair,
    key_of,
)
from tombola.table.key import Baseline, Criterion, Key, Over


def ticket(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """Accuracy of the trained ticket of a tabulated sparsity, the dense network at 0.0."""
    return find(key_of("val_accuracy", pair, configuration, sparsity))


def ticket_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """Accuracy of the trained ticket of any round."""
    return find(key_of("val_accuracy", pair, configuration, sparsity))


def drop(find: Find, pair: Pair, configuration: Configuration) -> Quantity:
    """What pruning to 98.85% costs in accuracy."""
    return ticket(find, pair, configuration, 0.0) - ticket(find, pair, configuration, 98.85)


def gain(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """A ticket's accuracy over that of its own dense network; it is winning from 0 on (reading C6)."""
    return ticket(find, pair, configuration, sparsity) - ticket(find, pair, configuration, 0.0)


def dense_run(find: Find, metric: str, pair: Pair, configuration: Configuration) -> Quantity:
    """What was measured of the dense training without late rewinding, such as its forgetting."""
    return find(key_of(metric, pair, configuration, 0.0))


def late_forgetting(find: Find, pair: Pair, configuration: Configuration) -> Quantity:
    """Forgetting events an image and epoch in the last quarter of the dense training."""
    return find(key_of("late_forgetting_events", pair, configuration, 0.0))


def barrier(find: Find, pair: Pair, configuration: Configuration, sparsity: float = 0.0) -> Quantity:
    """Error barrier between trainings of one network that differ in their noise."""
    return find(key_of("barrier", pair, configuration, sparsity))


def path_error(find: Find, pair: Pair, configuration: Configuration) -> Quantity:
    """The largest error on the line between two dense trainings that differ in their noise."""
    return find(key_of("highest_path_error", pair, configuration, 0.0))


def barrier_to_next(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """Error barrier between the trained tickets of this round and of the next."""
    return find(key_of("barrier_to_next", pair, configuration, sparsity))


def without(find: Find, metric: str, removed: Criterion | None = None, percent: int = 0) -> Quantity:
    """Fig. 7: dense ResNet-18 on CIFAR-10 with so many percent of the images removed; on all with none."""
    key = key_of(metric, R18_C10, STABLE, 0.0)
    kept = 100 - percent if removed else None
    over: Over = "copies" if metric == "val_accuracy" else key.over
    return find(replace(key, over=over, subset_criterion=removed, subset_percent=kept))


def first_stable(find: Find, pair: Pair, configuration: Configuration) -> Quantity:
    """Fewest epochs of pretraining from which the dense network is stable."""
    return find(key_of("first_stable_epoch", pair, configuration, 0.0, pretrained=None))


def short_search(
    find: Find, pair: Pair, configuration: Configuration, epochs: int, sparsity: float
) -> Quantity:
    """Accuracy of a ticket whose mask search trained for so few epochs a round."""
    share = SEARCH_SHARES[epochs]
    return find(key_of("val_accuracy", pair, configuration, sparsity, search_share=share))


def trained_as(find: Find, searched: Configuration, sparse: Configuration, sparsity: float) -> Quantity:
    """Accuracy of a ResNet-34 ticket found with one configuration and trained with another."""
    return find(
        key_of(
            "val_accuracy", R34_TIN, searched, sparsity,
            sparse_momentum=sparse.momentum, sparse_batch_size=sparse.batch_size,
        )
    )  # fmt: skip


def probe(
    find: Find,
    pair: Pair,
    configuration: Configuration,
    sparsity: float,
    block: int = LAST_BLOCK,
    *,
    baseline: Baseline | None = None,
) -> Quantity:
    """Accuracy of a linear probe in the untrained ticket."""
    return find(key_of("probe_accuracy", pair, configuration, sparsity, block=block, baseline=baseline))


def probe_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """The same after the last block for any round; round 0 is a random dense network."""
    return find(key_of("probe_accuracy", pair, configuration, sparsity, block=LAST_BLOCK))


def random_dense_probe(find: Find, sparsity: float, block: int) -> Quantity:
    """The random dense network that Table 5 repeats under each sparsity."""
    return find(key_of("probe_accuracy", R34_TIN, None, sparsity, block=block, baseline="random_dense"))


def untrained(
    find: Find, pair: Pair, configuration: Configuration, sparsity: float, *, recalibrated: bool = False
) -> Quantity:
    """Accuracy of a ticket before training with its own linear layer, in either reading of batch norm (D3).

    recalibrated: with statistics measured on the train images instead of those of its start.
    """
    metric = "recalibrated_untrained_accuracy" if recalibrated else "untrained_accuracy"
    return find(key_of(metric, pair, configuration, sparsity))


def ticket_convergence(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """Convergence (Eq. 4) of the training of a ticket."""
    return find(key_of("convergence", pair, configuration, sparsity))


def transferred(find: Find, pair: Pair, configuration: Configuration, target: str) -> Quantity:
    """Accuracy on a target of the frozen ticket of 89.26%."""
    return find(key_of("val_accuracy", pair, configuration, 89.26, target=target))


def frozen_dense(find: Find, pair: Pair, configuration: Configuration, target: str) -> Quantity:
    """The same for the frozen trained dense network; the paper has it for two configurations."""
    return find(key_of("val_accuracy", pair, configuration, 0.0, target=target, baseline="frozen_dense"))


def retrained(find: Find, target: str) -> Quantity:
    """Accuracy of a dense ResNet-18 trained on the target itself (Table 6)."""
    return find(
        key_of("val_accuracy", R18_C10, None, 0.0, dataset=target, target=target, baseline="retrained_dense")
    )


def few_shot(find: Find, pair: Pair, configuration: Configuration, percent: int) -> Quantity:
    """Accuracy of the 89.26% ticket trained on a class-balanced random subset."""
    return find(_subset(key_of("val_accuracy", pair, configuration, 89.26), percent))


def few_shot_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Quantity:
    """The same for any round, on 1% of the images."""
    return find(_subset(key_of("val_accuracy", pair, configuration, sparsity), 1))


def few_shot_dense(find: Find, pair: Pair, percent: int) -> Quantity:
    """The same for the dense network, whose configuration the paper does not state."""
    return find(_subset(key_of("val_accuracy", pair, None, 0.0, baseline="dense"), percent))


def by_forgetting(find: Find, baseline: Baseline | None, which: Criterion, percent: int) -> Quantity:
    """Table 23: trained on the least or most forgotten images; with no baseline the ticket itself."""
    sparsity = 0.0 if baseline == "dense" else 89.26
    return find(_subset(key_of("val_accuracy", R18_C10, STABLE, sparsity, baseline=baseline), percent, which))


def budget(quantity: Quantity) -> float:
    """Epochs of a full training behind a number."""
    return quantity.cells[0].epochs if quantity.cells else math.nan


def _subset(key: Key, percent: int, criterion: Criterion = "random_class_balanced") -> Key:
    return replace(key, subset_percent=percent, subset_criterion=criterion)
