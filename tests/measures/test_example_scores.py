"""Scores of single images against formulas by hand and against one backward pass an image."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tombola as tb
from tombola.errors import DataError, NetworkError, RecipeError, TicketError
from tombola.measures.example_scores import ExampleScores
from tombola.training.run import ForgettingRecord


def inputs_of(data: tb.Data, count: int) -> tuple[Tensor, Tensor]:
    images, labels = next(tb.batches(data, "train", batch_size=count))
    return images, labels


def probabilities(run: tb.Run, images: Tensor) -> np.ndarray[Any, Any]:
    """By hand in float64, from the run's own logits."""
    with torch.no_grad():
        logits = tb.module(run)(images).double().numpy()
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def gradients_by_hand(run: tb.Run, images: Tensor, labels: Tensor, ending: str = "") -> list[float]:
    """One backward pass an image; of the parameters whose name begins so, without pruned weights."""
    module = tb.module(run)
    norms = []
    for image, label in zip(images, labels, strict=True):
        module.zero_grad()
        cross_entropy(module(image[None]), label[None]).backward()
        square = 0.0
        for name, values in module.named_parameters():
            assert values.grad is not None
            gradient = values.grad * run.ticket.mask.get(name, torch.tensor(True))
            square += float((gradient.double() ** 2).sum()) if name.startswith(ending) else 0.0
        norms.append(math.sqrt(square))
    return norms


def test_scores_of_logits_by_hand(run: tb.Run, digits: tb.Data) -> None:
    images, labels = inputs_of(digits, 1198)
    chances = probabilities(run, images)
    errors = chances.copy()
    errors[np.arange(1198), labels.numpy()] -= 1
    ordered = np.sort(chances, axis=1)
    expected = {
        "el2n": np.sqrt((errors**2).sum(1)),
        "entropy": -(chances * np.log(chances)).sum(1),
        "least-confidence": 1 - ordered[:, -1],
        "margin": ordered[:, -1] - ordered[:, -2],
    }
    for name, values in expected.items():
        scores = tb.example_scores(run, digits, score=name)
        np.testing.assert_allclose(scores.values.numpy(), values, rtol=1e-4, atol=1e-6)
        assert scores.score == name
        # Where the network errs, images are harder than elsewhere.
        wrong = torch.from_numpy(chances.argmax(1)) != labels
        harder = scores.values[wrong].mean() - scores.values[~wrong].mean()
        assert harder > 0 if scores.hard == "high" else harder < 0


def test_gradient_norms_are_those_of_one_backward_pass_an_image(chain: list[tb.Run], digits: tb.Data) -> None:
    images, labels = inputs_of(digits, 20)
    few = tb.take(digits, list(range(20)))
    for run in (chain[0], chain[2]):
        whole = tb.example_scores(run, few, score="grand").values
        np.testing.assert_allclose(whole.numpy(), gradients_by_hand(run, images, labels), rtol=1e-4)
        last = tb.example_scores(run, few, score="grand-last-layer").values
        head = list(dict(tb.module(run).named_children()))[-1]
        by_hand = gradients_by_hand(run, images, labels, head)
        np.testing.assert_allclose(last.numpy(), by_hand, rtol=1e-4)
        assert (last < whole).all()


def test_the_last_layers_gradient_in_closed_form(run: tb.Run, digits: tb.Data) -> None:
    """Of a dense last layer with features h: norm(p - y) sqrt(norm(h)^2 + 1)."""
    images, _ = inputs_of(digits, 1198)
    module = tb.module(run)
    seen: list[Tensor] = []
    list(module.children())[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        module(images)
    expected = tb.example_scores(run, digits).values * (seen[0].double().square().sum(1) + 1).sqrt()
    torch.testing.assert_close(
        tb.example_scores(run, digits, score="grand-last-layer").values, expected, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("score", ["el2n", "grand", "grand-last-layer"])
def test_an_image_scores_by_itself_and_not_by_its_batch(run: tb.Run, digits: tb.Data, score: str) -> None:
    """The gradient of a batch's mean gives images of a short last batch higher scores."""
    few, fewer = (tb.take(digits, list(range(count))) for count in (103, 101))
    values = [tb.example_scores(run, part, score=score).values for part in (few, fewer)]
    torch.testing.assert_close(values[0][:101], values[1], rtol=1e-4, atol=1e-5)


def branching(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(channels * size[0] * size[1], classes)

        def forward(self, images: Tensor) -> Tensor:
            flat = images.flatten(1)
            return self.linear(flat if flat.sum() > 0 else -flat)

    return Branching()


def test_a_network_whose_path_depends_on_values_goes_image_by_image(
    digits: tb.Data, run_of: Callable[..., tb.Run]
) -> None:
    images, labels = inputs_of(digits, 12)
    run, few = run_of(branching, digits), tb.take(digits, list(range(12)))
    scores = tb.example_scores(run, few, score="grand")
    np.testing.assert_allclose(scores.values.numpy(), gradients_by_hand(run, images, labels), rtol=1e-4)
    with pytest.raises(NetworkError, match="head"):
        tb.example_scores(run, few, score="grand-last-layer")
    last = tb.example_scores(run, few, score="grand-last-layer", head="linear")
    torch.testing.assert_close(last.values, scores.values)


@pytest.fixture
def run_of(digits: tb.Data) -> Callable[..., tb.Run]:
    """A run at the first weights of a factory."""
    return lambda factory, data: tb.run_from(tb.initialize(factory, data).start, network=factory, data=data)


def forgot(run: tb.Run, events: list[int | None]) -> tb.Run:
    learned = torch.tensor([count is not None for count in events])
    counts = torch.tensor([count or 0 for count in events], dtype=torch.int16)
    return replace(run, forgetting=ForgettingRecord(counts, learned, learned.clone()))


def test_forgetting_counts_what_was_never_learned_as_asked(run: tb.Run) -> None:
    record = forgot(run, [3, 0, None, 1])
    assert tb.forgetting_scores(record).values.tolist() == [3, 0, math.inf, 1]
    # The recipe of the fixture has three epochs, so every image was presented three times.
    counted = tb.forgetting_scores(record, never_learned="presentations")
    assert counted.values.tolist() == [3, 0, 3, 1]
    scores = tb.forgetting_scores(record)
    assert (scores.infinite, scores.unknown, scores.hard) == (1, 0, "high")
    assert scores.mean == pytest.approx(4 / 3)
    with pytest.raises(RecipeError, match="no count of what was never learned 'never'"):
        tb.forgetting_scores(record, never_learned="never")


def test_the_mean_over_runs_weighs_every_run_the_same() -> None:
    one = ExampleScores("el2n", torch.tensor([1.0, 4.0], dtype=torch.float64))
    two = ExampleScores("el2n", torch.tensor([4.0, 1.0], dtype=torch.float64), runs=2)
    mean = tb.mean_scores([one, two])
    assert (mean.values.tolist(), mean.runs) == ([3.0, 2.0], 3)
    with pytest.raises(TicketError, match=r"scores are el2n, grand of 2 images"):
        tb.mean_scores([one, replace(two, score="grand")])
    with pytest.raises(TicketError, match=r"scores are el2n of 1, 2 images"):
        tb.mean_scores([one, replace(two, values=two.values[:1])])
    with pytest.raises(RecipeError, match="no scores to take the mean of"):
        tb.mean_scores([])


def test_csv_has_a_line_for_each_image_with_all_digits() -> None:
    scores = ExampleScores("el2n", torch.tensor([0.1, math.inf, math.nan], dtype=torch.float64))
    assert scores.csv() == "image,score\n0,0.1\n1,inf\n2,\n"
    assert "1 unknown" in repr(scores)


def test_what_diverged_has_no_scores(run: tb.Run, digits: tb.Data) -> None:
    broken = replace(run, weights={name: value * math.nan for name, value in run.weights.items()})
    for score in ("el2n", "grand", "grand-last-layer"):
        with pytest.raises(TicketError, match=f"there is no {score} of this run: its .* are not all finite"):
            tb.example_scores(broken, digits, score=score)
    foreign = tb.run_from(broken.weights, network="convnet", data=digits)
    with pytest.raises(TicketError, match="the run diverged, so there is no el2n of it"):
        tb.example_scores(foreign, digits)


def test_unknown_scores_and_other_images_are_refused(run: tb.Run, digits: tb.Data, colour: tb.Data) -> None:
    with pytest.raises(RecipeError, match="no score of examples 'eln2'; did you mean 'el2n'"):
        tb.example_scores(run, digits, score="eln2")
    with pytest.raises(NetworkError, match="network convnet is for"):
        tb.example_scores(run, colour)


def test_scores_of_other_images_are_no_mean_and_select_nothing(run: tb.Run, digits: tb.Data) -> None:
    """Of as many images in another order, every number would be that of another image."""
    turned = tb.take(digits, list(range(1197, -1, -1)))
    own, other = (tb.example_scores(run, data) for data in (digits, turned))
    torch.testing.assert_close(own.values.flip(0), other.values, rtol=1e-4, atol=1e-6)
    with pytest.raises(TicketError, match="scores are of images whose labels differ"):
        tb.mean_scores([own, other])
    with pytest.raises(DataError, match="labels are not those of the train images of digits"):
        tb.select_by_score(other, digits, share=0.5)
    of_unknown_images = tb.forgetting_scores(run)
    for scores in (tb.mean_scores([own, own]), own, of_unknown_images):
        assert tb.select_by_score(scores, digits, share=0.5).count == 599
