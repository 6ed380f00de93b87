"""From a lab and studies to everything that a report shows of them."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from tombola.lab.job import Job, result_type
from tombola.lab.lab import Lab
from tombola.report.origin import Origin
from tombola.report.studies_page import Report
from tombola.studies.catalogue import studies_named
from tombola.studies.cells import Place
from tombola.studies.paper.jobs import Work
from tombola.studies.plan import plan
from tombola.studies.results import Results
from tombola.studies.running import cells_of, collect
from tombola.studies.study import Study
from tombola.training.run import Run
from tombola.version import __version__


def gather(
    lab: Lab,
    studies: Sequence[Study],
    work: Work,
    left_out: Mapping[str, str] | None = None,
    *,
    beside: Sequence[Study] = (),
) -> Report:
    """What some studies show so far, what they lack, and what their numbers were made with.

    left_out: further studies that the scale does not fit, and why, as
        :func:`~tombola.studies.running.fitting` tells them.
    beside: studies that are not shown, whose cells claims rest on all the same.
    """
    shown = collect(lab, studies, work)
    costs = plan(studies, work, store=lab.store)
    unfinished = [
        (each.name, each.jobs - each.finished, round(each.epochs_left))
        for each in costs.studies
        if each.finished < each.jobs
    ]
    return Report(
        cells=cells_of([*shown, *collect(lab, beside, work)]),
        places=[place for each in shown for place in each.places],
        titles={study.name: study.title for study in (*studies, *studies_named(left_out or ()))},
        left_out=left_out or {},
        pictures=[each.picture for each in shown if each.picture is not None],
        missing=unfinished,
        missing_together=(costs.jobs - costs.finished, round(costs.epochs_left)),
        provenance={
            "scale": str(work.scale),
            "store": str(lab.store.root),
            "tombola": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        origins=_origins(lab, studies, work),
        budget=work.scale.budget,
        note=work.scale.warning,
    )


def _origins(lab: Lab, studies: Sequence[Study], work: Work) -> dict[Place, Collection[Origin]]:
    """What the runs behind each entry were made with, as far as they are finished."""
    store, results = lab.store, Results(lab.store)
    known: dict[str, Origin | None] = {}

    def origin(job: Job) -> Origin | None:
        if job.name not in known:
            known[job.name] = _origin(store.provenance(job.name)) if store.has(job.name) else None
        return known[job.name]

    def origins(jobs: Iterable[Job]) -> set[Origin]:
        runs = dict.fromkeys(run for job in jobs for run in _runs_of(job))
        return {found for run in runs if (found := origin(run)) is not None}

    found: dict[Place, Collection[Origin]] = {}
    for study in studies:
        found |= {entry.place: origins(entry.jobs) for entry in study.entries(work)}
        for searched in study.searched(work):
            found[searched.place] = origins(
                search.job(length) for search in searched.searches for length in search.progress(results)[0]
            )
    return found


def _runs_of(job: Job) -> Sequence[Job]:
    """A run, or the runs that a measure was taken on; the measure itself if there are none."""
    if result_type(job.declaration) is Run:
        return (job,)
    return [parent for parent in job.needs if result_type(parent.declaration) is Run] or (job,)


def _origin(provenance: dict[str, Any]) -> Origin:
    versions = ", ".join(f"{name} {provenance[name]}" for name in ("tombola", "torch"))
    device = provenance["hardware"] if provenance["device"] != "cpu" else "cpu"
    return Origin(device, provenance["precision"] or "float32", versions)
