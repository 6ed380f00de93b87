"""Threads that get in each other's way as often as they can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def race(*works: Callable[[], object]) -> None:
    """Call each in a thread of its own, all beginning together, and return when the last has ended."""
    together = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        together.wait()
        work()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
