from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tombola.errors import ExperimentError
from tombola.experiments.bound import Bound, jobs_behind
from tombola.experiments.claims.all_claims import CLAIMS
from tombola.experiments.claims.claim import needed
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import printed_cells, printed_tables
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.settings import R18_C10, R34_TIN, Configuration
from tombola.experiments.paper.studies import (
    EXTRA_FIGURES,
    EXTRA_TABLES,
    FIGURES,
    OPEN_QUESTIONS,
    PAPER,
    STUDIES,
    TABLES,
    studies_named,
    study_named,
)
from tombola.experiments.study import bind
from tombola.lab.item import Item, jobs_of
from tombola.lab.job import job
from tombola.measures.untrained import untrained
from tombola.table.key import Key

MEASURED = ("barrier", "recalibrated_barrier")


@pytest.fixture(scope="module")
def keys(paper_studies: Mapping[str, Bound]) -> dict[str, Counter[Key]]:
    """What each study measures at paper scale."""
    return {name: Counter(item.key for item in study.items) for name, study in paper_studies.items()}


@pytest.fixture(scope="module")
def every_key(keys: dict[str, Counter[Key]]) -> set[Key]:
    return {key for counted in keys.values() for key in counted}


def by_key(study: Bound) -> Mapping[Key, Any]:
    return {item.key: item for item in study.items}


def test_all_tables_and_figures_of_the_paper_are_there() -> None:
    assert [study.name for study in TABLES] == [f"table{number}" for number in range(1, 24)]
    assert [study.name for study in FIGURES] == [f"fig{number}" for number in range(1, 24)]
    assert len(PAPER) == 46
    assert [study.name for study in (*EXTRA_FIGURES, *EXTRA_TABLES)] == [
        "untrained-accuracy", "ticket-convergence", "recalibrated-barriers", "literal-blocks", "basins",
        "small-margins",
    ]  # fmt: skip
    assert [study.name for study in OPEN_QUESTIONS] == [
        "distant-rounds", "noise-causes", "stability-by-length", "probe-hyperparameters",
        "predictors", "equal-noise",
    ]  # fmt: skip
    assert len({study.name for study in STUDIES}) == 46 + 6 + 6


def test_every_printed_number_has_a_study_that_measures_it(every_key: set[Key]) -> None:
    assert [key for key in printed_cells() if key not in every_key] == []


def test_every_number_that_a_claim_needs_has_a_study_that_measures_it(every_key: set[Key]) -> None:
    wanted = {key for claim in CLAIMS for key in needed(claim, also=True)}
    assert [key for key in wanted if key not in every_key] == []


def test_tables_measure_nothing_but_what_they_print_and_two_of_forgetting(
    keys: dict[str, Counter[Key]],
) -> None:
    counted = 0
    for table, printed in printed_tables().items():
        # Beside each mean number of forgetting events its spread, and that of three runs together (D8).
        events = [key for key in printed if key.metric == "forgetting_events"]
        further = ("forgetting_spread", "summed_forgetting_events")
        more = {replace(key, metric=metric) for key in events for metric in further}
        assert keys[table].keys() == printed.keys() | more, table
        counted += len(events)
    assert counted == 4 * 4


def test_no_study_measures_anything_twice(keys: dict[str, Counter[Key]]) -> None:
    assert [(name, key) for name, counted in keys.items() for key, n in counted.items() if n > 1] == []


def test_what_two_studies_show_is_the_same_number_of_the_same_jobs(
    paper_studies: Mapping[str, Bound],
) -> None:
    items: dict[Key, list[Item]] = {}
    for study in paper_studies.values():
        for item in study.items:
            items.setdefault(item.key, []).append(item)
    shared = {key: same for key, same in items.items() if len(same) > 1}
    # Among others Table 11 with Fig. 13, Table 17 with Fig. 18, Fig. 3 with Fig. 7.
    assert {"val_accuracy", "probe_accuracy", "barrier"} <= {key.metric for key in shared}
    for key, same in shared.items():
        assert len({tuple(job_names(item)) for item in same}) == 1, key
        assert len({reader(item) for item in same}) == 1, key


def job_names(item: Item) -> list[str]:
    return [job.name for job in item.jobs]


def reader(item: Any) -> tuple[Any, ...]:
    """What reads the results of an item: a function, and what it was made with."""
    if not hasattr(item, "read"):  # a search, which reads its answers itself
        return (type(item),)
    return item.read.__code__, *(cell.cell_contents for cell in item.read.__closure__ or ())


def test_tiny_measures_all_that_the_claims_must_have() -> None:
    tiny = PaperJobs(scale_named("tiny"))
    measured = {item.key for study in STUDIES for item in study.at(tiny).items}
    assert [key for claim in CLAIMS for key in needed(claim) if key not in measured] == []


def test_runs_are_as_many_as_the_paper_has(paper_studies: Mapping[str, Bound]) -> None:
    fixed = [
        (table.name, item)
        for table in TABLES
        for item in paper_studies[table.name].items
        if table.name != "table15"  # searches, whose jobs follow from results
    ]
    summed = [item for _, item in fixed if item.key.metric == "summed_forgetting_events"]
    assert {len(item.jobs) for item in summed} == {1}  # of three
    assert {len(item.jobs) for name, item in fixed if name == "table13"} == {1}
    rest = [item for name, item in fixed if name != "table13" and item not in summed]
    assert {len(item.jobs) for item in rest} == {3}
    assert {item.searches(None) for item in paper_studies["table15"].items} == {(0, 3)}
    assert jobs_of(paper_studies["table15"].items) == []


def test_figures_are_drawn_and_tables_are_not() -> None:
    assert all(study.panels for study in (*FIGURES, *EXTRA_FIGURES))
    plain = [study for study in OPEN_QUESTIONS if study.name != "predictors"]
    assert not any(study.panels for study in (*TABLES, *EXTRA_TABLES, *plain))


def test_recalibrated_barriers_are_of_the_same_copies_as_those_of_the_figures(
    paper_studies: Mapping[str, Bound],
) -> None:
    items = paper_studies["recalibrated-barriers"].items
    jobs = {metric: [item.jobs[0] for item in items if item.key.metric == metric] for metric in MEASURED}
    figures = {job.name for job in jobs_behind(paper_studies[f"fig{n}"] for n in (1, 3, 4, 5, 8, 9))}
    assert {job.name for job in jobs["barrier"]} == figures
    for interpolated, anew in zip(jobs["barrier"], jobs["recalibrated_barrier"], strict=True):
        assert anew.arguments["recalibrate"] == "beside"
        runs = [[run.name for run in job.arguments["runs"]] for job in (interpolated, anew)]
        assert runs[0] == runs[1]


def test_untrained_tickets_are_read_both_ways_the_first_by_the_jobs_it_always_had(
    paper_studies: Mapping[str, Bound],
) -> None:
    study = paper_studies["untrained-accuracy"]
    first, second = (
        {replace(item.key, metric="val_accuracy"): item.jobs for item in study.items if item.key.metric == m}
        for m in ("untrained_accuracy", "recalibrated_untrained_accuracy")
    )
    assert first.keys() == second.keys()
    for key, jobs in first.items():
        for interpolated, anew in zip(jobs, second[key], strict=True):
            ticket, data = interpolated.arguments["ticket"], interpolated.arguments["data"]["data"]
            assert interpolated.name == job(untrained, ticket, data).name
            assert anew.name == job(untrained, ticket, data, recalibrate=True).name
    (exhibit,) = study.exhibits(SimpleNamespace(of=lambda job: None))  # type: ignore[arg-type]
    assert exhibit.picture is not None
    panels = exhibit.picture.panels
    titles = [panel.title for panel in panels if panel.title.startswith("ResNet-18 on CIFAR-10,")]
    halves = ("without late rewinding", "with late rewinding")
    assert titles == [
        *(f"ResNet-18 on CIFAR-10, {half}" for half in halves),
        *(f"ResNet-18 on CIFAR-10, {half}, batch norm measured anew" for half in halves),
    ]


def test_blocks_of_resnet34_are_also_read_by_its_own_numbers(paper_studies: Mapping[str, Bound]) -> None:
    table, literal = (
        {
            (replace(item.key, reading="", block=None), item.key.block): item
            for item in paper_studies[name].items
        }
        for name in ("table5", "literal-blocks")
    )
    assert {item.key.reading for item in paper_studies["literal-blocks"].items} == {"literal"}
    for (key, block), item in literal.items():
        assert block in (4, 8, 16)
        assert item.jobs == table[key, 4].jobs
        probes = SimpleNamespace(accuracy=list(range(1, 17)))  # that of block n is n percent
        assert item.read(probes).values == (block,)
        if block > 4:  # the table's 4 and 8 are these
            assert table[key, block // 2].read(probes).values == (block,)


def test_what_studies_share_is_one_job(paper_jobs: PaperJobs, paper_studies: Mapping[str, Bound]) -> None:
    chain = paper_jobs.runs(R18_C10, Configuration(0.0, 256), 0)
    assert {job.name for job in chain} <= {job.name for job in jobs_of(paper_studies["fig13"].items)}
    copies = paper_jobs.instability(R18_C10, Configuration(0.0, 256)).arguments["runs"]
    assert copies[0].name == chain[0].name
    # Trained by its own recipe, a ticket of Table 4 is a round of its chain.
    own = next(
        item for key, item in by_key(paper_studies["table4"]).items()
        if (key.momentum, key.sparse_momentum, key.sparse_batch_size, key.sparsity) == (0.0, 0.0, 256, 89.26)
    )  # fmt: skip
    assert own.jobs[2].name == paper_jobs.runs(R34_TIN, Configuration(0.0, 256), 2)[10].name


def test_the_barrier_of_fig_7_on_all_images_is_that_of_fig_3(paper_studies: Mapping[str, Bound]) -> None:
    barrier, accuracy = (
        next(
            item
            for item in paper_studies["fig7"].items
            if item.key.metric == metric and item.key.subset_criterion is None
        )
        for metric in ("barrier", "val_accuracy")
    )
    assert job_names(barrier) == job_names(by_key(paper_studies["fig3"])[barrier.key])
    # Accuracy over the noise copies of that job is another number than over seeds, which Table 11 has.
    assert accuracy.key.over == "copies"
    over_seeds = by_key(paper_studies["table11"])[replace(accuracy.key, over="seeds")]
    assert job_names(over_seeds)[0] == job_names(accuracy)[0]
    assert not set(job_names(over_seeds)[1:]) & set(job_names(accuracy))


def test_the_papers_numbers_are_found_under_the_keys_of_its_figures(
    paper_studies: Mapping[str, Bound],
) -> None:
    for figure, table in {"fig13": "table11", "fig18": "table17", "fig21": "table21"}.items():
        tickets = {
            key
            for key in printed_tables()[table]
            if key.baseline is None and (key.network, key.dataset) == ("ResNet-18", "CIFAR-10")
        }
        assert tickets
        assert tickets <= by_key(paper_studies[figure]).keys(), figure
    (ticket,) = (
        key
        for key in by_key(paper_studies["fig13"])
        if (key.momentum, key.batch_size, key.pretrained, key.sparsity) == (0.9, 100, False, 67.23)
    )
    beside = paper_studies["fig13"].comparable[ticket]
    assert beside.mean == 94.99
    assert printed_tables()["table11"][ticket] is beside


def test_the_two_halves_have_dense_trainings_of_their_own(paper_jobs: PaperJobs) -> None:
    unrewound, rewound = (
        paper_jobs.runs(R18_C10, Configuration(0.0, 256, half), 0)[0] for half in (False, True)
    )
    assert unrewound.arguments.get("noise", 0) == rewound.arguments.get("noise", 0) == 0
    assert rewound.arguments["ticket"].arguments["noise"] != 0


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    with pytest.raises(ExperimentError, match="no study 'tabel11'; did you mean 'table11'"):
        study_named("tabel11")
    assert [study.name for study in studies_named(["fig3", "table1", "fig3"])] == ["fig3", "table1"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "table11", {"rounds": 10},
            r"table11 has a column of 98.85% sparsity, which takes 20 prunings; here R18/C10 has 10 rounds: "
            r"give rounds of at least 20, or columns up to 10",
        ),
        ("table6", {"rounds": 5}, "table6 .* 89.26% .*; here .* 5 rounds: give rounds of at least 10"),
        ("fig8", {"rounds": 3}, "fig8 has a column of 67.23% sparsity, which takes 5 prunings"),
        ("table2", {"configs": ["0.5/64"]}, "table2 has none of the configurations 0.5/64; add one"),
        ("table13", {"configs": ["0.0/256", "0.9/100"]}, "has none of the configurations 0.0/256, 0.9/100"),
        ("table15", {"configs": ["0.3/256"]}, "table15 has none of the configurations 0.3/256"),
        ("table5", {"configs": ["0.3/256"]}, "table5 has none of the configurations 0.3/256"),
    ],
)  # fmt: skip
def test_a_study_that_the_overrides_make_meaningless_is_refused(
    name: str, change: dict[str, object], message: str
) -> None:
    work = PaperJobs(overridden(scale_named("paper"), **change))  # type: ignore[arg-type]
    with pytest.raises(ExperimentError, match=message):
        study_named(name).at(work)


def test_studies_that_a_scale_does_not_fit_are_left_out_with_the_cause() -> None:
    work = PaperJobs(overridden(scale_named("paper"), configs=["0.3/256"]))
    bound, causes = bind(studies_named(["table14", "table1", "table15"]), work)
    assert [study.name for study in bound] == ["table14"]
    assert {key.momentum for key in by_key(bound[0])} == {0.3}
    assert causes.keys() == {"table1", "table15"}
    assert causes["table1"].startswith("table1 has none of the configurations 0.3/256")


def test_with_other_columns_fewer_rounds_are_enough() -> None:
    work = PaperJobs(overridden(scale_named("paper"), rounds=10, columns=(5, 10), configs=["0.9/100"]))
    items = study_named("table12").at(work).items
    assert [(item.key.pretrained, item.key.sparsity) for item in items] == [
        (False, 0.0), (False, 67.23), (False, 89.26), (True, 0.0), (True, 67.23), (True, 89.26),
    ]  # fmt: skip


def test_fixed_columns_beyond_the_last_round_go_where_the_scale_does_without_them() -> None:
    for change, columns in (
        ({"rounds": 10, "columns": (5, 10)}, {89.26}),
        ({"rounds": 15, "columns": (5, 10)}, {89.26, 96.48}),
    ):
        work = PaperJobs(overridden(scale_named("paper"), **change))
        assert {item.key.sparsity for item in study_named("table17").at(work).items} == columns
    with pytest.raises(
        ExperimentError, match=r"table17 has a column of 96\.48% sparsity, which takes 15 prunings"
    ):
        study_named("table17").at(PaperJobs(overridden(scale_named("paper"), rounds=10)))
