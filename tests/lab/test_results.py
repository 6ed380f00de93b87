"""Results packed for the store and unpacked again, and the numbers in them by name."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tombola as tb
from tombola import files
from tombola.errors import JobError, StoreError
from tombola.lab.results import Packed, numbers_of, pack, unpack
from tombola.measures.instability import Instability
from tombola.ticket import State

Same = Callable[..., bool]


def there_and_back(value: Any, kind: Any, tmp_path: Path, starts: dict[str, State] | None = None) -> Any:
    """What a reader gets, by way of the two files that a store keeps."""
    packed = pack(value)
    numbers = json.loads(json.dumps(packed.numbers, allow_nan=False))
    details, tensors = packed.details, packed.tensors
    if tensors:
        files.write_tensors(tmp_path / "t", "test", details, tensors)
        details, tensors = files.read_tensors(tmp_path / "t", "test")
    return unpack(Packed(numbers, details, tensors), kind, (starts or {}).__getitem__)


@dataclass(frozen=True)
class Point:
    x: float
    label: str | None = None


@dataclass(frozen=True)
class Cloud:
    points: tuple[Point, ...]
    by_name: dict[str, Point]
    spread: float = 1.0


@dataclass(frozen=True)
class Probe:
    weights: Tensor
    parts: list[Tensor]


@dataclass(frozen=True)
class Wrapped:
    tensor: Tensor


@dataclass(frozen=True)
class Number:
    float: float


LINE = tb.Barrier((0.0, 1.0), (5.0, 90.0), (0.1, 0.2), "train", (0.0, 0.5), False)
BOTH = replace(LINE, recalibrated=LINE)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, int),
        (0.1, float),
        (True, bool),
        (None, float | None),
        (2.5, float | None),
        ("word", str),
        (math.inf, float),
        (-math.inf, float | None),
        ((1.0, 2.0), tuple[float, ...]),
        ((1.0, "a", Point(2.0)), tuple[float, str, Point]),
        ([1, 2, [3]], list),
        ([Point(1.0), Point(math.inf)], list[Point]),
        ({"a": 1.0, "b": -math.inf}, dict[str, float]),
        ({"a": (1, 2)}, dict[str, tuple[int, ...]]),
        ({"a": {"b": Point(1.0, "c")}}, dict[str, dict[str, Point]]),
        ({}, dict[str, float]),
        ({"float": 0.5}, dict[str, float]),
        ({"float": "inf"}, dict[str, str]),
        ({"tensor": 1}, dict[str, int]),
        ({"plain": {"plain": 1}}, dict[str, dict[str, int]]),
        (Number(0.5), Number),
        (Point(0.5), Point | None),
        (Cloud((Point(1.0), Point(2.0, "b")), {"best": Point(3.0)}, math.inf), Cloud),
        (tb.Barrier((0.0, 0.5, 1.0), (5.0, 90.0, 4.0), (0.1, math.inf, 0.2)), tb.Barrier),
        (BOTH, tb.Barrier),
        (Instability((BOTH, BOTH), (1, 2), 1), Instability),
    ],
)
def test_plain_values_come_back_equal_and_of_their_types(value: Any, kind: Any, tmp_path: Path) -> None:
    back = there_and_back(value, kind, tmp_path)
    assert back == value
    assert repr(back) == repr(value)


def test_not_a_number_comes_back(tmp_path: Path) -> None:
    line = tb.Barrier((0.0, 1.0), (50.0, 50.0), (math.nan, math.inf))
    back = there_and_back(line, tb.Barrier, tmp_path)
    assert math.isnan(back.losses[0])
    assert back.losses[1] == math.inf


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.int64(3), 3), (np.bool_(True), True)],
)
def test_numbers_of_numpy_are_numbers(value: Any, plain: Any, tmp_path: Path) -> None:
    back = there_and_back(value, float, tmp_path)
    assert back == plain
    assert type(back) is type(plain)


def test_tensors_come_back_to_the_bit_wherever_they_stand(tmp_path: Path, same_bits: Same) -> None:
    whole = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    value = Probe(whole, [whole[1:], torch.tensor([True, False]), torch.tensor(7)])
    back = there_and_back(value, Probe, tmp_path)
    assert same_bits({"w": back.weights}, {"w": whole})
    assert same_bits(dict(zip("abc", back.parts, strict=True)), dict(zip("abc", value.parts, strict=True)))
    assert torch.equal(there_and_back(whole, Tensor, tmp_path), whole)
    assert torch.equal(there_and_back({"a": whole}, dict[str, Tensor], tmp_path)["a"], whole)
    assert torch.equal(there_and_back(Wrapped(whole), Wrapped, tmp_path).tensor, whole)


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), np.zeros(2), {1: 2.0}, Path("a"), [Point], lambda: 1, torch.nn.Linear(1, 1)]
)
def test_a_result_that_cannot_be_kept_is_refused(value: object) -> None:
    with pytest.raises(
        JobError, match=r"a job cannot return a .*; return numbers, text, tensors, or a dataclass"
    ):
        pack(value)


def test_a_dataclass_that_has_changed_since_is_told() -> None:
    with pytest.raises(StoreError, match=r"a stored Point does not fit: .*'y'"):
        unpack(Packed({"value": {"x": 1.0, "y": 2.0}}, {}, {}), Point, dict[str, State]().__getitem__)


def test_a_barrier_kept_before_it_recorded_its_masks_is_still_read() -> None:
    value = {"alphas": [0.0, 1.0], "errors": [5.0, 6.0], "losses": [0.1, 0.2]}
    back = unpack(Packed({"value": value}, {}, {}), tb.Barrier, dict[str, State]().__getitem__)
    assert back == tb.Barrier((0.0, 1.0), (5.0, 6.0), (0.1, 0.2))
    assert (back.split, back.sparsities, back.same_mask, back.recalibrated) == ("test", None, None, None)


def test_a_ticket_comes_back_without_its_start_being_kept_again(
    chain: list[tb.Run], tmp_path: Path, same_bits: Same
) -> None:
    ticket = chain[2].ticket
    packed = pack(ticket)
    assert packed.start == (ticket.start_fingerprint, ticket.start)
    # Eight positions a byte, and nothing else: five layers of 72 to 4,608 weights.
    assert sum(tensor.numel() for tensor in packed.tensors.values()) == 8456 / 8
    back = there_and_back(ticket, tb.Ticket, tmp_path, {ticket.start_fingerprint: ticket.start})
    assert back.fingerprint == ticket.fingerprint
    assert same_bits(back.mask, ticket.mask)
    assert back.complete
    assert packed.numbers == {"sparsity": 0.75, "epoch": 1, "round": 2, "start": ticket.start_fingerprint}


def test_a_run_comes_back_to_the_bit(chain: list[tb.Run], tmp_path: Path, same_run: Same) -> None:
    run = chain[1]
    back = there_and_back(run, tb.Run, tmp_path, {run.ticket.start_fingerprint: run.ticket.start})
    assert same_run(back, run)
    assert [row.seconds for row in back.history] == [row.seconds for row in run.history]
    assert back.fingerprint == run.fingerprint
    assert (back.noise, back.precision, back.device) == (3, "float32", "cpu")
    assert pack(run).numbers == run.summary()
    assert pack(run).table == run.history.table()


def test_a_ticket_that_does_not_carry_its_dense_start_keeps_what_survives(
    chain: list[tb.Run], tmp_path: Path, same_bits: Same
) -> None:
    chain[1].ticket.save(tmp_path / "ticket")
    sparse = tb.Ticket.load(tmp_path / "ticket")
    assert not sparse.complete
    assert pack(sparse).start is None
    back = there_and_back(sparse, tb.Ticket, tmp_path)
    assert back.fingerprint == sparse.fingerprint
    assert not back.complete
    assert same_bits(back.weights(), chain[1].ticket.weights())


# Numbers by name


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
