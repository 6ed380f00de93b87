"""Lineages of data: parts of the train images, and images that were fitted to a network.

Each function here is a step of :class:`~tombola.lab.lineages.Lineages`: it makes the lineage of a result from
the arguments of its call, whose own lineages the reader has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tombola.lab.call_values import real
from tombola.lab.lineage import Lineage, drawn_by, named_axes
from tombola.lab.lineage_reader import LineageReader

_CRITERIA = {
    "select-by-score": "by_score",
    "random-selection": "random",
    "herding": "herding",
    "k-center": "k_center",
}
"""How images were chosen by each function that selects them; a function of the user's own by its name."""
_EXAMPLE_SCORES = {"example-scores": "el2n", "forgetting-scores": "forgetting"}
"""The score of each function where its arguments do not name one."""
_LONGEST_SCORE = 60


def random_part(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """A part that was drawn at random, the same share of each class."""
    return _part(reader, arguments, "random_class_balanced", arguments.get("share"))


def forgotten_part(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """The images that a run forgot least or most."""
    criterion = {"least": "least_forgotten", "most": "most_forgotten"}
    which = criterion.get(str(arguments.get("which")), "least_forgotten")
    return _part(reader, arguments, which, arguments.get("share"))


def part_without(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """What is left without the easiest or hardest images of a run."""
    share, which = real(arguments.get("share")), str(arguments.get("which"))
    criterion = {"easiest": "easiest_removed", "hardest": "hardest_removed"}
    kept = None if share is None else 1 - share
    return _part(reader, arguments, criterion.get(which, "easiest_removed"), kept)


def _part(reader: LineageReader, arguments: Mapping[str, Any], criterion: str, share: Any) -> Lineage:
    """A part of the train images of some data."""
    data = reader.subject(arguments.get("data"), "data")
    run = reader.first(arguments.get("run"))
    drawn, hidden = drawn_by("subset", arguments, None if run is None else run.seed)
    axes = {**data.axes, **drawn, **named_axes(arguments, ("shots",))}
    part = real(share)
    percent = round(100 * part, 6) if part is not None and 0 <= part <= 1 else None
    if percent is not None and percent != round(percent):
        axes["subset_share"] = part
    if data.subset_criterion is not None:
        axes["subset_of"] = data.subset_criterion
    return replace(
        data, subset_percent=None if percent is None else round(percent), subset_criterion=criterion,
        axes=axes, hidden={**data.hidden, **hidden},
    )  # fmt: skip


def selected_part(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """The images of a selection, by the function that selected them."""
    parents = reader.within(arguments.get("selection"))
    selection = reader.readable(parents[0][0]) if parents else None
    if selection is None:
        data = reader.subject(arguments.get("data"), "data")
        return replace(data, axes={**data.axes, "selected": True})
    options = {**selection["arguments"], "data": arguments.get("data")}
    criterion = str(selection["function"])
    part = _part(reader, options, _CRITERIA.get(criterion, criterion), options.get("share"))
    axes = {**part.axes, **named_axes(options, ("keep", "skip", "balanced"))}
    if score := _example_score(reader, options.get("scores")):
        axes["example_score"] = score
    return replace(part, axes=axes)


def _example_score(reader: LineageReader, value: Any) -> str | None:
    """The score that a job gives, or a mean over such jobs; of a function of the user's own its name."""
    parents = reader.within(value)
    while parents:  # a stranger may have taken means of means, as deep as a stack is not
        description = reader.readable(parents[0][0])
        if description is None:
            return None
        function, arguments = str(description["function"]), description["arguments"]
        if function != "mean-scores":
            return str(arguments.get("score", _EXAMPLE_SCORES.get(function, function)))[:_LONGEST_SCORE]
        parents = reader.within(arguments.get("scores"))
    return None


def part_taken(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """Images by their indices, which no field of a key can hold; a hash of them tells them apart."""
    data = reader.subject(arguments.get("data"), "data")
    indices = arguments.get("indices")
    drawn = hashlib.sha256(json.dumps(indices).encode()).hexdigest()[:12]
    return replace(data, axes={**data.axes, "part": drawn})


def fitted_data(reader: LineageReader, name: str, arguments: Mapping[str, Any]) -> Lineage:
    """The images at another size or with other channels."""
    data = reader.subject(arguments.get("data"), "data")
    return replace(data, axes={**data.axes, **named_axes(arguments, ("size", "channels"))})
