"""The paper's settings by name: the four pairs, the configurations, and the sparsities it tabulates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tombola.table.key import Key, Over, sparsity_after


@dataclass(frozen=True)
class Pair:
    """A network, the data it was trained on, and the error in percent of guessing a class of that data."""

    name: str
    network: str
    dataset: str
    chance_error: float


@dataclass(frozen=True)
class Configuration:
    """The hyperparameters whose noise is compared, with or without late rewinding."""

    momentum: float
    batch_size: int
    pretrained: bool = False

    @property
    def rewound(self) -> Configuration:
        """The same with late rewinding."""
        return replace(self, pretrained=True)

    def __str__(self) -> str:
        return f"{self.momentum}/{self.batch_size}" + (" pretrained" if self.pretrained else "")


R18_C10 = Pair("R18/C10", "ResNet-18", "CIFAR-10", 90.0)
R18_C100 = Pair("R18/C100", "ResNet-18", "CIFAR-100", 99.0)
VGG_C100 = Pair("VGG16/C100", "VGG16", "CIFAR-100", 99.0)
R34_TIN = Pair("R34/TIN", "ResNet-34", "TinyImageNet", 99.5)
PAIRS = (R34_TIN, R18_C10, R18_C100, VGG_C100)
RESNETS = (R34_TIN, R18_C10, R18_C100)

STABLE = Configuration(0.0, 256)
UNSTABLE = Configuration(0.9, 100)
PLAIN = (Configuration(0.0, 100), STABLE)
"""Without momentum."""
MOMENTUM = (UNSTABLE, Configuration(0.9, 256))
CONFIGURATIONS = (*PLAIN, *MOMENTUM)
"""The four of the paper, without late rewinding."""
REWOUND = tuple(configuration.rewound for configuration in CONFIGURATIONS)
HALVES = (CONFIGURATIONS, REWOUND)

PRUNED = (67.23, 89.26, 96.48, 98.85)
"""The tabulated sparsities in percent: 5, 10, 15 and 20 prunings."""
TABULATED = (0.0, *PRUNED)
ROUNDS = tuple(sparsity_after(prunings) for prunings in range(21))
"""The sparsities of all rounds that every pair reaches; the last one is 98.85."""

LAST_BLOCK = 8


def others(chosen: Configuration) -> tuple[Configuration, ...]:
    """The three other configurations of the same half."""
    half = REWOUND if chosen.pretrained else CONFIGURATIONS
    return tuple(configuration for configuration in half if configuration != chosen)


EIGHT = (*CONFIGURATIONS, *REWOUND)
"""The four configurations, without and with late rewinding."""


def _halves(plain: tuple[Configuration, ...]) -> tuple[Configuration, ...]:
    return (*plain, *(configuration.rewound for configuration in plain))


ALL_BATCH_SIZES = _halves(
    tuple(Configuration(mu, size) for mu in (0.0, 0.9) for size in (8, 32, 100, 256, 1024, 2048))
)
"""Those of Fig. 17 (reading E5)."""
BATCH_SIZES = tuple(configuration for configuration in ALL_BATCH_SIZES if configuration not in EIGHT)
"""The more extreme ones, of Table 13."""
MOMENTA = _halves(tuple(Configuration(mu, 256) for mu in (0.3, 0.6, 0.95)))
"""The other momenta of Table 14."""
GRID_SEARCHES = (STABLE, UNSTABLE)
"""Whose tickets Table 4 trains with each of the four configurations; also those of Table 3."""
FROZEN_DENSE = (STABLE, UNSTABLE)
"""Whose trained dense networks are frozen for transfer; from the unpretrained half (reading G5)."""
RETRAINED = Configuration(0.9, 256)
"""How the dense network of Table 6 is trained on the target itself (reading B7)."""
CONTROL = STABLE
"""Whose tickets are permuted (reading G4), are trained on chosen images (H5), and whose dense network stands
for the dense row on little data (H2)."""

OPEN = (STABLE, UNSTABLE)
"""Of which studies of what the paper leaves open are, where they cost trainings or many lines (ours)."""
PRETRAINED_PERCENT = (0, 1, 2, 5, 10, 20, 40)
"""Of the budget, lengths of pretraining at which stability is asked for (ours; Appendix C.3)."""

EARLY = 5
"""Epochs of dense training after which it is asked what tickets will do (ours; 6.2 asks for a cheap sign)."""
EQUAL_NOISE = (
    (STABLE, Configuration(0.5, 512), Configuration(0.75, 1024)),
    (Configuration(0.0, 100), Configuration(0.5, 200), Configuration(0.75, 400)),
    (UNSTABLE, Configuration(0.75, 40), Configuration(0.5, 20)),
)
"""Configurations of equal lr / (batch (1 - momentum)), of rising noise: three of the paper's, each beside two
that reach its batch (1 - momentum) of 256, 100 and 10 by another momentum (ours)."""

EPOCHS = 200
"""The paper's budget of every full training, late rewinding included (Section 3.3)."""
SEARCH_SHARES = {20: 0.10, 50: 0.25}
"""Budget of a short mask search training (AIMP) as the paper prints it, and as a share of the full budget."""

SUBSETS = (1, 2, 5, 10)
"""Percent of the training images in few-shot training."""
CHOSEN_SUBSETS = (1, 10)
"""The same where they are chosen by forgetting (Table 23)."""
REMOVED = (10, 20, 30)
"""Percent of the images removed by difficulty (Fig. 7; not printed, reading E3)."""
TICKET = 10
"""Prunings of the ticket that is transferred and trained on little data: 89.26%."""
PROBED = {R34_TIN: (5, 10), R18_C10: (10, 15), R18_C100: (10, 15)}
"""Prunings of the probed tickets of Tables 5, 17 and 18."""
TARGETS = {
    R18_C10: ("MNIST", "CIFAR-100", "TinyImageNet", "EuroSAT"),
    R18_C100: ("MNIST", "CIFAR-10", "TinyImageNet", "EuroSAT"),
    R34_TIN: ("MNIST", "CIFAR-10", "CIFAR-100", "EuroSAT"),
}
"""What the tickets of Tables 6, 19 and 20 are transferred to."""

ADAPTIVE_RHO = 0.5
"""Length of the step of adaptive sharpness: ASAM's (Kwon et al., 2021); the paper has no such number."""

PRETRAINING_NOISE = 100
"""Added to a run's number for the noise of its pretraining: the paper's dense networks with and without late
rewinding are separate trainings (protocol, part 2), which at momentum 0 one noise would make the same."""


def short_search_epochs(printed: int, budget: int) -> int:
    """Epochs of a short mask search training that the paper prints so: the same share of another budget."""
    return max(1, round(SEARCH_SHARES[printed] * budget))


_OVER: dict[str, Over] = {
    "barrier": "pairs",
    "recalibrated_barrier": "pairs",
    "highest_path_error": "pairs",
    "barrier_reached": "pairs",
    "barrier_to_next": "rounds",
}
"""What the values of a metric are of, where not of runs with seeds of their own."""


def key_of(
    metric: str, pair: Pair, configuration: Configuration | None, sparsity: float, **fields: Any
) -> Key:
    """The key of a metric of a pair and configuration at a sparsity; ``fields`` are further ones of it."""
    if configuration is not None:
        fields = {
            "momentum": configuration.momentum,
            "batch_size": configuration.batch_size,
            "pretrained": configuration.pretrained,
            **fields,
        }
    return Key(
        **{
            "metric": metric, "over": _OVER.get(metric, "seeds"), "network": pair.network,
            "dataset": pair.dataset, "sparsity": sparsity, **fields,
        }
    )  # fmt: skip
