"""Checksums of the text files of a finished job, which unlike tensor files carry none within.

They stand in the job's provenance. Its description needs none: its hash is the job's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tombola.errors import reason

NUMBERS, TABLE = "result.json", "history.csv"


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each text file of a result in a job's folder."""
    return {file: _sum(folder / file) for file in (NUMBERS, TABLE) if (folder / file).exists()}


def altered(folder: Path, sums: Any, files: Iterable[str] = (NUMBERS, TABLE)) -> str | None:
    """What is wrong with files of a job's folder, if anything.

    sums: as :func:`sums_of` gave them, and then read from a file; empty for jobs of before there were sums.
    """
    if not isinstance(sums, dict):
        return "provenance.json holds no sums of files"
    for file in files:
        try:
            if file in sums and sums[file] != _sum(folder / file):
                return f"{file} was altered: it does not match its checksum"
        except OSError as error:
            return f"{file}: {reason(error)}"
    return None


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
