"""Counts and sizes in words. Free of torch, so that listings need not wait for it."""

from __future__ import annotations


def many(count: int, what: str) -> str:
    """A count with its word: ``"1 run"``, ``"3 runs"``."""
    return f"{count} {what}{'s' * (count != 1)}"


def bytes_text(count: float) -> str:
    """A number of bytes in decimal units, two digits at least: ``"812 B"``, ``"1.4 MB"``, ``"35 GB"``."""
    unit = "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if round(count) < 1000:
            break
        count, unit = count / 1000, larger
    digits = 1 if unit != "B" and round(count, 1) < 10 else 0
    return f"{count:,.{digits}f} {unit}"
