"""Counts in words. Free of torch, so that listings need not wait for it."""

from __future__ import annotations


def many(count: int, what: str) -> str:
    """A count with its word: ``"1 run"``, ``"3 runs"``."""
    return f"{count} {what}{'s' * (count != 1)}"
