"""Numbers of results by name."""

from dataclasses import dataclass

import torch

import tombola as tb
from tombola.lab.results import numbers_of


@dataclass(frozen=True)
class Inner:
    share: float
    label: str


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    each: tuple[float, ...]
    lacking: float | None
    weights: torch.Tensor

    @property
    def doubled(self) -> int:
        return 2 * self.count


def test_fields_properties_and_short_lists_are_told_by_name() -> None:
    found = numbers_of(Outer(3, Inner(0.5, "text"), (1.0, 2.0), None, torch.ones(2)))
    assert found == {"count": 3, "inner.share": 0.5, "each[0]": 1, "each[1]": 2, "doubled": 6}


def test_a_number_by_itself_has_no_name() -> None:
    assert numbers_of(4) == {"": 4.0}
    assert numbers_of(True) == {"": 1.0}
    assert numbers_of(None) == {}


def test_curves_are_left_out() -> None:
    assert numbers_of({"curve": [1.0] * 33, "end": 2}) == {"end": 2}


def test_a_barrier_tells_its_height() -> None:
    found = numbers_of(tb.Barrier((0.0, 0.5, 1.0), (10.0, 40.0, 20.0), (1.0, 3.0, 1.0)))
    assert (found["height"], found["loss_height"], found["errors[1]"]) == (25.0, 2.0, 40.0)


def test_runs_and_tickets_tell_what_the_store_keeps_of_them(run: tb.Run) -> None:
    assert numbers_of(run)["accuracy"] == run.accuracy
    assert numbers_of(run.ticket)["sparsity"] == 0.0
