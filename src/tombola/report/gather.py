"""Gathers what a report shows of experiments from a lab: exhibits, numbers, what is missing, provenance."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tombola.errors import TombolaError
from tombola.experiments.bound import Bound, jobs_behind
from tombola.experiments.claims.all_claims import judge_all, judge_questions
from tombola.experiments.claims.claim import Verdict
from tombola.experiments.paper.printed import printed_cells
from tombola.experiments.plan import plan
from tombola.lab.item import Item, Results
from tombola.lab.job import Job, all_needed, runs_behind
from tombola.lab.lab import Lab
from tombola.lab.store import PROVENANCE, Store
from tombola.networks.network import Network
from tombola.networks.prunable import coverage
from tombola.report.board import Row, board
from tombola.report.findings import experiment_findings
from tombola.table.key import Key
from tombola.table.number import Cell, longest
from tombola.table.table import Table
from tombola.untrusted import OTHER_FORM
from tombola.version import __version__
from tombola.views.exhibit import Exhibit
from tombola.views.origin import Origin


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a report shows.

    exhibits: the tables and figures, in order.
    table: every number behind them and behind the claims, gaps included.
    of_paper: whether the paper's claims are judged by them; never by stand-ins.
    glossary: whether the page says what its words mean, as one of an experiment of chains does.
    missing: experiments that are not finished, with the jobs and epochs of training that each still needs.
    missing_together: the same for all of them; what they share counts once.
    finished: how many jobs behind it are in the store.
    provenance: names and texts, such as ``{"torch": "2.9.0"}``.
    title, lead: of the page. budget: how long and how often is trained.
    note: a warning about all of it, such as that a scale proves only the machinery.
    """

    exhibits: Sequence[Exhibit]
    table: Table = field(default_factory=lambda: Table(()))
    of_paper: bool = True
    glossary: bool = False
    missing: Sequence[tuple[str, int, int]] = ()
    missing_together: tuple[int, int] = (0, 0)
    finished: int = 0
    provenance: Mapping[str, str] = field(default_factory=dict)
    title: str = "tombola report"
    lead: str = "Our runs beside the numbers that the paper prints, and what both say of its claims."
    budget: str = ""
    note: str = ""

    @cached_property
    def cells(self) -> dict[Key, Cell]:
        """The cell of each key with the longest budget, complete ones only."""
        return longest(self.table.cells())

    @cached_property
    def findings(self) -> Mapping[str, Sequence[str]]:
        """What the numbers of an exhibit say, in sentences, by its name; of experiments with several."""
        by_experiment: dict[str, list[Exhibit]] = {}
        for exhibit in self.exhibits:
            if exhibit.experiment:
                by_experiment.setdefault(exhibit.experiment, []).append(exhibit)
        findings: dict[str, Sequence[str]] = {}
        for exhibits in by_experiment.values():
            findings |= experiment_findings(exhibits)
        return findings

    @cached_property
    def origins(self) -> set[Origin]:
        """What the runs behind its exhibits were made with."""
        return set[Origin]().union(*(runs for exhibit in self.exhibits for runs in exhibit.origins.values()))

    @cached_property
    def verdicts(self) -> Sequence[Verdict]:
        """Our verdicts on the paper's claims and on what it leaves open; none where they are not judged."""
        return [*judge_all(self.cells), *judge_questions(self.cells)] if self.of_paper else ()

    @cached_property
    def board(self) -> Sequence[Row]:
        """The claims board, a row for each verdict; empty where claims are not judged."""
        if not self.of_paper:
            return ()
        printed = printed_cells()
        return board([*judge_all(printed), *judge_questions(printed)], self.verdicts)


def gather(
    lab: Lab,
    shown: Sequence[Bound | Exhibit],
    *,
    beside: Sequence[Bound] = (),
    scale: str = "",
    **rest: Any,
) -> Report:
    """The report of some experiments: what they show so far, what is missing, what numbers were made with.

    shown: in their order; of one that the scale does not fit an exhibit that says why.
    beside: experiments that are not shown, whose numbers claims rest on all the same.
    scale: in words. rest: further fields of the report.
    """
    results = lab.results()
    origins = _Origins(lab.store, results)
    exhibits: list[Exhibit] = []
    for experiment in shown:
        if isinstance(experiment, Exhibit):
            exhibits.append(experiment)
        else:
            made_with = origins.of(experiment.items)
            exhibits += [replace(exhibit, origins=made_with) for exhibit in experiment.exhibits(results)]
    experiments = [experiment for experiment in shown if isinstance(experiment, Bound)]
    costs = plan(experiments, store=lab.store)
    return Report(
        exhibits=exhibits,
        table=Table(number for bound in (*experiments, *beside) for number in bound.numbers(results)),
        missing=[
            (alone.name, alone.jobs - alone.finished, round(alone.epochs_left))
            for alone in costs.experiments
            if alone.finished < alone.jobs
        ],
        missing_together=(costs.jobs - costs.finished, round(costs.epochs_left)),
        finished=costs.finished,
        provenance={
            **({"scale": scale} if scale else {}),
            "store": _shown_path(lab.store.root),
            "tombola": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        **rest,
    )


def gather_chains(lab: Lab, experiments: Sequence[Bound], provenance: Mapping[str, str]) -> Report:
    """The report of some experiments of chains.

    provenance: what else is to be said of where the numbers come from.
    """
    report = gather(
        lab, experiments, of_paper=False, glossary=True,
        title="; ".join(experiment.title for experiment in experiments),
        lead=" ".join(experiment.about for experiment in experiments),
        budget="; ".join(dict.fromkeys(experiment.budget for experiment in experiments)),
    )  # fmt: skip
    made_with = {
        "device": _listed(origin.device for origin in report.origins),
        "precision": _listed(origin.precision for origin in report.origins),
        "made with": _listed(origin.versions for origin in report.origins),
        "prunable": "; ".join(_coverages(lab.store, experiments)) or "nothing computed yet",
        "jobs": f"{report.finished:,}",
        "this page": f"tombola {__version__}, Python {platform.python_version()}",
        "store": _shown_path(lab.store.root),
    }
    return replace(report, provenance={**made_with, **provenance})


def _coverages(store: Store, experiments: Iterable[Bound]) -> list[str]:
    """For each network that some experiments initialised, how many parameters are prunable, in words."""
    coverages: dict[str, None] = {}
    for name, job in all_needed(jobs_behind(experiments)).items():
        if job.declaration.name == "initialize" and store.has(name):
            # What is not declared here or damaged is told where its result is read.
            with suppress(TombolaError, *OTHER_FORM):
                details = store.details(name)
                network = Network.described(details["network"])
                coverages[f"of {network.written} {coverage(network, details['shapes'])}"] = None
    return list(coverages)


def _listed(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts))) or "nothing computed yet"


class _Origins:
    """What the runs behind each key were made with, as far as they are finished; each is read once."""

    def __init__(self, store: Store, results: Results) -> None:
        self._store = store
        self._results = results
        self._origins: dict[str, Origin | None] = {}

    def of(self, items: Iterable[Item]) -> dict[Key, Collection[Origin]]:
        """The origins behind the keys of some items."""
        origins: dict[Key, Collection[Origin]] = {}
        for item in items:
            # An item of a chain has as many keys as its measure has numbers.
            keys = [item.key] if item.key.metric else [number.key for number in item.numbers(self._results)]
            origins |= dict.fromkeys(keys, self._behind(item.done(self._results)))
        return origins

    def _behind(self, jobs: Iterable[Job]) -> set[Origin]:
        """The origins of the runs among some jobs, or behind them; its own of a job without any."""
        runs = dict.fromkeys(run for job in jobs for run in runs_behind(job) or [job])
        return {origin for run in runs if (origin := self._origin(run)) is not None}

    def _origin(self, job: Job) -> Origin | None:
        if job.name not in self._origins:
            finished = self._store.has(job.name)
            self._origins[job.name] = _recorded_origin(self._store, job.name) if finished else None
        return self._origins[job.name]


def _recorded_origin(store: Store, name: str) -> Origin:
    """What a result's provenance says it was made with; StoreError if it does not."""
    provenance = store.provenance(name)
    try:
        versions = ", ".join(f"{library} {provenance[library]}" for library in ("tombola", "torch"))
        device = provenance["hardware"] if provenance["device"] != "cpu" else "cpu"
        return Origin(str(device), str(provenance["precision"] or "float32"), versions)
    except KeyError as error:
        raise store.damaged(name, f"{PROVENANCE} does not say its {error}") from error


def _shown_path(path: Path) -> str:
    """Relative to the current folder where it lies below it, so that a shared page names no one's home."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
