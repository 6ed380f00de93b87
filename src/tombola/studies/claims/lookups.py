"""How claims ask for cells: a function for each family of tables and figures.

``find`` looks a place up. Each function here knows which study holds the cell of a pair and which keys its
place has, so that a claim names only what it is about.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tombola.studies.cells import Baseline, Criterion, Metric, Place
from tombola.studies.claims.claim import Find
from tombola.studies.claims.numbers import Number
from tombola.studies.paper.settings import (
    CONFIGURATIONS,
    LAST_BLOCK,
    R18_C10,
    R18_C100,
    R34_TIN,
    REWOUND,
    STABLE,
    VGG_C100,
    Configuration,
    Pair,
)

_TICKETS = {R34_TIN: "table2", R18_C10: "table11", R18_C100: "table11", VGG_C100: "table12"}
_DENSE_RUNS = {R34_TIN: "table1", R18_C10: "table8", R18_C100: "table9", VGG_C100: "table10"}
_DENSE_BARRIERS = {R34_TIN: "fig1", R18_C10: "fig3", R18_C100: "fig4", VGG_C100: "fig5"}
_TICKET_BARRIERS = {67.23: "fig8", 89.26: "fig9"}
_BARRIERS_TO_NEXT = {R34_TIN: "fig2", R18_C10: "fig10", R18_C100: "fig11", VGG_C100: "fig12"}
_SHORT_SEARCH = {R34_TIN: "table3", R18_C10: "table16"}
_PROBES = {R34_TIN: "table5", R18_C10: "table17", R18_C100: "table18"}
_PROBE_CURVES = {R18_C10: "fig18", R18_C100: "fig19", R34_TIN: "fig20"}
_TRANSFER = {R18_C10: "table6", R18_C100: "table19", R34_TIN: "table20"}
_FEW_SHOT = {R34_TIN: "table7", R18_C10: "table21", R18_C100: "table22"}
_FEW_SHOT_CURVES = {R18_C10: "fig21", R18_C100: "fig22", R34_TIN: "fig23"}
_TICKET_CURVES = {R18_C10: "fig13", R18_C100: "fig14", VGG_C100: "fig15", R34_TIN: "fig16"}


def ticket(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """Accuracy of the trained ticket of a tabulated sparsity, the dense network at 0.0."""
    return find(_row(_ticket_table(pair, configuration), "val_accuracy", pair, configuration, sparsity))


def ticket_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """Accuracy of the trained ticket of any round."""
    return find(_row(_TICKET_CURVES[pair], "val_accuracy", pair, configuration, sparsity))


def drop(find: Find, pair: Pair, configuration: Configuration) -> Number:
    """What pruning to 98.85% costs in accuracy."""
    return ticket(find, pair, configuration, 0.0) - ticket(find, pair, configuration, 98.85)


def gain(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """A ticket's accuracy over that of its own dense network; it is winning from 0 on (reading C6)."""
    return ticket(find, pair, configuration, sparsity) - ticket(find, pair, configuration, 0.0)


def dense_run(find: Find, metric: Metric, pair: Pair, configuration: Configuration) -> Number:
    """Forgetting or convergence of the dense training without late rewinding."""
    return find(_row(_DENSE_RUNS[pair], metric, pair, configuration, 0.0))


def late_forgetting(find: Find, pair: Pair, configuration: Configuration) -> Number:
    """Forgetting events an image and epoch in the last quarter of the dense training."""
    return find(_row("fig6", "late_forgetting_events", pair, configuration, 0.0))


def barrier(find: Find, pair: Pair, configuration: Configuration, sparsity: float = 0.0) -> Number:
    """Error barrier between trainings of one network that differ in their noise."""
    if configuration not in (*CONFIGURATIONS, *REWOUND):
        study = "fig17"
    else:
        study = _TICKET_BARRIERS[sparsity] if sparsity else _DENSE_BARRIERS[pair]
    return find(_row(study, "barrier", pair, configuration, sparsity))


def path_error(find: Find, pair: Pair, configuration: Configuration) -> Number:
    """The largest error on the line between two dense trainings that differ in their noise."""
    return find(_row(_DENSE_BARRIERS[pair], "highest_path_error", pair, configuration, 0.0))


def barrier_to_next(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """Error barrier between the trained tickets of this round and of the next."""
    return find(_row(_BARRIERS_TO_NEXT[pair], "barrier_to_next", pair, configuration, sparsity))


def without(find: Find, metric: Metric, removed: Criterion | None = None, percent: int = 0) -> Number:
    """Fig. 7: dense ResNet-18 on CIFAR-10 with so many percent of the images removed; on all with none."""
    place = _row("fig7", metric, R18_C10, STABLE, 0.0)
    kept = 100 - percent if removed else None
    return find(replace(place, subset_criterion=removed, subset_percent=kept))


def first_stable(find: Find, pair: Pair, configuration: Configuration) -> Number:
    """Fewest epochs of pretraining from which the dense network is stable."""
    place = _row("table15", "first_stable_epoch", pair, configuration, 0.0)
    return find(replace(place, pretrained=None))


def short_search(
    find: Find, pair: Pair, configuration: Configuration, epochs: int, sparsity: float
) -> Number:
    """Accuracy of a ticket whose mask search trained for so few epochs a round."""
    place = _row(_SHORT_SEARCH[pair], "val_accuracy", pair, configuration, sparsity)
    return find(replace(place, search_epochs=epochs))


def trained_as(find: Find, searched: Configuration, sparse: Configuration, sparsity: float) -> Number:
    """Accuracy of a ResNet-34 ticket found with one configuration and trained with another."""
    place = _row("table4", "val_accuracy", R34_TIN, searched, sparsity)
    return find(replace(place, sparse_momentum=sparse.momentum, sparse_batch_size=sparse.batch_size))


def probe(
    find: Find,
    pair: Pair,
    configuration: Configuration,
    sparsity: float,
    block: int = LAST_BLOCK,
    *,
    baseline: Baseline | None = None,
) -> Number:
    """Accuracy of a linear probe in the untrained ticket."""
    place = _row(_PROBES[pair], "probe_accuracy", pair, configuration, sparsity)
    return find(replace(place, block=block, baseline=baseline))


def probe_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """The same after the last block for any round; round 0 is a random dense network."""
    place = _row(_PROBE_CURVES[pair], "probe_accuracy", pair, configuration, sparsity)
    return find(replace(place, block=LAST_BLOCK))


def random_dense_probe(find: Find, sparsity: float, block: int) -> Number:
    """The random dense network that Table 5 repeats under each sparsity."""
    return find(
        Place(
            study="table5", metric="probe_accuracy", network=R34_TIN.network, dataset=R34_TIN.dataset,
            block=block, sparsity=sparsity, baseline="random_dense",
        )
    )  # fmt: skip


def untrained(
    find: Find, pair: Pair, configuration: Configuration, sparsity: float, *, recalibrated: bool = False
) -> Number:
    """Accuracy of a ticket before training with its own linear layer, in either reading of batch norm (D3).

    recalibrated: with statistics measured on the train images instead of those of its start.
    """
    metric: Metric = "recalibrated_untrained_accuracy" if recalibrated else "untrained_accuracy"
    return find(_row("untrained-accuracy", metric, pair, configuration, sparsity))


def ticket_convergence(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """Convergence (Eq. 4) of the training of a ticket."""
    return find(_row("ticket-convergence", "convergence", pair, configuration, sparsity))


def transferred(find: Find, pair: Pair, configuration: Configuration, target: str) -> Number:
    """Accuracy on a target of the frozen ticket of 89.26%."""
    return find(replace(_row(_TRANSFER[pair], "val_accuracy", pair, configuration, 89.26), target=target))


def frozen_dense(find: Find, pair: Pair, configuration: Configuration, target: str) -> Number:
    """The same for the frozen trained dense network; the paper has it for two configurations."""
    place = _row(_TRANSFER[pair], "val_accuracy", pair, configuration, 0.0)
    return find(replace(place, target=target, baseline="frozen_dense"))


def retrained(find: Find, target: str) -> Number:
    """Accuracy of a dense ResNet-18 trained on the target itself (Table 6)."""
    return find(
        Place(
            study="table6", metric="val_accuracy", network="ResNet-18", dataset=target, target=target,
            sparsity=0.0, baseline="retrained_dense",
        )
    )  # fmt: skip


def few_shot(find: Find, pair: Pair, configuration: Configuration, percent: int) -> Number:
    """Accuracy of the 89.26% ticket trained on a class-balanced random subset."""
    return find(_subset(_row(_FEW_SHOT[pair], "val_accuracy", pair, configuration, 89.26), percent))


def few_shot_of_round(find: Find, pair: Pair, configuration: Configuration, sparsity: float) -> Number:
    """The same for any round, on 1% of the images."""
    return find(_subset(_row(_FEW_SHOT_CURVES[pair], "val_accuracy", pair, configuration, sparsity), 1))


def few_shot_dense(find: Find, pair: Pair, percent: int) -> Number:
    """The same for the dense network, whose configuration the paper does not state."""
    place = Place(
        study=_FEW_SHOT[pair], metric="val_accuracy", network=pair.network, dataset=pair.dataset,
        sparsity=0.0, baseline="dense",
    )  # fmt: skip
    return find(_subset(place, percent))


def by_forgetting(find: Find, baseline: Baseline | None, which: Criterion, percent: int) -> Number:
    """Table 23: trained on the least or most forgotten images; with no baseline the ticket itself."""
    place = _row("table23", "val_accuracy", R18_C10, STABLE, 0.0 if baseline == "dense" else 89.26)
    return find(_subset(replace(place, baseline=baseline), percent, which))


def budget(number: Number) -> float:
    """Epochs of a full training behind a number."""
    return number.cells[0].epochs if number.cells else math.nan


def _row(study: str, metric: Metric, pair: Pair, configuration: Configuration, sparsity: float) -> Place:
    return Place(
        study=study, metric=metric, network=pair.network, dataset=pair.dataset,
        momentum=configuration.momentum, batch_size=configuration.batch_size,
        pretrained=configuration.pretrained, sparsity=sparsity,
    )  # fmt: skip


def _subset(place: Place, percent: int, criterion: Criterion = "random_class_balanced") -> Place:
    return replace(place, subset_percent=percent, subset_criterion=criterion)


def _ticket_table(pair: Pair, configuration: Configuration) -> str:
    """Table 13 holds the other batch sizes and Table 14 the other momenta of ResNet-18 on CIFAR-10."""
    if pair == R18_C10 and configuration.batch_size not in (100, 256):
        return "table13"
    if pair == R18_C10 and configuration.momentum not in (0.0, 0.9):
        return "table14"
    return _TICKETS[pair]
