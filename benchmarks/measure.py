"""What all benchmarks share: repeated timing in turns, and results as a table and as JSON."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


def seconds_in_turns(work: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each piece of work, all in turn and again: fair on a drifting machine."""
    for run in work.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, run in work.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return times


def median_ratio(first: list[float], second: list[float]) -> float:
    """Median of the pairwise ratios: what a noisy machine changes least."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def report(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table, and after it everything as one line of JSON."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    machine = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"title": title, "machine": machine, "rows": rows}))
