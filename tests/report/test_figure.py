"""Pictures as they are drawn: read back from the figure, never compared by pixel."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tombola.errors import StoreError
from tombola.measures.limits import STABLE_BELOW
from tombola.report.figure import draw, save_picture
from tombola.report.style import PAPER, ConfigurationStyle, looks
from tombola.table.key import sparsity_after
from tombola.views.picture import Line, Panel, Picture

FOUR = tuple(ConfigurationStyle(momentum, size) for momentum in (0.0, 0.9) for size in (100, 256))
ROUNDS = [sparsity_after(prunings) for prunings in range(21)]
ALPHAS = [step / 20 for step in range(21)]


def line(configuration: ConfigurationStyle | None, x: list[float], y: list[float], **more: Any) -> Line:
    momentum, size = configuration or (None, None)
    label = configuration.label if configuration else "dense network"
    return Line(**{"label": label, "x": x, "y": y, "momentum": momentum, "batch_size": size, **more})


def course(configuration: ConfigurationStyle | None, **more: Any) -> Line:
    """A line through all rounds; its height tells configurations apart."""
    height = 60 + (FOUR.index(configuration) if configuration in FOUR else 10)
    return line(configuration, ROUNDS, [height - 0.01 * place**2 for place in range(21)], **more)


def panel(lines: list[Line], **more: Any) -> Panel:
    """Accuracies by round, unless another axis is given."""
    labels = {"title": "tickets", "x_label": "sparsity (%)", "y_label": "test accuracy (%)"}
    return Panel(**{**labels, "by_round": "x_label" not in more, "lines": lines, **more})


def barrier_panel(lines: list[Line], **more: Any) -> Panel:
    return panel(lines, **{"y_label": "error barrier (points)", "limit": STABLE_BELOW, **more})


def picture(*panels: Panel, **more: Any) -> Picture:
    return Picture(**{"name": "fig13", "title": "Accuracy", "caption": "", **more, "panels": panels})


def drawn_lines(axes: Axes) -> list[Any]:
    """The lines through points: not markers, stars, or the line where stability begins."""
    return [one for one in axes.lines if one.get_linestyle() != "None" and len(one.get_xdata()) > 2]


def legend_texts(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def all_texts(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return " ".join(" ".join(texts).split())


def test_each_line_is_drawn_through_its_points_in_its_configurations_colour_and_dashes() -> None:
    (axes,) = draw(picture(panel([course(configuration) for configuration in FOUR]))).axes
    drawn = drawn_lines(axes)
    assert len(drawn) == 4
    for one, configuration in zip(drawn, FOUR, strict=True):
        assert list(one.get_xdata()) == ROUNDS
        assert list(one.get_ydata()) == list(course(configuration).y)
        assert to_hex(one.get_color()) == to_hex(configuration.color)
        assert one.is_dashed() == (configuration.momentum == 0.9)


def test_a_configuration_looks_the_same_whatever_else_a_picture_shows() -> None:
    alone = looks(picture(panel([course(one) for one in FOUR])))
    with_more = looks(picture(panel([course(None), *(course(one, pretrained=True) for one in FOUR[::-1])])))
    for configuration in FOUR:
        assert alone(course(configuration)) == with_more(course(configuration, pretrained=True))


def test_a_panel_of_both_starts_is_drawn_as_two_on_one_scale() -> None:
    halves = [course(one, pretrained=half) for half in (False, True) for one in FOUR]
    left, right = draw(picture(panel([*halves, course(None)]))).axes
    assert [left.get_title(), right.get_title()] == [
        "tickets, without late rewinding",
        "tickets, with late rewinding",
    ]
    assert left.get_ylim() == right.get_ylim()
    # Each half has its four lines, and the baseline that belongs to neither.
    assert len(drawn_lines(left)) == len(drawn_lines(right)) == 5


def test_a_single_start_is_named_unless_the_title_does() -> None:
    lines = [course(one, pretrained=True) for one in FOUR]
    (axes,) = draw(picture(panel(lines))).axes
    assert axes.get_title() == "tickets, with late rewinding"
    (axes,) = draw(picture(panel(lines, title="(b) with late rewinding"))).axes
    assert axes.get_title() == "(b) with late rewinding"


def test_panels_that_are_halves_of_one_share_a_scale() -> None:
    low, high = line(FOUR[0], ROUNDS[:3], [10, 11, 12]), line(FOUR[0], ROUNDS[:3], [60, 61, 62])
    halves = panel([low], title="(a) without late rewinding"), panel([high], title="(b) with late rewinding")
    left, right = draw(picture(*halves)).axes
    assert left.get_ylim() == right.get_ylim()
    left, right = draw(picture(panel([low], title="block 4"), panel([high], title="block 8"))).axes
    assert left.get_ylim() != right.get_ylim()
    left, right = draw(picture(halves[0], replace(halves[1], lines=[]))).axes
    assert len(left.get_yticks()) > 2


def test_the_shared_scale_holds_the_lines_of_both_halves() -> None:
    def high(half: bool) -> Line:
        return line(FOUR[0], ROUNDS[:3], [1, 90 if half else 20, 5], pretrained=half)

    for make, least, most in ((panel, 0, 100), (barrier_panel, -0.2, 120)):
        left, right = draw(picture(make([high(False), high(True)]))).axes
        assert left.get_ylim() == right.get_ylim()
        assert left.get_ylim()[0] == least
        assert 90 < left.get_ylim()[1] < most


@pytest.mark.parametrize(("tallest", "scale"), [(90, "symlog"), (5, "linear")])
def test_beside_tall_barriers_what_is_stable_can_be_told_from_what_is_not(tallest: float, scale: str) -> None:
    heights = [tallest, STABLE_BELOW, 0.5]
    (axes,) = draw(picture(barrier_panel([line(FOUR[0], ROUNDS[:3], heights)]))).axes
    assert axes.get_yscale() == scale
    _, limit, low = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, height) for height in heights])
    )[:, 1]
    assert limit - low > 0.15
    assert low > 0.05


def test_missing_lines_stand_in_their_own_half() -> None:
    late = f"{FOUR[1].label}, late rewinding"
    lines = [course(FOUR[0], pretrained=half) for half in (False, True)]
    left, right = draw(picture(panel(lines, missing=[FOUR[2].label, late]))).axes
    assert [" ".join(text.get_text().split()) for text in left.texts] == [
        f"not computed yet: {FOUR[2].label}"
    ]
    assert [" ".join(text.get_text().split()) for text in right.texts] == [f"not computed yet: {late}"]


def test_labels_that_differ_by_the_start_alone_share_an_entry() -> None:
    late = f"{FOUR[0].label}, late rewinding"
    lines = [course(FOUR[0], pretrained=False), course(FOUR[0], label=late, pretrained=True)]
    assert legend_texts(draw(picture(panel(lines)))) == [FOUR[0].label]


def test_the_legend_has_one_entry_a_label_and_covers_no_panel() -> None:
    halves = [course(one, pretrained=half) for half in (False, True) for one in FOUR]
    figure = draw(picture(panel(halves), panel([course(one) for one in FOUR])))
    assert sorted(legend_texts(figure)) == sorted(one.label for one in FOUR)
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_a_wide_legend_stays_within_the_picture() -> None:
    lines = [course(None, label=f"the hardest {share}% of the images removed") for share in range(10, 80, 10)]
    figure = draw(picture(panel(lines)))
    assert figure.legends[0].get_window_extent().x0 >= 0
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_many_pairs_of_configuration_and_block_share_entries() -> None:
    lines = [
        course(one, label=f"{one.label}, block {block}") for one in FOUR for block in range(1, 9)
    ]  # fmt: skip
    figure = draw(picture(panel(lines)))
    expected = {one.label for one in FOUR} | {f"block {block}" for block in range(1, 9)}
    assert set(legend_texts(figure)) == expected
    colors = [to_hex(one.get_color()) for one in drawn_lines(figure.axes[0])[:8]]
    assert len(set(colors)) == 8
    assert colors[-1] == to_hex(FOUR[0].color)


def test_a_picture_about_one_configuration_tells_its_lines_apart_by_colour() -> None:
    names = ["all images", *(f"{which} {share}% removed" for which in "ab" for share in (10, 20, 30))]
    lines = [course(FOUR[1], label=name) for name in names]
    look = looks(picture(panel(lines)))
    for one, other in itertools.combinations(lines, 2):
        assert look(one).color != look(other).color


def test_more_lines_than_colours_still_differ() -> None:
    lines = [course(None, label=str(number)) for number in range(20)]
    look = looks(picture(panel(lines)))
    assert len({(look(one).color, look(one).dashes) for one in lines}) == 20


def test_the_spread_is_a_band_of_one_standard_deviation() -> None:
    one = line(FOUR[0], ROUNDS[:3], [60.0, 61.0, 62.0], spread=[1.0, 2.0, 0.5])
    (axes,) = draw(picture(panel([one]))).axes
    (band,) = axes.collections
    corners = {(round(float(x), 2), round(float(y), 2)) for x, y in band.get_paths()[0].vertices}
    assert {(0.0, 59.0), (0.0, 61.0), (20.0, 59.0), (20.0, 63.0), (36.0, 61.5), (36.0, 62.5)} <= corners


def test_a_failed_point_is_a_star_with_a_bar_for_its_spread_and_named_in_the_legend() -> None:
    failed = [place == 2 for place in range(4)]
    one = line(FOUR[2], ROUNDS[:4], [60, 61, 36, 60], spread=[1, 1, 30, 1], failed=failed)
    figure = draw(picture(panel([one])))
    stars = [drawn for drawn in figure.axes[0].lines if drawn.get_marker() == "*"]
    assert [(star.get_xdata()[0], star.get_ydata()[0]) for star in stars] == [(36.0, 36)]
    band, bar = sorted(
        figure.axes[0].collections, key=lambda artist: type(artist).__name__ != "FillBetweenPolyCollection"
    )
    assert not any(abs(y - 36) > 29 for path in band.get_paths() for _, y in path.vertices)
    assert [[tuple(map(float, point)) for point in segment] for segment in bar.get_segments()] == [
        [(36.0, 6.0), (36.0, 66.0)]
    ]
    assert legend_texts(figure) == [FOUR[2].label, "a run failed"]


def test_a_long_line_of_failed_points_has_one_star_at_its_end() -> None:
    one = line(FOUR[0], list(range(200)), [0.1] * 200, failed=[True] * 200)
    (axes,) = draw(picture(panel([one], x_label="epoch"))).axes
    assert [list(drawn.get_xdata()) for drawn in axes.lines if drawn.get_marker() == "*"] == [[199]]


def test_rounds_are_evenly_spaced_and_the_tabulated_ones_written() -> None:
    (axes,) = draw(picture(panel([course(FOUR[0])]))).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "67.23", "89.26", "96.48", "98.85"]
    places = [axes.transData.transform((sparsity, 60))[0] for sparsity in ROUNDS]
    steps = [after - before for before, after in itertools.pairwise(places)]
    # The paper writes sparsities with two decimals, which shifts the last rounds by a little.
    assert steps == pytest.approx([steps[0]] * 20, rel=0.03)


def test_missing_lines_are_named_on_the_panel_and_an_empty_panel_is_a_gap() -> None:
    labels = [one.label for one in FOUR]
    figure = draw(picture(panel([course(FOUR[0])], missing=labels[1:]), panel([], missing=labels)))
    texts = ["".join(text.get_text() for text in axes.texts) for axes in figure.axes]
    for label in labels[1:]:
        assert all(label in " ".join(text.split()) for text in texts)
    assert labels[0] not in texts[0]
    assert "not computed yet" in texts[1]
    assert not figure.axes[1].lines


def test_a_line_that_is_partly_there_is_not_called_missing() -> None:
    labels = [FOUR[0].label, FOUR[1].label]
    figure = draw(picture(panel([course(FOUR[0])], missing=labels)))
    assert all_texts(figure) == f"not complete yet: {labels[0]} not computed yet: {labels[1]}"


def test_titles_beside_each_other_stand_at_one_height() -> None:
    panels = panel([course(FOUR[0])], missing=[FOUR[1].label]), panel([course(FOUR[0])])
    figure = draw(picture(*panels))
    figure.draw_without_rendering()
    heights = [axes.title.get_window_extent().y0 for axes in figure.axes]
    assert heights[0] == pytest.approx(heights[1])


def test_the_number_on_a_low_bar_leaves_the_line_of_stability_free() -> None:
    bars = [line(one, [0.0], [height]) for one, height in zip(FOUR, (70.0, 0.7, 2.5, 80.0), strict=True)]
    figure = draw(picture(barrier_panel(bars, title="barrier", x_label="")))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    stable = axes.transData.transform((0, STABLE_BELOW))[1]
    for text in axes.texts:
        box = text.get_bbox_patch()
        assert box is None or not box.get_window_extent().y0 < stable < box.get_window_extent().y1
    assert [text.get_text() for text in axes.texts] == ["70.0", "0.7", "2.5", "80.0"]


def test_a_long_list_of_missing_lines_is_cut_and_counted() -> None:
    figure = draw(picture(panel([course(FOUR[0])], missing=[f"line {number}" for number in range(12)])))
    assert "line 3; and 8 more" in all_texts(figure)


def test_nothing_at_all_is_a_picture_too() -> None:
    assert "not computed yet" in all_texts(draw(picture(panel([]))))


def test_a_value_that_is_not_there_breaks_the_line_and_leaves_the_lone_point_visible() -> None:
    values = [60.0, math.nan, 62.0, math.nan, 61.0, 60.0] + [59.0] * 15
    (axes,) = draw(picture(panel([line(FOUR[0], ROUNDS, values)]))).axes
    points = [drawn for drawn in axes.lines if drawn.get_marker() == "o" and len(drawn.get_xdata())]
    assert [list(point.get_xdata()) for point in points] == [[ROUNDS[0], ROUNDS[2]]]


def barrier_picture(heights: dict[ConfigurationStyle, float], **more: Any) -> Picture:
    bars = [
        line(one, [0.0], [height + 10 * half], pretrained=half, spread=[0.5], **more)
        for half in (False, True)
        for one, height in heights.items()
    ]
    return picture(
        barrier_panel(bars, x_label="configuration", y_label="error barrier (percentage points)"), name="fig1"
    )


def test_single_points_are_bars_in_groups_by_start_with_their_heights_written() -> None:
    figure = draw(barrier_picture({FOUR[0]: 20.0, FOUR[2]: 61.5}))
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [20.0, 61.5, 30.0, 71.5]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "without late rewinding",
        "with late rewinding",
    ]
    assert [text.get_text() for text in axes.texts] == ["20.0", "61.5", "30.0", "71.5"]
    solid, pale = axes.patches[:2]
    assert (solid.get_facecolor()[3], pale.get_facecolor()[3] < 0.5) == (1.0, True)
    assert legend_texts(figure) == [FOUR[0].label, FOUR[2].label, "stable below 2 points"]


def test_a_bar_with_a_failed_run_is_starred() -> None:
    figure = draw(barrier_picture({FOUR[0]: 20.0}, failed=[True]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["20.0*", "30.0*"]


def test_numbers_on_bars_stay_within_the_panel_beside_failed_runs_too() -> None:
    bars = [
        line(one, [0.0], [height], spread=[0.9], values=[[height - 0.9, height + 0.9]], failures=[failures])
        for one, height, failures in ((FOUR[0], 1.0, []), (FOUR[2], 2.3, [1.4]))
    ]
    figure = draw(picture(barrier_panel(bars, title="dense networks", x_label="")))
    (axes,) = figure.axes
    figure.draw_without_rendering()
    numbers = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert list(numbers) == ["1.0", "2.3"]
    assert all(box.y1 <= axes.get_window_extent().y1 for box in numbers.values())
    assert axes.get_ylim()[0] == 0
    stars = [drawn for drawn in axes.lines if drawn.get_marker() == "*"]
    assert [drawn.get_ydata()[0] for drawn in stars] == [1.4]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_star_on_its_bar_is_seen_whole(momentum: float) -> None:
    one = next(one for one in FOUR if one.momentum == momentum)
    bar = line(one, [0.0], [50.0], values=[[10.0, 90.0]], failures=[[10.0]])
    (axes,) = draw(picture(barrier_panel([bar], title="dense networks", x_label=""))).axes
    (star,) = [drawn for drawn in axes.lines if drawn.get_marker() == "*"]
    (patch,) = axes.patches
    seen = {to_hex(star.get_markeredgecolor()), to_hex(star.get_markerfacecolor())}
    assert seen == {to_hex(PAPER), one.color.lower()}
    assert to_hex(patch.get_facecolor()) == one.color.lower()
    assert star.get_zorder() > patch.get_zorder()


def test_a_course_with_one_finished_round_is_not_taken_for_bars() -> None:
    (axes,) = draw(picture(panel([line(one, [0.0], [60.0], spread=[1.0]) for one in FOUR]))).axes
    assert not axes.patches
    assert [drawn.get_marker() for drawn in axes.lines if len(drawn.get_xdata())].count("o") == 2


def test_barriers_show_where_stability_begins() -> None:
    (axes,) = draw(picture(barrier_panel([course(FOUR[0])]))).axes
    assert [one.get_ydata()[0] for one in axes.lines if len(set(one.get_ydata())) == 1][-1] == 2.0
    (axes,) = draw(picture(panel([course(FOUR[0])]))).axes
    assert 2.0 not in [one.get_ydata()[0] for one in axes.lines if len(one.get_ydata())]
    # A label decides nothing: a measure of a user's own may be called so.
    (axes,) = draw(picture(panel([course(FOUR[0])], x_label="sparsity (%)", y_label="my-barrier"))).axes
    assert 2.0 not in [one.get_ydata()[0] for one in axes.lines if len(one.get_ydata())]
    assert axes.get_xscale() == "linear"


def test_marks_are_vertical_lines() -> None:
    (axes,) = draw(picture(panel([course(FOUR[0])], marks=ROUNDS[:4]))).axes
    upright = [one.get_xdata()[0] for one in axes.lines if list(one.get_ydata()) == [0, 1]]
    assert upright == ROUNDS[:4]


def test_rounds_and_epochs_have_whole_numbers_at_the_axis() -> None:
    chained = [step / 4 for step in range(33)]
    one = line(FOUR[0], chained, [10.0] * 33)
    (axes,) = draw(picture(panel([one], x_label="pruning round", marks=range(9)))).axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_positions_on_a_line_have_ticks_at_quarters() -> None:
    one = line(FOUR[0], ALPHAS, [10 + 5 * math.sin(math.pi * alpha) for alpha in ALPHAS])
    (axes,) = draw(picture(panel([one], x_label="position"))).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.25", "0.5", "0.75", "1"]


def test_a_logarithmic_axis_names_its_values() -> None:
    one = line(FOUR[0], [8, 32, 100, 256, 1024, 2048], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    (axes,) = draw(picture(panel([one], x_label="batch size", logarithmic_x=True))).axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["8", "32", "100", "256", "1024", "2048"]


@pytest.mark.parametrize("count", range(1, 6))
def test_any_number_of_panels_has_axes_with_labels_that_do_not_overlap(count: int) -> None:
    figure = draw(picture(*(panel([course(FOUR[0])], title=str(number)) for number in range(count))))
    assert [axes.get_title() for axes in figure.axes] == [str(number) for number in range(count)]
    assert all(axes.get_xlabel() == "sparsity (%)" for axes in figure.axes)
    assert all(axes.get_ylabel() == "test accuracy (%)" for axes in figure.axes)
    for one, other in itertools.combinations(figure.axes, 2):
        assert not one.get_tightbbox().overlaps(other.get_tightbbox())


def test_note_and_budget_stand_on_the_picture() -> None:
    figure = draw(picture(panel([course(FOUR[0])]), note="proves the machinery", budget="tiny: 6 epochs"))
    assert figure._supxlabel.get_text() == "proves the machinery\ntiny: 6 epochs"
    figure = draw(picture(panel([course(FOUR[0])]), budget="tiny: 6 epochs"))
    assert figure._supxlabel.get_text() == "tiny: 6 epochs"


@pytest.mark.parametrize("rounds", [4, 7, 10, 11, 21, 26])
def test_sparsities_at_an_axis_are_few_enough_to_be_read(rounds: int) -> None:
    one = line(FOUR[0], [round(100 * (1 - 0.8**place), 2) for place in range(rounds)], [60.0] * rounds)
    figure = draw(picture(panel([one]), panel([one])))
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.get_xticklabels()]
        assert len(boxes) > 2
        assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_picture_is_written_in_three_formats_and_equal_ones_in_equal_bytes(tmp_path: Path) -> None:
    paths = save_picture(picture(panel([course(FOUR[0])])), tmp_path / "one")
    assert [path.name for path in paths] == ["fig13.svg", "fig13.png", "fig13.pdf"]
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    assert paths[2].read_bytes().startswith(b"%PDF")
    again = save_picture(picture(panel([course(FOUR[0])])), tmp_path / "two")
    for one, other in zip(paths, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write .*fig13\.svg: "):
        save_picture(picture(panel([])), tmp_path / "file")


def test_what_the_paper_prints_stands_hollow_beside_the_line_it_belongs_to() -> None:
    printed = [95.0 if place in (5, 10) else None for place in range(21)]
    lines = [course(FOUR[0], printed=printed), course(FOUR[3])]
    figure = draw(picture(panel(lines)))
    (hollow,) = [one for one in figure.axes[0].lines if one.get_markerfacecolor() == "none"]
    assert list(hollow.get_xdata()) == [ROUNDS[5], ROUNDS[10]]
    assert list(hollow.get_ydata()) == [95.0, 95.0]
    assert to_hex(hollow.get_color()) == to_hex(FOUR[0].color)
    assert figure.axes[0].get_ylim()[1] > 95
    assert legend_texts(figure)[-1] == "hollow: the paper, 200 epochs"
    assert "paper" not in " ".join(legend_texts(draw(picture(panel([course(FOUR[0])])))))


def test_a_dollar_sign_in_a_name_is_no_formula(tmp_path: Path) -> None:
    name = "50$ of $x_{ and $"
    points = line(None, [1.0, 3000.0], [60.0, 50.0], label=name)
    spread = panel([points], title=name, x_label=name, scatter=True)
    save_picture(picture(spread, title=name), tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} >= {".svg", ".png"}


@pytest.mark.parametrize("more", [{"scatter": True}, {"logarithmic_x": True}])
def test_numbers_at_a_logarithmic_axis_are_plain(more: dict[str, Any]) -> None:
    x = [10.0**power for power in range(12)]
    figure = draw(picture(panel([line(None, x, list(range(12)))], x_label="parameters", **more)))
    figure.canvas.draw()
    (axes,) = figure.axes
    written = [text.get_text() for text in axes.get_xticklabels()]
    assert any(written)
    assert [text for text in written if text and float(text.replace("\N{MINUS SIGN}", "-")) <= 0] == []
