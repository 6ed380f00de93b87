"""Ends the jobs of a run on a Dask cluster before its driver ends: with checkpoints, no attempt counted.

A driver that stops on time or is interrupted has every worker wind up, waits for a few seconds, and cancels
what is pending. Jobs that do not end die with the workers of this machine; such a death is not counted.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tombola.errors import ClusterError
from tombola.lab.deadline import LOOK, PATIENCE, Stop, wind_up
from tombola.lab.lease import holder
from tombola.lab.store import Store
from tombola.lab.supervision import forget_attempts, forget_log

if TYPE_CHECKING:
    from distributed import Client, Future

# Seconds that jobs are waited for if the driver ends by an error or Ctrl-C, and that an answer takes on top.
_SHORT, _ANSWER = 2.0, 3.0


@contextmanager
def halting(
    client: Client, store: Store, run: str, futures: Mapping[str, Future[bool]], stop: Stop
) -> Iterator[None]:
    """Ends the jobs of a run as soon as the stop is due, and also if the body ends by an error.

    run: names the run in the workers.
    futures: by the names of their jobs; those that are cancelled were left.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK):
            if stop.is_due():
                _halt(client, run, futures, PATIENCE, lambda: over.is_set() or stop.hurried)
                return

    watcher = threading.Thread(target=watch, name="halt", daemon=True)
    watcher.start()
    ended = False
    try:
        yield
        ended = not stop.is_due()
    except ClusterError:
        raise
    except BaseException:
        over.set()
        if not stop.is_due():
            _halt(client, run, futures, _SHORT, lambda: False)
        raise
    finally:
        over.set()
        watcher.join()
        if not ended:
            _forget_ended(client, store, futures)


def _halt(
    client: Client,
    run: str,
    futures: Mapping[str, Future[bool]],
    patience: float,
    cut_short: Callable[[], bool],
) -> None:
    """Has every worker stop its jobs of a run, and cancels what is still pending afterwards."""

    def wind_up_workers() -> None:
        with suppress(Exception):  # a worker that ends meanwhile, or a scheduler that is gone
            client.run(wind_up, run, patience, on_error="ignore")

    winding_up = threading.Thread(target=wind_up_workers, name="wind up", daemon=True)
    winding_up.start()
    give_up = time.monotonic() + patience + _ANSWER
    while winding_up.is_alive() and time.monotonic() < give_up and not cut_short():
        winding_up.join(LOOK)
    with suppress(Exception):
        client.cancel([future for future in futures.values() if future.status == "pending"])


def _forget_ended(client: Client, store: Store, names: Iterable[str]) -> None:
    """Removes the counted attempts at jobs of this machine's workers, which are ended now."""
    workers = getattr(getattr(client, "cluster", None), "workers", {})
    pids = {getattr(worker, "pid", None) for worker in workers.values()} - {None}
    for name in names if pids else ():
        workplace = store.workplace(name)
        owner = holder(workplace) or {}
        if owner.get("host") == socket.gethostname() and owner.get("pid") in pids:
            forget_attempts(workplace)
            forget_log(workplace)
