"""A configuration looks the same everywhere, and unlike every other of the paper."""

from __future__ import annotations

import itertools

import matplotlib
import pytest

from tombola.report.style import ConfigurationStyle, drawing, new_figure
from tombola.views.layout import momentum_text

PAPER_BATCH_SIZES = (8, 32, 100, 256, 1024, 2048)


def test_the_line_is_solid_without_momentum_and_dotted_at_0_9() -> None:
    assert ConfigurationStyle(0.0, 32).dashes == "-"
    offset, (dot, gap) = ConfigurationStyle(0.9, 32).dashes
    assert (offset, dot < 0.5 < gap) == (0.0, True)


def test_other_momenta_have_dashes_of_their_own() -> None:
    dashes = [ConfigurationStyle(tenth / 10, 32).dashes for tenth in range(10)] + [
        ConfigurationStyle(0.95, 32).dashes
    ]
    assert all(one != other for one, other in itertools.combinations(dashes, 2))


def test_the_colour_comes_from_the_batch_size_alone() -> None:
    assert ConfigurationStyle(0.0, 100).color == ConfigurationStyle(0.9, 100).color
    assert len({ConfigurationStyle(0.0, size).color for size in PAPER_BATCH_SIZES}) == len(PAPER_BATCH_SIZES)
    assert ConfigurationStyle(0.0, 32).color != ConfigurationStyle(0.0, 128).color


@pytest.mark.parametrize(
    ("momentum", "text"), [(0.0, "0.0"), (0, "0.0"), (0.9, "0.9"), (0.95, "0.95"), (0.99, "0.99")]
)
def test_momentum_is_written_with_all_its_digits(momentum: float, text: str) -> None:
    assert momentum_text(momentum) == text
    assert ConfigurationStyle(momentum, 32).label == f"μ = {text}, batch 32"


def test_drawing_leaves_matplotlib_as_it_was_and_ignores_its_owner() -> None:
    matplotlib.rcParams["font.size"] = 31
    try:
        before = dict(matplotlib.rcParams)
        with drawing():
            assert matplotlib.rcParams["font.size"] != 31
            new_figure(2, 2).subplots()
        assert dict(matplotlib.rcParams) == before
    finally:
        matplotlib.rcdefaults()
