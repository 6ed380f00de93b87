"""Pictures of a report as files, drawn by several processes at once: matplotlib keeps to one core."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from tombola.report.figure import picture_files
from tombola.safe_path import safe_path
from tombola.views.picture import Picture

Drawn = Iterator[tuple[Picture, dict[str, bytes]]]


@contextmanager
def drawn(pictures: Sequence[Picture], kinds: Sequence[str], processes: int = 1) -> Iterator[Drawn]:
    """Each picture with its files of those kinds, in order; other processes draw while the block runs.

    processes: how many draw at once; with 1 this one does, when it is asked for the next.
    """
    make = partial(picture_files, kinds=tuple(kinds))
    processes = min(processes, len(pictures))
    if processes < 2:
        yield zip(pictures, map(make, pictures), strict=True)
        return
    # Spawned, for a fork of a process that has loaded torch may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_follow_parent)
    try:
        with safe_path():
            files = pool.map(make, pictures)  # starts the processes
        yield zip(pictures, files, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """Ctrl-C reaches every process of a terminal, and is the parent's to answer; with its end all ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
