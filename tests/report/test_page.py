"""The page of a report: complete, escaped, in one piece, with the paper's numbers beside ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from tombola.experiments.bound import spoken
from tombola.experiments.paper.printed import comparable_tables, printed_cells
from tombola.experiments.paper.studies import PAPER, study_named
from tombola.report.cell_text import MINUS
from tombola.report.figure import draw, svg_text
from tombola.report.gather import Report
from tombola.report.page import report_html
from tombola.table.key import Key
from tombola.table.number import Number, entries_of
from tombola.table.table import Table
from tombola.views.exhibit import Exhibit
from tombola.views.origin import Origin
from tombola.views.picture import Line, Panel, Picture

ReadPage = Callable[[str], Any]
GAP = "\N{EN DASH}"

KEYS = [
    Key(
        metric="val_accuracy", network="ResNet-34", dataset="TinyImageNet",
        momentum=0.0, batch_size=256, pretrained=False, sparsity=sparsity,
    )
    for sparsity in (0.0, 67.23, 89.26)
]  # fmt: skip


def runs(key: Key, *values: float, **more: Any) -> list[Number]:
    """A number for each run of a key, at 20 epochs."""
    return [
        Number(key=key, value=value, epochs=20, seed=seed, **more) for seed, value in enumerate(values)
    ]  # fmt: skip


def gap(key: Key) -> list[Number]:
    """A key of which nothing is computed yet."""
    return [Number(key=key, value=None, state="missing", epochs=20, seed=0)]


def tickets() -> list[list[Number]]:
    """A dense network, a ticket that wins, and a single failed run."""
    return [
        runs(KEYS[0], 59.0, 60.0, 61.0),
        runs(KEYS[1], 69.0, 70.0, 71.0),
        runs(KEYS[2], 50.0, failed=True),
    ]


def exhibit(study: str, groups: Iterable[list[Number]] = (), **more: Any) -> Exhibit:
    """What a study of the paper shows of some numbers."""
    entries = entries_of([(numbers[0].key, numbers) for numbers in groups])
    return Exhibit(**{
        "name": study, "heading": spoken(study), "entries": tuple(entries),
        "layout": study_named(study).layout, "printed": comparable_tables().get(study, {}), **more,
    })  # fmt: skip


def own(groups: Iterable[list[Number]], name: str = "mine") -> Exhibit:
    """What an experiment of the user's own shows, which the paper knows nothing of."""
    entries = entries_of([(numbers[0].key, numbers) for numbers in groups])
    return Exhibit(name=name, heading=name, entries=tuple(entries))


def picture(name: str = "fig3", title: str = "Instability") -> Picture:
    line = Line("μ = 0.0, batch 256", [0.0, 0.5, 1.0], [6.0, 40.0, 6.0], 0.0, 256)
    missing = Panel("(b) barrier", "configuration", "error barrier (points)", [], ["μ = 0.9, batch 256"])
    return Picture(name, title, "Two runs", [Panel("(a) path", "position", "error (%)", [line]), missing])


def page(report: Report) -> str:
    drawn = {shown.name: shown.picture for shown in report.exhibits if shown.picture}
    return report_html(report, {name: svg_text(draw(one)) for name, one in drawn.items()})


def page_of(*exhibits: Exhibit, **more: Any) -> str:
    return page(Report(exhibits=exhibits, **more))


@pytest.fixture(scope="module")
def full() -> str:
    """All of the paper, of which three cells and a line are computed."""
    absent = [gap(key) for key in comparable_tables()["table2"] if key not in KEYS]
    special = {
        "table2": exhibit("table2", [*tickets(), *absent], title="Tickets by sparsity"),
        "fig3": exhibit("fig3", title="Instability", picture=picture()),
    }
    return page_of(
        *(special.get(study.name) or exhibit(study.name) for study in PAPER),
        missing=[("fig3", 7, 1200), ("table9", 12, 2400), ("fig4", 5, 0)],
        missing_together=(21, 2500),
    )


def section(text: str, heading: str) -> str:
    """The part of the page that shows one study."""
    (start,) = [match.start() for match in re.finditer(f"<h3>{heading}(:|<)", text)]
    return text[start : text.index("</article>", start)]


def cells_of(part: str) -> list[str]:
    return [
        " ".join(re.sub(r"<[^>]+>", " ", cell).split())
        for cell in re.findall(r"<td>(.*?)</td>", part, re.DOTALL)
    ]


def test_every_study_of_the_paper_is_on_the_page_and_in_the_contents(full: str, read_page: ReadPage) -> None:
    seen = read_page(full)
    assert seen.open == []
    for kind in ("Table", "Figure"):
        for number in range(1, 24):
            assert f"{kind} {number}" in seen.text
    links = {a["href"][1:] for tag, a in seen.tags if tag == "a"}
    ids = [a["id"] for _, a in seen.tags if a.get("id")]
    assert len(ids) == len(set(ids))
    assert links <= set(ids)
    assert len([a for tag, a in seen.tags if tag == "article"]) == len(PAPER)


def test_the_page_loads_nothing_and_runs_nothing(full: str, read_page: ReadPage) -> None:
    seen = read_page(full)
    assert not {"script", "link", "img", "iframe", "object", "image", "base"} & {tag for tag, _ in seen.tags}
    for _, attributes in seen.tags:
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith("#")
    assert all(part.startswith("#") for part in full.split("url(")[1:])


def test_ours_stands_above_the_papers_with_difference_and_interval(full: str) -> None:
    shown = cells_of(section(full, "Table 2"))
    # The paper's 59.33 lies in 60 ± 2.48, its 59.95 not in 70 ± 2.48; a single run has no interval.
    assert "60.00 ± 1.00% [57.52, 62.48] 59.33% +0.67 ✓" in shown
    assert "70.00 ± 1.00% † [67.52, 72.48] 59.95% +10.05 ✗" in shown
    assert f"50.00% * 1 run 60.20% {MINUS}10.20" in shown
    assert '<span class="winning">70.00 ± 1.00%</span>†' in full


def test_what_marks_and_brackets_mean_is_told_below_the_table(full: str) -> None:
    note = section(full, "Table 2").partition("<caption>")[2].partition("</caption>")[0]
    for sentence in ("Underlined: winning ticket", "†: higher beyond the noise", "In square brackets: 95%"):
        assert sentence in note
    single = section(page_of(exhibit("table2", [runs(KEYS[0], 60.0)])), "Table 2")
    assert "<caption>Single runs of 20 epochs.</caption>" in single


def test_a_gap_shows_the_papers_number_and_no_guess(full: str) -> None:
    shown = cells_of(section(full, "Table 12"))
    assert f"{GAP} 72.77%" in shown
    assert all(cell.startswith(GAP) for cell in shown if "%" in cell)
    assert "none of ours is computed yet" in section(full, "Table 12")
    assert "Not computed yet." in section(full, "Figure 4")


def test_a_picture_is_inside_the_page_with_its_caption(full: str, read_page: ReadPage) -> None:
    part = section(full, "Figure 3")
    assert part.count('role="img"') == 1
    assert "Two runs. The paper prints no numbers for it." in " ".join(part.split())
    labels = [a["aria-label"] for tag, a in read_page(full).tags if tag == "svg" and a.get("role") == "img"]
    assert labels == ["Instability"]


def test_the_legend_of_a_picture_is_told_in_words_too(full: str) -> None:
    part = full[full.index("<figure") : full.index("</figure>")]
    (legend,) = re.findall(r'<ul class="legend narrow">(.*?)</ul>', part, re.DOTALL)
    assert len(re.findall(r"<li><svg [^>]*aria-hidden", legend)) == legend.count("<li>") > 0


def test_the_contents_say_how_much_there_is(full: str, read_page: ReadPage) -> None:
    text = " ".join(read_page(full).text.split())
    assert "Table 2: Tickets by sparsity 3 of 40 cells" in text
    assert "Figure 3: Instability 1 of 2 lines" in text
    assert "Figure 4 not computed yet" in text


def test_the_contents_count_what_was_asked_for_not_what_the_paper_prints(read_page: ReadPage) -> None:
    text = read_page(page_of(exhibit("table2", [*tickets(), gap(replace(KEYS[0], sparsity=36.0))]))).text
    assert "Table 2 3 of 4 cells" in " ".join(text.split())


def printed_runs(**more: Any) -> Table:
    """A run at each of the paper's numbers."""
    return Table(
        number
        for key, cell in printed_cells().items()
        for number in runs(key, cell.mean, failed=cell.failed, **more)
    )


def claim_row(text: str, name: str) -> str:
    start = text.index(f'<tr id="{name}">')
    return text[start : text.index("</tr>", start)]


def test_claims_show_both_verdicts_and_a_reduced_budget(read_page: ReadPage) -> None:
    text = page_of(exhibit("table2"), table=printed_runs())
    row = claim_row(text, "C16")
    words = " ".join(read_page(row + "</tr>").text.split())
    assert "8 of 8 comparisons hold, 1 run, 20 epochs, reduced budget" in words
    assert words.count("holds") == 2
    assert row.count("<li>") == 8
    assert '<a href="#s0_table2">table2</a>' in row
    assert "fig16" in row
    assert text.count('<tr id="C') == 63


def test_a_claim_within_the_noise_of_the_seeds_is_undecided(read_page: ReadPage) -> None:
    # Without seeds, so that nothing is paired: runs that lie 30 points apart decide little.
    spread = Table(
        Number(key=key, value=cell.mean + 30 * place, epochs=20, pair=place)
        for key, cell in printed_cells().items()
        for place in (-1, 0, 1)
    )
    text = page_of(table=spread)
    row = claim_row(text, "C15")
    assert '<span class="badge undecided">undecided</span>' in row
    assert row.count(", within noise</li>") > 0
    counts = " ".join(read_page(text).text.split()).partition("Ours: ")[2].partition(".")[0]
    assert int(counts.partition(" undecided")[0].split()[-1]) == text.count('"badge undecided"')


def test_stand_ins_decide_no_claim() -> None:
    text = page_of(table=printed_runs(stand_in="convnet on digits"))
    assert '<span class="badge not">not yet</span>' in claim_row(text, "C16")
    assert "Ours: 63 not computable yet." in text


def test_a_report_that_is_not_of_the_paper_has_no_claims(full: str, read_page: ReadPage) -> None:
    text = page_of(own([runs(KEYS[0], 60.0)]), of_paper=False, lead="")
    assert '<section id="claims">' in full
    assert "laims" not in read_page(text).text
    assert 'href="#claims"' not in text
    assert '<tr id="C' not in text


def test_what_is_missing_is_listed_with_its_cost(full: str) -> None:
    part = full[full.index('id="missing"') :]
    rows = [
        cells_of(row.replace(' class="name"', "")) for row in re.findall(r"<tr>.*?</tr>", part, re.DOTALL)
    ]
    assert ["fig3", "7", "1,200"] in rows
    assert ["fig4", "5", "0"] in rows  # measures alone are no epochs
    assert "together they need 21 jobs and 2,500 epochs" in " ".join(part.split())
    assert "<p>Nothing.</p>" in page_of()


def test_mixed_origins_are_told_below_the_table(full: str) -> None:
    origins = {
        KEYS[0]: [Origin("cpu", "float32", "torch 2.9.0")],
        KEYS[1]: [Origin("NVIDIA H200", "float32", "torch 2.9.0")],
    }
    part = section(page_of(exhibit("table2", tickets(), origins=origins)), "Table 2")
    assert "Mixed kinds of device: NVIDIA H200 (1 cell), cpu (1 cell)." in part
    assert "precisions" not in part
    assert "Mixed" not in full


def test_notes_of_cells_are_told_once_with_their_count() -> None:
    noted = [[replace(number, note="two runs lost") for number in numbers] for numbers in tickets()]
    part = section(page_of(exhibit("table2", noted)), "Table 2")
    assert part.count("Ours, 3 cells: two runs lost.") == 1
    # Of the paper's cells one says that Table 4 prints another number.
    assert "Table 4 prints 59.98 for the same cell." in part


def test_provenance_and_the_note_are_shown() -> None:
    budget = "scale tiny: 6 epochs a training, 1 run"
    text = page_of(provenance={"torch": "2.9.0"}, budget=budget, note="tiny scale")
    assert "<dt>torch</dt><dd>2.9.0</dd>" in text
    assert '<p class="lead">Scale tiny: 6 epochs a training, 1 run.</p>' in text
    assert '<p class="warning">Tiny scale.</p>' in text
    assert 'class="warning"' not in page_of()


def test_title_and_lead_are_those_of_the_report() -> None:
    text = page_of(title="mine", lead="What my measure says.")
    assert "<title>mine</title>" in text
    assert "<h1>mine</h1>" in text
    assert '<p class="lead">What my measure says.</p>' in text
    assert '<p class="lead">' not in page_of(lead="")


def test_a_study_that_the_scale_does_not_fit_says_so_under_its_title() -> None:
    study, why = study_named("table13"), "table13 has none of the configurations 0.0/256"
    text = page_of(study.left_out(why))
    part = section(text, "Table 13")
    assert study.title in part
    assert f"Not at this scale: {why}." in part
    assert f'{study.title}</a> <span class="found">not at this scale</span>' in text


def test_an_experiment_of_the_users_own_is_shown_after_the_papers() -> None:
    barrier = Key(metric="barrier", dataset="digits")
    text = page_of(own([runs(barrier, 1.5)]), exhibit("table1"), exhibit("fig23"))
    assert text.index("Further studies") > text.index("Figure 23")
    assert "1.50" in cells_of(section(text, "mine"))


def test_without_the_papers_studies_there_are_results_and_no_further_ones() -> None:
    text = page_of(own([runs(KEYS[0], 60.0)]))
    assert "<h2>Results</h2>" in text
    assert "Further studies" not in text


def test_the_papers_numbers_are_explained_where_there_are_any() -> None:
    words = "Below each number of ours stand the paper's own and the difference"
    assert words in page_of(exhibit("table2", tickets()))
    assert words not in page_of(own(tickets()))


def test_unfinished_cells_that_the_paper_does_not_print_are_gaps_too() -> None:
    keys = [Key(metric="barrier", momentum=momentum) for momentum in (0.0, 0.3, 0.9)]
    text = page_of(own([gap(keys[0]), runs(keys[1], 1.5), gap(keys[2])]))
    assert "1 of 3 cells" in text
    rows = re.findall(r"<tr>\s*<td.*?</tr>", section(text, "mine"), re.DOTALL)
    assert ["1.50" in row for row in rows] == [False, True, False]


def test_a_mean_of_some_runs_is_a_gap() -> None:
    text = page_of(own([[*runs(KEYS[0], 60.0), *gap(KEYS[0])]]))
    assert "not computed yet" in text
    assert cells_of(section(text, "mine")) == [GAP]


def test_stand_ins_head_rows_under_their_own_names() -> None:
    keys = [replace(KEYS[0], dataset=dataset) for dataset in ("TinyImageNet", "CIFAR-10")]
    shown = replace(own([runs(key, 60.0) for key in keys]), names={"TinyImageNet": "digits"})
    part = section(page_of(shown), "mine")
    assert '<td class="name">digits</td>' in part
    assert "TinyImageNet" not in part


def test_only_the_exhibits_of_the_report_are_shown_tables_first(read_page: ReadPage) -> None:
    text = page_of(exhibit("fig3", picture=picture()), exhibit("table2", tickets()))
    articles = [a["id"] for tag, a in read_page(text).tags if tag == "article"]
    assert articles == ["s1_table2", "s0_fig3"]


def test_names_from_outside_are_escaped(read_page: ReadPage) -> None:
    evil = '<script>alert("1")</script>'
    key = Key(metric="barrier", dataset=evil, network=evil)
    other = replace(key, dataset="digits")
    origins = {key: [Origin(evil, "", "")], other: [Origin("cpu", "", "")]}
    table = replace(own([runs(one, 1.0, note=evil) for one in (key, other)], evil), origins=origins)
    figure = Exhibit(
        name="mine", heading="mine", title=evil, picture=replace(picture("mine", evil), caption=evil)
    )
    seen = read_page(
        page_of(table, figure, missing=[(evil, 1, 3)], provenance={evil: evil}, note=evil, title=evil)
    )
    assert "script" not in {tag for tag, _ in seen.tags}
    assert seen.open == []
    assert seen.text.count(evil) >= 8
    assert evil in [a["aria-label"] for tag, a in seen.tags if tag == "svg" and a.get("role") == "img"]
