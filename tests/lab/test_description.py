"""Descriptions from untrusted files: their references are checked before they are followed."""

from typing import Any

import pytest

from tombola.lab.description import check_description, is_data_name

_NAME = "0123456789abcdef" * 4


def described(**arguments: Any) -> dict[str, Any]:
    return {"function": "train", "version": 1, "arguments": arguments}


def test_a_call_with_every_kind_of_reference_is_let_through() -> None:
    inner = described(run={"job": _NAME})
    check_description(
        described(
            ticket={"job": _NAME, "call": inner}, data={"data": "owner--name"}, many=[{"job": _NAME}, 3],
            own={"value": _NAME, "type": "Ticket"}, recipe={"epochs": 2},
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    "argument",
    [
        {"job": "../../outside"},
        {"job": _NAME.upper()},
        {"job": _NAME + "\n"},
        {"job": None},
        {"job": _NAME, "call": {}},
        {"job": _NAME, "call": described(run={"job": "/etc"})},
        {"data": "../outside"},
        {"data": "/etc/passwd"},
        {"data": "a\0b"},
        {"data": "a\x1b[2J"},
        {"data": "a" * 201},
        {"data": None},
        {"value": "../outside", "type": "Run"},
        {"value": _NAME, "type": "os.system"},
        {"value": _NAME, "type": []},
    ],
)
@pytest.mark.parametrize(
    "within", [lambda value: value, lambda value: [1, [value]], lambda value: {"a": value}]
)
def test_a_reference_to_another_place_is_refused(argument: Any, within: Any) -> None:
    with pytest.raises(ValueError, match=r" is no |^its "):
        check_description(described(x=within(argument)))


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        {},
        {"function": 1, "version": 1, "arguments": {}},
        described() | {"version": "1"},
        described() | {"arguments": []},
    ],
)
def test_what_is_no_call_is_refused(description: Any) -> None:
    with pytest.raises(ValueError, match=r"is no call|^its "):
        check_description(description)


def test_data_is_called_by_what_can_be_a_file() -> None:
    assert is_data_name("owner--name")
    assert not is_data_name("..\\x/y")
    assert not is_data_name("")
