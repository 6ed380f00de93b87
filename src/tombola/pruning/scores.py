"""Scores: functions that give every prunable weight a number, by declared name; pruning keeps the highest.

Those that come with tombola are the mask criteria of Zhou et al. (2019), "Deconstructing Lottery Tickets",
and the scores of pruning at initialisation (:mod:`tombola.pruning.sensitivity`,
:mod:`tombola.pruning.synaptic_flow`).
Only surviving weights are ranked; what pruned positions score does not count.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tombola import seeds
from tombola.data.imageset import Data
from tombola.declarations import Definitions, only_version, parsed
from tombola.errors import RecipeError, TicketError, TombolaError, reason
from tombola.pruning.allocation import Values
from tombola.pruning.sensitivity import grasp, snip
from tombola.pruning.subject import Subject, stream_of, ticket_of
from tombola.pruning.synaptic_flow import synflow
from tombola.source import note_use
from tombola.ticket import Ticket
from tombola.training.run import Run

Score = Callable[..., Mapping[str, Tensor]]
"""From a run or a ticket and, if it has a parameter ``data``, data to a tensor for each prunable weight."""


def magnitude(subject: Subject) -> dict[str, Tensor]:
    """Absolute final weights. This is ``large_final`` of Zhou et al."""
    return {name: weights.abs() for name, weights in _final(subject).items()}


def small_final(subject: Subject) -> dict[str, Tensor]:
    """Negated absolute final weights: the smallest stay."""
    return _negated(magnitude(subject))


def large_init(subject: Subject) -> dict[str, Tensor]:
    """Absolute weights at the start."""
    return {name: weights.abs() for name, weights in _start(subject).items()}


def small_init(subject: Subject) -> dict[str, Tensor]:
    """Negated absolute weights at the start: the smallest stay."""
    return _negated(large_init(subject))


def large_init_large_final(subject: Subject) -> dict[str, Tensor]:
    """The smaller of a weight's two ranks, by ``large_init`` and by ``magnitude``.

    Zhou et al. keep what is in the top set of both criteria, both cut at one percentile, which they look for
    until as many are left as wanted. A weight is in both where the smaller of its ranks is above the
    percentile, so ranking by that keeps the same. A rank is the share of a layer's surviving weights that do
    not score higher; of equal scores the first is the lower.
    """
    return _smaller_rank(subject, large_init(subject), magnitude(subject))


def small_init_small_final(subject: Subject) -> dict[str, Tensor]:
    """The smaller of a weight's two ranks, by ``small_init`` and by ``small_final``, likewise."""
    return _smaller_rank(subject, small_init(subject), small_final(subject))


def magnitude_increase(subject: Subject) -> dict[str, Tensor]:
    """Absolute final weights minus absolute weights at the start."""
    before = large_init(subject)
    return {name: after - before[name] for name, after in magnitude(subject).items()}


def movement(subject: Subject) -> dict[str, Tensor]:
    """Distance of final weights from the start."""
    start = _start(subject)
    return {name: (weights - start[name]).abs() for name, weights in _final(subject).items()}


def random(subject: Subject) -> dict[str, Tensor]:
    """Uniform draws, from a stream of the dense start, the round, and the noise number of a run."""
    ticket = ticket_of(subject)
    draws = seeds.generator("random score", *stream_of(subject))
    return {name: torch.from_numpy(draws.random(tuple(keep.shape))) for name, keep in ticket.mask.items()}


DEFAULT = "magnitude"

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_scores: Definitions[Score] = Definitions(
    "score",
    "scores",
    {
        score.__name__: only_version(score)
        for score in (
            magnitude, small_final, large_init, small_init, large_init_large_final, small_init_small_final,
            magnitude_increase, movement, random, snip, grasp, synflow,
        )
    },
    RecipeError,
)  # fmt: skip


def declare_score(name: str, *, version: int = 1) -> Callable[[Score], Score]:
    """Declare a score under a lasting name, for ``score=`` of :func:`tombola.prune` and of all searches.

    The function takes ``(subject)`` or ``(subject, data)``: the :class:`~tombola.Run` that is pruned, or a
    :class:`~tombola.Ticket` that was not trained, and the data that its parameter ``data`` asks for. It
    returns a mapping from the name of each prunable weight to a tensor of that weight's shape, without NaN
    where the mask is True; the highest are kept. What it returns at pruned positions does not count. It gets
    copies of the weights. What it draws from torch's global generator comes from a stream of the dense start,
    the round and the noise number; other global generators are none of its business.

    version: to be raised when what it returns changes.

    Raises :class:`~tombola.errors.RecipeError` if the name is taken or the function takes something else.
    """

    def register(score: Score) -> Score:
        if not callable(score):
            raise RecipeError(f"score {name!r} is {score!r:.60}; it must be a function")
        signature = inspect.signature(score)
        names = list(signature.parameters)
        by_place = all(parameter.kind in _BY_PLACE for parameter in signature.parameters.values())
        if not names or names[1:] not in ([], ["data"]) or not by_place:
            raise RecipeError(f"score {name!r} takes {signature}; it must take (subject) or (subject, data)")
        _scores.declare(name, version, score)
        return score

    return register


def score_names() -> list[str]:
    """All declared scores, built-in ones first."""
    return _scores.names()


def written_score(score: str | Score) -> str:
    """Name and version of a score as in jobs; the newest version unless one is named.

    Raises :class:`~tombola.errors.RecipeError` for an unknown name or version, or a function that was never
    declared.
    """
    return _scores.written(score)


def wants_data(score: str | Score) -> bool:
    """Whether a score asks for data; errors as of :func:`written_score`."""
    return _takes_data(_function_of(written_score(score)))


def ranked_values(
    subject: Subject,
    names: Sequence[str],
    score: str | Score = DEFAULT,
    *,
    same_sign: bool = False,
    invert: bool = False,
    data: Data | None = None,
) -> dict[str, Values]:
    """The numbers by which weights are ranked, a flat float array for each weight named; high is kept.

    same_sign, invert, data: as for :func:`tombola.prune`.

    A weight that is not finite has minus infinity under every score.

    Raises :class:`~tombola.errors.TicketError` for scores of another shape, that are no numbers or rank
    nothing, and :class:`~tombola.errors.RecipeError` for an unknown score or one that lacks its data.
    """
    declared = written_score(score)
    returned = _returned(declared, subject, data)
    final, mask = _final(subject), ticket_of(subject).mask
    values: dict[str, Values] = {}
    competitors: list[Values] = []
    finite = {name: torch.isfinite(final[name]).numpy().reshape(-1) for name in names}
    for name in names:
        layer = _checked_values(declared, name, returned, mask[name])
        competitors.append(layer[mask[name].numpy().reshape(-1) & finite[name]])
        values[name] = -layer if invert else layer
    check_ranking(declared, names, competitors)
    if same_sign:
        start = _start(subject)
        same = {name: (torch.sign(final[name]) == torch.sign(start[name])).numpy() for name in names}
        values = _other_sign_first(values, same)
    return {
        name: layer
        if finite[name].all()
        else np.where(finite[name], layer, -np.inf).astype(layer.dtype, copy=False)
        for name, layer in values.items()
    }


def check_ranking(declared: str, names: Sequence[str], competitors: Sequence[Values]) -> None:
    """Raises TicketError for scores that are NaN or rank nothing.

    declared: as :func:`written_score` returns it. competitors: scores of the weights that are left, by layer.
    """
    lowest, highest, ranked = np.inf, -np.inf, 0
    lost = ""
    for name, layer in zip(names, competitors, strict=True):
        if not len(layer):
            lost = lost or f"; of {name} nothing is left, so that nothing passes through it"
        else:
            # NaN is the smallest and the largest of any numbers that it stands among.
            low, high = layer.min(), layer.max()
            if np.isnan(low):
                raise TicketError(f"score {declared} is NaN for some of {name}; it must be a number")
            lowest, highest, ranked = min(lowest, low), max(highest, high), ranked + len(layer)
    # Equal magnitudes have always gone by position; of two equal scores either may well be the right one.
    if declared != DEFAULT and ranked > 2 and lowest == highest:
        raise TicketError(
            f"score {declared} is the same for all weights that are left, so it ranks nothing{lost}"
        )


def _other_sign_first(
    values: Mapping[str, Values], same: Mapping[str, npt.NDArray[np.bool_]]
) -> dict[str, Values]:
    """The rank of each value among all, those of another sign below the others and in their own order."""
    _, ranks = np.unique(np.concatenate(list(values.values())), return_inverse=True)
    ends = np.cumsum([len(layer) for layer in values.values()])[:-1]
    split = np.split(ranks.astype(np.float64), ends)
    return {
        name: layer + len(ranks) * same[name].reshape(-1) for name, layer in zip(values, split, strict=True)
    }


def nonfinite_count(subject: Subject, names: Sequence[str]) -> int:
    """How many of the surviving weights of these names are not finite."""
    final, mask = _final(subject), ticket_of(subject).mask
    return sum(int((~torch.isfinite(final[name]) & mask[name]).sum()) for name in names)


def _function_of(declared: str) -> Score:
    name, version = parsed(declared)
    return _scores.find(name, version or 1)


def _takes_data(function: Score) -> bool:
    return "data" in inspect.signature(function).parameters


def _returned(declared: str, subject: Subject, data: Data | None) -> Mapping[str, Tensor]:
    """What a score's function returns for a run or ticket."""
    note_use("scores", declared)
    function = _function_of(declared)
    arguments: tuple[Any, ...] = ()
    if _takes_data(function):
        if data is None:
            raise RecipeError(f"score {declared} asks for data; give data=...")
        if not isinstance(data, Data):
            raise RecipeError(f"data is {data!r:.60}; load it first, by tombola.load_data")
        arguments = (data,)
    if _scores.is_built_in(parsed(declared)[0]):
        return function(subject, *arguments)
    try:
        with seeds.torch_stream(f"score {declared}", *stream_of(subject)):
            scores = function(_copied(subject), *arguments)
    except TombolaError:
        raise
    except Exception as error:  # a user's function
        raise TicketError(f"score {declared} failed: {type(error).__name__}: {reason(error)}") from error
    if not isinstance(scores, Mapping):
        raise TicketError(
            f"score {declared} gave a {type(scores).__name__}; it must be a dict of a tensor for each weight"
        )
    return scores


def _copied(subject: Subject) -> Subject:
    """The same run or ticket, whose tensors a user's function may change in place."""
    ticket = ticket_of(subject)
    trained = None if ticket.trained is None else _clones(ticket.trained)
    ticket = replace(ticket, start=_clones(ticket.start), mask=_clones(ticket.mask), trained=trained)
    if isinstance(subject, Ticket):
        return ticket
    return replace(subject, ticket=ticket, weights=_clones(subject.weights))


def _clones(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _checked_values(declared: str, name: str, returned: Mapping[str, Tensor], keep: Tensor) -> Values:
    """The scores of a weight, flat; TicketError if there are none or they have another shape."""
    if name not in returned:
        raise TicketError(f"score {declared} gave nothing for {name}; it must score every prunable weight")
    scores = returned[name]
    shape: object = tuple(scores.shape) if isinstance(scores, Tensor) else f"a {type(scores).__name__}"
    if isinstance(scores, Tensor) and scores.is_meta:
        raise TicketError(f"score {declared} takes the start of a run, and of this run that is not known")
    if isinstance(scores, Tensor) and scores.is_complex():
        shape = "complex numbers"
    if shape != tuple(keep.shape):
        raise TicketError(
            f"score {declared} gave {shape} for {name}; it must be a tensor {tuple(keep.shape)}"
        )
    scores = scores.detach().cpu()
    values: Values = (scores if scores.dtype == torch.float32 else scores.double()).numpy().reshape(-1)
    return values


def _final(subject: Subject) -> dict[str, Tensor]:
    """The prunable weights after training; of a ticket those that training starts from, pruned ones too."""
    if isinstance(subject, Run):
        weights = subject.weights
    else:
        weights = subject.known_start() if subject.trained is None else subject.trained
    return {name: weights[name].detach().cpu() for name in ticket_of(subject).mask}


def _start(subject: Subject) -> dict[str, Tensor]:
    """The prunable weights at the ticket's start: the chain's, also of one with trained weights."""
    ticket = ticket_of(subject)
    start = ticket.known_start()
    return {name: start[name] for name in ticket.mask}


def _negated(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: -values for name, values in scores.items()}


def _smaller_rank(
    subject: Subject, first: Mapping[str, Tensor], second: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The smaller of the two ranks of each weight among the surviving ones of its layer."""
    mask = ticket_of(subject).mask
    return {
        name: torch.minimum(_ranks(first[name], keep), _ranks(second[name], keep))
        for name, keep in mask.items()
    }


def _ranks(scores: Tensor, keep: Tensor) -> Tensor:
    """The rank of each surviving weight, from 1/n for the lowest of n to 1; 0 at pruned positions."""
    surviving = scores[keep]
    order = torch.argsort(torch.where(torch.isfinite(surviving), surviving, -torch.inf), stable=True)
    ranks = torch.empty(len(order), dtype=torch.float64)
    ranks[order] = torch.arange(1, len(order) + 1, dtype=torch.float64) / max(len(order), 1)
    return torch.zeros(keep.shape, dtype=torch.float64).masked_scatter_(keep, ranks)
