"""A made-up summary: its numbers were invented for these tests and come from no training."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from typing import Any

import pytest

CONFIGURATIONS = ((0.0, 32), (0.0, 128), (0.9, 32), (0.9, 128))
DENSE_ACCURACY = (95.6, 94.1, 97.4, 96.8)
DENSE_BARRIER = (1.5, 0.8, 18.2, 10.1)
ROUNDS = 8


def made_up_summary() -> dict[str, Any]:
    """What a demo of four configurations, two rewinding points and eight rounds could come to."""
    return {
        "settings": {
            "network": "convnet",
            "data": "digits",
            "epochs": 12,
            "rounds": ROUNDS,
            "seeds": 2,
            "rewind": 2,
            "fraction": 0.2,
            "lr": 0.1,
            "device": "cpu",
        },
        "units": {
            "sparsity": "share of weights pruned",
            "accuracy": "percent",
            "barrier": "percentage points",
        },
        "rows": [row for index in range(4) for rewind in (0, 2) for row in made_up_chain(index, rewind)],
        "dense": [made_up_dense(index) for index in range(4)],
        "curves": [
            made_up_curve(kind, index, rewind)
            for kind in ("dense", "ticket")
            for index in range(4)
            for rewind in (0, 2)
        ],
        "training": [made_up_training(index) for index in range(4)],
        "provenance": {
            "tombola": "0.1.0",
            "torch": "2.9.0",
            "python": "3.11.9",
            "hardware": "a made-up processor with 2 cores",
            "threads": 1,
            "jobs": 190,
            "computed": 190,
            "seconds": 55.2,
        },
    }


def made_up_chain(index: int, rewind: int) -> list[dict[str, Any]]:
    momentum, batch_size = CONFIGURATIONS[index]
    dense = DENSE_ACCURACY[index] - (0.3 if rewind else 0.0)
    loss = (2.2, 0.6, 9.0, 3.5)[index] * (0.45 if rewind else 1.0)
    gain = (0.5, 0.6, 0.1, 0.2)[index] + (0.3 if rewind else 0.0)
    rows = []
    for round_ in range(ROUNDS + 1):
        mean = dense + gain * math.sin(0.7 * round_) - loss * (round_ / ROUNDS) ** 3
        half = 0.12 + 0.07 * ((3 * round_ + index) % 4) + 0.05 * round_ * (momentum > 0)
        accuracies = [mean - half, mean + half]
        failed = (index, rewind) == (2, 0) and round_ == 7
        if failed:
            accuracies[0] = 10.3
        mean = sum(accuracies) / 2
        rows.append(
            {
                "momentum": momentum,
                "batch_size": batch_size,
                "rewind": rewind,
                "round": round_,
                "sparsity": 1 - 0.8**round_,
                "accuracy_mean": mean,
                "accuracy_std": abs(accuracies[0] - accuracies[1]) / math.sqrt(2),
                "accuracies": accuracies,
                "winning": None if round_ == 0 else mean >= rows[0]["accuracy_mean"],
                "failed_runs": int(failed),
            }
        )
    return rows


def made_up_dense(index: int) -> dict[str, Any]:
    momentum, batch_size = CONFIGURATIONS[index]
    return {
        "momentum": momentum,
        "batch_size": batch_size,
        "barrier": DENSE_BARRIER[index],
        "barrier_recalibrated": 0.4 * DENSE_BARRIER[index],
        "forgetting_events": (0.31, 0.22, 0.74, 0.52)[index],
        "forgetting_std": (0.77, 0.61, 1.22, 1.03)[index],
        "unforgettable": (0.795, 0.846, 0.611, 0.702)[index],
        "convergence": (0.931, 0.874, 0.952, 0.917)[index],
        "accuracy": DENSE_ACCURACY[index],
    }


def made_up_curve(kind: str, index: int, rewind: int) -> dict[str, Any]:
    momentum, batch_size = CONFIGURATIONS[index]
    barrier = DENSE_BARRIER[index] * ((0.5 if rewind else 1.0) if kind == "dense" else 0.04)
    end = 100 - DENSE_ACCURACY[index] + (0.0 if kind == "dense" else (2.2, 0.6, 6.0, 3.5)[index])
    alphas = [step / 20 for step in range(21)]
    return {
        "kind": kind,
        "momentum": momentum,
        "batch_size": batch_size,
        "rewind": rewind,
        "sparsity": 0.0 if kind == "dense" else 1 - 0.8**ROUNDS,
        "alphas": alphas,
        "errors": [end + barrier * math.sin(math.pi * alpha) ** 2 for alpha in alphas],
        "barrier": barrier,
    }


def made_up_training(index: int) -> dict[str, Any]:
    momentum, batch_size = CONFIGURATIONS[index]
    last = 100 - DENSE_ACCURACY[index]
    pace = (0.9, 0.55, 1.2, 0.9)[index]
    wobble = 0.35 if momentum else 0.12
    return {
        "momentum": momentum,
        "batch_size": batch_size,
        "epochs": list(range(13)),
        "test_error": [
            last + (90 - last) * math.exp(-pace * epoch) + last * wobble * abs(math.sin(2.3 * epoch + index))
            for epoch in range(13)
        ],
        "forgetting_events": [None, 0.0]
        + [
            (0.045, 0.03, 0.11, 0.08)[index]
            * math.exp(-0.16 * epoch)
            * (1.3 + 0.5 * math.sin(1.9 * epoch + index))
            for epoch in range(2, 13)
        ],
    }


@pytest.fixture
def summary() -> dict[str, Any]:
    return made_up_summary()


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
