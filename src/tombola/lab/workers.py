"""What runs in the workers of a cluster besides jobs: who they are, and how many jobs share their GPU."""

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
from distributed import WorkerPlugin

from tombola.errors import StoreError, TombolaError
from tombola.lab.deadline import wind_up_all
from tombola.lab.environment import versions
from tombola.lab.filesystem import check_file_system
from tombola.lab.objects import stored_data
from tombola.lab.store import Store

# Seconds of the eight that a nanny that is told to end leaves its worker.
_WINDING_UP = 6.0


class Slots(WorkerPlugin):
    """Gives every worker with a GPU, those that come later too, as many shares of it as it has threads.

    A worker that is closed in an orderly way first stops its jobs, with checkpoints: others go on with them.
    """

    idempotent = True

    async def setup(self, worker: Any) -> None:
        # Slurm sends SIGTERM to the worker and to its nanny, which then closes it.
        if worker.nanny is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if torch.cuda.is_available() and "GPU" not in worker.state.total_resources:
            await worker.set_resources(GPU=worker.state.nthreads)

    async def teardown(self, worker: Any) -> None:
        await wind_up_all(_WINDING_UP)


def environment(token: str) -> Mapping[str, Any]:
    """What results depend on, whether a file of the store is seen here, and why the store cannot be used."""
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


async def lacking(root: str, names: Sequence[str]) -> str | None:
    """Why this worker cannot load the data of these names, if it cannot; its jobs go on meanwhile."""
    return await asyncio.to_thread(_lacking, root, names)


def _lacking(root: str, names: Sequence[str]) -> str | None:
    try:
        store = Store(root, create=False)
        for name in names:
            stored_data(store, name)
    except TombolaError as error:
        return str(error)
    return None
