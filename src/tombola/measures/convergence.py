"""Convergence speed (Eq. 4 of the paper): 1 if everything was learned in the first epoch."""

from __future__ import annotations

import math

from tombola.declared import declare
from tombola.training.run import Run


@declare("convergence", stored=False)
def convergence(run: Run) -> float | None:
    """Mean over the epochs of the error reduction so far, divided by the final error reduction.

    The error before training is that of the history's first row, before any step. None for a run that
    learned nothing (a final error no lower than the first one), where the ratio is undefined. Can exceed 1.
    """
    errors: list[float] = [100.0 - accuracy for accuracy in run.history.column("test_accuracy")]
    reduction = errors[0] - errors[-1]
    if not math.isfinite(reduction) or reduction <= 0:
        return None
    return sum(errors[0] - error for error in errors[1:]) / (len(errors) - 1) / reduction
