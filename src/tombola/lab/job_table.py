"""The numbers of single jobs as rows of the table: keys read off their descriptions."""

from __future__ import annotations

from collections.abc import Iterable

from tombola.lab.item import Results
from tombola.lab.job import Job
from tombola.table.number import Number


def numbers_of_jobs(results: Results, jobs: Iterable[Job]) -> list[Number]:
    """Every number of some jobs, gaps included."""
    raise NotImplementedError
