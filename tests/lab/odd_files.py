"""Puts an odd file in place of each file of a store, and reads the store in every way; run as a process.

    python odd_files.py STORE SCRATCH KIND

Prints one line for whatever is no clean error, and ends the process with a traceback if a reader hangs. A
reader may ask for one GB more than the process has at the start.
"""

import faulthandler
import os
import resource
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

import tombola as tb
from tombola.errors import TombolaError
from tombola.experiments.last_scale import last_scale
from tombola.lab import durations, evaluate, lease, objects, supervision
from tombola.lab.archive import import_
from tombola.lab.details import show_file, show_job
from tombola.lab.export import export, export_tickets
from tombola.lab.finished import finished_job, load_result
from tombola.lab.gc import gc
from tombola.lab.listing import listing
from tombola.lab.store import Store
from tombola.lab.training_progress import TrainingReport, trainings_in_progress
from tombola.lab.user_code import altered_files, import_stored, put_file
from tombola.lab.verify import verify
from tombola.training.checkpoint import Checkpoints

_PATIENCE = 20.0
"""Seconds after which a reader counts as one that hangs; each takes less than one."""
_SPARSE = 30_000_000_000


def planted(path: Path, kind: str) -> None:
    """Put an odd file of a kind at a place."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            os.chdir(path.parent)  # the path of a socket is at most 108 bytes long
            listening.bind(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(path.with_name(f".kept.{path.name}"))
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(_SPARSE)


def readers(lab: tb.Lab, scratch: Path, near: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every way in which a store is read, by name; of single jobs only for those whose file is odd.

    near: place of the odd file in the store.
    """
    store = lab.store
    names = [name for name in sorted(store.names()) if name in near or not near.startswith("jobs/")]
    workplaces = [path for path in (store.root / "work").iterdir() if len(path.name) == 64]

    def shown(what: Any) -> None:
        with Console(file=open(os.devnull, "w")) as console:
            console.print(what)

    yield "opening", lambda: Store(store.root, create=False)
    yield "ls", lambda: shown(listing(store, tickets=True))
    yield "verify", lambda: list(verify(store))
    yield "gc", lambda: gc(store, "tickets", grace=-60.0)
    yield "table", lambda: lab.table().csv()
    yield "export", lambda: export(store, None, scratch / "export")
    yield "export of tickets", lambda: export_tickets(store, None, scratch / "tickets")
    yield "import", lambda: import_(store, scratch / "honest")
    yield "last scale", lambda: last_scale(store)
    yield "trainings", lambda: trainings_in_progress(store)
    yield "own files", lambda: list(altered_files(store))
    own = scratch / "own.py"
    yield "own file put", lambda: put_file(store, own)
    fingerprint = next(path.stem for path in (store.root / "files").iterdir())
    yield "own file read", lambda: import_stored(store, fingerprint)
    yield "data", lambda: objects.stored_data(store, "digits")
    for name in names:
        yield "show", lambda name=name: shown(show_job(store, name))
        yield "result", lambda name=name: load_result(store, name)
        yield "forgetting", lambda name=name: store.forgetting_tensors(name)
        if (store.folder(name) / "history.csv").exists():
            yield "curve", lambda name=name: lab.results().curve(finished_job(store, name))
        yield (
            "duration",
            lambda name=name: durations._Durations(store.root).shortest(
                store.description(name), store.provenance(name)["hardware"]
            ),
        )
    for workplace in workplaces:
        yield (
            "lease",
            lambda workplace=workplace: (
                lease.free(workplace),
                lease.holder(workplace),
                lease.acquire(workplace),
            ),
        )
        yield "checkpoint", lambda workplace=workplace: Checkpoints(workplace).resume()
        yield "attempts", lambda workplace=workplace: supervision.deaths(workplace)
        yield (
            "log",
            lambda workplace=workplace: (
                supervision.append_to_log(workplace, "a line"),
                supervision.last_lines(workplace),
            ),
        )
        yield "report", lambda workplace=workplace: _report(workplace)


def _report(workplace: Path) -> None:
    report = TrainingReport(workplace, "train")
    report._written = -10.0
    report.reach(1, 2)


def everything(store: Store) -> list[Path]:
    """Every file of a store that may be replaced by an odd one."""
    return sorted(path for path in store.root.rglob("*") if path.is_file())


def forget() -> None:
    """Nothing that was read may be remembered."""
    for cached in (objects._object, objects._data, evaluate._derived_data, durations._durations):
        cached.cache_clear()


def read_all(lab: tb.Lab, scratch: Path, label: str) -> None:
    """Read a store in every way and print what is no clean error."""
    for way, read in readers(lab, scratch, label):
        forget()
        faulthandler.dump_traceback_later(_PATIENCE, exit=True)
        try:
            read()
        except TombolaError as error:
            if "\n" in str(error) or str(error) == "":
                print(f"{label}, {way}: not one line: {error!r:.300}")
        except BaseException as error:
            print(f"{label}, {way}: {error!r:.300}")
        finally:
            faulthandler.cancel_dump_traceback_later()


def main() -> None:
    """Replace each file in turn."""
    lab, scratch, kind = tb.Lab(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    store = lab.store
    warnings.simplefilter("ignore")
    read_all(lab, scratch, "untouched")
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, resource.RLIM_INFINITY))
    for path in everything(store):
        kept = path.with_name(f".kept.{path.name}")
        path.rename(kept)
        planted(path, kind)
        print(f"{path.relative_to(store.root)} is a {kind} now", file=sys.stderr, flush=True)
        read_all(lab, scratch, str(path.relative_to(store.root)))
        if path.is_dir() and not path.is_symlink():
            path.rmdir() if not any(path.iterdir()) else path.rename(scratch / f"folder-{path.name}")
        kept.replace(path)
    for file in ("export", "own.py"):
        path = scratch / file
        path.unlink()
        planted(path, "pipe")
        for read in (show_file, tb.Ticket.load, tb.Run.load, lambda file: import_(store, file)):
            faulthandler.dump_traceback_later(_PATIENCE, exit=True)
            with suppress(TombolaError):
                read(path)
            faulthandler.cancel_dump_traceback_later()
    print("done")


if __name__ == "__main__":
    main()
