"""Pruning chains as jobs: the library's own chain, written down instead of run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from tombola.data.imageset import Data
from tombola.errors import RecipeError, TicketError, unknown
from tombola.lab.job import Job, job
from tombola.networks.network import Network, prunable_names
from tombola.pruning.prune import Scope, check_fraction, check_scope
from tombola.search import chain, check_rounds, tickets
from tombola.ticket import initialize
from tombola.training.loop import check_rewind, pretrain
from tombola.training.recipe import Recipe


def start_job(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rewind: int = 0,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
) -> Job:
    """The start of a chain: an initialisation, pretrained for ``rewind`` epochs if that is not 0.

    init: initialisation scheme, as for :func:`tombola.initialize`.
    pretraining_noise: number of the noise of the pretraining; by default the seed. Under the chain's own
        number a rewound dense training goes on as if there had been no rewinding (at momentum 0, to the bit).
    """
    if isinstance(network, str):
        Network.of(network, channels=1, size=(1, 1), classes=1)  # refuses an unknown name
    start = job(initialize, network, data, seed=seed, init=init)
    if rewind == 0:
        return start
    check_rewind(rewind, recipe)
    noise = seed if pretraining_noise is None else pretraining_noise
    return job(pretrain, start, data, recipe, epochs=rewind, noise=noise)


def imp_jobs(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rounds: int,
    rewind: int = 0,
    fraction: float = 0.2,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    same_noise: bool = False,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
) -> list[Job]:
    """The ``rounds + 1`` trainings of a pruning chain, the first of them dense.

    rewind: epoch that every round goes back to; 0 is the initialisation.
    seed: number of both the initialisation and the noise.
    init, pretraining_noise: as for :func:`start_job`.
    The other arguments are as for :func:`tombola.imp`.
    """
    return _written(
        chain, network, data, recipe, rounds, rewind, fraction, scope, exclude, same_noise, seed, init,
        pretraining_noise,
    )  # fmt: skip


def ticket_jobs(
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    *,
    rounds: int,
    rewind: int = 0,
    fraction: float = 0.2,
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    same_noise: bool = False,
    seed: int = 0,
    init: str | None = None,
    pretraining_noise: int | None = None,
) -> list[Job]:
    """The ``rounds + 1`` tickets of a mask search, the first of them its start.

    recipe: of the mask search. For sparse training by another one (AIMP, section 4.3; the grid of section
        4.4) write down ``job(train, tickets[n], data, other, noise=seed)`` for the rounds that are wanted.
        One-shot pruning is a single round with the sparsity as its fraction.
    The other arguments are as for :func:`imp_jobs`, whose trainings these tickets share.
    """
    return _written(
        tickets, network, data, recipe, rounds, rewind, fraction, scope, exclude, same_noise, seed, init,
        pretraining_noise,
    )  # fmt: skip


def _written(
    search: Callable[..., Iterator[Job]],
    network: str,
    data: str | os.PathLike[str] | Data | Job,
    recipe: Recipe,
    rounds: int,
    rewind: int,
    fraction: float,
    scope: str,
    exclude: Sequence[str],
    same_noise: bool,
    seed: int,
    init: str | None,
    pretraining_noise: int | None,
) -> list[Job]:
    """What a search gives, as jobs, after everything was refused that can be before anything is trained."""
    check_fraction(fraction)
    check_rounds(rounds)
    check_scope(scope)
    if isinstance(exclude, str):
        raise RecipeError(f"exclude is {exclude!r}; it must be a list of names, such as [{exclude!r}]")
    if exclude:
        _check_names(network, exclude)
    start = start_job(
        network, data, recipe, rewind=rewind, seed=seed, init=init, pretraining_noise=pretraining_noise
    )
    return list(
        search(
            job, start, data, recipe, rounds=rounds, fraction=fraction, noise=seed, same_noise=same_noise,
            scope=scope, exclude=exclude,
        )
    )  # fmt: skip


def _check_names(network: str, exclude: Sequence[str]) -> None:
    """Refuse names of weights that the network does not have, before anything is trained."""
    # Which weights there are does not depend on the images.
    known = prunable_names(Network.of(network, channels=3, size=(32, 32), classes=10).initialized(0))
    for name in exclude:
        if name not in known:
            raise TicketError(unknown(f"prunable weight of {network}", name, known))
