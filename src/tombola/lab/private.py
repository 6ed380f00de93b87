"""Closes a local Dask cluster to other users of this machine: TLS, no HTTP, private scratch files.

A single message to a Dask scheduler, nanny or worker can run code as its user, and loopback is open to all
users of the machine. So each end of every connection must prove that it holds the one key of this cluster,
which is generated at its start and lives in memory; see "Security" in docs/cluster.md.
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

from tombola.safe_path import safe_path

# For the scheduler in this process, its nannies and, through them, the workers.
_OPTIONS: dict[str, Any] = {
    # Nothing listens for HTTP, see below. If another version of Dask does, it has no routes.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # A fork server would listen, too.
    "distributed.worker.multiprocessing-method": "spawn",
    # The user may have configured one for schedulers elsewhere.
    "distributed.scheduler.contact-address": None,
}


class Scheduler(distributed.Scheduler):  # type: ignore[misc]
    """A scheduler that does not listen for HTTP: even without routes a server would tell what it has."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Starts no server."""


class Worker(distributed.Worker):  # type: ignore[misc]
    """A worker that does not listen for HTTP."""

    def start_http_server(self, *_: Any, **__: Any) -> None:
        """Starts no server."""


def new_certificate() -> Security:
    """A new certificate for all ends of one cluster, independent of the user's Dask configuration of TLS.

    Workers get it through the pipe that they are started with, never on a command line, in their environment
    or in a file that another user could read.
    """
    # None: the defaults of Python and Dask, not what is configured.
    security: Security = Security.temporary(tls_ciphers=None, tls_min_version=None, tls_max_version=None)
    return security


@contextmanager
def private_options() -> Iterator[dict[str, Any]]:
    """Dask options under which a cluster listens for nothing but Dask's messages, with private scratch files.

    While this lasts, new processes import nothing out of the current folder.

    Their folder can be entered by this user only and is removed at the end. Dask's own is shared by all users
    of the machine, and Dask imports from it: the user who creates it first could put modules there.
    """
    with safe_path(), tempfile.TemporaryDirectory(prefix="tombola-", ignore_cleanup_errors=True) as folder:
        try:
            yield {**_OPTIONS, "temporary-directory": folder}
        finally:
            # Dask leaves entries behind, and now any user may create a folder of that name.
            sys.path[:] = [entry for entry in sys.path if Path(folder) not in Path(entry).parents]
            for entry in list(sys.path_importer_cache):
                if Path(folder) in Path(entry).parents:
                    sys.path_importer_cache.pop(entry, None)
