"""The scale and the studies that a command was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tombola.cli.arguments import Numbers
from tombola.errors import ExperimentError

if TYPE_CHECKING:
    from tombola.experiments.bound import Bound
    from tombola.experiments.paper.jobs import PaperJobs
    from tombola.experiments.paper.scales import Scale
    from tombola.experiments.study import Study
    from tombola.lab.store import Store

PAPER = "paper"


def asked_scale(name: str | None, numbers: Numbers) -> Scale:
    """The scale of a name, the paper's own by default, with the numbers that were given."""
    from tombola.experiments.paper.scales import overridden, scale_named

    return overridden(scale_named(name or PAPER), **numbers.given())


def shown_scale(name: str | None, numbers: Numbers, store: Store | None) -> Scale:
    """The scale to show, with the numbers given: that of the last run in the store unless one is named."""
    from tombola.experiments.last_scale import last_scale

    last = None if name else last_scale(store, **numbers.given())
    return last or asked_scale(name, numbers)


def _studies(names: tuple[str, ...], everything: bool, all_of_them: tuple[Study, ...]) -> list[Study]:
    """The studies of those names, or all."""
    from tombola.experiments.paper.studies import studies_named

    if everything and names:
        raise ExperimentError(f"--all and {names[0]!r} were given; name studies, or ask for all of them")
    if not everything and not names:
        raise ExperimentError("no study was named; name some, such as table11, or give --all")
    return list(all_of_them) if everything else studies_named(names)


def bound_studies(
    names: tuple[str, ...], everything: bool, all_of_them: tuple[Study, ...], work: PaperJobs
) -> tuple[list[Bound], list[str]]:
    """The named studies, or all, at a scale, and why it does not fit the others of all.

    Raises :class:`~tombola.errors.ExperimentError` for one that was named and does not fit, and if none does.
    """
    from tombola.experiments.study import bind

    bound, others = bind(_studies(names, everything, all_of_them), work)
    causes = list(others.values())
    if causes and not (everything and bound):
        raise ExperimentError(causes[0])
    return bound, causes


def existing_store(root: Path | None) -> Store | None:
    """The store at a place; None where there is none yet, for what only looks makes none."""
    from tombola.lab.store import Store, default_place

    place = default_place() if root is None else root
    return Store(root, create=False) if (place.expanduser() / "tombola.json").exists() else None
