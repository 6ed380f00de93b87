"""What the record of a run says about learning, kept beside the run: a report need not load any weights.

Forgetting (section 3.2, Fig. 6) and convergence (Eq. 4) are exact and cheap once a run is in memory; at paper
scale the reading of its weights is what takes long.
"""

from __future__ import annotations

from dataclasses import dataclass

from tombola.declared import declare
from tombola.measures.convergence import convergence
from tombola.measures.forgetting import Forgetting, ForgettingCurve, forgetting, forgetting_curve
from tombola.training.run import Run


@dataclass(frozen=True)
class Learning:
    """How a run learned.

    images: number of training images.
    forgetting: statistics over them.
    curve: forgetting events by epoch, over all of them.
    convergence: Eq. 4; None for a run that learned nothing.
    failed: whether the run diverged or stayed near chance.
    """

    images: int
    forgetting: Forgetting
    curve: ForgettingCurve
    convergence: float | None
    failed: bool


@declare("learning")
def learning(run: Run) -> Learning:
    """Forgetting and convergence of a run, without its weights."""
    return Learning(
        len(run.forgetting.events), forgetting(run), forgetting_curve(run), convergence(run), run.failed
    )
