"""Tables 1-23 and Figures 1-23 by name, and what the paper does not have.

That is two figures for claims that no table of the paper holds, two tables for second readings of it, two for
what it supposes, and six for what it leaves open.
"""

from __future__ import annotations

from collections.abc import Iterable

from tombola.errors import ExperimentError, unknown
from tombola.experiments.paper.basin_rows import dense_basins, dense_margins
from tombola.experiments.paper.feature_rows import probed_rounds, probed_tickets, transferred_tickets
from tombola.experiments.paper.first_stable_rows import first_stable_searches
from tombola.experiments.paper.little_data_rows import chosen_data, little_data, little_data_by_round
from tombola.experiments.paper.open_rows import (
    causes_of_noise,
    distant_rounds,
    probe_hyperparameters,
    stability_by_length,
)
from tombola.experiments.paper.predictor_rows import (
    early_measures,
    equal_noise,
    predictor_figure,
    with_correlations,
)
from tombola.experiments.paper.rows import (
    barriers_between_rounds,
    dense_learning,
    grid_of_sparse_training,
    instability_of,
    late_dense_forgetting,
    recalibrated_instability,
    round_accuracy,
    short_searches,
    ticket_accuracy,
    ticket_convergence,
    untrained_accuracy,
    without_samples,
)
from tombola.experiments.paper.settings import (
    ALL_BATCH_SIZES,
    BATCH_SIZES,
    CONFIGURATIONS,
    GRID_SEARCHES,
    MOMENTA,
    PAIRS,
    R18_C10,
    R18_C100,
    R34_TIN,
    TABULATED,
    VGG_C100,
)
from tombola.experiments.study import Study
from tombola.views.layout import Layout
from tombola.views.paper_panels import (
    consecutive_panels,
    forgetting_panels,
    instability_panels,
    over_sparsity,
    subset_panels,
)

_TICKET = ("momentum", "batch_size", "pretrained")
_KIND = (*_TICKET, "baseline")
_DENSE = Layout(_TICKET[:2], ("metric",))
_TICKETS = Layout(_TICKET, ("sparsity",))
_PROBES = Layout(_KIND, ("sparsity", "block"))
_TRANSFER = Layout(_KIND, ("target",))
_LITTLE_DATA = Layout(_KIND, ("subset_percent",))


_C10, _C100 = "ResNet-18 on CIFAR-10", "ResNet-18 on CIFAR-100"
_VGG, _TIN = "VGG16 on CIFAR-100", "ResNet-34 on TinyImageNet"

TABLES = (
    Study("table1", f"Forgetting and convergence, {_TIN}", dense_learning(R34_TIN), _DENSE),
    Study("table2", f"Accuracy of tickets by sparsity, {_TIN}", ticket_accuracy(R34_TIN), _TICKETS),
    Study(
        "table3",
        f"Short mask searches (AIMP), {_TIN}",
        short_searches(R34_TIN, of=GRID_SEARCHES),
        Layout(("search_share", "momentum", "pretrained", "batch_size"), ("sparsity",)),
    ),
    Study(
        "table4",
        f"Grid of sparse training, {_TIN}",
        grid_of_sparse_training(R34_TIN),
        Layout((*_TICKET, "sparse_momentum", "sparse_batch_size"), ("sparsity",)),
    ),
    Study("table5", f"Linear probes, {_TIN}", probed_tickets(R34_TIN, random_dense=True), _PROBES),
    Study(
        "table6",
        f"Transfer of frozen tickets, {_C10}",
        transferred_tickets(R18_C10, retrained=True),
        _TRANSFER,
    ),
    Study("table7", f"Tickets on little data, {_TIN}", little_data(R34_TIN), _LITTLE_DATA),
    Study("table8", f"Forgetting and convergence, {_C10}", dense_learning(R18_C10), _DENSE),
    Study("table9", f"Forgetting and convergence, {_C100}", dense_learning(R18_C100), _DENSE),
    Study("table10", f"Forgetting and convergence, {_VGG}", dense_learning(VGG_C100), _DENSE),
    Study(
        "table11",
        f"Accuracy of tickets by sparsity, {_C10} and CIFAR-100",
        ticket_accuracy(R18_C10, R18_C100),
        Layout(("dataset", *_TICKET), ("sparsity",)),
    ),
    Study("table12", f"Accuracy of tickets by sparsity, {_VGG}", ticket_accuracy(VGG_C100), _TICKETS),
    Study(
        "table13",
        f"Extreme batch sizes, {_C10}",
        ticket_accuracy(R18_C10, of=BATCH_SIZES, single_run=True),
        Layout(("momentum", "pretrained", "batch_size"), ("sparsity",)),
    ),
    Study(
        "table14",
        f"Other momenta, {_C10}",
        ticket_accuracy(R18_C10, of=MOMENTA),
        Layout(("batch_size", "pretrained", "momentum"), ("sparsity",)),
    ),
    Study(
        "table15",
        "First stable epoch, all pairs",
        first_stable_searches(R18_C10, R18_C100, VGG_C100, R34_TIN),
        Layout(("network", "dataset"), ("momentum", "batch_size")),
    ),
    Study(
        "table16",
        f"Short mask searches (AIMP), {_C10}",
        short_searches(R18_C10, of=CONFIGURATIONS),
        Layout(("search_share", *_TICKET), ("sparsity",)),
    ),
    Study("table17", f"Linear probes, {_C10}", probed_tickets(R18_C10), _PROBES),
    Study("table18", f"Linear probes, {_C100}", probed_tickets(R18_C100), _PROBES),
    Study("table19", f"Transfer of frozen tickets, {_C100}", transferred_tickets(R18_C100), _TRANSFER),
    Study("table20", f"Transfer of frozen tickets, {_TIN}", transferred_tickets(R34_TIN), _TRANSFER),
    Study("table21", f"Tickets on little data, {_C10}", little_data(R18_C10), _LITTLE_DATA),
    Study("table22", f"Tickets on little data, {_C100}", little_data(R18_C100), _LITTLE_DATA),
    Study(
        "table23",
        f"Data chosen by forgetting, {_C10}",
        chosen_data(R18_C10),
        Layout(("baseline",), ("subset_criterion", "subset_percent")),
    ),
)

_ACCURACY_CURVES = over_sparsity("test accuracy (%)", TABULATED)
_PROBE_CURVES = over_sparsity("probe accuracy (%)", TABULATED)

FIGURES = (
    Study("fig1", f"Dense instability, {_TIN}", instability_of(R34_TIN), panels=instability_panels),
    Study(
        "fig2",
        f"Barriers between consecutive tickets, {_TIN}",
        barriers_between_rounds(R34_TIN),
        panels=consecutive_panels,
    ),
    Study("fig3", f"Dense instability, {_C10}", instability_of(R18_C10), panels=instability_panels),
    Study("fig4", f"Dense instability, {_C100}", instability_of(R18_C100), panels=instability_panels),
    Study("fig5", f"Dense instability, {_VGG}", instability_of(VGG_C100), panels=instability_panels),
    Study(
        "fig6",
        "Forgetting during training, all pairs",
        late_dense_forgetting(R18_C10, R18_C100, VGG_C100, R34_TIN),
        panels=forgetting_panels,
    ),
    Study("fig7", f"Images removed by difficulty, {_C10}", without_samples(R18_C10), panels=subset_panels),
    Study(
        "fig8",
        f"Instability of the 67.23% ticket, {_TIN}",
        instability_of(R34_TIN, prunings=5),
        panels=instability_panels,
    ),
    Study(
        "fig9",
        f"Instability of the 89.26% ticket, {_TIN}",
        instability_of(R34_TIN, prunings=10),
        panels=instability_panels,
    ),
    Study(
        "fig10",
        f"Barriers between consecutive tickets, {_C10}",
        barriers_between_rounds(R18_C10),
        panels=consecutive_panels,
    ),
    Study(
        "fig11",
        f"Barriers between consecutive tickets, {_C100}",
        barriers_between_rounds(R18_C100),
        panels=consecutive_panels,
    ),
    Study(
        "fig12",
        f"Barriers between consecutive tickets, {_VGG}",
        barriers_between_rounds(VGG_C100),
        panels=consecutive_panels,
    ),
    Study(
        "fig13",
        f"Accuracy of tickets of all rounds, {_C10}",
        round_accuracy(R18_C10),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig14",
        f"Accuracy of tickets of all rounds, {_C100}",
        round_accuracy(R18_C100),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig15",
        f"Accuracy of tickets of all rounds, {_VGG}",
        round_accuracy(VGG_C100),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig16",
        f"Accuracy of tickets of all rounds, {_TIN}",
        round_accuracy(R34_TIN),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig17",
        f"Dense instability at all batch sizes, {_C10}",
        instability_of(R18_C10, of=ALL_BATCH_SIZES),
        panels=instability_panels,
    ),
    Study("fig18", f"Linear probes of all rounds, {_C10}", probed_rounds(R18_C10), panels=_PROBE_CURVES),
    Study("fig19", f"Linear probes of all rounds, {_C100}", probed_rounds(R18_C100), panels=_PROBE_CURVES),
    Study("fig20", f"Linear probes of all rounds, {_TIN}", probed_rounds(R34_TIN), panels=_PROBE_CURVES),
    Study(
        "fig21",
        f"Little data, tickets of all rounds, {_C10}",
        little_data_by_round(R18_C10),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig22",
        f"Little data, tickets of all rounds, {_C100}",
        little_data_by_round(R18_C100),
        panels=_ACCURACY_CURVES,
    ),
    Study(
        "fig23",
        f"Little data, tickets of all rounds, {_TIN}",
        little_data_by_round(R34_TIN),
        panels=_ACCURACY_CURVES,
    ),
)

EXTRA_FIGURES = (
    Study(
        "untrained-accuracy",
        "Accuracy of tickets before any training, all pairs",
        untrained_accuracy(*PAIRS),
        panels=over_sparsity("test accuracy (%)", TABULATED),
    ),
    Study(
        "ticket-convergence",
        "Convergence of the trainings of tickets, all pairs",
        ticket_convergence(*PAIRS),
        panels=over_sparsity("convergence (Eq. 4)", TABULATED),
    ),
)
"""For claims that no table or figure of the paper holds."""

EXTRA_TABLES = (
    Study(
        "recalibrated-barriers",
        "Barriers with batch-norm statistics as interpolated, and measured anew, all pairs",
        recalibrated_instability(
            (R18_C10, 0), (R18_C100, 0), (VGG_C100, 0), *((R34_TIN, n) for n in (0, 5, 10))
        ),
        Layout(("network", "dataset", "sparsity", *_TICKET), ("metric",)),
    ),
    Study(
        "literal-blocks",
        f"Linear probes by the network's own block numbers, of which Table 5 takes the last two, {_TIN}",
        probed_tickets(R34_TIN, random_dense=True, literal=True),
        _PROBES,
    ),
    Study(
        "basins",
        "Curvature and sharpness where dense trainings end, all pairs",
        dense_basins(*PAIRS),
        Layout(("network", "dataset", *_TICKET[:2]), ("metric",)),
    ),
    Study(
        "small-margins",
        "Test images of small margin in dense networks, all pairs",
        dense_margins(*PAIRS),
        Layout(("network", "dataset"), _TICKET[:2]),
    ),
)
"""For second readings of the paper, and for what it supposes and does not measure."""

OPEN_QUESTIONS = (
    Study(
        "distant-rounds",
        "Between rounds that are not consecutive, all pairs",
        distant_rounds(*PAIRS),
        Layout(("network", "dataset", *_TICKET[:2], "sparsity", "metric"), ("to_sparsity",)),
    ),
    Study(
        "noise-causes",
        f"Barriers by data order and by augmentation alone, {_C10}",
        causes_of_noise(R18_C10),
        Layout(_TICKET[:2], ("differ_in",)),
    ),
    Study(
        "stability-by-length",
        f"Barriers by length of pretraining, in percent of the budget, {_C10}",
        stability_by_length(R18_C10),
        Layout(_TICKET[:2], ("pretrained_percent",)),
    ),
    Study(
        "probe-hyperparameters",
        f"Linear probes of the 89.26% ticket, trained in other ways, {_C10}",
        probe_hyperparameters(R18_C10),
        Layout(_TICKET[:2], ("head",)),
    ),
    Study(
        "predictors",
        f"Early measures, and by how much tickets gain, {_C10}",
        early_measures(R18_C10),
        Layout(_TICKET, ("metric", "sparsity")),
        panels=predictor_figure,
        show=with_correlations,
    ),
    Study(
        "equal-noise",
        f"Tickets of configurations of equal lr / (batch (1 - momentum)), {_C10}",
        equal_noise(R18_C10),
        Layout(_TICKET[:2], ("sparsity",)),
    ),
)
"""For what the paper leaves open or says without a number; verdicts in ``claims/open_questions.py``."""

PAPER = (*TABLES, *FIGURES)
"""The paper's own 46."""
STUDIES = (*PAPER, *EXTRA_FIGURES, *EXTRA_TABLES, *OPEN_QUESTIONS)


def study_named(name: str) -> Study:
    """The study of that name; :class:`~tombola.errors.ExperimentError` with the nearest if there is none."""
    for study in STUDIES:
        if study.name == name:
            return study
    raise ExperimentError(unknown("study", name, (study.name for study in STUDIES)))


def studies_named(names: Iterable[str]) -> list[Study]:
    """The studies of those names, each once, in the order asked for."""
    return [study_named(name) for name in dict.fromkeys(names)]
