"""A made-up experiment: its numbers were invented for these tests and come from no training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tombola.experiments.bound import Bound
from tombola.experiments.chain_exhibits import exhibits_of
from tombola.report.findings import experiment_findings
from tombola.report.gather import Report
from tombola.table.key import Key, sparsity_after
from tombola.table.number import Curve, Number, entries_of
from tombola.table.table import Table
from tombola.views.exhibit import Exhibit

CONFIGURATIONS = ((0.0, 32), (0.0, 128), (0.9, 32), (0.9, 128))
DENSE_ACCURACY = (95.6, 94.1, 97.4, 96.8)
DENSE_BARRIER = (1.5, 0.8, 18.2, 10.1)
FORGETTING = (0.31, 0.22, 0.74, 0.52)
CONVERGENCE = (0.931, 0.874, 0.952, 0.917)
LAYERS = ("first.weight", "second.weight", "last.weight")
ROUNDS = 8


def key_of(metric: str, index: int, late: bool, prunings: int, **more: Any) -> Key:
    """The key of a configuration at a round."""
    momentum, batch_size = CONFIGURATIONS[index]
    return Key(
        metric=metric, network="convnet", dataset="digits", momentum=momentum, batch_size=batch_size,
        pretrained=late, sparsity=sparsity_after(prunings), **more,
    )  # fmt: skip


def number(key: Key, value: float | None, seed: int, **more: Any) -> Number:
    return Number(key=key, value=value, epochs=12, seed=seed, **more)


def accuracies(index: int, late: bool, prunings: int) -> tuple[float, float]:
    """Of two seeds; one run of the third configuration stays at chance."""
    dense = DENSE_ACCURACY[index] - 0.3 * late
    loss = (2.2, 0.6, 9.0, 3.5)[index] * (0.45 if late else 1.0)
    gain = (0.5, 0.6, 0.1, 0.2)[index] + 0.3 * late
    mean = dense + gain * math.sin(0.7 * prunings) - loss * (prunings / ROUNDS) ** 3
    half = 0.12 + 0.07 * ((3 * prunings + index) % 4) + 0.05 * prunings * (index > 1)
    if (index, late, prunings) == (2, False, 7):
        return 10.3, mean + half
    return mean - half, mean + half


def chain_numbers() -> list[Number]:
    """Four configurations from two kinds of start, eight rounds and two seeds."""
    numbers = []
    for late in (False, True):
        for index in range(4):
            for prunings in range(ROUNDS + 1):
                for seed, value in enumerate(accuracies(index, late, prunings)):
                    curve = Curve((0, 6, 12), (90.0, 100 - value + 5, 100 - value))
                    key = key_of("val_accuracy", index, late, prunings)
                    numbers.append(number(key, value, seed, failed=value < 20, curve=curve))
            for prunings in (0, ROUNDS):
                height = DENSE_BARRIER[index] * ((0.5 if late else 1.0) if prunings == 0 else 0.04)
                errors = tuple(5 + height * math.sin(math.pi * step / 20) ** 2 for step in range(21))
                curve = Curve(tuple(step / 20 for step in range(21)), errors)
                for metric, share in (("barrier", 1.0), ("recalibrated_barrier", 0.4)):
                    key = key_of(metric, index, late, prunings, over="pairs")
                    numbers += [number(key, share * height, seed, pair=0, curve=curve) for seed in (0, 1)]
            for metric, values in (("forgetting_events", FORGETTING), ("convergence", CONVERGENCE)):
                numbers += [
                    number(key_of(metric, index, late, prunings), values[index] * (1 + 0.1 * late), seed)
                    for prunings in range(ROUNDS + 1)
                    for seed in (0, 1)
                ]
            numbers += [
                number(
                    key_of("layer_sparsity", index, late, ROUNDS, more=(("layer", name),)),
                    0.6 + 0.1 * n,
                    seed,
                )
                for n, name in enumerate(LAYERS)
                for seed in (0, 1)
            ]
    return numbers


@dataclass(frozen=True)
class Made:
    """The experiment of some numbers, and what it shows."""

    numbers: tuple[Number, ...]
    name: str = "demo"
    title: str = "An experiment that was made up"

    @property
    def bound(self) -> Bound:
        return Bound(
            name=self.name, title=self.title, items=(), about="Made up.", show=exhibits_of,
            budget="12 epochs, 2 seeds",
        )  # fmt: skip

    @property
    def exhibits(self) -> list[Exhibit]:
        groups: dict[Key, list[Number]] = {}
        for one in self.numbers:
            groups.setdefault(one.key, []).append(one)
        return exhibits_of(self.bound, entries_of(groups.items()))

    def exhibit(self, part: str) -> Exhibit:
        (found,) = [exhibit for exhibit in self.exhibits if exhibit.name == f"{self.name}-{part}"]
        return found

    def findings(self, part: str) -> str:
        sentences = experiment_findings(self.exhibits)[f"{self.name}-{part}"]
        return " ".join(sentences).replace("\N{NO-BREAK SPACE}", " ")

    def report(self, **more: Any) -> Report:
        exhibits = self.exhibits
        return Report(
            exhibits=exhibits, table=Table(self.numbers), of_paper=False, glossary=True, title=self.title,
            lead="Made up.", budget="12 epochs, 2 seeds",
            provenance={"device": "cpu", "jobs": "190"}, **more,
        )  # fmt: skip

    def changed(self, metric: str, value: Any, **where: Any) -> Made:
        """The same with another value wherever a key has the metric and these fields."""

        def chosen(one: Number) -> bool:
            return one.key.metric == metric and all(one.key.get(name) == w for name, w in where.items())

        return replace(
            self, numbers=tuple(replace(one, value=value) if chosen(one) else one for one in self.numbers)
        )

    def only(self, numbers: Sequence[Number]) -> Made:
        return replace(self, numbers=tuple(numbers))


@pytest.fixture
def made() -> Made:
    return Made(tuple(chain_numbers()))


class Page(HTMLParser):
    """What a browser would see: tags in order, attributes, all text, and which tags were left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def read_page() -> type[Page]:
    return Page
