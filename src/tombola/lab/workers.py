"""What runs in the workers of a cluster besides jobs: checks of each worker, and the shares of its GPU.

Called through Dask by :mod:`tombola.lab.cluster`, which imports this module, and with it Dask, only then.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from distributed import Worker, WorkerPlugin

from tombola.errors import StoreError, TombolaError
from tombola.lab.deadline import wind_up_all
from tombola.lab.environment import versions
from tombola.lab.filesystem import check_file_system
from tombola.lab.objects import stored_data
from tombola.lab.store import Store

# Seconds of the eight that a nanny leaves its worker to end.
_WINDING_UP = 6.0


class Slots(WorkerPlugin):
    """Gives every worker with a GPU, including those that join later, as many shares of it as it has threads.

    A worker that is closed in an orderly way first stops its jobs, with checkpoints; other workers continue
    them.
    """

    idempotent = True

    async def setup(self, worker: Worker) -> None:
        # Slurm sends SIGTERM to the worker and to its nanny, which then closes it.
        if worker.nanny is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if torch.cuda.is_available() and "GPU" not in worker.state.total_resources:
            await worker.set_resources(GPU=worker.state.nthreads)

    async def teardown(self, worker: Worker) -> None:
        await wind_up_all(_WINDING_UP)


def worker_state(token: str) -> Mapping[str, Any]:
    """Versions, whether this worker sees a GPU and a file of the store, and why it cannot use the store."""
    seen, trouble = os.path.exists(token), None
    if seen:
        try:
            check_file_system(Path(token).parent)
        except StoreError as error:
            trouble = str(error)
    return {
        "host": socket.gethostname(),
        **versions(),
        "gpu": torch.cuda.is_available(),
        "store": seen,
        "trouble": trouble,
    }


async def data_trouble(root: str, names: Sequence[str]) -> str | None:
    """Why this worker cannot load the data of these names; None if it can. Its jobs go on meanwhile."""
    return await asyncio.to_thread(_load_error, root, names)


def _load_error(root: str, names: Sequence[str]) -> str | None:
    """The error of loading these data from a store, as a line; None if all load."""
    try:
        store = Store(root, create=False)
        for name in names:
            stored_data(store, name)
    except TombolaError as error:
        return str(error)
    return None
