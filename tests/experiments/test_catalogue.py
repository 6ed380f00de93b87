from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tombola.experiments.cells import Metric, Place

from tombola.errors import StudyError
from tombola.experiments.claims.all_claims import CLAIMS
from tombola.experiments.claims.claim import needed
from tombola.experiments.paper.jobs import Work
from tombola.experiments.paper.printed import printed_cells
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.settings import R18_C10, R34_TIN, Configuration
from tombola.experiments.paper.studies import (
    EXTRA_FIGURES,
    EXTRA_TABLES,
    FIGURES,
    PAPER,
    STUDIES,
    TABLES,
    studies_named,
    study_named,
)
from tombola.lab.job import job
from tombola.measures.untrained import untrained

MEASURED = ("barrier", "recalibrated_barrier")


@pytest.fixture(scope="module")
def work() -> Work:
    return Work(scale_named("paper"))


@pytest.fixture(scope="module")
def places(work: Work) -> Counter[Place]:
    """Everything that the studies fill at paper scale."""
    found: list[Place] = []
    for study in STUDIES:
        found += [entry.place for entry in study.entries(work)]
        found += [searched.place for searched in study.searched(work)]
    return Counter(found)


def test_all_tables_and_figures_of_the_paper_are_there() -> None:
    assert [study.name for study in TABLES] == [f"table{number}" for number in range(1, 24)]
    assert [study.name for study in FIGURES] == [f"fig{number}" for number in range(1, 24)]
    assert len(PAPER) == 46
    assert [study.name for study in (*EXTRA_FIGURES, *EXTRA_TABLES)] == [
        "untrained-accuracy", "ticket-convergence", "recalibrated-barriers", "literal-blocks",
    ]  # fmt: skip
    assert len({study.name for study in STUDIES}) == 46 + 4


def test_every_printed_number_has_a_study_that_fills_its_place(places: Counter[Place]) -> None:
    assert [place for place in printed_cells() if place not in places] == []


def test_every_number_that_a_claim_needs_has_a_study_that_fills_its_place(places: Counter[Place]) -> None:
    wanted = {place for claim in CLAIMS for place in needed(claim, also=True)}
    assert [place for place in wanted if place not in places] == []


def test_tables_fill_no_other_places_than_the_printed_ones_and_two_of_forgetting(
    places: Counter[Place],
) -> None:
    tables = {place for place in places if place.study.startswith("table")}
    # Beside each mean number of forgetting events its spread, and that of three runs together (reading D8).
    events = [place for place in printed_cells() if place.metric == "forgetting_events"]
    assert len(events) == 4 * 4
    further: tuple[Metric, ...] = ("forgetting_spread", "summed_forgetting_events")
    more = {replace(place, metric=metric) for place in events for metric in further}
    assert tables == set(printed_cells()) | more


def test_no_place_is_filled_twice(places: Counter[Place]) -> None:
    assert [place for place, times in places.items() if times > 1] == []


def test_tiny_fills_every_place_that_the_claims_must_have() -> None:
    tiny = Work(scale_named("tiny"))
    found = {entry.place for study in STUDIES for entry in study.entries(tiny)}
    found |= {searched.place for study in STUDIES for searched in study.searched(tiny)}
    assert [place for claim in CLAIMS for place in needed(claim) if place not in found] == []


def test_runs_are_as_many_as_the_paper_has(work: Work) -> None:
    runs = {entry.place: len(entry.jobs) for study in TABLES for entry in study.entries(work)}
    assert {runs[place] for place in runs if place.study == "table13"} == {1}
    assert {runs[place] for place in runs if place.metric == "summed_forgetting_events"} == {1}  # of three
    rest = [p for p in runs if p.study != "table13" and p.metric != "summed_forgetting_events"]
    assert {runs[place] for place in rest} == {3}


def test_figures_are_drawn_and_tables_are_not() -> None:
    assert all(study.panels for study in (*FIGURES, *EXTRA_FIGURES))
    assert not any(study.panels for study in (*TABLES, *EXTRA_TABLES))


def test_recalibrated_barriers_are_of_the_same_copies_as_those_of_the_figures(work: Work) -> None:
    entries = study_named("recalibrated-barriers").entries(work)
    jobs = {metric: [e.jobs[0] for e in entries if e.place.metric == metric] for metric in MEASURED}
    figures = {job.name for n in (1, 3, 4, 5, 8, 9) for job in study_named(f"fig{n}").jobs(work)}
    assert {job.name for job in jobs["barrier"]} == figures
    for plain, anew in zip(jobs["barrier"], jobs["recalibrated_barrier"], strict=True):
        assert anew.arguments["recalibrate"] == "beside"
        runs = [[run.name for run in each.arguments["runs"]] for each in (plain, anew)]
        assert runs[0] == runs[1]


def test_untrained_tickets_are_read_both_ways_the_first_by_the_jobs_it_always_had(work: Work) -> None:
    study = study_named("untrained-accuracy")
    first, second = (
        {replace(e.place, metric="val_accuracy"): e.jobs for e in study.entries(work) if e.place.metric == m}
        for m in ("untrained_accuracy", "recalibrated_untrained_accuracy")
    )
    assert first.keys() == second.keys()
    for place, jobs in first.items():
        for plain, anew in zip(jobs, second[place], strict=True):
            ticket, data = plain.arguments["ticket"], plain.arguments["data"]["data"]
            assert plain.name == job(untrained, ticket, data).name
            assert anew.name == job(untrained, ticket, data, recalibrate=True).name
    panels = study.shown(work, SimpleNamespace(of=lambda job: None)).picture.panels  # type: ignore[arg-type]
    titles = [panel.title for panel in panels if panel.title.startswith("ResNet-18 on CIFAR-10,")]
    halves = ("without late rewinding", "with late rewinding")
    assert titles == [
        *(f"ResNet-18 on CIFAR-10, {half}" for half in halves),
        *(f"ResNet-18 on CIFAR-10, {half}, batch norm measured anew" for half in halves),
    ]


def test_blocks_of_resnet34_are_also_read_by_its_own_numbers(work: Work) -> None:
    table, literal = (
        {(replace(e.place, study="", block=None), e.place.block): e for e in study_named(name).entries(work)}
        for name in ("table5", "literal-blocks")
    )
    for (place, block), entry in literal.items():
        assert block in (4, 8, 16)
        assert entry.jobs == table[place, 4].jobs
        probes = SimpleNamespace(accuracy=list(range(1, 17)))  # that of block n is n percent
        assert entry.read(probes).values == (block,)
        if block > 4:  # the table's 4 and 8 are these
            assert table[place, block // 2].read(probes).values == (block,)


def test_what_studies_share_is_one_job(work: Work) -> None:
    chain = work.runs(R18_C10, Configuration(0.0, 256), 0)
    assert {job.name for job in chain} <= {job.name for job in study_named("fig13").jobs(work)}
    copies = work.instability(R18_C10, Configuration(0.0, 256)).arguments["runs"]
    assert copies[0].name == chain[0].name
    # Trained by its own recipe, a ticket of Table 4 is a round of its chain.
    entries = {entry.place: entry for entry in study_named("table4").entries(work)}
    own = next(
        entry for place, entry in entries.items()
        if (place.momentum, place.sparse_momentum, place.sparse_batch_size, place.sparsity)
        == (0.0, 0.0, 256, 89.26)
    )  # fmt: skip
    assert own.jobs[2].name == work.runs(R34_TIN, Configuration(0.0, 256), 2)[10].name


def test_the_two_halves_have_dense_trainings_of_their_own(work: Work) -> None:
    plain, rewound = (work.runs(R18_C10, Configuration(0.0, 256, half), 0)[0] for half in (False, True))
    assert plain.arguments.get("noise", 0) == rewound.arguments.get("noise", 0) == 0
    assert rewound.arguments["ticket"].arguments["noise"] != 0


def test_an_unknown_study_is_refused_with_the_nearest() -> None:
    with pytest.raises(StudyError, match="no study 'tabel11'; did you mean 'table11'"):
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
    work = Work(overridden(scale_named("paper"), **change))  # type: ignore[arg-type]
    study = study_named(name)
    with pytest.raises(StudyError, match=message):
        study.jobs(work) + study.searched(work)


def test_with_other_columns_fewer_rounds_are_enough() -> None:
    work = Work(overridden(scale_named("paper"), rounds=10, columns=(5, 10), configs=["0.9/100"]))
    entries = study_named("table12").entries(work)
    assert [(entry.place.pretrained, entry.place.sparsity) for entry in entries] == [
        (False, 0.0), (False, 67.23), (False, 89.26), (True, 0.0), (True, 67.23), (True, 89.26),
    ]  # fmt: skip


def test_fixed_columns_beyond_the_last_round_go_where_the_scale_does_without_them() -> None:
    for change, columns in (
        ({"rounds": 10, "columns": (5, 10)}, {89.26}),
        ({"rounds": 15, "columns": (5, 10)}, {89.26, 96.48}),
    ):
        work = Work(overridden(scale_named("paper"), **change))
        assert {entry.place.sparsity for entry in study_named("table17").entries(work)} == columns
    with pytest.raises(
        StudyError, match=r"table17 has a column of 96\.48% sparsity, which takes 15 prunings"
    ):
        study_named("table17").entries(Work(overridden(scale_named("paper"), rounds=10)))
