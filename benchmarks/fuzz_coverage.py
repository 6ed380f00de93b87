"""Files from strangers, altered by what the readers' own branches say: a million inputs, only clean errors.

    pip install atheris
    python benchmarks/fuzz_coverage.py

Atheris (libFuzzer for Python) keeps each input that reaches a new branch of tombola or of Python's modules
for JSON, TOML and zip files, and alters it further. Half of the alterations are its own, of bytes; the
others replace values, members and tensors, under checksums that fit. Each target is read in a process of
its own. An input fails if anything but a ``TombolaError`` of one line comes out, if it asks for more than a
GB of memory, or takes longer than 20 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import atheris

with atheris.instrument_imports(include=["json", "PIL", "tombola", "tomllib", "zipfile"]):
    import alter
    import datasets
    import pyarrow as pa
    import torch
    from guard import SECONDS, Escape, Guard, bound_memory
    from whole_store import WholeStore

    import tombola as tb
    from tombola import files
    from tombola.data import hub
    from tombola.data.catalogue import origin_of
    from tombola.data.tables import check_files
    from tombola.errors import JobError, TombolaError, reason
    from tombola.experiments.from_file import read_experiments
    from tombola.experiments.last_scale import last_scale
    from tombola.lab import user_code
    from tombola.lab.archive import import_
    from tombola.lab.description import (
        check_description,
        data_names,
        described_in_full,
        describes,
        name_of,
        own_values,
        parents,
    )
    from tombola.lab.export import export
    from tombola.lab.listing import listing
    from tombola.lab.store import Store
    from tombola.untrusted import json_object

# Inputs of each target in about half a minute, and of the cheapest in two.
INPUTS = {
    "toml": 40_000, "scale": 100_000, "history": 70_000, "tensors": 30_000, "archive": 10_000,
    "json": 750_000, "pictures": 15_000, "parquet": 3_000, "store": 500,
}  # fmt: skip
# Bytes of the longest input, if no valid one has more than half of it.
LONGEST = 2**12

_TOML = b"""
name = "mine"
title = "Mine"
networks = ["tiny"]
data = ["digits"]
seeds = 2
rounds = 2
rewind = [0, 1]
[between.rounds]
"barrier.height" = { points = 5 }
[recipe]
epochs = 2
momentum = [0.0, 0.9]
"""
_SCALE = b"""{
    "scale": "paper", "numbers": {"epochs": 20, "columns": [1, 2], "configs": ["0.0/256"], "lr": 0.1}
}"""


class Target(NamedTuple):
    """What is read, and from where alterations begin.

    seeds: valid inputs. read: whatever has them as its input. alter: a valid input, which stays nearly so.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    alter: Callable[[Random, bytes], bytes]


@tb.declare_network("tiny")
def tiny(classes: int, channels: int) -> torch.nn.Module:
    pooled = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*pooled, torch.nn.Linear(channels, classes))


def _refuse_code(path: Path, content: bytes) -> Any:
    raise JobError(f"{path} is not executed here")


def target(name: str, room: Path) -> Target:
    """What is fuzzed under a name, with seeds made in a folder."""
    path = room / "input"
    lab = tb.Lab(room / "store")
    start, recipe = tb.job(tb.initialize, "tiny", "digits"), tb.Recipe(epochs=1, batch_size=600)
    run = tb.job(tb.train, start, "digits", recipe)
    lab.run(run).raise_failures()
    folder = lab.store.folder(run.name)

    def read_json(content: bytes) -> None:
        try:
            description = json_object(content)
            check_description(description)
        except ValueError as error:
            raise TombolaError(reason(error)) from error
        describes(description, alter.NAME)
        for names in (parents, data_names, own_values, described_in_full):
            names(description)

    def read_history(content: bytes) -> None:
        (folder / "history.csv").write_bytes(content)
        for row in lab.store.history(run.name):
            if not all(isinstance(cell, str) for item in row.items() for cell in item):
                raise TypeError(f"no row of texts: {row!r:.300}")

    def read_toml(content: bytes) -> None:
        path.with_suffix(".toml").write_bytes(content)
        experiment = read_experiments(path.with_suffix(".toml")).experiments[0]
        if max(experiment.rounds, experiment.seeds, experiment.copies) < 4:
            experiment.at()

    def read_scale(content: bytes) -> None:
        (lab.store.root / "studies.json").write_bytes(content)
        scale = last_scale(lab.store)
        str(scale and scale.budget).encode()

    def read_tensors(content: bytes) -> None:
        path.write_bytes(content)
        kind = files.file_kind(path)
        files.read_description(path)
        files.read_tensors(path, kind)
        tb.Run.load(path) if "run" in kind else tb.Ticket.load(path)

    def read_archive(content: bytes) -> None:
        path.write_bytes(content)
        taken = Store(room / "taken")
        try:
            import_(taken, path)
            listing(taken)
        finally:
            shutil.rmtree(taken.root)

    def read_picture(content: bytes) -> None:
        kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        cells = datasets.Dataset(pa.table({"image": pa.array([{"bytes": content, "path": None}] * 2, kind)}))
        with guard.on(room):
            hub.decoded([cells], "image", "x", room)
        if zlib.crc32(content) % 64 == 0:  # a folder of them takes a hundred times as long
            for place in ("cat/a.png", "cat/b.png", "bat/a.png", "bat/b.png"):
                (room / "folder" / place).parent.mkdir(parents=True, exist_ok=True)
                (room / "folder" / place).write_bytes(content)
            with guard.on(room):
                hub.load(origin_of(room / "folder"))

    def read_parquet(content: bytes) -> None:
        readme, table = alter.parted(content)
        (room / "data").mkdir(exist_ok=True)
        (room / "data" / "README.md").write_bytes(readme)
        (room / "data" / "data.parquet").write_bytes(table)
        if zlib.crc32(content) % 32 and readme == alter.parted(seeds[0])[0]:
            check_files(
                [str(room / "data" / "data.parquet")], "x"
            )  # where most end, and a hundredth of the time
        hub.load(origin_of(room / "data"))

    def written(write: Callable[[Path], object]) -> bytes:
        write(path)
        return path.read_bytes()

    arguments = {"ticket": {"job": name_of(alter.CALL), "call": alter.CALL}, "data": {"data": "digits"}}
    calls = [json.dumps(call).encode() for call in (alter.CALL, alter.CALL | {"arguments": arguments})]
    user_code._module = _refuse_code
    guard = Guard()
    tempfile.tempdir = str(room)
    match name:
        case "pictures":
            return Target(list(alter.pictures()), read_picture, alter.altered_picture)
        case "parquet":
            seeds = list(alter.data_folders())
            return Target(seeds, read_parquet, alter.altered_data)
        case "store":
            whole = WholeStore(room, guard)
            return Target(whole.seeds(), whole.read, alter.altered_text)
        case "json":
            return Target([(folder / "job.json").read_bytes(), *calls], read_json, alter.altered_json)
        case "history":
            return Target([(folder / "history.csv").read_bytes()], read_history, alter.altered_text)
        case "toml":
            return Target([_TOML, b'import = "more.py"' + _TOML], read_toml, alter.altered_toml)
        case "scale":
            return Target([_SCALE], read_scale, alter.altered_json)
        case "tensors":
            trained = lab.result(run)
            half = tb.prune(trained, fraction=0.5)
            seeds = [written(half.save), written(partial(half.save, with_start=True)), written(trained.save)]
            return Target(seeds, read_tensors, alter.altered_tensors)
    exported = [
        written(lambda to, form=form: export(lab.store, [run.name], to, compress=form))
        for form in (False, True)
    ]
    return Target(exported, read_archive, alter.altered_archive)


def fuzz(name: str, inputs: int, seed: int, room: Path) -> None:
    """Read so many inputs, print what came of them, and end the process: 0 if all were clean."""
    chosen = target(name, room)
    (room / "corpus").mkdir()
    for number, content in enumerate(chosen.seeds):
        with suppress(TombolaError):  # whatever is imported late, now
            chosen.read(content) if b"more.py" not in content else None
        (room / "corpus" / str(number)).write_bytes(content)
    outcomes: Counter[str] = Counter()
    failures: dict[str, str] = {}
    started = time.monotonic()
    signal.signal(signal.SIGALRM, _too_long)
    bound_memory()

    def one(content: bytes) -> None:
        signal.alarm(SECONDS)
        try:
            chosen.read(content)
            outcomes["read"] += 1
        except TombolaError as error:
            outcomes["clean errors"] += 1
            if "\n" in str(error):
                failures.setdefault("more than one line", f"{error!r:.300}")
            if isinstance(error.__cause__, MemoryError):
                failures.setdefault(f"memory, {error.__cause__!r:.60}", f"{error!r:.300} {content[:400]!r}")
        except (Exception, Escape) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            cause = f"{type(error).__name__} in {where.name}, line {where.lineno}"
            text = "".join(traceback.format_exception(error, limit=-8))
            failures.setdefault(cause, f"{text}{len(content):,} bytes: {content[:400]!r}")
            outcomes["failures"] += 1
        finally:
            signal.alarm(0)
        if outcomes.total() >= inputs:
            finish()

    def finish() -> None:
        for failure in failures.values():
            print(failure)
        kept, seconds = len(list((room / "corpus").iterdir())), time.monotonic() - started
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(outcomes.items()))
        print(f"{name:<8} {outcomes.total():>9,} inputs, {seconds:.0f} s: {told}; {kept:,} kept", flush=True)
        if failures:
            print(f"{len(failures)} ways through: {'; '.join(failures)}", flush=True)
        for folder in (room, room.with_name(f"{room.name}-outside")):
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(bool(failures))  # libFuzzer would go on

    def altered(content: bytes, longest: int, number: int) -> bytes:
        draw = Random(number)
        if draw.randrange(2):
            with suppress(Exception):  # it is no valid input any more
                nearly = chosen.alter(draw, content)
                if len(nearly) <= longest:
                    return nearly
        return bytes(atheris.Mutate(content, longest))

    longest = max(LONGEST, *(2 * len(content) for content in chosen.seeds))
    flags = [f"-seed={seed + 1}", f"-max_len={longest}", "-len_control=0", "-mutate_depth=2"]
    flags += ["-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(room / "corpus")], one, custom_mutator=altered)
    atheris.Fuzz()


def _too_long(*_: object) -> None:
    raise Escape(f"more than {SECONDS} seconds")


def main() -> None:
    """Fuzz one target, or each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", choices=INPUTS)
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.target:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        room = Path(tempfile.mkdtemp(prefix="tombola-fuzz-", dir=memory)).resolve()
        fuzz(options.target, options.inputs or INPUTS[options.target], options.seed, room)
    broken = []
    for name, inputs in INPUTS.items():
        command = [sys.executable, __file__, "--target", name, "--seed", str(options.seed)]
        if subprocess.run([*command, "--inputs", str(options.inputs or inputs)]).returncode:
            broken.append(name)
    if broken:
        raise SystemExit(f"not only clean errors: {', '.join(broken)}")


if __name__ == "__main__":
    main()
