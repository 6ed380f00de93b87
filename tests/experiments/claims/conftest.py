"""Cells as a reproduction that confirms the paper would have them; made up where the paper prints none."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tombola.experiments.cells import Cell, Place, by_place, measured, sparsity_after
from tombola.experiments.claims.all_claims import CLAIMS
from tombola.experiments.claims.claim import needed
from tombola.experiments.paper.printed import printed_cells

CHANCE = {"CIFAR-10": 10.0, "CIFAR-100": 1.0, "TinyImageNet": 0.5}
# From here on the trained tickets of neighbouring rounds are connected: five prunings, for VGG16 four.
ONSET = {"ResNet-18": sparsity_after(5), "ResNet-34": sparsity_after(5), "VGG16": sparsity_after(4)}


@pytest.fixture(scope="session")
def confirming() -> Mapping[Place, Cell]:
    """All that any claim asks for; three runs close together where the paper prints nothing."""
    places = dict.fromkeys(place for claim in CLAIMS for place in needed(claim, also=True))
    return by_place(printed_cells().get(place) or made_up(place) for place in places)


def made_up(place: Place) -> Cell:
    value = confirming_value(place)
    failed = place.study == "fig16" and not is_plain(place) and place.batch_size == 100
    return measured(place, [value - 0.01, value, value + 0.01], epochs=200, starred=failed)


def is_plain(place: Place) -> bool:
    return place.momentum == 0.0


def is_stable(place: Place) -> bool:
    return is_plain(place) and place.batch_size == 256


def confirming_value(place: Place) -> float:
    match place.metric:
        case "barrier" if place.study == "fig7":
            return 10.0 if place.subset_criterion == "hardest_removed" else 20.0
        case "barrier" if place.study == "fig17" or place.sparsity:
            return 1.0
        case "barrier" if place.pretrained:
            return 3.0 if is_plain(place) else 38.0
        case "barrier":
            return 10.0 if is_stable(place) else 40.0
        case "barrier_to_next":
            assert place.network is not None
            assert place.sparsity is not None
            return 20.0 if place.sparsity < ONSET[place.network] else 0.5
        case "highest_path_error":
            return 95.0
        case "barrier_reached":
            return 0.3 if place.subset_criterion else 0.5
        case "late_forgetting_events":
            return 0.1 if is_plain(place) else 0.3
        case "untrained_accuracy" | "recalibrated_untrained_accuracy":
            assert place.dataset is not None
            return CHANCE[place.dataset]
        case "convergence":
            return 0.95 if is_stable(place) else 0.9
        case "val_accuracy" if place.study == "fig7":
            return 90.0 if place.subset_criterion == "hardest_removed" else 95.0
        case (
            _
        ):  # curves over sparsity: features and few-shot accuracy grow together, but for unstable tickets
            return 20.0 + (place.sparsity or 0.0) / 5 if is_plain(place) else 20.0
