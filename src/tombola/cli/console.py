"""What all commands say and see to in the same way."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tombola.untrusted import printable


def say(console: Console, line: str) -> None:
    """Print a line as it is: no path is broken, no bracket is markup, no number coloured, nothing obeyed."""
    console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def many_studies(count: int) -> str:
    """A number of studies in words."""
    return f"{count} stud{'ies' if count != 1 else 'y'}"


def check_writable(folder: Path) -> None:
    """Make a folder for results, before any work that would be lost without it."""
    from tombola.errors import StoreError, reason

    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".tombola-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {reason(error)}") from error
