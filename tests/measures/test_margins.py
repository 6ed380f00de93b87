"""Margins by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import tombola as tb
from tombola.errors import RecipeError, TicketError
from tombola.measures.margins import margins_of


def test_the_margin_is_what_the_own_class_has_over_the_best_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 1.0, 0.0]])
    assert margins_of(logits, torch.tensor([0, 2, 0])).tolist() == [1.0, -1.0, 0.0]


@pytest.mark.parametrize("split", ["test", "train"])
def test_the_distribution_over_a_split(run: tb.Run, digits: tb.Data, split: str) -> None:
    with torch.no_grad():
        parts = [(tb.module(run)(images), labels) for images, labels in tb.batches(digits, split)]
    logits = torch.cat([outputs for outputs, _ in parts]).double().numpy()
    labels = torch.cat([labels for _, labels in parts]).numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_hand, barely = [], 0
    for values, chance, label in zip(logits, chances, labels, strict=True):
        margin = values[label] - np.delete(values, label).max()
        by_hand.append(margin)
        barely += bool(margin > 0 and chance[label] - np.delete(chance, label).max() < 0.3)
    found = tb.margins(run, digits, split=split, small=0.3)
    levels = np.quantile(by_hand, [0.01, 0.1, 0.5, 0.9, 0.99])
    seen = [found.lowest, found.lower, found.median, found.upper, found.highest]
    np.testing.assert_allclose(seen, levels, rtol=1e-5, atol=1e-6)
    assert found.mean == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert found.small == pytest.approx(barely / len(labels))
    if split == "test":
        assert 100 * found.wrong == pytest.approx(100 - run.accuracy, abs=1e-9)


def test_what_diverged_and_other_thresholds_are_refused(run: tb.Run, digits: tb.Data) -> None:
    broken = replace(run, weights={name: value * math.nan for name, value in run.weights.items()})
    with pytest.raises(TicketError, match="there is no margin of this run: its logits on the test images"):
        tb.margins(broken, digits)
    with pytest.raises(RecipeError, match="small is 0; it must be above 0 and at most 1"):
        tb.margins(run, digits, small=0)
