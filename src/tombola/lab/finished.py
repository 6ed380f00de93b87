"""Finished jobs out of the store, to be arguments of further ones."""

from __future__ import annotations

from tombola.lab.job import Job, described_function, describes
from tombola.lab.store import Store


def finished_job(store: Store, prefix: str) -> Job:
    """The one finished job whose name begins so; what is behind it stays as described, not needed again.

    Raises :class:`~tombola.errors.JobError` if there is none or several, or for a function unknown here,
    and :class:`~tombola.errors.StoreError` if it is damaged.
    """
    name = store.find(prefix)
    description = store.description(name)
    if not describes(description, name):
        raise store.damaged(name, "job.json was altered: it describes another job")
    return Job(described_function(description), description["arguments"])
