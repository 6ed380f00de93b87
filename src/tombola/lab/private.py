"""What keeps other users of this machine out of a cluster on it: TLS, no HTTP, scratch files of its own.

Whoever can send one message to a Dask scheduler, nanny or worker runs code as its user, and loopback is open
to everybody on the machine. So each end of every connection must prove that it holds the one key of this
cluster, which is made at its start and lives in memory; see "Security" in docs/cluster.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
from distributed.security import Security

# For the scheduler in this process, its nannies and, through them, the workers.
_OPTIONS: dict[str, Any] = {
    # Nothing listens for HTTP, below. Should another version of Dask come to, it has nothing to tell.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A fork server would listen, too.
    "distributed.worker.multiprocessing-method": "spawn",
    # What the user configured for schedulers elsewhere.
    "distributed.scheduler.contact-address": None,
}


class Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """A scheduler that does not listen for HTTP: even without any route that answers with what it has."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


class Worker(distributed.Worker):  # type: ignore[misc]
    """A worker that does not listen for HTTP."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Do nothing."""


def one_key() -> Security:
    """A certificate for all ends of one cluster, whatever the user's Dask configuration says of TLS.

    Workers get it through the pipe that they are started with, never on a command line, in their environment
    or in a file that another user could read.
    """
    # None: the defaults of Python and Dask, not what is configured.
    security: Security = Security.temporary(tls_ciphers=None, tls_min_version=None, tls_max_version=None)
    return security


@contextmanager
def private_options() -> Iterator[dict[str, Any]]:
    """Dask options under which a cluster listens for nothing but Dask's messages, with private scratch files.

    Their folder can be entered by this user only and is removed at the end. Dask's own is shared by all users
    of the machine: whoever made it first could put modules into it, for Dask imports from there.
    """
    with tempfile.TemporaryDirectory(prefix="tombola-", ignore_cleanup_errors=True) as folder:
        try:
            yield {**_OPTIONS, "temporary-directory": folder}
        finally:
            # Dask leaves some behind. The name is free again, for anybody.
            sys.path[:] = [entry for entry in sys.path if Path(folder) not in Path(entry).parents]
