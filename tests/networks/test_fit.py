"""Networks that do not fit their data are refused in one line that says what to change."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tombola as tb
from tombola.errors import NetworkError


class Giving(nn.Module):
    """A linear layer whose outputs come in another form."""

    def __init__(
        self, form: Callable[[Tensor], Any], outputs: int = 10, *, training_only: bool = False
    ) -> None:
        super().__init__()
        self.linear, self.form, self.training_only = nn.Linear(64, outputs), form, training_only

    def forward(self, images: Tensor) -> Any:
        logits = self.linear(images.flatten(1))
        return logits if self.training_only and not self.training else self.form(logits)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda x: (x, x), r"gives a tuple of 2; .* the logits \(1, 10\): wrap it .*returns outputs\[0\]"),
        (
            lambda x: {"aux": x, "logits": x},
            r"gives a dict of 'aux', 'logits'; .*returns outputs\['logits'\]",
        ),
        (
            lambda x: x[:, None, None],
            r"gives \(1, 1, 1, 10\) for one image; .*classes last at each position: aver",
        ),
        (
            lambda x: x[..., None, None],
            r"gives \(1, 10, 1, 1\) for one image; .*classes at each position: average",
        ),
        (
            lambda x: x[:, :1],
            r"gives \(1, 1\) for one image; wanted \(1, 10\): let its factory take num_classes",
        ),
        (lambda x: x.squeeze(), r"gives \(10,\) for one image; wanted \(1, 10\)"),
        (lambda x: x.sum().item(), r"gives a float; it must give one tensor"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(
    digits: tb.Data, form: Callable[[Tensor], Any], words: str
) -> None:
    with pytest.raises(NetworkError, match=words) as caught:
        tb.initialize(lambda: Giving(form), digits)
    assert "\n" not in str(caught.value)


def test_outputs_that_are_no_logits_in_training_alone_are_refused_before_it(digits: tb.Data) -> None:
    start = tb.initialize(lambda: Giving(lambda x: (x, x), training_only=True), digits)
    with pytest.raises(NetworkError, match="gives a tuple of 2"):
        tb.train(start, digits, tb.Recipe(epochs=1))


def test_one_class_is_refused() -> None:
    split = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(NetworkError, match="1 class to tell; give data of two or more"):
        tb.initialize("convnet", tb.data_from_tensors(split, split))


def test_a_lazy_layer_is_refused(digits: tb.Data) -> None:
    with pytest.raises(NetworkError, match=r"lazy layer, whose 1\.weight .*; give it its number of inputs"):
        tb.initialize(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), digits)


def test_a_network_that_cannot_take_the_images_says_why(digits: tb.Data) -> None:
    def refuse(x: Tensor) -> Tensor:
        raise AssertionError("Input height (8) does not match (224)")

    with pytest.raises(NetworkError, match=r"cannot take 1x8x8 images: AssertionError: Input height \(8\)"):
        tb.initialize(lambda: Giving(refuse), digits)
