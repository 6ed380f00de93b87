"""Runs and tickets pushed to a hub on loopback and pulled from it; what the card's program does."""

import re
from collections.abc import Callable
from typing import Any

import tombola as tb

Same = Callable[..., bool]


def program_of(card: str) -> str:
    """The first code block of a card."""
    [program, *_] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return str(program)


def test_a_run_comes_back_to_the_bit(
    hub: Any, chain: list[tb.Run], recipe: tb.Recipe, same_run: Same
) -> None:
    run = chain[2]
    push = run.push_to_hub("me/x", data="digits", recipe=recipe, license="mit")
    assert push.origin is not None
    assert hub.files("me/x").keys() == push.files.keys()
    pulled = tb.Run.from_hub("me/x")
    assert pulled.fingerprint == run.fingerprint
    assert same_run(pulled, run)
    assert pulled.ticket.hub == push.origin
    assert str(pulled.ticket.hub) == f"me/x@{push.origin.revision[:12]}"
    assert tb.Ticket.from_hub("me/x").fingerprint == run.ticket.fingerprint
