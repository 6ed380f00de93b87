"""MLflow: a run for each job, in experiment "tombola" of the tracking server or database.

``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and all other variables of MLflow mean what they always
do. A run that is not finished is what an interruption left, and is deleted when its job is entered again.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tombola.lab.tracker import DEFAULT_PROJECT, TrackedJob

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGE = "mlflow"

T = TypeVar("T")

_JOB, _FUNCTION, _PARENTS = "tombola.job", "tombola.function", "tombola.parents"
# What MLflow allows: characters of a name, its length, and that of a value; and entries of one call.
_ODD = re.compile(r"[^\w\-. ]")
_LONGEST_NAME, _LONGEST_VALUE = 250, 500
_MOST_METRICS, _MOST_PARAMETERS = 1000, 100


def open_tracker(folder: Path | None) -> MLflowTracker:
    """MLflow's tracking server or, with a folder, its database there."""
    return MLflowTracker(None if folder is None else f"sqlite:///{folder.absolute() / 'mlflow.db'}")


class MLflowTracker:
    """The runs of an experiment; uri: by default MLflow's own.

    What the experiment holds is asked for once. A job that another driver enters meanwhile is entered once
    more, and the double taken out.
    """

    def __init__(self, uri: str | None) -> None:
        self._uri = uri

    def place(self) -> str:
        uri = re.sub(r"//[^/]*@", "//", self._client.tracking_uri)  # without a password
        return f"at {uri}"

    def absent(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self._held]

    def add(self, job: TrackedJob) -> None:
        from mlflow.entities import Metric, Param

        client = self._client
        for run in self._runs(job.name):
            if not _is_finished(run):
                client.delete_run(run.info.run_id)
        tags = {_JOB: job.name, _FUNCTION: job.function, _PARENTS: ", ".join(job.parents)[:_LONGEST_VALUE]}
        begun = client.create_run(
            self._experiment, start_time=_milliseconds(job.started), tags=tags, run_name=job.title
        )
        name = begun.info.run_id
        metrics = [
            Metric(f"curve/{_allowed(key)}", value, _milliseconds(point.time), point.step)
            for point in job.curve
            for key, value in point.values.items()
        ]
        last = job.curve[-1].step if job.curve else 0
        metrics += [
            Metric(key, value, _milliseconds(job.ended), last) for key, value in _by_name(job.numbers).items()
        ]
        parameters = [
            Param(key, str(value)[:_LONGEST_VALUE]) for key, value in _by_name(job.parameters).items()
        ]
        for some in _parts(metrics, _MOST_METRICS):
            client.log_batch(name, metrics=some)
        for others in _parts(parameters, _MOST_PARAMETERS):
            client.log_batch(name, params=others)
        client.set_terminated(name, end_time=_milliseconds(job.ended))
        # Another driver may have entered the job at the same time; both keep the same one of the two.
        for run in sorted(filter(_is_finished, self._runs(job.name)), key=lambda run: run.info.run_id)[1:]:
            client.delete_run(run.info.run_id)
        self._held.add(job.name)

    def _runs(self, name: str) -> list[Any]:
        """The runs that were begun for a job."""
        return list(self._client.search_runs([self._experiment], f"tags.`{_JOB}` = '{name}'"))

    @cached_property
    def _held(self) -> set[str]:
        """The names of the jobs that the experiment holds whole."""
        held: set[str] = set()
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], "attributes.status = 'FINISHED'", page_token=token
            )
            held |= {run.data.tags[_JOB] for run in page if _JOB in run.data.tags}
            if not (token := page.token):
                return held

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        # They tell every table that they make in a new database.
        for logger in ("mlflow", "alembic"):
            logging.getLogger(logger).setLevel(logging.WARNING)
        if self._uri is not None and self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self._uri)

    @cached_property
    def _experiment(self) -> str:
        """The number of the experiment, which is made if need be."""
        from mlflow.exceptions import MlflowException

        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_PROJECT
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                experiment = self._client.get_experiment_by_name(name)  # another driver was faster
                if experiment is None:
                    raise
        return str(experiment.experiment_id)


def _is_finished(run: Any) -> bool:
    return bool(run.info.status == "FINISHED")


def _milliseconds(seconds: float) -> int:
    return round(1000 * seconds)


def _allowed(name: str) -> str:
    """A name of characters that MLflow allows."""
    return _ODD.sub("_", name)[:_LONGEST_NAME]


def _by_name(values: Mapping[str, T]) -> dict[str, T]:
    """Values by names that MLflow allows."""
    return {_allowed(name): value for name, value in values.items()}


def _parts(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most so many of some values."""
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part
