"""Iterative magnitude pruning (Algorithm 1 of the paper): train, prune, rewind, and again.

The chain is written once, over any way of calling a function: called directly it trains, called through
:func:`tombola.lab.job.job` it is written down as jobs within jobs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tombola.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tombola.data.imageset import Data
    from tombola.pruning.prune import Scope
    from tombola.ticket import Ticket
    from tombola.training.checkpoint import Watch
    from tombola.training.recipe import Recipe
    from tombola.training.run import Run


def imp(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    rounds: int,
    fraction: float = 0.2,
    noise: int = 0,
    same_noise: bool = False,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Iterator[Run]:
    """Search for lottery tickets: yields ``rounds + 1`` runs one after the other, the first of them dense.

    start: what every round is rewound to; with late rewinding, what :func:`~tombola.pretrain` gave.
    recipe: of the mask search. For sparse training with another one, ``train`` the ticket of a yielded run.
    rounds: number of prunings; sparsity after n of them is 1 - (1 - fraction)^n.
    fraction: share of the surviving weights that each round prunes.
    noise: number of the noise; each round draws its own noise from it.
    same_noise: replay the noise of round 0 in every round, as a control.
    scope, exclude: as for :func:`~tombola.prune`.

    Raises as ``train`` and ``prune`` do, at once for settings and before the first step for the rest.
    """
    from tombola.pruning.prune import check_pruning

    check_pruning(start, fraction, scope, exclude)
    check_rounds(rounds)
    return chain(
        calling(device, watch), start, data, recipe, rounds=rounds, fraction=fraction, noise=noise,
        same_noise=same_noise, scope=scope, exclude=exclude,
    )  # fmt: skip


def calling(device: str | torch.device | None, watch: Watch | None) -> Callable[..., Any]:
    """A way of calling a function at once: on that device and under that watch, where it takes them."""

    def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        taken = inspect.signature(function).parameters
        runtime = {"device": device, "watch": watch}
        return function(*arguments, **options, **{key: runtime[key] for key in runtime.keys() & taken.keys()})

    return call


def check_rounds(rounds: int) -> None:
    """Refuse a negative number of prunings."""
    if rounds < 0:
        raise RecipeError(f"rounds is {rounds}; it must be 0 or more")


def chain(
    call: Callable[..., Any],
    start: Any,
    data: Any,
    recipe: Recipe,
    *,
    rounds: int,
    fraction: float = 0.2,
    noise: int = 0,
    same_noise: bool = False,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
) -> Iterator[Any]:
    """The runs of a pruning chain, each made by ``call(function, *arguments, **options)``."""
    from tombola.pruning.prune import prune
    from tombola.training.loop import train

    ticket = start
    for round_ in range(rounds + 1):
        run = call(train, ticket, data, recipe, noise=noise, noise_round=0 if same_noise else None)
        yield run
        if round_ < rounds:
            ticket = call(prune, run, fraction=fraction, scope=scope, exclude=tuple(exclude))
