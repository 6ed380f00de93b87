"""What there is on this machine and in a store, in one text: behind ``tombola doctor``.

Every part is looked at by itself, so that what is broken does not hide the rest.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import torch

from tombola.counts import bytes_text
from tombola.data import cache
from tombola.errors import TombolaError, reason
from tombola.lab.bench import known_speeds
from tombola.lab.environment import versions
from tombola.lab.filesystem import check_file_system
from tombola.lab.store import Store, default_place
from tombola.lab.unfinished import unfinished_jobs
from tombola.table.number import many
from tombola.training.cuda.capture import knows_this_torch
from tombola.training.cuda.plans import table_for
from tombola.training.cuda.tiles import tiles_for, triton_version
from tombola.training.device import hardware_name, resolve_device
from tombola.untrusted import printable

Facts = Iterator[tuple[str, str]]

_PACKAGES = (
    "cuda-bindings", "dask", "datasets", "distributed", "huggingface_hub", "lightning", "onnx", "pandas",
    "pyarrow", "safetensors", "timm", "torchvision", "transformers", "triton",
)  # fmt: skip
# Failed jobs whose errors are told.
_MOST_ERRORS = 5


@dataclass(frozen=True)
class Part:
    """What is said of one part of the machine; problem: why no more could be said, empty without one."""

    heading: str
    facts: list[tuple[str, str]]
    problem: str = ""


def examine(root: Path | None = None) -> str:
    """Device, versions, store, data and last errors, as lines of a few words under a heading each.

    root: the store; by default where tombola keeps its results.
    """
    lines = []
    for part in examine_parts(root):
        lines += [part.heading, *(f"  {what}: {said}" for what, said in part.facts)]
        lines += [f"  PROBLEM: {part.problem}"] * bool(part.problem)
    return "".join(f"{printable(line)}\n" for line in lines)


def examine_parts(root: Path | None = None) -> Iterator[Part]:
    """The same part by part."""
    place = Path(default_place() if root is None else root).expanduser().absolute()
    parts: dict[str, Callable[[], Facts]] = {
        "machine": _machine,
        "versions": _versions,
        "speeds": _speeds,
        "store": lambda: _store(place),
        "last errors": lambda: _errors(place),
        "data sets in the cache": _data,
    }
    for heading, facts in parts.items():
        part = Part(heading, [])
        try:
            part.facts.extend(facts())
        except Exception as error:  # what is broken is what is asked about
            kind = "" if isinstance(error, TombolaError) else f"{type(error).__name__} "
            part = replace(part, problem=f"{kind}{reason(error)}")
        yield part


def _machine() -> Facts:
    yield "system", platform.platform()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield (
        "CPU",
        f"{many(cores, 'core')}, {hardware_name(torch.device('cpu'))}, {bytes_text(memory)} of memory",
    )
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name, room = torch.cuda.get_device_name(index), f"{bytes_text(free)} of {bytes_text(total)} free"
        yield f"GPU {index}", f"{name}, compute capability {torch.cuda.get_device_capability(index)}, {room}"
        planned = table_for(name, _cudnn()) is not None
        own = " and kernels of our own" if tiles_for(name, triton_version()) is not None else ""
        what = f"named plans{own}" if planned else "chosen by cuDNN's heuristics"
        yield f"convolutions on GPU {index}", what
    yield "trainings run on", str(resolve_device("auto"))


def _versions() -> Facts:
    yield from versions().items()
    yield "torch as built", f"{torch.__version__}, CUDA {torch.version.cuda}, cuDNN {_cudnn()}"
    steps = "captured" if knows_this_torch() else "plain: this PyTorch is newer than what they are made for"
    yield "steps on a GPU", steps
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _cudnn() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def _speeds() -> Facts:
    device = resolve_device("auto")
    speeds = known_speeds(device)
    if speeds is None:
        yield "measured here", "none; tombola bench measures them, and plans tell hours then"
        return
    for speed in speeds.speeds:
        what = f"{speed.network}, batch {speed.batch_size}, {speed.packed} at once, {speed.size} pixels"
        yield what, f"{speed.images_per_second:,.0f} images/s"


def _store(place: Path) -> Facts:
    yield "place", str(place)
    if not place.exists():
        yield "holds", "nothing yet"
        return
    store = Store(place, create=False)
    usage = shutil.disk_usage(place)
    yield "room", f"{bytes_text(usage.free)} of {bytes_text(usage.total)} free on {_file_system(place)}"
    check_file_system(store.root / "work")
    yield "file system", "does all that a store needs"
    yield "holds", many(sum(1 for _ in store.names()), "finished job")
    states = Counter(job.state for job in unfinished_jobs(store))
    for state, count in sorted(states.items()):
        yield state, many(count, "job")


def _file_system(place: Path) -> str:
    """The kind of the file system of a place, where the system tells."""
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return "an unknown file system"
    kinds = {words[1]: words[2] for words in (line.split() for line in mounts) if len(words) > 2}
    resolved = place.resolve()
    return next(
        (kinds[str(at)] for at in (resolved, *resolved.parents) if str(at) in kinds), "an unknown one"
    )


def _errors(place: Path) -> Facts:
    if not place.exists():
        return
    store = Store(place, create=False)
    failed = [job for job in unfinished_jobs(store) if job.state == "failed"]
    failed.sort(key=lambda job: _time_of_error(store, job.name), reverse=True)
    for job in failed[:_MOST_ERRORS]:
        yield job.name[:12], job.detail
    if len(failed) > _MOST_ERRORS:
        yield "and before", many(len(failed) - _MOST_ERRORS, "failed job")


def _time_of_error(store: Store, name: str) -> float:
    """When a failed job failed last; 0 where that cannot be read any more."""
    try:
        return (store.workplace(name) / "error.txt").lstat().st_mtime
    except OSError:
        return 0.0


def _data() -> Facts:
    folder = cache.folder()
    yield "place", str(folder)
    for file in sorted(folder.glob("*.safetensors")):
        yield file.stem, bytes_text(file.stat().st_size)
