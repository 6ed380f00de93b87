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
import hashlib
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import atheris

with atheris.instrument_imports(include=["json", "tombola", "tomllib", "zipfile"]):
    import json
    import tomllib
    import zipfile

    import torch
    from guard import SECONDS, Escape, bound_memory
    from hostile import PATHS, fitting_checksums, places

    import tombola as tb
    from tombola import files
    from tombola.errors import JobError, TombolaError, reason
    from tombola.experiments.from_file import read_experiments
    from tombola.experiments.last_scale import last_scale
    from tombola.lab import user_code
    from tombola.lab.archive import import_
    from tombola.lab.description import check_description, data_names, described_in_full, own_values, parents
    from tombola.lab.export import export
    from tombola.lab.job import describes, name_of
    from tombola.lab.listing import listing
    from tombola.lab.store import Store
    from tombola.untrusted import json_object

# Inputs of each target in about half a minute, and of the cheapest in two.
INPUTS = {
    "toml": 40_000, "scale": 100_000, "history": 70_000, "tensors": 30_000, "archive": 10_000,
    "json": 750_000,
}  # fmt: skip
# Bytes of the longest input, if no valid one has more than half of it.
LONGEST = 2**12

_NAME = "0123456789abcdef" * 4
_CALL: dict[str, Any] = {"function": "train", "version": 1, "arguments": {"run": {"job": _NAME}}}
_VALUES: list[Any] = [
    None, True, False, "", [], {}, [[]], {"": {}}, "é" * 300, 0, 1, 2, 3, -1, 7, 2**31, 2**53, 2**63, 2**70,
    10**400, 0.5, 0.25, -0.0, 1e308, float("nan"), float("-inf"), [2**40] * 3, [-1, -1], [2**32, 2**32],
    [0, 2**62], ["3"], {"job": _NAME}, {"job": _NAME, "call": _CALL}, {"data": "digits"}, _CALL, *PATHS,
    {"value": _NAME, "type": "Run"}, {"float": "nan"}, "F64", "BOOL", "F8_E4M3", "I16", "tiny", "paper",
    "none", "whole", "train", _NAME,
]  # fmt: skip
_WORDS = [
    b"", b"\0", b"\r", b"\n", b"\xff", b'"', b"'", b'"""', b",", b"[", b"{", b"[[", b"a.", b"=", b"1e999",
    b"nan", b"[" * 1_500, b'{"a":' * 1_500, b"9" * 5_000, b"," * 1_000,
    b"x\n" * 1_000, b"\\ud800", b"\x1b[2J", "\u2028\x85\u202e".encode(), b"0x1", b"1979-05-27", b"07:32:00",
    b"inf", *map(str.encode, PATHS),
]  # fmt: skip

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


def altered_text(draw: Random, content: bytes) -> bytes:
    """Bytes with a word, or a part of their own, once or often in place of some of them."""
    place, other = draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)
    word = draw.choice([*_WORDS, content[other : other + draw.choice([1, 8, 80])]])
    rest = content[place + draw.choice([0, 0, 1, 5, 40]) :]
    return content[:place] + word * draw.choice([1, 1, 1, 1, 2, 100]) + rest


def altered_value(draw: Random, value: Any) -> Any:
    """A JSON value, of which one to three parts are replaced, removed, renamed or copied; itself altered."""
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        inner = places(value)
        if not inner:
            return draw.choice(_VALUES)
        (container, key), (source, other) = draw.choice(inner), draw.choice(inner)
        part = json.loads(json.dumps(draw.choice([*_VALUES, source[other], source[other]])))
        match draw.randrange(4):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[draw.choice([*PATHS, "job", "call", "data", str(other)])] = container.pop(key)
            case 2 if isinstance(container, dict):
                container[draw.choice([*PATHS, "job", "call", "data", str(other)])] = part
            case _:
                container[key] = part
    return value


def altered_json(draw: Random, content: bytes) -> bytes:
    return json.dumps(altered_value(draw, json.loads(content))).encode()


def altered_toml(draw: Random, content: bytes) -> bytes:
    """A TOML file with values altered, or its text."""
    if draw.randrange(2):
        return altered_text(draw, content)
    return _toml(altered_value(draw, tomllib.loads(content.decode())), "\n").encode()


def _toml(value: Any, between: str = "") -> str:
    if isinstance(value, dict):
        entries = [f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()]
        return between.join(entries) if between else "{" + ", ".join(entries) + "}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value, default=str)


def altered_tensors(draw: Random, content: bytes) -> bytes:
    """A tensor file with its description, header or values altered, and sealed as its writer would."""
    (length,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__")
    match draw.randrange(4):
        case 0:
            header = altered_value(draw, header)
        case 1:
            body = altered_text(draw, body)[: len(body)].ljust(len(body), b"\0")
        case _:
            metadata["description"] = json.dumps(altered_value(draw, json.loads(metadata["description"])))
    metadata["checksums"] = json.dumps(fitting_checksums(header, body))
    raw = json.dumps({"__metadata__": metadata | {"seal": files._seal(metadata)}, **header}).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def altered_archive(draw: Random, content: bytes) -> bytes:
    """An export with a member altered, renamed or removed, under checksums and names of jobs that fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    member = draw.choice(sorted(members))
    folder, _, file = member.rpartition("/")
    match draw.randrange(8):
        case 0:
            members[draw.choice([*PATHS, f"{folder}/thin", f"{folder}/history.csv"])] = members.pop(member)
        case 1:
            del members[member]
        case 2:
            manifest = altered_value(draw, manifest)
        case _:
            alter = altered_json if file.endswith("json") else altered_text
            members[member] = (altered_tensors if "safetensors" in file else alter)(draw, members[member])
    if file in ("result.json", "history.csv") and member in members:
        provenance = json.loads(members[f"{folder}/provenance.json"])
        provenance["sums"][file] = hashlib.sha256(members[member]).hexdigest()
        members[f"{folder}/provenance.json"] = json.dumps(provenance).encode()
    if file == "job.json" and member in members:
        before, after = folder.removeprefix("jobs/"), name_of(json.loads(members[member]))
        members = {name.replace(before, after): value for name, value in members.items()}
        manifest["jobs"] = [after if name == before else name for name in manifest["jobs"]]
    manifest["checksums"] = {name: hashlib.sha256(value).hexdigest() for name, value in members.items()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, value in (members | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, value)
    return written.getvalue()


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
        describes(description, _NAME)
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

    def written(write: Callable[[Path], object]) -> bytes:
        write(path)
        return path.read_bytes()

    arguments = {"ticket": {"job": name_of(_CALL), "call": _CALL}, "data": {"data": "digits"}}
    calls = [json.dumps(call).encode() for call in (_CALL, _CALL | {"arguments": arguments})]
    user_code._module = _refuse_code
    match name:
        case "json":
            return Target([(folder / "job.json").read_bytes(), *calls], read_json, altered_json)
        case "history":
            return Target([(folder / "history.csv").read_bytes()], read_history, altered_text)
        case "toml":
            return Target([_TOML, b'import = "more.py"' + _TOML], read_toml, altered_toml)
        case "scale":
            return Target([_SCALE], read_scale, altered_json)
        case "tensors":
            trained = lab.result(run)
            half = tb.prune(trained, fraction=0.5)
            seeds = [written(half.save), written(partial(half.save, with_start=True)), written(trained.save)]
            return Target(seeds, read_tensors, altered_tensors)
    exported = written(lambda to: export(lab.store, [run.name], to))
    return Target([exported], read_archive, altered_archive)


def fuzz(name: str, inputs: int, seed: int, room: Path) -> None:
    """Read so many inputs, print what came of them, and end the process: 0 if all were clean."""
    chosen = target(name, room)
    (room / "corpus").mkdir()
    for number, content in enumerate(chosen.seeds):
        chosen.read(content) if b"more.py" not in content else None  # whatever is imported late, now
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
        shutil.rmtree(room)
        os._exit(bool(failures))  # libFuzzer would go on

    def alter(content: bytes, longest: int, number: int) -> bytes:
        draw = Random(number)
        if draw.randrange(2):
            with suppress(Exception):  # it is no valid input any more
                altered = chosen.alter(draw, content)
                if len(altered) <= longest:
                    return altered
        return bytes(atheris.Mutate(content, longest))

    longest = max(LONGEST, *(2 * len(content) for content in chosen.seeds))
    flags = [f"-seed={seed + 1}", f"-max_len={longest}", "-len_control=0", "-mutate_depth=2"]
    flags += ["-rss_limit_mb=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(room / "corpus")], one, custom_mutator=alter)
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
