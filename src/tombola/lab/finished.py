"""Finished jobs out of the store, to be arguments of further ones."""

from __future__ import annotations

from tombola.lab.job import Job, described_function
from tombola.lab.store import Store


def finished_job(store: Store, prefix: str) -> Job:
    """The one finished job whose name begins so; what is behind it stays as described, not needed again.

    Raises :class:`~tombola.errors.JobError` if there is none or several, or for a function unknown here.
    """
    description = store.description(store.find(prefix))
    return Job(described_function(description), description["arguments"])
