"""Scales: how much of the paper's work a study does, and what stands in for its networks and data.

``paper`` is as printed. ``short`` has the same shape at a tenth of the budget. ``tiny`` proves the machinery,
not the science: a small network on digits and generated images in place of every pair and target.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from tombola.data.imageset import Data
from tombola.errors import ExperimentError, unknown
from tombola.experiments.paper.settings import (
    EPOCHS,
    PAIRS,
    R18_C10,
    R18_C100,
    R34_TIN,
    SEARCH_SHARES,
    VGG_C100,
    Configuration,
    Pair,
    short_search_epochs,
)
from tombola.networks.initialization import written_init
from tombola.table.key import Key, sparsity_after
from tombola.table.number import many
from tombola.training.recipe import MOST_EPOCHS


@dataclass(frozen=True)
class Subject:
    """What is trained for a pair of the paper.

    network: declared name; data: name, or the set itself.
    lr: learning rate at the start, the same for every configuration.
    rounds: number of prunings.
    blocks: for each block that the paper numbers, the middle one and the last (reading B6), its place among
        the probed ones, from 0.
    probed: names of the probed modules, where the network does not know its own; head: its final layer.
    init: initialisation scheme; None for the network's own.
    """

    network: str
    data: str | Data
    lr: float
    rounds: int
    blocks: Mapping[int, int] = field(default_factory=dict)
    probed: tuple[str, ...] | None = None
    head: str | None = None
    init: str | None = None


_MOST_ROUNDS, _MOST_TRAININGS = 200, 1_000
_BOUNDS = {
    "epochs": (2, MOST_EPOCHS), "rewind": (1, MOST_EPOCHS), "seeds": (1, 100), "copies": (2, 100),
    "stride": (1, _MOST_ROUNDS), "points": (3, 10_000), "points_between": (3, 10_000),
    "head_epochs": (1, 100_000), "neighbours": (0, 100),
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How much is done. A value outside what is possible raises an ExperimentError.

    subjects: what is trained for each pair. targets: the data of each target of transfer.
    target_size: pixels that targets are resized to; fitting: the targets that are so already.
    epochs: budget of each full training, late rewinding included. rewind: epochs of late rewinding.
    seeds: number of runs, which differ in initialisation and noise.
    copies: trainings of one start under different noise, for instability.
    columns: prunings of the tabulated tickets.
    stride: rounds from point to point of the curves of probes and of few-shot training.
    points: on a line between copies; points_between: between trained tickets of consecutive rounds.
    head_epochs: of probes and transferred heads.
    neighbours: lengths asked about beside a first stable epoch, as a check that stability is monotonic.
    configurations: only these, each without and with late rewinding; None for all that a study has.
    pairs: only these networks with their data; None for all that a study has.
    note: of stand-ins, for every picture. changes: what was overridden.

    A scale is also read from a store, which may be a stranger's, and everything is listed before anything is
    shown, so its numbers are bounded: 65,534 epochs (100,000 of heads), 10,000 points on a line, 200 rounds
    (after which no weight of any network is left), 100 seeds, copies and neighbours, and 1,000 rounds of all
    seeds together, with which listing the paper takes some ten times as long as at its own scale.
    """

    name: str
    subjects: Mapping[Pair, Subject]
    targets: Mapping[str, str | Data]
    target_size: tuple[int, int] = (32, 32)
    fitting: tuple[str, ...] = ("CIFAR-10", "CIFAR-100")
    epochs: int = EPOCHS
    rewind: int = 2
    seeds: int = 3
    copies: int = 3
    columns: tuple[int, ...] = (5, 10, 15, 20)
    stride: int = 1
    points: int = 21
    points_between: int = 11
    head_epochs: int = 5
    neighbours: int = 0
    configurations: tuple[Configuration, ...] | None = None
    pairs: tuple[Pair, ...] | None = None
    note: str = ""
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            _require_whole(name, getattr(self, name), least, most)
        if self.rewind >= self.epochs:
            raise ExperimentError(
                f"rewind is {self.rewind} of {many(self.epochs, 'epoch')}; "
                "it must leave at least one to train"
            )
        fitting = all(_is_whole(column, 1, _MOST_ROUNDS) for column in self.columns)
        if not fitting or not self.columns or list(self.columns) != sorted(set(self.columns)):
            raise ExperimentError(
                f"columns are {self.columns!s:.60}; give numbers of prunings, rising and above 0, at most "
                f"{_MOST_ROUNDS}"
            )
        for subject in self.subjects.values():
            _require_whole("rounds", subject.rounds, 1, _MOST_ROUNDS)
            if self.seeds * subject.rounds > _MOST_TRAININGS:
                raise ExperimentError(
                    f"{self.seeds} seeds of {subject.rounds} rounds are {self.seeds * subject.rounds:,} "
                    f"trainings of one configuration; give fewer of them, {_MOST_TRAININGS:,} together"
                )
        if self.configurations is not None and not self.configurations:
            raise ExperimentError(
                "configs is empty; give at least one, such as 0.0/256, or leave it out for all"
            )

    def __str__(self) -> str:
        return ", ".join([f"scale {self.name}", *self.changes])

    @property
    def warning(self) -> str:
        """What has to be known with every number of it; empty for the paper's own budget."""
        if self.note or self.epochs >= EPOCHS:
            return self.note
        return f"{self.epochs} of the paper's {EPOCHS} epochs a training"

    @property
    def names(self) -> dict[str, str]:
        """What stands in for the networks, data and targets of the paper; empty for its own."""
        if not self.note:
            return {}
        names = {target: _data_name(data) for target, data in self.targets.items()}
        for pair, subject in self.subjects.items():
            names |= {pair.network: subject.network, pair.dataset: _data_name(subject.data)}
        return names

    @property
    def budget(self) -> str:
        """How long and how often it trains, in words."""
        runs = many(self.seeds, "run")
        return f"{self}: {many(self.epochs, 'epoch')} a training, {runs}"

    def chosen(self, configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
        """Those of the configurations that were not deselected."""
        return tuple(
            configuration
            for configuration in configurations
            if self.configurations is None or replace(configuration, pretrained=False) in self.configurations
        )

    def has_pair(self, key: Key) -> bool:
        """Whether a key is of a pair that was not deselected; what is retrained on a target has its data."""
        return self.pairs is None or any(
            key.network == pair.network and (key.dataset == pair.dataset or key.baseline == "retrained_dense")
            for pair in self.pairs
        )

    def search_epochs(self, printed: int) -> int:
        """Epochs of a short mask search training that the paper prints so: the same share of the budget."""
        return short_search_epochs(printed, self.epochs)

    def check_searches(self) -> None:
        """Refuse short searches whose printed lengths come to the same number of epochs."""

        def differ(budget: int) -> bool:
            return len({short_search_epochs(printed, budget) for printed in SEARCH_SHARES}) > 1

        if not differ(self.epochs):
            printed = " and ".join(map(str, SEARCH_SHARES))
            least = next(budget for budget in itertools.count(self.epochs) if differ(budget))
            raise ExperimentError(
                f"has searches of the paper's {printed} epochs, which come to the same length at "
                f"{many(self.epochs, 'epoch')}: give epochs of at least {least}"
            )

    def curve_rounds(self, pair: Pair) -> range:
        """The rounds at which the curves of probes and of few-shot training have points."""
        return range(0, self.subjects[pair].rounds + 1, self.stride)

    def check_round(self, pair: Pair, prunings: int) -> None:
        """Refuse a column of a study that no round of the scale reaches."""
        rounds = self.subjects[pair].rounds
        if prunings > rounds:
            raise ExperimentError(
                f"has a column of {sparsity_after(prunings)}% sparsity, which takes {prunings} "
                f"prunings; here {pair.name} has {rounds} rounds: give rounds of at least {prunings}"
                + (f", or columns up to {rounds}" if prunings in self.columns else "")
            )


def _data_name(data: str | Data) -> str:
    return data if isinstance(data, str) else data.name


_DATA = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "TinyImageNet": "tinyimagenet",
    "MNIST": "mnist",
    "EuroSAT": "eurosat",
}
_SUBJECTS = {
    R18_C10: Subject("resnet18", "cifar10", 0.1, 25, {4: 3, 8: 7}),
    R18_C100: Subject("resnet18", "cifar100", 0.1, 25, {4: 3, 8: 7}),
    VGG_C100: Subject("vgg16", "cifar100", 0.1, 25),
    R34_TIN: Subject("resnet34", "tinyimagenet", 0.2, 20, {4: 7, 8: 15}),
}


def _paper() -> Scale:
    return Scale("paper", _SUBJECTS, _DATA)


def _short() -> Scale:
    return Scale("short", _SUBJECTS, _DATA, epochs=20, seeds=2)


def _tiny() -> Scale:
    from tombola.experiments.paper.stand_ins import stand_in

    def subject(data: str | Data, lr: float) -> Subject:
        return Subject("convnet", data, lr, 20, {4: 1, 8: 3}, ("2", "5", "8", "11"), "14")

    images: dict[str, str | Data] = {
        "CIFAR-10": "digits",
        "CIFAR-100": stand_in("stand-in-cifar100", 8),
        "TinyImageNet": stand_in("stand-in-tinyimagenet", 6),
        "MNIST": stand_in("stand-in-mnist", 4),
        "EuroSAT": stand_in("stand-in-eurosat", 5),
    }
    return Scale(
        "tiny",
        {
            R18_C10: subject(images["CIFAR-10"], 0.5),
            R18_C100: subject(images["CIFAR-100"], 0.5),
            VGG_C100: subject(images["CIFAR-100"], 0.3),
            R34_TIN: subject(images["TinyImageNet"], 0.6),
        },
        images,
        target_size=(8, 8), fitting=tuple(images),
        epochs=6, rewind=1, seeds=2, stride=5, points=5, points_between=3, head_epochs=1,
        note="a small network on stand-in images: proves the machinery, not the science",
    )  # fmt: skip


_MADE = {"paper": _paper, "short": _short, "tiny": _tiny}
SCALES = tuple(_MADE)


@cache
def scale_named(name: str) -> Scale:
    """The scale of that name; :class:`~tombola.errors.ExperimentError` if there is none."""
    if name not in _MADE:
        raise ExperimentError(unknown("scale", name, SCALES))
    return _MADE[name]()


_HIGHEST_LR = 1_000
_OF_SUBJECTS = ("rounds", "lr", "init")
_OVERRIDABLE = (
    "epochs", "rewind", "seeds", "copies", "columns", "stride", "points", "points_between", "head_epochs",
    "neighbours",
)  # fmt: skip


def overridden(
    scale: Scale, *, configs: Sequence[str] | None = None, pairs: Sequence[str] | None = None, **numbers: Any
) -> Scale:
    """The scale with other numbers, under which jobs have other names.

    configs: only these configurations, written as ``"0.0/256"``. pairs: only these networks with their data,
        written as ``"R18/C10"``.
    numbers: ``rounds``, ``lr`` and ``init`` (an initialisation scheme) of every pair, and the fields of
        :class:`Scale` that count something. None leaves a number as it is.

    Raises :class:`~tombola.errors.ExperimentError` for a number that does not exist or is out of range.
    """
    numbers = {key: value for key, value in numbers.items() if value is not None}
    for key in numbers:
        if key not in (*_OF_SUBJECTS, *_OVERRIDABLE):
            raise ExperimentError(
                unknown("number of a scale", key, [*_OF_SUBJECTS, *_OVERRIDABLE, "configs", "pairs"])
            )
    changes = [f"{key} {_text(value)}" for key, value in numbers.items()]
    of_subjects = {key: numbers.pop(key) for key in _OF_SUBJECTS if key in numbers}
    if not 0 < of_subjects.get("lr", 1) <= _HIGHEST_LR:
        raise ExperimentError(
            f"lr is {of_subjects['lr']!s:.60}; it must be above 0 and at most {_HIGHEST_LR}"
        )
    if "init" in of_subjects:
        of_subjects["init"] = written_init(of_subjects["init"])
    if of_subjects:
        numbers["subjects"] = {
            pair: replace(subject, **of_subjects) for pair, subject in scale.subjects.items()
        }
    if "columns" in numbers:
        numbers["columns"] = tuple(numbers["columns"])
    if configs is not None:
        numbers["configurations"] = tuple(configuration_named(text) for text in configs)
        changes.append(f"configs {','.join(configs)}")
    if pairs is not None:
        numbers["pairs"] = tuple(pair_named(text) for text in pairs)
        changes.append(f"pairs {','.join(pairs)}")
    return replace(scale, changes=(*scale.changes, *changes), **numbers)


def pair_named(text: str) -> Pair:
    """A pair by its short name, such as ``"R18/C10"``.

    Raises :class:`~tombola.errors.ExperimentError` if there is none.
    """
    pairs = {pair.name: pair for pair in PAIRS}
    if text.strip() not in pairs:
        raise ExperimentError(unknown("pair", text.strip(), pairs))
    return pairs[text.strip()]


def configuration_named(text: str) -> Configuration:
    """A configuration written as momentum/batch size, such as ``"0.9/100"``."""
    momentum, _, batch_size = text.strip().partition("/")
    try:
        configuration = Configuration(float(momentum), int(batch_size))
    except ValueError:
        raise ExperimentError(
            f"no configuration {text!r:.60}; write momentum/batch size, such as 0.9/100"
        ) from None
    if not 0 <= configuration.momentum < 1 or configuration.batch_size < 1:
        raise ExperimentError(f"configuration {text!r} has a momentum outside [0, 1) or a batch size below 1")
    return configuration


def _require_whole(name: str, value: object, least: int, most: int) -> None:
    if not _is_whole(value, least, most):
        raise ExperimentError(
            f"{name} is {value!r:.60}; it must be a whole number, at least {least} and at most {most}"
        )


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
