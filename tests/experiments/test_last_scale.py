"""The scale of the last run in a store."""

from pathlib import Path

import pytest

from tombola.errors import StoreError
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
