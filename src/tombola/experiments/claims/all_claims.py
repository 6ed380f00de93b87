"""All claims in the paper's order, and the verdict of some cells on each of them."""

from __future__ import annotations

from collections.abc import Mapping

from tombola.errors import ExperimentError, unknown
from tombola.experiments.claims import (
    dense,
    features,
    hyperparameters,
    little_data,
    mask_search,
    open_questions,
    stability,
    suppositions,
    ticket_transfer,
    winning_tickets,
)
from tombola.experiments.claims.claim import Claim, Verdict, judge
from tombola.table.key import Key
from tombola.table.number import Cell

_MODULES = (
    dense,
    winning_tickets,
    hyperparameters,
    stability,
    mask_search,
    features,
    ticket_transfer,
    little_data,
    suppositions,
)

CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (entry for module in _MODULES for entry in vars(module).values() if isinstance(entry, Claim)),
        key=lambda claim: claim.number,
    )
)


def claim_named(name: str) -> Claim:
    """The claim of a name such as ``"C12"``; :class:`~tombola.errors.ExperimentError` if there is none."""
    for claim in CLAIMS:
        if claim.name == name:
            return claim
    raise ExperimentError(unknown("claim", name, (claim.name for claim in CLAIMS)))


QUESTIONS: tuple[Claim, ...] = tuple(
    sorted(
        (entry for entry in vars(open_questions).values() if isinstance(entry, Claim)),
        key=lambda question: question.number,
    )
)
"""Possible answers to what the paper leaves open, judged like its claims."""


def judge_all(cells: Mapping[Key, Cell]) -> list[Verdict]:
    """The verdict on every claim, in their order; what a stand-in gave says nothing of the paper."""
    cells = {key: cell for key, cell in cells.items() if not cell.stand_in}
    return [judge(claim, cells) for claim in CLAIMS]


def judge_questions(cells: Mapping[Key, Cell]) -> list[Verdict]:
    """The verdict on every possible answer to what the paper leaves open, likewise."""
    cells = {key: cell for key, cell in cells.items() if not cell.stand_in}
    return [judge(answer, cells) for answer in QUESTIONS]
