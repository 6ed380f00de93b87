"""What all rows are made with: places, runs, and columns that a scale may lack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tombola.studies.cells import Metric, Place, sparsity_after
from tombola.studies.claims.names import Configuration, Pair
from tombola.studies.entries import Entry
from tombola.studies.work import Work

Listing = Callable[[Work, str], Iterable[Entry]]
"""Lists the entries of a study of some name at some scale."""


def place_of(
    study: str, metric: Metric, pair: Pair, configuration: Configuration | None, prunings: int, **keys: Any
) -> Place:
    """The place of a pair and configuration after so many prunings; ``keys`` are further keys of it."""
    if configuration is not None:
        keys |= {
            "momentum": configuration.momentum,
            "batch_size": configuration.batch_size,
            "pretrained": configuration.pretrained,
        }
    return Place(
        study=study, metric=metric, network=pair.network, dataset=pair.dataset,
        sparsity=sparsity_after(prunings), **keys,
    )  # fmt: skip


def numbers(work: Work) -> range:
    """The number of each run: runs of tables differ in initialisation and noise (reading C7)."""
    return range(work.scale.seeds)


def columns(work: Work, study: str, pair: Pair, *wanted: int) -> tuple[int, ...]:
    """The prunings of a study's columns, those of the scale unless others are given.

    Of several given ones those are left out that no round reaches and that the scale's columns do without.

    Raises :class:`~tombola.errors.StudyError` where the scale has no such round.
    """
    scale = work.scale
    rounds = scale.subjects[pair].rounds
    kept = tuple(prunings for prunings in wanted if prunings <= rounds or prunings in scale.columns)
    found = kept or wanted or scale.columns
    for prunings in sorted(found, reverse=True):  # the message names what is enough for all
        work.scale.check_round(study, pair, prunings)
    return found
