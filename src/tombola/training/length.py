"""Lengths of trainings: whole epochs, or iterations, which are optimizer steps.

A length is also a place in the schedule, such as the one that a chain rewinds to, or a milestone. It is
written as in the field: ``2`` or ``"2ep"``, and ``"500it"``. How many iterations an epoch has depends on the
number of images and on the batch size, so a length in iterations is told in epochs and steps
(:func:`place_of`) only where the data is at hand: when a training runs. Until then it stands as it was given,
in jobs too: ``"500it"`` and 2 are two jobs even where an epoch has 250 steps, and both have the same bits.
Free of torch, for the command line.
"""

from __future__ import annotations

import re
from typing import NewType

from tombola.errors import RecipeError

Iterations = NewType("Iterations", str)
"""A length in iterations, as :func:`written_length` writes it."""
Length = int | str | Iterations
"""Epochs, as a number or as text, or iterations."""

_TEXT = re.compile(r"(\d{1,18})(ep|it)", re.ASCII)


def written_length(length: Length) -> int | Iterations:
    """A length as jobs have it: ``2`` for 2 and for "2ep", "500it" for iterations, 0 for none of either.

    Raises :class:`~tombola.errors.RecipeError` for any other text.
    """
    if not isinstance(length, str):
        return length
    parts = _TEXT.fullmatch(length)
    if parts is None:
        raise RecipeError(f"{length!r:.60} is no length; give epochs, such as 2 or '2ep', or '500it'")
    count, unit = int(parts[1]), parts[2]
    return Iterations(f"{count}it") if count and unit == "it" else count


def is_length(value: object) -> bool:
    """Whether something is a length: a whole number that is not negative, or such text."""
    if isinstance(value, str):
        return _TEXT.fullmatch(value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def iterations_of(length: Length) -> int | None:
    """The number of iterations of a length that is given in them; None of one in epochs."""
    written = written_length(length)
    return int(written.removesuffix("it")) if isinstance(written, str) else None


def steps_of_epoch(images: int, batch_size: int) -> int:
    """Number of steps of an epoch, the last of which may have fewer images."""
    return -(-images // batch_size)


def place_of(length: Length, steps: int) -> tuple[int, int]:
    """The epoch of a place in the schedule, and the step within it, both counted from 0.

    steps: of an epoch.
    """
    iterations = iterations_of(length)
    return (int(written_length(length)), 0) if iterations is None else divmod(iterations, steps)


def epochs_of(length: Length, steps: int) -> int | float:
    """A length in epochs: whole ones as an integer, else with a fraction.

    steps: of an epoch.
    """
    epoch, step = place_of(length, steps)
    return epoch + step / steps if step else epoch


def whole_epochs(length: Length) -> int:
    """The epochs of a length in epochs; 0 of one in iterations, which only data turn into epochs."""
    return 0 if iterations_of(length) is not None else int(written_length(length))


def length_text(length: Length) -> str:
    """A length in words: "1 epoch", "200 epochs" or "1,500 iterations"."""
    iterations = iterations_of(length)
    count, unit = (written_length(length), "epoch") if iterations is None else (iterations, "iteration")
    return f"{count:,} {unit}{'' if count == 1 else 's'}"


def place_text(length: Length) -> str:
    """A place in words: "initialisation", "epoch 2" or "iteration 500"."""
    iterations, written = iterations_of(length), written_length(length)
    if iterations is not None:
        return f"iteration {iterations}"
    return f"epoch {written}" if written else "initialisation"
