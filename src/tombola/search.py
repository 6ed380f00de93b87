"""Searches for tickets by magnitude pruning (Algorithm 1 of the paper): train, prune, rewind, and again.

A mask search gives tickets; sparse training is :func:`~tombola.training.loop.train` of one of them, with the
recipe of the search or any other. So a short search before a full training (AIMP, section 4.3) and the grid
of section 4.4 need nothing of their own::

    short = replace(recipe, epochs=20)  # its own, shorter cosine
    for ticket in mask_search(start, data, short, rounds=20):
        run = train(ticket, data, recipe)

Where both have one recipe, the training that the next mask is taken from is the sparse training (reading C4):
that is :func:`imp`. Pruning at once to a target is :func:`one_shot`.

Each search is written once, over any way of calling a function: called directly it trains, called through
:func:`tombola.lab.job.job` it is written down as jobs within jobs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tombola.errors import RecipeError, TicketError

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
    recipe: of mask search and sparse training alike; for two recipes see :func:`mask_search`.
    rounds: number of prunings; sparsity after n of them is 1 - (1 - fraction)^n.
    fraction: share of the surviving weights that each round prunes.
    noise: number of the noise; each round draws its own noise from it.
    same_noise: replay the noise of round 0 in every round, as a control.
    scope, exclude: as for :func:`~tombola.prune`.

    Raises as ``train`` and ``prune`` do, at once for settings and before the first step for the rest.
    """
    _check(start, recipe, rounds, fraction, scope, exclude)
    return chain(
        directly(device, watch), start, data, recipe, rounds=rounds, fraction=fraction, noise=noise,
        same_noise=same_noise, scope=scope, exclude=exclude,
    )  # fmt: skip


def mask_search(
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
) -> Iterator[Ticket]:
    """Search for masks only: yields ``rounds + 1`` tickets one after the other, the first the start itself.

    recipe: of the mask search; its cosine runs over its own epochs. The last ticket is not trained.
    The other arguments and errors are as for :func:`imp`. A training of a yielded ticket under the same noise
    number sees noise that none of the trainings behind its mask has seen, whichever recipe it has.
    """
    _check(start, recipe, rounds, fraction, scope, exclude)
    return tickets(
        directly(device, watch), start, data, recipe, rounds=rounds, fraction=fraction, noise=noise,
        same_noise=same_noise, scope=scope, exclude=exclude,
    )  # fmt: skip


def one_shot(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    sparsity: float,
    noise: int = 0,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
) -> Ticket:
    """The ticket of one training and one pruning: a mask search of a single round.

    start: dense.
    sparsity: share of the prunable weights, but for excluded ones, that is removed; between 0 and 1, both
        excluded. 1 - 0.8^n keeps as many as n rounds of iterative pruning.
    The other arguments and errors are as for :func:`mask_search`. The ticket is of round 1.

    Raises :class:`~tombola.errors.TicketError` for a start that is sparse already.
    """
    if not 0 < sparsity < 1:
        raise RecipeError(f"sparsity is {sparsity}; it must lie between 0 and 1, both excluded")
    if start.kept < start.total:
        raise TicketError(
            f"the start of one-shot pruning has sparsity {start.sparsity:.4f} already; give a dense one, "
            "such as densify(ticket)"
        )
    _, ticket = mask_search(
        start, data, recipe, rounds=1, fraction=sparsity, noise=noise, scope=scope, exclude=exclude,
        device=device, watch=watch,
    )  # fmt: skip
    return ticket


def _check(
    start: Ticket, recipe: Recipe, rounds: int, fraction: float, scope: str, exclude: Sequence[str]
) -> None:
    """Refuse what is known to fail before anything is trained."""
    from tombola.pruning.prune import check_pruning
    from tombola.training.preflight import check_budget

    check_pruning(start, fraction, scope, exclude)
    check_rounds(rounds)
    check_budget(start.epoch, recipe)


def check_rounds(rounds: int) -> None:
    """Refuse a negative number of prunings."""
    if rounds < 0:
        raise RecipeError(f"rounds is {rounds}; it must be 0 or more")


def directly(device: str | torch.device | None, watch: Watch | None) -> Callable[..., Any]:
    """The way of calling a function that makes the call there and then, on a device and watched."""
    runtime = {"device": device, "watch": watch}

    def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        taken = inspect.signature(function).parameters
        return function(*arguments, **options, **{key: runtime[key] for key in runtime.keys() & taken.keys()})

    return call


class Pruning(TypedDict, total=False):
    """How a search prunes and under which noise; all as for :func:`imp`."""

    fraction: float
    noise: int
    same_noise: bool
    scope: Scope
    exclude: Sequence[str]


def chain(
    call: Callable[..., Any],
    start: Any,
    data: Any,
    recipe: Recipe,
    *,
    rounds: int,
    **pruning: Unpack[Pruning],
) -> Iterator[Any]:
    """The ``rounds + 1`` runs of a pruning chain, each made by ``call(function, *arguments, **options)``."""
    return islice(_by_turns(call, start, data, recipe, **pruning), 1, 2 * rounds + 2, 2)


def tickets(
    call: Callable[..., Any],
    start: Any,
    data: Any,
    recipe: Recipe,
    *,
    rounds: int,
    **pruning: Unpack[Pruning],
) -> Iterator[Any]:
    """The ``rounds + 1`` tickets of a mask search, made likewise; the last one is not trained."""
    return islice(_by_turns(call, start, data, recipe, **pruning), 0, 2 * rounds + 1, 2)


def _by_turns(
    call: Callable[..., Any],
    start: Any,
    data: Any,
    recipe: Recipe,
    *,
    fraction: float = 0.2,
    noise: int = 0,
    same_noise: bool = False,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
) -> Iterator[Any]:
    """The start, its run, the next ticket, its run, and so on without end, each made when it is asked for."""
    from tombola.pruning.prune import prune
    from tombola.training.loop import train

    ticket = start
    while True:
        yield ticket
        run = call(train, ticket, data, recipe, noise=noise, noise_round=0 if same_noise else None)
        yield run
        ticket = call(prune, run, fraction=fraction, scope=scope, exclude=tuple(exclude))
