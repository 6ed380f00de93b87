"""Searches for tickets by iterative pruning (Algorithm 1 of the paper): train, prune, rewind, and again.

A mask search gives tickets; sparse training is :func:`~tombola.training.loop.train` of one of them, with the
recipe of the search or any other. So a short search before a full training (AIMP, section 4.3) and the grid
of section 4.4 need nothing of their own::

    short = replace(recipe, epochs=20)  # its own, shorter cosine
    for ticket in mask_search(start, data, short, rounds=20):
        run = train(ticket, data, recipe)

Where both have one recipe, the training that the next mask is taken from is the sparse training (reading C4):
that is :func:`imp`. Pruning at once to a target is :func:`one_shot`. :func:`chain` and :func:`tickets` are
these searches over any way of calling (:mod:`tombola.calls`), so that they can be written down as jobs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Unpack

from tombola.calls import Call, Written, directly
from tombola.errors import RecipeError, TicketError

if TYPE_CHECKING:
    import torch

    from tombola.data.imageset import Data
    from tombola.pruning.prune import Pruning, PruningOptions, RankingOptions
    from tombola.ticket import Ticket
    from tombola.training.checkpoint import Watch
    from tombola.training.recipe import Recipe
    from tombola.training.run import Run

# Imports within functions: the command line knows this module before torch is imported.


def imp(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    rounds: int,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    same_noise: bool = False,
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
    **pruning: Unpack[PruningOptions],
) -> Iterator[Run]:
    """Search for lottery tickets: yields ``rounds + 1`` runs one after the other, the first of them dense.

    start: what every round is rewound to; with late rewinding, what :func:`~tombola.pretrain` gave.
    recipe: of mask search and sparse training alike; for two recipes see :func:`mask_search`.
    rounds: number of prunings; sparsity after n of them is 1 - (1 - fraction)^n. No more than leave a weight,
        nor than a list of fractions has.
    noise: number of the noise; each round draws its own noise from it.
    order_noise, augmentation_noise: numbers of its two causes apart, as for :func:`~tombola.train`.
    same_noise: replay the noise of round 0 in every round, as a control.
    teacher: of every round, for a recipe of loss ``"distillation"``, as for :func:`~tombola.train`.
    pruning: of each pruning ``fraction``, or a list of one for each, ``scope``, ``exclude``, ``score``,
        ``same_sign``, ``invert``, ``rewinding`` and ``rates``, as for :func:`~tombola.prune`. A score that
        asks for data gets these. With ``rewinding="learning_rate"`` a round goes on from the weights of the
        one before, by the schedule from the start's place on.

    Raises as ``train`` and ``prune`` do, at once for settings and before the first step for the rest.
    """
    from tombola.pruning.prune import Pruning

    settings = Pruning(**pruning)
    _check_search(start, data, recipe, rounds, settings, teacher)
    call = directly(device, watch)
    return chain(
        call, start, data, recipe, rounds=rounds, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, same_noise=same_noise, teacher=teacher, pruning=settings,
    )  # fmt: skip


def mask_search(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    rounds: int,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    same_noise: bool = False,
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
    **pruning: Unpack[PruningOptions],
) -> Iterator[Ticket]:
    """Search for masks only: yields ``rounds + 1`` tickets one after the other, the first the start itself.

    recipe: of the mask search; its cosine runs over its own epochs. The last ticket is not trained.
    The other arguments and errors are as for :func:`imp`. A training of a yielded ticket under the same noise
    number sees noise that none of the trainings behind its mask has seen, whichever recipe it has.
    """
    from tombola.pruning.prune import Pruning

    settings = Pruning(**pruning)
    _check_search(start, data, recipe, rounds, settings, teacher)
    call = directly(device, watch)
    return tickets(
        call, start, data, recipe, rounds=rounds, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, same_noise=same_noise, teacher=teacher, pruning=settings,
    )  # fmt: skip


def one_shot(
    start: Ticket,
    data: Data,
    recipe: Recipe,
    *,
    sparsity: float,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    teacher: Run | Ticket | None = None,
    device: str | torch.device | None = "cpu",
    watch: Watch | None = None,
    **ranking: Unpack[RankingOptions],
) -> Ticket:
    """The ticket of one training and one pruning: a mask search of a single round.

    start: dense.
    sparsity: share of the prunable weights, but for excluded ones, that is removed; between 0 and 1, both
        excluded. 1 - 0.8^n keeps as many as n rounds of iterative pruning.
    ranking: ``scope``, ``exclude``, ``score``, ``same_sign``, ``invert``, ``rewinding`` and ``rates``, as for
        :func:`~tombola.prune`.
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
        start, data, recipe, rounds=1, fraction=sparsity, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, teacher=teacher, device=device, watch=watch, **ranking,
    )  # fmt: skip
    return ticket


def chain(
    call: Call[Written],
    start: Ticket | Written,
    data: object,
    recipe: Recipe,
    *,
    rounds: int,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    same_noise: bool = False,
    teacher: Run | Ticket | Written | None = None,
    pruning: Pruning | None = None,
) -> Iterator[Run | Written]:
    """The ``rounds + 1`` runs of a pruning chain, each made by ``call`` when it is wanted.

    data: data, or what ``call`` takes for it, such as its name.
    pruning: of each round; by default of a fifth, over all layers.
    The other arguments are as for :func:`imp`.
    """
    from tombola.pruning.prune import Pruning, prune
    from tombola.training.loop import train

    pruning = pruning or Pruning()
    options = {
        "noise": noise, "noise_round": 0 if same_noise else None,
        "order_noise": order_noise, "augmentation_noise": augmentation_noise, "teacher": teacher,
    }  # fmt: skip
    run = call(train, start, data, recipe, **options)
    yield run
    for number in range(1, rounds + 1):
        ticket = call(prune, run, **pruning.options(number, data))
        run = call(train, ticket, data, recipe, **options)
        yield run


def tickets(
    call: Call[Written],
    start: Ticket | Written,
    data: object,
    recipe: Recipe,
    *,
    rounds: int,
    noise: int = 0,
    order_noise: int | None = None,
    augmentation_noise: int | None = None,
    same_noise: bool = False,
    teacher: Run | Ticket | Written | None = None,
    pruning: Pruning | None = None,
) -> Iterator[Ticket | Written]:
    """The ``rounds + 1`` tickets of a mask search, made likewise; the last one is not trained."""
    from tombola.pruning.prune import Pruning, prune

    pruning = pruning or Pruning()
    yield start
    runs = chain(
        call, start, data, recipe, rounds=rounds, noise=noise, order_noise=order_noise,
        augmentation_noise=augmentation_noise, same_noise=same_noise, teacher=teacher, pruning=pruning,
    )  # fmt: skip
    for number, run in enumerate(islice(runs, rounds), start=1):
        yield call(prune, run, **pruning.options(number, data))


def check_rounds(rounds: int, pruning: Pruning, weights: int) -> None:
    """Raises RecipeError for a negative number of prunings, or one that leaves nothing of so many weights.

    So it does for another number of prunings than there are fractions.
    """
    if rounds < 0:
        raise RecipeError(f"rounds is {rounds}; it must be 0 or more")
    if isinstance(pruning.fraction, Sequence):
        if rounds not in (0, len(pruning.fraction)):
            raise RecipeError(
                f"rounds is {rounds:,}, but fraction has {len(pruning.fraction)}; give one for each round"
            )
        left = math.prod((1 - fraction) ** count for fraction, count in pruning.prunings(rounds).items())
        if rounds and weights * left < 0.5:
            raise RecipeError(
                f"{rounds} rounds of these fractions leave nothing even of {weights:,} weights; give fewer"
            )
        return
    most = most_rounds(pruning.fraction, weights)
    if rounds > most:
        raise RecipeError(
            f"rounds is {rounds:,}; pruning {pruning.fraction:g} in each leaves nothing even of {weights:,} "
            f"weights, so give at most {most:,}"
        )


def most_rounds(fraction: float, weights: int) -> int:
    """After how many prunings of a fraction at least one of some weights is left, to the nearest weight."""
    return int(min(math.log(2 * max(weights, 1)) / max(-math.log1p(-fraction), 1e-12), 10**9))


def _check_search(
    start: Ticket, data: Data, recipe: Recipe, rounds: int, pruning: Pruning, teacher: Run | Ticket | None
) -> None:
    """Raises, before anything is trained, for what is known to fail."""
    from tombola.training.preflight import check_budget, check_place, check_teacher

    kept = sum(int(start.mask[name].sum()) for name in pruning.ranked(start))
    check_rounds(rounds, pruning, kept)
    check_budget(start.epoch, recipe)
    check_place(start, data, recipe)
    check_teacher(recipe, teacher, start.network)
