"""Networks that draw in training mode, on a GPU: captured, fused, packed, killed and resumed."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola as tb
from tombola.training import evaluation
from tombola.training.checkpoint import Checkpoints
from tombola.training.cuda import capture as capture_module
from tombola.training.cuda.capture import CapturedSteps, forget_engines
from tombola.training.device import repeatable
from tombola.training.epoch import DevicePlan

Same = Callable[..., bool]

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
]

CUDA = torch.device("cuda")


def dropping() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout2d(0.3),
        nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(256, 10),
    )  # fmt: skip


class OnCpu(nn.Module):
    """Scales the images by a draw on the CPU, for which no GPU is waited for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (0.5 + float(torch.rand(()))) if self.training else x


def drawing_on_cpu() -> nn.Module:
    return nn.Sequential(OnCpu(), nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture(autouse=True)
def _no_engine_left() -> Iterator[None]:
    yield
    forget_engines()


def train(factory: Callable[[], nn.Module], data: tb.Data, **options: object) -> tb.Run:
    recipe = tb.Recipe(epochs=3, batch_size=100, lr=0.05)
    return tb.train(tb.initialize(factory, data), data, recipe, device="cuda", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("fused", [True, False])
def test_replayed_steps_give_the_bits_of_the_same_steps_taken_one_by_one(
    digits: tb.Data, monkeypatch: pytest.MonkeyPatch, same_run: Same, fused: bool
) -> None:
    if not fused:
        monkeypatch.setattr(evaluation, "_fused_network", lambda *_: None)
    before = torch.cuda.get_rng_state()
    graphed = train(dropping, digits)
    assert graphed.engine == f"graphed, {'fused' if fused else 'plain'}"
    assert torch.equal(before, torch.cuda.get_rng_state())

    class Launched:
        def __init__(
            self, work: Callable[[], None], pool: object, *, before: object, generator: torch.Generator | None
        ) -> None:
            self._work, self._generator = work, generator

        def replay(self) -> None:
            if self._generator is None:
                self._work()
                return
            torch.cuda.manual_seed(self._generator.initial_seed())
            self._work()

    forget_engines()
    monkeypatch.setattr(capture_module, "capture", Launched)
    assert same_run(train(dropping, digits), graphed)


@pytest.mark.filterwarnings("ignore:network .* cannot be captured")
@pytest.mark.parametrize("factory", [dropping, drawing_on_cpu])
def test_killed_and_resumed_or_packed_with_others_it_gives_the_bits_of_one_alone(
    digits: tb.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_run: Same,
    factory: Callable[[], nn.Module], interrupting: type[Any],
) -> None:  # fmt: skip
    monkeypatch.setattr("tombola.training.engines.STRETCH", 5)  # epochs of twelve steps: 5, 5 and 2
    alone = [train(factory, digits, noise=noise) for noise in range(4)]
    assert not same_run(alone[0], alone[1])
    for after in (1, 2, 3, 5):
        folder = tmp_path / str(after)
        folder.mkdir()
        with pytest.raises(interrupting.Interrupted):
            train(factory, digits, noise=1, watch=interrupting(folder, after))
        torch.cuda.manual_seed(after)
        forget_engines()
        assert same_run(train(factory, digits, noise=1, watch=Checkpoints(folder, every=0)), alone[1])
    packed: dict[int, tb.Run] = {}
    forget_engines()

    def work(noise: int) -> None:
        packed[noise] = train(factory, digits, noise=noise)

    threads = [threading.Thread(target=work, args=(noise,)) for noise in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_run(packed[noise], alone[noise]) for noise in range(4))


def test_what_draws_on_the_cpu_takes_plain_steps_and_says_so(digits: tb.Data) -> None:
    with pytest.warns(UserWarning, match="trains step by step: it draws random numbers on the CPU"):
        assert train(drawing_on_cpu, digits).engine == "eager"


def test_replayed_draws_have_the_share_of_dropout_follow_their_seeds_and_differ_from_step_to_step() -> None:
    with repeatable(CUDA):
        plan = DevicePlan.empty(70, 10, CUDA)
        kept = torch.zeros(7, 100_000, dtype=torch.bool, device=CUDA)
        ones = torch.ones(100_000, device=CUDA)

        def take(size: int) -> None:
            kept.index_copy_(0, plan.step, (functional.dropout(ones, 0.3) > 0).view(1, -1))

        steps = CapturedSteps(take, plan, torch.Generator(plan.step.device))
        drawn = []
        for seeds in (range(7), range(7), range(7, 14)):
            steps.replay(0, 7, seeds)
            drawn.append(kept.cpu())
    assert torch.equal(drawn[0], drawn[1])
    masks = torch.cat(drawn[1:])
    assert len({mask.numpy().tobytes() for mask in masks}) == 14
    # Six standard deviations of the binomial.
    assert ((masks.double().mean(1) - 0.7).abs() < 6 * (0.7 * 0.3 / 100_000) ** 0.5).all()
    torch.cuda.manual_seed(3)
    assert torch.equal((functional.dropout(ones, 0.3) > 0).cpu(), drawn[0][3])
