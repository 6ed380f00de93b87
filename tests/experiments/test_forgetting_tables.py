"""Tables 1 and 8 to 10: forgetting a run as Toneva et al. count it, and of three runs as the paper does."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import tombola as tb
from tombola.experiments.bound import Bound
from tombola.experiments.claims.all_claims import CLAIMS, claim_named
from tombola.experiments.claims.claim import judge, needed
from tombola.experiments.compute import run_experiments
from tombola.experiments.paper.jobs import PaperJobs
from tombola.experiments.paper.printed import (
    comparable_cells,
    comparable_tables,
    printed_cells,
    printed_tables,
)
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.experiments.paper.settings import R18_C10, R34_TIN, Configuration
from tombola.experiments.paper.studies import study_named
from tombola.report.frame import frame, to_csv
from tombola.report.gather import Report
from tombola.report.latex import to_latex
from tombola.report.markdown import headings, to_markdown
from tombola.report.page import report_html
from tombola.table.key import Key
from tombola.table.number import Cell, Entry, Together, by_key, measured
from tombola.views.exhibit import Exhibit

STABLE = Configuration(0.0, 256)
TABLES = ("table1", "table8", "table9", "table10")


def work_of(seeds: int, scale: str = "paper") -> PaperJobs:
    return PaperJobs(overridden(scale_named(scale), seeds=seeds, configs=["0.0/256"]))


def dense(work: PaperJobs, number: int) -> str:
    return work.runs(R18_C10, STABLE, number)[0].name


@pytest.mark.parametrize(("seeds", "there"), [(1, False), (2, False), (3, True), (5, True)])
def test_three_runs_are_summed_where_there_are_three(seeds: int, there: bool) -> None:
    work = work_of(seeds)
    items = {item.key.metric: item for item in study_named("table8").at(work).items}
    assert ("summed_forgetting_events" in items) is there
    assert len(items["forgetting_events"].jobs) == len(items["forgetting_spread"].jobs) == seeds
    if there:  # of more than three the first ones
        (job,) = items["summed_forgetting_events"].jobs
        assert [run.name for run in job.arguments["runs"]] == [dense(work, number) for number in range(3)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> tb.Lab:
    return tb.Lab(tmp_path_factory.mktemp("forgetting") / "store")


@pytest.fixture(scope="module")
def work() -> PaperJobs:
    return work_of(3, "tiny")


@pytest.fixture(scope="module")
def table1(work: PaperJobs) -> Bound:
    return study_named("table1").at(work)


@pytest.fixture(scope="module")
def cells(lab: tb.Lab, table1: Bound) -> dict[Key, Cell]:
    run_experiments(lab, [table1]).outcome.raise_failures()
    return table1.exhibits(lab.results())[0].cells


def test_the_cells_are_those_of_the_records_in_the_store(
    lab: tb.Lab, work: PaperJobs, cells: dict[Key, Cell]
) -> None:
    by_metric = {key.metric: cell for key, cell in cells.items()}
    files = [
        load_file(path)
        for number in range(3)
        for path in lab.store.folder(work.runs(R34_TIN, STABLE, number)[0].name).glob("*.safetensors")
    ]
    events = np.array([tensors["forgetting.events"] for tensors in files], dtype=float)
    assert len(events) == 3
    assert by_metric["forgetting_events"].values == pytest.approx(events.mean(axis=1))
    assert by_metric["forgetting_spread"].values == pytest.approx(events.std(axis=1, ddof=1))
    summed = by_metric["summed_forgetting_events"]
    assert (summed.runs, len(summed.values)) == (3, 1)
    assert summed.mean == pytest.approx(events.sum(axis=0).mean() / 2)
    assert summed.std == pytest.approx((events.sum(axis=0) / 2).std(ddof=1))
    # Means of three runs agree with it by one and a half; spreads, unless runs agree on every image, do not.
    assert summed.mean == pytest.approx(1.5 * by_metric["forgetting_events"].mean)


def test_the_sum_outlives_the_weights(
    lab: tb.Lab, work: PaperJobs, table1: Bound, cells: dict[Key, Cell]
) -> None:
    for number in range(3):
        lab.store.thin(work.runs(R34_TIN, STABLE, number)[0].name)
    (again,) = table1.exhibits(lab.results())
    assert again.cells == cells


def ours(*metrics: str) -> dict[Key, Cell]:
    """Cells of ours in Table 8 for 0.0/256, with numbers that nothing else has."""
    (key,) = [
        key
        for key in printed_tables()["table8"]
        if (key.metric, key.momentum, key.batch_size) == ("forgetting_events", 0.0, 256)
    ]
    cells = [
        measured(key, [2.0, 2.5, 2.4], epochs=200),
        measured(replace(key, metric="forgetting_spread"), [3.1, 3.2, 3.3], epochs=200),
        measured(
            replace(key, metric="summed_forgetting_events"), [3.45], epochs=200, together=Together(3, 4.56)
        ),
    ]
    return by_key(cell for cell in cells if cell.key.metric in metrics)


def table8(own: dict[Key, Cell]) -> Exhibit:
    """Table 8 with some cells of ours."""
    entries = tuple(Entry(key, (), cell) for key, cell in own.items())
    return Exhibit(
        name="table8", heading="Table 8", title="Forgetting", entries=entries,
        layout=study_named("table8").layout, printed=comparable_tables()["table8"],
    )  # fmt: skip


ALL = ("forgetting_events", "forgetting_spread", "summed_forgetting_events")


def test_the_papers_number_stands_beside_the_sum_alone() -> None:
    exhibit = table8(ours(*ALL))
    table, theirs = exhibit.grid(), exhibit.printed
    assert table is not None
    assert headings(table) == [
        "μ", "batch size", "forgetting events a run", "their spread over images",
        "forgetting events of three runs, halved", "unforgettable", "convergence",
    ]  # fmt: skip
    row = frame(table, ours(*ALL), theirs).loc[(0.0, 256)]
    assert np.isnan(row["forgetting events a run", "paper"])
    assert row["forgetting events a run", "mean"] == pytest.approx(2.3)
    summed = row["forgetting events of three runs, halved"]
    # The paper prints 3.35 ± 4.44.
    assert (summed["mean"], summed["std"], summed["runs"], summed["paper"]) == (3.45, 4.56, 3, 3.35)
    assert summed["difference"] == pytest.approx(0.1)
    text = to_markdown(table, ours(*ALL), theirs)
    # Intervals of three runs: 4.3027 standard errors, of 0.1528 and 0.0577; none of the single sum.
    assert r"| 2.30 ± 0.26 \[1.64, 2.96\] | 3.20 ± 0.10 \[2.95, 3.45\] | " in text
    assert "| 3.45 ± 4.56 (paper 3.35 ± 4.44, +0.10) |" in text
    assert "summed over them and halved, ± spread over images (reading D8 of docs/protocol.md)" in text
    latex = to_latex(table, ours(*ALL), theirs)
    assert r"2.30 $\pm$ 0.26 {\scriptsize [1.64, 2.96]} & 3.20 $\pm$ 0.10 {" in latex
    assert r"} & 3.45 $\pm$ 4.56 &" in latex
    assert r"{\scriptsize 3.35 $\pm$ 4.44, +0.10}" in latex
    assert "forgetting events of three runs, halved paper" in to_csv(table, ours(*ALL), theirs)


def test_without_three_runs_the_sum_is_a_gap_beside_the_papers_number() -> None:
    own = ours("forgetting_events", "forgetting_spread")
    page = report_html(Report(exhibits=[table8(own)]), {})
    row = next(part for part in page.split("<tr>") if '<td class="name">256</td>' in part and "2.30" in part)
    texts = [part.split("</td>")[0] for part in row.split("<td>")[1:]]
    # Nothing of the paper's beside it.
    assert texts[0] == '<span>2.30 ± 0.26</span> <span class="interval">[1.64, 2.96]</span>'
    assert '<span class="gap">' in texts[2]
    assert "3.35 ± 4.44" in texts[2]


def test_the_papers_forgetting_events_are_under_the_sum_and_all_else_in_its_place() -> None:
    for table, comparable in comparable_tables().items():
        printed = printed_tables()[table]
        moved = {key: cell for key, cell in comparable.items() if key not in printed}
        assert len(moved) == (4 if table in TABLES else 0)
        for key, cell in moved.items():
            assert key.metric == "summed_forgetting_events"
            a_run = printed[replace(key, metric="forgetting_events")]
            assert (cell.mean, cell.std) == (a_run.mean, a_run.std)
        assert [cell.mean for cell in comparable.values()] == [cell.mean for cell in printed.values()]
    assert len(comparable_cells()) == len(printed_cells()) == 770


@pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
def test_the_claim_on_forgetting_events_does_not_depend_on_the_arithmetic(factor: float) -> None:
    claim = claim_named("C5")
    scaled = {
        key: replace(cell, mean=cell.mean * factor if key.metric == "forgetting_events" else cell.mean)
        for key, cell in printed_cells().items()
    }
    verdict = judge(claim, scaled)
    as_printed = judge(claim, printed_cells())
    assert verdict.status == as_printed.status
    assert [c.holds for _, c in verdict.comparisons] == [c.holds for _, c in as_printed.comparisons]


def test_no_claim_reads_the_sum() -> None:
    metrics = {key.metric for claim in CLAIMS for key in needed(claim, also=True)}
    assert "forgetting_events" in metrics
    assert not {"forgetting_spread", "summed_forgetting_events"} & metrics
