"""What a study of one's own asks for, as jobs: its chains, and measures of one run or between several."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from tombola.data.imageset import Data
from tombola.errors import RecipeError, StudyError, unknown
from tombola.lab.arguments import alternatives, face, item_hint
from tombola.lab.chains import as_job, imp_jobs
from tombola.lab.job import Job, job, result_type
from tombola.lab.results import number_names
from tombola.measures.instability import copies
from tombola.registry import declaration
from tombola.studies.own import COPIES, ROUNDS, Measures, OwnStudy
from tombola.ticket import Ticket
from tombola.training.recipe import Recipe
from tombola.training.run import Run

Take = Callable[[Sequence[Job]], list[Job]]
"""From the runs that a measure is taken of, one or several, to the measures."""


@dataclass(frozen=True)
class Row:
    """One measure of one chain at one round.

    recipe: the fields in which the recipes of the study differ. jobs: one a run; of a measure of two runs one
    a pair. between: the runs that it was taken between, such as ``"copies"``; empty for a single one.
    quantity: the number of it that is wanted, such as ``"height"``; empty for all.
    """

    network: str
    data: str
    recipe: Mapping[str, Any]
    round: int
    sparsity: float
    measure: str
    jobs: tuple[Job, ...]
    between: str = ""
    quantity: str = ""


def own_rows(study: OwnStudy) -> list[Row]:
    """Everything that a study measures, as jobs.

    Raises what :func:`~tombola.lab.chains.imp_jobs` and :func:`~tombola.lab.job.job` raise, and
    :class:`~tombola.errors.StudyError` for a measure of something else than runs or tickets.
    """
    rows = []
    for network, data, (varied, recipe) in itertools.product(study.networks, study.data, study.recipes()):
        if study.rewind >= recipe.epochs:
            raise RecipeError(f"{study.name}: rewind is {study.rewind} of {recipe.epochs} epochs")
        chains = [
            imp_jobs(
                network, data, recipe, rounds=study.rounds, rewind=study.rewind, fraction=study.fraction,
                seed=seed, init=study.init,
            )
            for seed in range(study.seeds)
        ]  # fmt: skip
        label = data.name if isinstance(data, Data) else data
        for number in range(study.rounds + 1):
            place = (network, label, varied, number, 1 - (1 - study.fraction) ** number)
            rows.append(Row(*place, "run", tuple(chain[number] for chain in chains)))
            for between, measures in (("", study.measures), *study.between.items()):
                groups = [
                    group
                    for seed, chain in enumerate(chains)
                    if (group := _runs(study, between, chain, number, seed, data, recipe))
                ]
                for name, quantity, take in _taken(study, between, measures, data):
                    jobs = tuple(measure for group in groups for measure in take(group))
                    if jobs:
                        rows.append(Row(*place, name, jobs, between, quantity))
    return rows


def _runs(
    study: OwnStudy, between: str, chain: Sequence[Job], number: int, seed: int, data: Any, recipe: Recipe
) -> list[Job]:
    """The runs of one seed that a measure at a round is taken of; none where there is no next round."""
    if between == COPIES:
        # The chain's own training is the first copy, for its noise is the seed.
        noises = range(seed, seed + study.copies)
        runs = copies(job, chain[number].arguments["ticket"], data, recipe, noises=noises)
        return [as_job(run) for run in runs]
    if between == ROUNDS:
        return list(chain[number : number + 2]) if number < study.rounds else []
    return [chain[number]]


def _taken(
    study: OwnStudy, between: str, measures: Measures, data: str | Data
) -> Iterator[tuple[str, str, Take]]:
    """Each of some measures by name, which number of it is wanted, and how it is taken."""
    options = measures if isinstance(measures, Mapping) else {name: {} for name in measures}
    for text, given in options.items():
        name, _, quantity = text.partition(".")
        if quantity:
            _check_quantity(study, name, quantity)
        yield name, quantity, (_of_several if between else _of_one)(study, name, given, data)


def _check_quantity(study: OwnStudy, name: str, quantity: str) -> None:
    """Refuse a number that the result of a measure does not have, as far as its type tells."""
    kinds = alternatives(result_type(declaration(name)))
    if {bool, int, float} & set(kinds):
        raise StudyError(f"{study.name}: measure {name!r} gives a single number; leave out {quantity!r}")
    known = [key for kind in kinds if isinstance(kind, type) for key in number_names(kind)]
    first = re.split(r"[.\[]", quantity)[0]
    if known and first not in known:
        raise StudyError(f"{study.name}: {unknown(f'number of measure {name!r}', first, known)}")


def _of_one(study: OwnStudy, name: str, options: Mapping[str, Any], data: str | Data) -> Take:
    """How a measure is taken of the run of a round, or of its ticket."""
    function, subjects, others = _asked(study, name, options, data)
    if list(subjects.values()) not in ([Run], [Ticket]):
        raise StudyError(
            f"{study.name}: measure {name!r} takes {_listed(subjects)}; here a measure takes one run or "
            "ticket and, if it wants, the data; one of several runs belongs under between"
        )
    ((subject, kind),) = subjects.items()

    def take(runs: Sequence[Job]) -> list[Job]:
        (run,) = runs
        return [job(function, **{subject: run if kind is Run else run.arguments["ticket"]}, **others)]

    return take


def _of_several(study: OwnStudy, name: str, options: Mapping[str, Any], data: str | Data) -> Take:
    """How a measure is taken of a list of runs, or of every pair of them."""
    function, subjects, others = _asked(study, name, options, data)
    if list(subjects.values()) not in ([Run, Run], [list]):
        raise StudyError(
            f"{study.name}: measure {name!r} takes {_listed(subjects)}; between runs a measure takes two of "
            "them, or a list, and, if it wants, the data"
        )

    def take(runs: Sequence[Job]) -> list[Job]:
        if len(subjects) == 1:
            return [job(function, **{key: list(runs) for key in subjects}, **others)]
        pairs = itertools.combinations(runs, 2)
        return [job(function, **dict(zip(subjects, pair, strict=True)), **others) for pair in pairs]

    return take


def _asked(
    study: OwnStudy, name: str, options: Mapping[str, Any], data: str | Data
) -> tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]:
    """A measure's function, the parameters for runs or a ticket with their kinds, and all other arguments."""
    function = declaration(name).function
    known = face(function)
    required = [
        key
        for key, parameter in known.signature.parameters.items()
        if parameter.default is parameter.empty and key not in options
    ]
    kinds = {key: _kind(known.hints.get(key, Any)) for key in required}
    of_data = [key for key, kind in kinds.items() if kind is Data]
    others = {**dict.fromkeys(of_data, data), **options}
    return function, {key: kind for key, kind in kinds.items() if kind is not Data}, others


def _kind(hint: Any) -> Any:
    """Whether a parameter takes a run, a ticket, data or a list of runs; None if nothing of these."""
    kinds = alternatives(hint)
    for kind in (Run, Ticket, Data):
        if kind in kinds:
            return kind
    return list if get_origin(hint) and Run in alternatives(item_hint(hint, 0)) else None


def _listed(subjects: Mapping[str, Any]) -> str:
    return ", ".join(subjects) or "nothing"
