"""What a job measured on what: the part of the keys that all of its numbers share, read off its lineage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tombola.lab.call_values import relative, scalar, whole
from tombola.lab.lineage import Kind, Lineage
from tombola.lab.lineages import Lineages
from tombola.seeds import NOISES
from tombola.table.key import Scalar


@dataclass(frozen=True)
class Measurement:
    """A job whose numbers are asked for, and all that its keys have in common.

    between: ``"copies"`` or ``"rounds"`` of a measure of two such runs. runs: names of those that it is of.
    hidden: axes that are told only where two jobs would have one key.
    """

    name: str
    function: str
    kind: Kind
    fields: Mapping[str, Scalar]
    hidden: Mapping[str, Scalar]
    epochs: int
    seed: int | None
    between: str = ""
    pair: int | None = None
    runs: tuple[str, ...] = ()
    recalibrated: bool = False


def measurement_of(lineages: Lineages, name: str) -> Measurement:
    """A job with all that its description tells of its keys."""
    description = lineages.description(name)
    function, arguments = str(description["function"]), description["arguments"]
    lineage = lineages.of(name)
    if lineage.kind in ("ticket", "run", "data"):
        runs = (name,) if lineage.kind == "run" else ()
        return Measurement(
            name, function, lineage.kind, lineage.fields(), lineage.hidden, lineage.epochs, lineage.seed,
            runs=runs,
        )  # fmt: skip
    return _measure(lineages, name, function, arguments)


def _measure(lineages: Lineages, name: str, function: str, arguments: Mapping[str, Any]) -> Measurement:
    """A measure, by what it was taken of."""
    parents = [parent for value in arguments.values() for parent in lineages.within(value)]
    subjects = [(parent, lineage) for parent, lineage in parents if lineage.kind != "data"]
    origins = [lineage for _, lineage in subjects]
    first = origins[0] if origins else Lineage(kind="measure")
    hidden: dict[str, Scalar] = dict(first.hidden)
    listed = any(isinstance(value, list) for value in arguments.values())
    two = len(origins) == 2 and not listed
    between, pair = _between(subjects) if two else ("", None)
    if pair is not None:
        fields = _of_copies(*origins)
    elif two and between != "rounds":
        fields = first.fields() | _second(*origins)
    else:
        fields = _common(origins[:1] if between == "rounds" else origins)
    fields |= _baseline(function, first)
    fields |= _measured_on(function, first, [lineage for _, lineage in parents if lineage.kind == "data"])
    options = {key: value for key, value in arguments.items() if not lineages.within(value)}
    recalibrated = options.get("recalibrate") is True
    for key, value in options.items():
        if key == "seed" and whole(value) is not None:
            hidden[f"{function}.seed"] = whole(value)
            if first.seed is not None and value != first.seed:
                fields[f"{function}.seed"] = relative(value, first.seed)
        else:
            fields[f"{function}.{key}"] = scalar(value)
    seeds = {lineage.seed for lineage in origins}
    epochs = max((lineage.epochs for lineage in origins), default=0)
    return Measurement(
        name, function, "measure", fields, hidden, epochs,
        seeds.pop() if len(seeds) == 1 else None, between, pair,
        tuple(parent for parent, lineage in subjects if lineage.kind == "run"), recalibrated,
    )  # fmt: skip


def _between(subjects: Sequence[tuple[str, Lineage]]) -> tuple[str, int | None]:
    """What two runs are of each other: noise copies, with the number of their pair, or consecutive rounds."""
    (first_name, first), (_, second) = subjects
    if (first.kind, second.kind) != ("run", "run"):
        return "", None
    if first.ticket and first.ticket == second.ticket and first.training == second.training:
        return "copies", _pair(first, second)
    if second.pruned == first_name and _rest(first) == _rest(second):
        return "rounds", None
    return "", None


def _rest(lineage: Lineage) -> tuple[object, ...]:
    """What the runs of consecutive rounds have in common."""
    noise = lineage.noise, lineage.causes
    return lineage.training, noise, lineage.dataset, lineage.subset_criterion, lineage.baseline


def _differing_causes(first: Lineage, second: Lineage) -> list[str]:
    """Which of the two causes of noise have other numbers in two runs."""
    return [name for name in NOISES if first.number_of(name) != second.number_of(name)]


def _pair(first: Lineage, second: Lineage) -> int | None:
    """The number of a pair of copies: 0 of the first two noises from the seed on, 1 and 2 with the third.

    None for runs that differ in both causes of noise by numbers of their own.
    """
    differing = _differing_causes(first, second)
    if first.seed is None or not differing or (len(differing) == 2 and (first.causes or second.causes)):
        return None
    earlier, later = sorted(run.number_of(differing[0]) - first.seed for run in (first, second))
    if earlier < 0 or later > _MOST_COPIES:
        return None
    return later * (later - 1) // 2 + earlier


_MOST_COPIES = 1000


def _of_copies(first: Lineage, second: Lineage) -> dict[str, Scalar]:
    """What two copies have in common; of copies that differ in one cause of noise alone, which that is."""
    fields = replace(first, noise=None, causes={}).fields()
    differing = _differing_causes(first, second)
    if len(differing) == 1:
        fields["differ_in"] = differing[0].removesuffix("_noise")
        same = next(name for name in NOISES if name not in differing)
        if first.number_of(same) != first.seed:
            fields[same] = relative(first.number_of(same), first.seed)
    return fields


def _second(first: Lineage, second: Lineage) -> dict[str, Scalar]:
    """What the second of two runs has otherwise than the first."""
    fields, other = first.fields() | {"epochs": first.epochs}, second.fields() | {"epochs": second.epochs}
    if first.seed != second.seed:
        fields["seed"], other["seed"] = first.seed, second.seed
    differing = [name for name in dict.fromkeys((*fields, *other)) if fields.get(name) != other.get(name)]
    return {f"second_{name}": other.get(name, "default") for name in differing}


def _common(lineages: Sequence[Lineage]) -> dict[str, Scalar]:
    """What several runs have in common, None for what they differ in, and their noises."""
    parts = [lineage.fields() for lineage in lineages]
    fields: dict[str, Scalar] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part.get(name) for part in parts]
        fields[name] = values[0] if all(value == values[0] for value in values) else None
    runs = [lineage for lineage in lineages if lineage.kind == "run"]
    noises = [relative(run.noise or 0, run.seed) for run in runs]
    if len(set(noises)) > 1:
        fields |= {"noise": None, "noises": ", ".join(map(str, noises))}
    for name in NOISES:
        numbers = [relative(run.number_of(name), run.seed) for run in runs]
        if any(run.causes.get(name) is not None for run in runs) and len(set(numbers)) > 1:
            fields |= {name: None, f"{name}s": ", ".join(map(str, numbers))}
    return fields


def _baseline(function: str, subject: Lineage) -> dict[str, Scalar]:
    """What a measure is told by that takes tickets and runs alike."""
    if function not in ("probe", "transfer") or subject.kind != "run":
        return {}
    dense = not subject.sparsity and subject.baseline is None
    return {"baseline": "frozen_dense"} if dense else {"trained": True}


def _measured_on(function: str, subject: Lineage, data: Sequence[Lineage]) -> dict[str, Scalar]:
    """The data that a measure was taken on, where it is not that of the training."""
    if not data:
        return {}
    first = data[0]
    part: dict[str, Scalar] = {
        f"data_{name}": value for name, value in first.axes.items() if subject.axes.get(name) != value
    }
    if first.subset_criterion is not None:
        part |= {"data_subset": first.subset_criterion, "data_subset_percent": first.subset_percent}
    if function == "transfer":
        return {"target": first.dataset, **part}
    if first.dataset in (None, subject.dataset):
        return part
    if subject.dataset is None:
        return {"dataset": first.dataset, **part}
    return {"target" if function == "probe" else "data": first.dataset, **part}
