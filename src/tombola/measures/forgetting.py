"""Example forgetting (Toneva et al., 2019; section 3.2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.declared import declare
from tombola.training.run import Run


@dataclass(frozen=True)
class Forgetting:
    """Forgetting statistics of one run.

    events_mean, events_std: forgetting events a training image, mean and spread (sample standard deviation)
        over images; never-learned images count 0 here and are told apart by ``never_learned``.
    unforgettable: share of all images that were learned and never forgotten after, 0 to 1.
    never_learned: number of images that were never classified correctly in training.
    """

    events_mean: float
    events_std: float
    unforgettable: float
    never_learned: int


@declare("forgetting", stored=False)
def forgetting(run: Run) -> Forgetting:
    """Statistics over the training images of a run, counted at each presentation in training."""
    record = run.forgetting
    events = record.events.double()
    return Forgetting(
        events_mean=float(events.mean()),
        events_std=float(events.std()) if len(events) > 1 else 0.0,
        unforgettable=float((record.learned & (record.events == 0)).double().mean()),
        never_learned=int((~record.learned).sum()),
    )
