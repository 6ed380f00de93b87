"""How long ``tombola --help`` takes, as a whole process. Target: at most 0.4 s.

Run: python benchmarks/startup.py [--repeats 15]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).parent))
from measure import report, seconds_in_turns


def main(repeats: int = 15) -> None:
    """Time the command beside the bare interpreter.

    repeats: counted calls of each.
    """
    commands = {"tombola --help": ["-m", "tombola.cli", "--help"], "bare interpreter": ["-c", "pass"]}

    def run(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    times = seconds_in_turns({name: lambda a=a: run(a) for name, a in commands.items()}, repeats)
    rows = [
        {"what": name, "median s": statistics.median(some), "worst s": max(some), "repeats": repeats}
        for name, some in times.items()
    ]
    report("start of the command line (target: 0.4 s)", rows)


if __name__ == "__main__":
    tyro.cli(main)
