"""What runs in the workers of a cluster besides jobs: who they are, and how many jobs share their GPU."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from distributed import WorkerPlugin

import tombola
from tombola.errors import StoreError
from tombola.lab.file_system import check_file_system


class Slots(WorkerPlugin):
    """Gives every worker with a GPU, those that come later too, as many shares of it as it has threads."""

    idempotent = True

    async def setup(self, worker: Any) -> None:
        if torch.cuda.is_available() and "GPU" not in worker.state.total_resources:
            await worker.set_resources(GPU=worker.state.nthreads)


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
        "tombola": tombola.__version__,
        "torch": torch.__version__.partition("+")[0],
        "numpy": numpy.__version__,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "gpu": torch.cuda.is_available(),
        "store": seen,
        "trouble": trouble,
    }
