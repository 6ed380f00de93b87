"""What the running versions mean for a store, in lines that say what to do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from tombola.counts import bytes_text
from tombola.lab.job_versions import Environment
from tombola.lab.upgrades import JobGroup, Upgrades
from tombola.table.number import many

# Comparisons and jobs that a line names one by one.
_MOST_NAMED = 5


def upgrade_lines(found: Upgrades) -> Iterator[str]:
    """The lines of ``tombola upgrades``, a heading before each part; parts without anything are left out."""
    yield f"running: {found.here}"
    yield f"store: {found.store}, {_words(found.valid)} keep their names and are found again"
    yield "made with"
    for environment, group in found.environments.items():
        note = "" if environment in found.others else " (the bits of here)"
        yield f"  {environment}: {_words(group)}{note}"
    if found.exact.names:
        yield f"  exact, the same anywhere: {_words(found.exact)}"
    if found.networks:
        yield "networks"
    for network, (newest, group) in found.networks.items():
        here = "not declared here" if newest is None else f"here is {newest}"
        yield f"  {network}: {_words(group)}{'' if newest == network else f'; {here}'}"
    if found.renamed:
        yield "trained anew when the same experiment is run, under new names"
    for cause, group in found.renamed.items():
        yield f"  {cause}: {_words(group)}"
    if found.made_from_renamed.names:
        yield f"  made from these: {_words(found.made_from_renamed)}"
    if found.not_judged:
        yield "not judged (--import FILE.py declares what is in a file of yours)"
    for cause, group in found.not_judged.items():
        yield f"  {cause}: {_words(group)}"
    yield from _mixing(found)
    yield from _what_to_do(found)
    for error in found.damaged:
        yield f"PROBLEM: {error}"


def _mixing(found: Upgrades) -> Iterator[str]:
    """What would mix environments, or does so already."""
    lines = [
        (found.to_continue, "at the end of chains that would go on here mixed"),
        (
            found.thin,
            "without weights: where they are asked for, trained anew here, to other numbers",
        ),
        (found.begin_anew, "interrupted in another environment, which would begin anew here"),
        (found.mixed, "recorded as mixed already"),
    ]
    if not any(names for names, _ in lines) and not found.mixed_cells:
        return
    yield "mixing"
    for names, what in lines:
        if names:
            yield f"  {many(len(names), 'job')} {what}: {_named(names)}"
    for cell in found.mixed_cells[:_MOST_NAMED]:
        yield f"  compared across environments: {cell.what} ({many(len(cell.jobs), 'job')})"
    if len(found.mixed_cells) > _MOST_NAMED:
        yield f"  and {len(found.mixed_cells) - _MOST_NAMED} more such comparisons; --json lists them all"


def _what_to_do(found: Upgrades) -> Iterator[str]:
    """What keeps results comparable: the old environment, or everything anew; and what that costs."""
    yield "what to do"
    if not found.others and not found.renamed:
        yield "  nothing: all that is here has the bits and names of the running versions"
        return
    for environment, group in found.others.items():
        command = _install(environment, found.numpy[environment])
        yield f"  go on with what is of {environment}, in its environment: {command}"
        yield f"  or train it anew, {_cost(group)}: the same commands with --store NEW"
    if found.others:
        yield "  or mix them knowingly: tombola run says so once and records it; --strict refuses"
    if found.renamed:
        anew = _cost(_together([*found.renamed.values(), found.made_from_renamed]))
        yield f"  run the same experiments for new names, {anew}; old results stay for tombola table and show"
        yield "  or keep the old names: of a network by its version in the experiment, such as resnet18@1;"
        yield "  of a function with the tombola of that time"


def _install(made: Environment, numpy: str) -> str:
    """A command that makes an environment of these versions."""
    pins = [f"tombola=={made.tombola}", f"torch=={made.torch}", *([f"numpy=={numpy}"] if numpy else [])]
    # Quoted: a stranger may have written what a store says of its versions, and the line is to be pasted.
    return f"python -m venv old && old/bin/pip install {shlex.join(pins)}"


def _together(groups: Sequence[JobGroup]) -> JobGroup:
    """Several groups of jobs as one, in which a job of two counts twice."""
    return JobGroup(
        tuple(name for group in groups for name in group.names),
        sum(group.trainings for group in groups),
        sum(group.seconds for group in groups),
        sum(group.bytes for group in groups),
    )


def _cost(group: JobGroup) -> str:
    trainings = many(group.trainings, "training")
    return f"{trainings}, {_time(group.seconds)} as they took, {bytes_text(group.bytes)}"


def _words(group: JobGroup) -> str:
    """Number of jobs, trainings, time and disk."""
    trainings = f" ({many(group.trainings, 'training')})" if group.trainings else ""
    return f"{many(len(group.names), 'job')}{trainings}, {_time(group.seconds)}, {bytes_text(group.bytes)}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _named(names: Sequence[str]) -> str:
    named = ", ".join(name[:12] for name in names[:_MOST_NAMED])
    return named + (f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else "")
