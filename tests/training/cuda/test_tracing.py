"""Tracing a network disturbs no other thread, and is not disturbed by one."""

from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, fx, nn

from tombola.training.cuda.tracing import traced


class Meeting(nn.Module):
    """Lets something happen in another thread in the middle of its own trace."""

    def __init__(self, meanwhile) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self._meanwhile = meanwhile

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        self._meanwhile()
        out: Tensor = self.second(x)
        return out


class Own(nn.Module):
    """A network with a parameter of its own, read in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.scale = nn.Parameter(torch.full((3,), 2.0))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x) * self.scale
        return out


@pytest.fixture
def others() -> ThreadPoolExecutor:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def leaves(module: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in module.graph.nodes if node.op == "call_module"]


def test_another_thread_computes_as_ever_while_a_network_is_traced(others: ThreadPoolExecutor) -> None:
    own, images = Own(), torch.randn(5, 4)
    expected = own(images)
    seen: list[Tensor] = []
    traced(Meeting(lambda: seen.append(others.submit(own, images).result())))
    assert torch.equal(seen[0], expected)


def test_two_threads_trace_one_after_the_other_and_leave_modules_as_they_were(
    others: ThreadPoolExecutor,
) -> None:
    before = nn.Module.__call__
    waiting: list[Future[fx.GraphModule]] = []
    found = traced(Meeting(lambda: waiting.append(others.submit(traced, Own()))))
    assert leaves(found) == ["first", "second"]
    assert leaves(waiting[0].result()) == ["layers.0", "layers.1", "layers.2"]
    assert nn.Module.__call__ is before
