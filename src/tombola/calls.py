"""Ways of calling a function: there and then, or written down as a job.

Searches and copies of trainings are written once over a :class:`Call`. With :func:`directly` they train, with
:func:`tombola.lab.job.job` they are written down as jobs within jobs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Never, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

    from tombola.training.checkpoint import Watch

Returned = TypeVar("Returned")
Written = TypeVar("Written")
"""What stands for a result that is not computed yet: a job, or Never where calls are made at once."""
Written_co = TypeVar("Written_co", covariant=True)


class Call(Protocol[Written_co]):
    """Calls a function with arguments: returns its result, or what stands for the result."""

    def __call__(
        self, function: Callable[..., Returned], /, *arguments: object, **options: object
    ) -> Returned | Written_co: ...


def directly(device: str | torch.device | None, watch: Watch | None) -> Call[Never]:
    """The way of calling that calls at once, with the device and the watch where the function takes them."""
    runtime = {"device": device, "watch": watch}

    def call(function: Callable[..., Returned], /, *arguments: object, **options: object) -> Returned:
        parameters = inspect.signature(function).parameters
        return function(
            *arguments, **options, **{key: runtime[key] for key in runtime.keys() & parameters.keys()}
        )

    return call
