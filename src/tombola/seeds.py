"""Named random streams: every draw in tombola comes from the stream of its own key, never from a global seed.

A key is a stream's name and its numbers, say ``("order", noise, round, epoch)``. It is hashed into the
entropy of a :class:`numpy.random.SeedSequence`, so that no two keys share a stream and changing one number
changes no other stream. All draws happen on the CPU: the stream is the same on every device.
"""

from __future__ import annotations

import hashlib
import json
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# torch's global generator belongs to the whole process, so only one thread at a time may borrow it.
_borrowing = threading.RLock()


def sequence(stream: str, *numbers: int) -> np.random.SeedSequence:
    """The numpy seed sequence of one key.

    The key is hashed rather than handed to numpy as a list of integers, because ``SeedSequence([1])`` and
    ``SeedSequence([1, 0])`` are the same sequence.
    """
    try:
        key = json.dumps([stream, *(operator.index(number) for number in numbers)])
    except TypeError:
        raise ValueError(f"the numbers of stream {stream!r} are {numbers}; they must be whole") from None
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.SeedSequence(np.frombuffer(digest, dtype="<u4").tolist())


def generator(stream: str, *numbers: int) -> np.random.Generator:
    """A fresh numpy generator at the start of the stream ``(stream, *numbers)``."""
    return np.random.Generator(np.random.PCG64(sequence(stream, *numbers)))


@contextmanager
def torch_stream(stream: str, *numbers: int) -> Iterator[None]:
    """Context in which torch's global CPU generator stands at the start of a keyed stream.

    Module constructors draw their weights from the global generator. Afterwards it is where it was before.
    """
    import torch

    seed = int(sequence(stream, *numbers).generate_state(1, np.uint64)[0])
    with _borrowing, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
