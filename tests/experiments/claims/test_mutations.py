"""Every claim on cells that are changed: none of its inputs and none of its comparisons is idle.

The cells are all that any claim asks for, printed ones and, where the paper prints none, made-up ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import pytest

from tombola.experiments.claims.all_claims import CLAIMS
from tombola.experiments.claims.claim import Claim, judge, needed
from tombola.experiments.paper.printed import printed_cells
from tombola.table.key import Key
from tombola.table.number import Cell


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_with_every_cell_there_every_claim_has_a_verdict(
    claim: Claim, confirming: Mapping[Key, Cell]
) -> None:
    verdict = judge(claim, confirming)
    printed = judge(claim, printed_cells()).status
    assert verdict.status == ("holds" if printed == "not computable yet" else printed), [
        f"{words}: {one}" for words, one in verdict.comparisons
    ]
    assert {cell.key for cell in verdict.cells} == set(needed(claim, also=True))
    words = [words for words, _ in verdict.comparisons]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_single_missing_cell_is_named_and_leaves_a_claim_undecided(
    claim: Claim, confirming: Mapping[Key, Cell]
) -> None:
    for key in needed(claim):
        cells = dict(confirming)
        del cells[key]
        verdict = judge(claim, cells)
        assert (verdict.status, verdict.missing) == ("not computable yet", (key,))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_cell_a_claim_asks_for_can_change_a_number_of_it(
    claim: Claim, confirming: Mapping[Key, Cell]
) -> None:
    keys = needed(claim, also=True)
    unmoved = keys
    for cells in bases({key: confirming[key] for key in keys}, keys):
        before = numbers(claim, cells)
        unmoved = tuple(
            key
            for key in unmoved
            if all(numbers(claim, changed) == before for changed in changes(cells, key))
        )
        if not unmoved:
            break
    assert not unmoved, [str(key) for key in unmoved]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_every_comparison_of_a_claim_turns_with_one_of_its_cells_or_rows(
    claim: Claim, confirming: Mapping[Key, Cell]
) -> None:
    cells = {key: confirming[key] for key in needed(claim, also=True)}
    verdict = judge(claim, cells)
    for index, (words, _) in enumerate(verdict.comparisons):
        turned = turning(claim, cells, index)
        assert turned is not None, words
        if verdict.status == "holds":
            assert judge(claim, turned).status in ("partly", "fails")


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_that_holds_partly_holds_once_what_speaks_against_it_is_turned(
    claim: Claim, confirming: Mapping[Key, Cell]
) -> None:
    cells = {key: confirming[key] for key in needed(claim, also=True)}
    while not all(holding(claim, cells)):
        index = holding(claim, cells).index(False)
        turned = turning(claim, cells, index, gently=True)
        assert turned is not None, judge(claim, cells).comparisons[index][0]
        cells = turned
    assert judge(claim, cells).status == "holds"


def numbers(claim: Claim, cells: Mapping[Key, Cell]) -> list[tuple[float, float]]:
    return [(one.left.value, one.right.value) for _, one in judge(claim, cells).comparisons]


def holding(claim: Claim, cells: Mapping[Key, Cell]) -> list[bool]:
    return [one.holds for _, one in judge(claim, cells).comparisons]


def bases(cells: Mapping[Key, Cell], keys: Sequence[Key]) -> Iterator[dict[Key, Cell]]:
    """The cells as they are; with every row level; then with their values shuffled again and again."""
    yield dict(cells)
    yield {**cells, **{key: valued(cells[key], cells[row(cells, key)[-1]]) for key in keys}}
    draws = random.Random(0)
    for _ in range(30):
        order = draws.sample(keys, len(keys))
        pairs = zip(keys, order, strict=True)
        yield {**cells, **{key: valued(cells[key], cells[other]) for key, other in pairs}}


def turning(
    claim: Claim, cells: Mapping[Key, Cell], index: int, *, gently: bool = False
) -> dict[Key, Cell] | None:
    """The cells with one of them or its row changed so that a comparison turns; gently: and none is lost."""
    before = holding(claim, cells)
    for cell in judge(claim, cells).comparisons[index][1].cells:
        for changed in (*row_changes(cells, row(cells, cell.key)), *changes(cells, cell.key)):
            after = holding(claim, changed)
            lost = any(was and not now for was, now in zip(before, after, strict=True))
            if after[index] != before[index] and not (gently and lost):
                return changed
    return None


def row(cells: Mapping[Key, Cell], key: Key) -> list[Key]:
    """The keys that differ from one in their sparsity only or, in transfers, in their target only."""
    return [other for other in cells if header(other) == header(key)]


@cache
def header(key: Key) -> Key:
    return replace(key, target=None) if key.target else replace(key, sparsity=None)


def changes(cells: Mapping[Key, Cell], key: Key) -> Iterator[dict[Key, Cell]]:
    """The cells with one of them shifted, or its star turned."""
    yield from row_changes(cells, [key])


def row_changes(cells: Mapping[Key, Cell], keys: Sequence[Key]) -> Iterator[dict[Key, Cell]]:
    """The cells with some of them shifted together, in reverse order, or with their stars set."""
    for shift in (1000.0, -1000.0, 25.0, -25.0, 1.0, -1.0):
        yield {**cells, **{key: valued(cells[key], cells[key], shift) for key in keys}}
    pairs = zip(keys, reversed(keys), strict=True)
    yield {**cells, **{key: valued(cells[key], cells[other]) for key, other in pairs}}
    for star in (False, True):
        yield {**cells, **{key: replace(cells[key], failed=star) for key in keys}}


def valued(cell: Cell, other: Cell, shift: float = 0.0) -> Cell:
    """The cell with the runs of another, each shifted."""
    return replace(cell, mean=other.mean + shift, values=tuple(value + shift for value in other.values))
