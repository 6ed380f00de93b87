"""The paper's settings by name: the four pairs, the configurations, and the sparsities it tabulates."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tombola.studies.cells import sparsity_after


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
