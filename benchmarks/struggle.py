"""A run in a store that somebody else alters at random meanwhile: afterwards all bits are equal again.

    python benchmarks/struggle.py --rounds 5

Two prunings with barriers between the rounds run as a process of their own, while files and folders of the
store are deleted, cut, swapped, dated and replaced by pipes, folders and links, some to a folder outside.
Then what ``tombola verify`` and ``tombola run`` name is removed, as they say, until both are content. The
results must equal those of an undisturbed run, and no file outside may have changed before that.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from safetensors.torch import load_file

from tombola.files import fingerprint

_EXPERIMENT = """
name = "mine"
rounds = 2
[between.rounds]
"barrier" = { points = 3 }
[recipe]
epochs = 2
batch_size = 300
"""
# Seconds that the run may take, and turns of repairing.
_PATIENCE, _TURNS = 300, 12
# Files outside, of names that a workplace or a job has.
_OUTSIDE = ("checkpoint", "lease", "log.txt", "job.json", "result.json")
_DAMAGED = re.compile(r"(?:delete|remove) (/\S+)|(/\S+) is (?:no folder|a link|damaged)")


def tombola(room: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command of tombola on the store in a room, begun."""
    command = [sys.executable, "-m", "tombola.cli", *arguments]
    outlet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(
        command, cwd=room, env=os.environ | {"TOMBOLA_CACHE": str(room / "cache")}, **outlet
    )


def run(room: Path, store: str) -> subprocess.Popen[str]:
    return tombola(room, "run", "mine.toml", "--store", store, "--workers", "0")


def ended(process: subprocess.Popen[str]) -> str:
    """What a command printed; an error if it hangs or ends with a traceback."""
    try:
        text, _ = process.communicate(timeout=_PATIENCE)
    finally:
        process.kill()
    if "Traceback" in text:
        raise SystemExit(f"a traceback: {text[-2000:]}")
    return text


def results(store: Path) -> dict[str, str]:
    """What each job of a store came to, without the seconds that it took."""
    found = {}
    for folder in store.glob("jobs/??/*"):
        tensors = folder / "result.safetensors"
        if tensors.exists():
            values = {name: value for name, value in load_file(tensors).items() if "seconds" not in name}
            found[folder.name] = fingerprint(values)
        elif json.loads((folder / "job.json").read_text())["function"] == "barrier":
            found[folder.name] = (folder / "result.json").read_text()
    return found


def alter(draw: Random, store: Path, outside: Path) -> None:
    """Alter one file or folder of a store."""
    places = list(store.rglob("*"))
    path, other = draw.choice(places), draw.choice(places)
    if path.parent.resolve() != path.parent:
        return  # behind a link of before
    is_file = path.is_file() and not path.is_symlink()
    match draw.randrange(8):
        case 0:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        case 1:
            path.rename(other)
        case 2:
            path.rename(path.with_name(f"moved{draw.random()}"))
            path.symlink_to(draw.choice([outside, outside / "log.txt", outside / "empty"]))
        case 3 if is_file:
            path.unlink()
            os.mkfifo(path)
        case 4 if is_file:
            os.truncate(path, path.stat().st_size // 2)
        case 5 if is_file:
            path.unlink()
            path.mkdir()
        case 6:
            os.utime(path, (4e9, 4e9))
        case _:
            aside = path.with_name(f"aside{draw.random()}")
            path.rename(aside)
            time.sleep(0.01)
            aside.rename(path)


def removed(path: Path, store: Path) -> bool:
    """Whether something named as damaged was in a store, and is gone now; what is behind a link stays."""
    if store not in path.parents or not os.path.lexists(path):
        return False
    links = [folder for folder in path.parents if store in folder.parents and folder.is_symlink()]
    path = links[-1] if links else path
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return True


def repaired(room: Path) -> int:
    """Repair a store as its messages say, and return in how many turns; an error if they do not help."""
    store = room / "store"
    for turn in range(_TURNS):
        verify = tombola(room, "verify", "--store", "store")
        text = ended(verify)
        again = run(room, "store")
        text += ended(again)
        if verify.returncode == again.returncode == 0:
            return turn
        mark = store / "tombola.json"
        if "tombola.json" in text or "holds other files" in text or "no store at" in text:
            removed(mark, store)
            mark.write_text('{"format": 1}')
            continue
        named = [store / line.split(": ")[0] for line in text.splitlines() if "/" in line.split(": ")[0]]
        named += [Path((first or second).rstrip(";,.:")) for first, second in _DAMAGED.findall(text)]
        if not sum([removed(path, store) for path in named]):
            raise SystemExit(f"nothing to repair is named: {text[-2000:]}")
    raise SystemExit(f"damaged after {_TURNS} turns")


def struggle(room: Path, draw: Random) -> None:
    """One round: a run, alterations, repairs; an error if anything is lost or harmed."""
    store, outside = room / "store", room / "outside"
    for folder in (store, outside):
        shutil.rmtree(folder, ignore_errors=True)
    (outside / "empty").mkdir(parents=True)
    for name in _OUTSIDE:
        (outside / name).write_text("mine")
    if draw.random() < 0.5:
        shutil.copytree(room / "honest", store)
        for folder in draw.sample(sorted(store.glob("jobs/??/*")), 3):
            shutil.rmtree(folder)
    process, begun, count = run(room, "store"), time.monotonic(), 0
    while process.poll() is None and count < 40 and time.monotonic() - begun < 60:
        if store.exists() and time.monotonic() - begun > 3:
            with suppress(OSError, IndexError):
                alter(draw, store, outside)
                count += 1
        time.sleep(draw.choice([0.01, 0.05, 0.3]))
    ended(process)
    harmed = [name for name in _OUTSIDE if (outside / name).read_text() != "mine"]
    turns = repaired(room)
    if harmed:
        raise SystemExit(f"files outside were altered: {harmed}")
    before, after = results(room / "honest"), results(store)
    different = [name[:12] for name in after if before.get(name) != after[name]]
    if different:
        raise SystemExit(f"other bits: {different}")
    print(
        f"{count} alterations, ended with {process.returncode}, {turns} repairs: all bits equal", flush=True
    )


def main() -> None:
    """Undisturbed once, then round by round."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tombola-struggle-") as folder:
        room = Path(folder).resolve()
        (room / "mine.toml").write_text(_EXPERIMENT)
        ended(run(room, "honest"))
        for number in range(options.rounds):
            struggle(room, Random(1000 * options.seed + number))


if __name__ == "__main__":
    main()
