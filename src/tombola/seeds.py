"""Named random streams: every draw in tombola comes from the stream of its own key, never from a global seed.

A key is a stream's name and its numbers, say ``("order", noise, round, epoch)``. It is hashed into the
entropy of a :class:`numpy.random.SeedSequence`, so that no two keys share a stream and changing one number
changes no other stream. All draws happen on the CPU: the stream is the same on every device.
"""

from __future__ import annotations

import hashlib
import json
import operator
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

from tombola.errors import RecipeError

if TYPE_CHECKING:  # The command line reads NOISES and must wait neither for numpy nor for torch.
    import numpy as np
    import torch

borrowing = threading.RLock()
"""Held while a thread uses torch's global generators, which belong to the whole process."""


NOISES = {"order_noise": "noise", "augmentation_noise": "noise"}
"""The arguments that number the two causes of noise apart, with that which they default to."""


@dataclass(frozen=True)
class Streams:
    """The numbers that key the random streams of one training.

    noise: of causes without a number of their own. round: of the pruning chain.
    order: of the data order. augmentation: of the crops and flips.
    """

    noise: int
    round: int
    order: int
    augmentation: int

    @classmethod
    def of(
        cls, noise: int, round: int, order_noise: int | None = None, augmentation_noise: int | None = None
    ) -> Streams:
        """The streams of a training with these arguments; None stands for the number of the noise.

        Raises :class:`~tombola.errors.RecipeError` for a number that is not whole.
        """
        numbers = {
            "noise": noise,
            "round": round,
            "order_noise": noise if order_noise is None else order_noise,
            "augmentation_noise": noise if augmentation_noise is None else augmentation_noise,
        }
        for name, number in numbers.items():
            if not isinstance(number, Integral):
                raise RecipeError(f"{name} is {number!r:.60}; it must be a whole number")
        return cls(*map(int, numbers.values()))

    @property
    def order_noise(self) -> int | None:
        """The number of the data order; None where it is that of the noise."""
        return None if self.order == self.noise else self.order

    @property
    def augmentation_noise(self) -> int | None:
        """The number of the augmentation; None where it is that of the noise."""
        return None if self.augmentation == self.noise else self.augmentation


def sequence(stream: str, *numbers: int) -> np.random.SeedSequence:
    """The numpy seed sequence of one key.

    The key is hashed rather than handed to numpy as a list of integers, because ``SeedSequence([1])`` and
    ``SeedSequence([1, 0])`` are the same sequence.
    """
    import numpy as np

    try:
        key = json.dumps([stream, *(operator.index(number) for number in numbers)])
    except TypeError:
        raise ValueError(f"the numbers of stream {stream!r} are {numbers}; they must be whole") from None
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.SeedSequence(np.frombuffer(digest, dtype="<u4").tolist())


def generator(stream: str, *numbers: int) -> np.random.Generator:
    """A fresh numpy generator at the start of the stream ``(stream, *numbers)``."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(sequence(stream, *numbers)))


@contextmanager
def torch_stream(stream: str, *numbers: int, device: torch.device | None = None) -> Iterator[None]:
    """Context in which torch's global CPU generator stands at the start of a keyed stream.

    Module constructors draw their weights from the global generator. Afterwards it is where it was before.

    device: a GPU, whose global generator is set likewise.
    """
    with torch_seeded(int(sequence(stream, *numbers).generate_state(1, "uint64")[0]), device):
        yield


@contextmanager
def torch_seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Context in which torch's global generators, of the CPU and of a GPU that is given, start at a seed.

    Other threads that want them wait. Afterwards they are where they were before.
    """
    import torch

    gpus = []
    if device is not None and device.type == "cuda":
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    with borrowing, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


def drawn_from(work: Callable[[], object]) -> set[str]:
    """Those of the global generators ``"torch"``, ``"numpy"`` and ``"random"`` that some work draws from.

    work: done once if it draws from none or from torch's alone, and up to three times otherwise: numpy's and
        Python's may have been moved by another thread, but hardly each time.
    """
    drawn = {"torch", "numpy", "random"}
    with borrowing:
        for _ in range(3):
            before = _global_states()
            work()
            after = _global_states()
            drawn &= {name for name, state in after.items() if state != before[name]}
            if drawn <= {"torch"}:
                break
    return drawn


def _global_states() -> dict[str, Any]:
    """The states of the global generators, to be compared."""
    import numpy as np
    import torch

    _, key, *place = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (np.asarray(key).tobytes(), *place),
        "random": random.getstate(),
    }
