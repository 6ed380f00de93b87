"""Ends the jobs of a run on a Dask cluster before its driver ends: with checkpoints, no attempt counted.

A driver that stops on time, and one that is interrupted, tells every worker, waits a little, and cancels what
is pending. What does not end then dies with the workers of this machine, which is not the job's doing.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tombola.errors import ClusterError
from tombola.lab.deadline import LOOK, PATIENCE, Stop, wind_up
from tombola.lab.lease import holder
from tombola.lab.store import Store
from tombola.lab.supervision import forget_attempts, forget_log

# Seconds that jobs are waited for if the driver ends by an error or Ctrl-C, and that an answer takes on top.
_SHORT, _ANSWER = 2.0, 3.0


@contextmanager
def halting(client: Any, store: Store, run: str, futures: Mapping[str, Any], stop: Stop) -> Iterator[None]:
    """Meanwhile the jobs of a run end when the stop is due; and in the end, if this ends by an error.

    run: names the run in the workers. futures: by the names of their jobs; who is cancelled was left.
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
    client: Any, run: str, futures: Mapping[str, Any], patience: float, cut_short: Callable[[], bool]
) -> None:
    """Have every worker stop its jobs of a run, and cancel what is still pending afterwards."""

    def ask() -> None:
        with suppress(Exception):  # a worker that ends meanwhile, or a scheduler that is gone
            client.run(wind_up, run, patience, on_error="ignore")

    asking = threading.Thread(target=ask, name="wind up", daemon=True)
    asking.start()
    give_up = time.monotonic() + patience + _ANSWER
    while asking.is_alive() and time.monotonic() < give_up and not cut_short():
        asking.join(LOOK)
    with suppress(Exception):
        client.cancel([future for future in futures.values() if future.status == "pending"])


def _forget_ended(client: Any, store: Store, names: Mapping[str, Any]) -> None:
    """Forget the attempts at jobs that the workers of this machine still have: they are ended now."""
    workers = getattr(getattr(client, "cluster", None), "workers", {})
    pids = {getattr(worker, "pid", None) for worker in workers.values()} - {None}
    for name in names if pids else ():
        workplace = store.workplace(name)
        owner = holder(workplace) or {}
        if owner.get("host") == socket.gethostname() and owner.get("pid") in pids:
            forget_attempts(workplace)
            forget_log(workplace)
