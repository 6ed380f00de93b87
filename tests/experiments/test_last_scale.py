"""The scale of the last run in a store."""

from pathlib import Path

import pytest

from tombola.errors import ExperimentError, StoreError
from tombola.experiments.last_scale import last_scale, remember
from tombola.experiments.paper.scales import overridden, scale_named
from tombola.lab.store import Store


def test_the_last_scale_is_remembered_with_its_numbers(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert last_scale(store) is None
    assert last_scale(None) is None
    remember(store, "tiny", {"epochs": 3, "configs": ["0.0/256"], "columns": (5, 10)})
    expected = overridden(scale_named("tiny"), epochs=3, configs=["0.0/256"], columns=(5, 10))
    assert last_scale(store) == expected
    remember(store, "short", {})
    assert last_scale(Store(tmp_path)) == scale_named("short")


def test_numbers_that_are_given_take_the_place_of_those_of_the_last_scale(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert last_scale(store, seeds=1) is None
    remember(store, "short", {"epochs": 30, "seeds": 2})
    assert last_scale(store, seeds=1) == overridden(scale_named("short"), epochs=30, seeds=1)


def test_a_damaged_note_is_refused_with_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "studies.json").write_text("{")
    with pytest.raises(StoreError, match=r"studies\.json is damaged: .*; delete it"):
        last_scale(store)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ('"seeds": 1000000000', "seeds is 1000000000; it must be a whole number, at least 1 and at most 100"),
        ('"rounds": 1000000000000', "rounds is 1000000000000; .* at most 200"),
        ('"epochs": 1e18', "epochs is 1e[+]18; it must be a whole number"),
        ('"epochs": 1000000000000000000', "epochs is 1000000000000000000; .* at most 65534"),
        (f'"copies": {10**4000}', "copies is 10{59}; .* at most 100"),
        (f'"seeds": {"9" * 10_000}', "integer string conversion"),
        ('"seeds": 100, "rounds": 200', "100 seeds of 200 rounds are 20,000 trainings of one configuration"),
        ('"neighbours": 1e999', "1e999 is no number that fits"),
        ('"lr": 1e300', "lr is 1e[+]300; it must be above 0 and at most 1000"),
        ('"columns": [5, 1000000000]', "columns are .*; give numbers of prunings, .* at most 200"),
        ('"columns": "5,10"', "columns"),
        ('"seeds": 3, "seeds": 4', "'seeds' stands twice"),
        ('"pages": 3', "no number of a scale 'pages'"),
    ],
)
def test_a_note_of_impossible_numbers_is_refused_with_its_place(
    tmp_path: Path, numbers: str, words: str
) -> None:
    store = Store(tmp_path)
    (tmp_path / "studies.json").write_text(f'{{"scale": "paper", "numbers": {{{numbers}}}}}')
    with pytest.raises(StoreError, match=rf"studies\.json is damaged: .*{words}.*; delete it"):
        last_scale(store)


def test_a_number_that_is_given_and_impossible_is_no_damage_of_the_note(tmp_path: Path) -> None:
    store = Store(tmp_path)
    remember(store, "short", {"epochs": 30})
    with pytest.raises(ExperimentError, match=r"^seeds is 1000000000; it must be a whole number, .* at most"):
        last_scale(store, seeds=10**9)
