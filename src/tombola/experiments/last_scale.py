"""The scale that studies were last run at in a store, so that a report need not be told again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tombola.errors import ExperimentError, StoreError, reason
from tombola.experiments.paper.scales import Scale, overridden, scale_named
from tombola.lab.store import Store, read_json, write_json
from tombola.untrusted import OTHER_FORM

_FILE = "studies.json"


def remember(store: Store, scale: str, numbers: Mapping[str, Any]) -> None:
    """Keep the name of a scale, and the numbers that were given beside it."""
    write_json(store.root / _FILE, {"scale": scale, "numbers": dict(numbers)})


def last_scale(store: Store | None, **numbers: Any) -> Scale | None:
    """The scale of the last run, with further numbers in place of its own; None if there was none.

    Raises :class:`~tombola.errors.StoreError` if what was kept cannot be read or is no scale.
    """
    if store is None or not (store.root / _FILE).exists():
        return None
    try:
        remembered = read_json(store.root / _FILE)
        scale = scale_named(remembered["scale"])
        overridden(scale, **remembered["numbers"])
    except (OSError, ExperimentError, *OTHER_FORM) as error:
        raise StoreError(f"{store.root / _FILE} is damaged: {reason(error)}; delete it") from error
    return overridden(scale, **{**remembered["numbers"], **numbers})
