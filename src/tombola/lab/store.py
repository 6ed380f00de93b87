"""The store: one readable folder for each finished job, on a file system that all machines share.

::

    jobs/ab/abcd.../    job.json           the call, as it was written down
                        result.json        the numbers of the result
                        result.safetensors its tensors, if it has any
                        history.csv        of a run: one row an epoch
                        ticket.safetensors of a run whose weights were removed, in place of its tensors
                        forgetting.safetensors likewise: what happened to each training image
                        provenance.json    versions, device, times, data fingerprint, sums of the text files
    objects/            tensors that many jobs share, by fingerprint: dense starts, the caller's own data
    data/               what each data name stands for, and the fingerprint of its pixels
    files/              the user's own Python files by their hash, for workers to import
    studies.json        the scale that studies were last run at
    work/abcd.../       of a job under way: lease, attempts, checkpoints, the error if it failed

A job's folder is written under work/ and appears under jobs/ by one atomic rename. Nothing is a pickle.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.atomic import sync_folder, write_whole
from tombola.errors import JobError, StoreError, StoreUnwritable, TicketError, reason, remedy, unwritable
from tombola.lab.description import check_description, is_fingerprint
from tombola.untrusted import json_object

if TYPE_CHECKING:
    from torch import Tensor

    from tombola.lab.results import Packed


FORMAT = 1

_RESULT, _RECORD_KIND = "tombola.result/1", "tombola.forgetting/1"
_TENSORS, TICKET, RECORD = "result.safetensors", "ticket.safetensors", "forgetting.safetensors"
_OF_RECORD = "forgetting."
# Marks a job whose tensors were removed on purpose: its numbers are all there is.
_THIN = "thin"


def default_place() -> Path:
    """Where the store lies unless told otherwise: ``TOMBOLA_STORE``, or the platform's user data folder."""
    from platformdirs import user_data_path

    return Path(os.environ.get("TOMBOLA_STORE") or user_data_path("tombola") / "store")


class Store:
    """Results by job name. Any number of processes on any number of machines may use one store at once.

    Raises :class:`~tombola.errors.StoreError` if the place cannot be used or is of another format.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.root = Path(default_place() if root is None else root).expanduser().absolute()
        mark = self.root / "tombola.json"
        try:
            if not mark.exists():
                if self.root.is_dir() and any(_foreign(p.name) for p in self.root.iterdir()):
                    raise StoreError(f"{self.root} holds other files; a store wants a folder of its own")
                if not create:
                    raise StoreError(f"no store at {self.root}; name one with --store or TOMBOLA_STORE")
                for folder in sorted(FOLDERS):
                    (self.root / folder).mkdir(parents=True, exist_ok=True)
                write_json(mark, {"format": FORMAT})
            found = read_json(mark).get("format")
        except OSError as error:
            raise StoreUnwritable(
                f"cannot use a store at {self.root}: {reason(error)}; {remedy(error)}"
            ) from error
        except ValueError as error:
            raise StoreError(
                f"cannot use a store at {self.root}: {reason(error)}; if it is one, write "
                f"{json.dumps({'format': FORMAT})} into {mark.name} there"
            ) from error
        if found != FORMAT:
            raise StoreError(f"the store at {self.root} has format {found!r}; this tombola reads {FORMAT}")

    def folder(self, name: str) -> Path:
        """Where the finished job of that name is or will be."""
        return self.root / f"jobs/{name[:2]}/{name}"  # one path instead of three: listings make thousands

    def workplace(self, name: str) -> Path:
        """Where a job under way keeps its lease and checkpoints."""
        return self.root / "work" / name

    def has(self, name: str) -> bool:
        """Whether the job is finished."""
        return self.folder(name).is_dir()

    def is_thin(self, name: str) -> bool:
        """Whether only the numbers of a finished job are left: its tensors were removed, or left behind."""
        return (self.folder(name) / _THIN).exists()

    def names(self) -> Iterator[str]:
        """The names of all finished jobs."""
        for shelf in sorted((self.root / "jobs").glob("??")):
            yield from sorted(path.name for path in shelf.glob("*"))

    def find(self, prefix: str) -> str:
        """The one finished job whose name begins so; :class:`~tombola.errors.JobError` if none or several."""
        found = [name for name in self.names() if name.startswith(prefix.lower())] if prefix else []
        if len(found) != 1:
            what = "no job" if not found else f"{len(found)} jobs"
            raise JobError(f"{what} in {self.root} with a name that begins with {prefix!r}; see tombola ls")
        return found[0]

    def description(self, name: str) -> dict[str, Any]:
        """The call that a finished job was; all references in it are ones that the store can have."""
        description = self._read(name, "job.json")
        try:
            check_description(description)
        except ValueError as error:
            raise self.damaged(name, f"job.json: {reason(error)}") from error
        return description

    def numbers(self, name: str) -> dict[str, Any]:
        """The numbers of a finished job's result, read without its tensors."""
        return self._read(name, NUMBERS)

    def provenance(self, name: str) -> dict[str, Any]:
        """Versions, device and times of a finished job."""
        return self._read(name, "provenance.json")

    def packed(self, name: str) -> Packed:
        """The result of a finished job, as it was packed."""
        from tombola import files
        from tombola.lab.results import Packed

        self.check(name, NUMBERS)
        path = self.folder(name) / _TENSORS
        if not path.exists():
            if self.is_thin(name):
                raise StoreError(
                    f"of job {name[:12]} only the numbers are left; run it again to have the rest"
                )
            return Packed(self.numbers(name), {}, {})
        try:
            details, tensors = files.read_tensors(path, _RESULT)
        except TicketError as error:
            raise self.damaged(name, str(error)) from error
        return Packed(self.numbers(name), details, tensors)

    def details(self, name: str) -> dict[str, Any]:
        """How the tensors of a finished job fit together, read without them; of a thin one, of its ticket."""
        from tombola import files

        thin = self.is_thin(name)
        path = self.folder(name) / (TICKET if thin else _TENSORS)
        if not path.exists():
            return {}
        try:
            found = files.read_description(path)
        except TicketError as error:
            raise self.damaged(name, str(error)) from error
        # What it refers to is followed: it must be a fingerprint, and not another place.
        ticket = found.get("ticket", found)
        if not isinstance(ticket, dict) or (
            ticket.get("start_kept") == "none" and not is_fingerprint(ticket.get("start"))
        ):
            raise self.damaged(name, f"{path.name} names no dense start")
        return found

    def thin(self, name: str) -> None:
        """Remove the tensors of a finished job; of a run, all but those of its ticket.

        Raises :class:`~tombola.errors.StoreError` if it is damaged or cannot be written to.
        """
        from tombola import files

        folder = self.folder(name)
        packed = self.packed(name)
        if "ticket" in packed.details:
            ticket = {
                key: value
                for key, value in packed.tensors.items()
                if key.partition(".")[0] not in ("final", "history", "forgetting")
            }
            files.write_tensors(folder / TICKET, "tombola.ticket/1", packed.details["ticket"], ticket)
            record = {key: value for key, value in packed.tensors.items() if key.startswith(_OF_RECORD)}
            files.write_tensors(folder / RECORD, _RECORD_KIND, {}, record)
        # In this order: a job that is cut off in between is thin, and never damaged.
        self.mark_thin(name)
        (folder / _TENSORS).unlink(missing_ok=True)

    def record(self, name: str) -> dict[str, Tensor]:
        """The tensors of a run's forgetting record, read without its weights; of a thin one, too.

        Raises :class:`~tombola.errors.StoreError` if it is damaged, and
        :class:`~tombola.errors.JobError` if the job has none: it is no run, or came with its numbers only.
        """
        from tombola import files

        thin = self.is_thin(name)
        path = self.folder(name) / (RECORD if thin else _TENSORS)
        try:
            _, tensors = (
                files.read_tensors(path, _RECORD_KIND if thin else _RESULT, only=_OF_RECORD)
                if path.exists()
                else ({}, {})
            )
        except TicketError as error:
            raise self.damaged(name, str(error)) from error
        if not tensors:
            raise JobError(f"job {name[:12]} has no forgetting record here")
        return tensors

    def write_record(self, name: str, path: Path) -> None:
        """Write the forgetting record of a run to a file of its own, as a thin run has it."""
        from tombola import files

        files.write_tensors(path, _RECORD_KIND, {}, self.record(name))

    def mark_thin(self, name: str) -> None:
        """Say of a finished job that its tensors are not here on purpose."""
        write_whole(self.folder(name) / _THIN, b"")

    def publish(
        self, name: str, description: Mapping[str, Any], packed: Packed, provenance: Mapping[str, Any]
    ) -> bool:
        """Put a finished job in its place, whole or not at all; False if it was there already.

        Raises :class:`~tombola.errors.StoreError` if it cannot be written.
        """
        from tombola import files

        staging = self.workplace(name) / f"publish.{uuid.uuid4().hex[:8]}"
        try:
            staging.mkdir(parents=True)
            # Nobody looks at them here, and take_in forces them to the disk together.
            (staging / "job.json").write_bytes(_json({"name": name, **description}))
            (staging / NUMBERS).write_bytes(_json(packed.numbers))
            if packed.table:
                (staging / TABLE).write_bytes(_table(packed.table))
            if packed.tensors:
                files.write_tensors(staging / _TENSORS, _RESULT, packed.details, packed.tensors, synced=False)
            sums = sums_of(staging)
            (staging / "provenance.json").write_bytes(_json({**provenance, "sums": sums}))
            return self.take_in(name, staging)
        except OSError as error:
            raise unwritable(f"the store at {self.root}", error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def take_in(self, name: str, staging: Path) -> bool:
        """Give a job's folder, written on the same file system, its place; False if it has it already.

        All of it is on the disk before it appears.
        """
        target = self.folder(name)
        sync_folder(staging, files=True)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            sync_folder(target.parent.parent)
        try:
            staging.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            return self._thicken(name, staging)
        sync_folder(target.parent)
        return True

    def _thicken(self, name: str, staging: Path) -> bool:
        """Give a thin job its tensors back; False if it has them.

        Cut off in between, it is thin still, and given them again by whoever needs them.
        """
        if not self.is_thin(name) or (staging / _THIN).exists():
            return False
        folder = self.folder(name)
        # With all that was said of them: tensors of one computation do not fit the history of another.
        for file in (_TENSORS, NUMBERS, TABLE, "provenance.json"):
            if (staging / file).exists():
                (staging / file).replace(folder / file)
            else:
                (folder / file).unlink(missing_ok=True)
        sync_folder(folder)
        (folder / _THIN).unlink(missing_ok=True)
        (folder / TICKET).unlink(missing_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        return True

    def check(self, name: str, *files: str) -> None:
        """Check the text files of a finished job's result, or some of them, by their checksums.

        Raises :class:`~tombola.errors.StoreError` if one was altered.
        """
        cause = altered(self.folder(name), self.provenance(name).get("sums", {}), files or (NUMBERS, TABLE))
        if cause is not None:
            raise self.damaged(name, cause)

    def damaged(self, name: str, cause: str) -> StoreError:
        """The error to raise for a finished job that cannot be read."""
        return StoreError(
            f"job {name[:12]} is damaged: {cause}; to have it computed again, delete {self.folder(name)}"
        )

    def _read(self, name: str, file: str) -> dict[str, Any]:
        try:
            return read_json(self.folder(name) / file)
        except (OSError, ValueError) as error:
            if not self.has(name):
                raise JobError(f"job {name[:12]} is not in the store at {self.root}") from None
            raise self.damaged(name, f"{file}: {reason(error)}") from error


FOLDERS = {"jobs", "objects", "data", "files", "work"}
_MARKS = ("tombola.json", "studies.json")


def _foreign(name: str) -> bool:
    """Whether an entry cannot belong to a store, nor to the file system or the making of a store."""
    return name not in FOLDERS and name not in (*_MARKS, "lost+found") and not name.startswith(".")


def write_json(path: Path, value: Mapping[str, Any], *, synced: bool = True) -> None:
    """Write JSON beside its place and rename it; ``synced`` as for :func:`~tombola.atomic.write_whole`.

    Raises :class:`~tombola.errors.StoreError` when the place cannot be written to.
    """
    write_whole(path, _json(value), synced=synced)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, which anybody may have written."""
    return json_object(path.read_bytes(), path.name)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; the first row names the columns.

    Raises :class:`~tombola.errors.StoreError` when the place cannot be written to.
    """
    write_whole(path, _table(rows))


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


NUMBERS, TABLE = "result.json", "history.csv"


def sums_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of each text file of a result in a job's folder."""
    return {file: _sum(folder / file) for file in (NUMBERS, TABLE) if (folder / file).exists()}


def altered(folder: Path, sums: Any, files: Iterable[str] = (NUMBERS, TABLE)) -> str | None:
    """What is wrong with files of a job's folder, if anything.

    sums: as :func:`sums_of` gave them, and then read from a file; empty for jobs of before there were sums.
    """
    if not isinstance(sums, dict):
        return "provenance.json holds no sums of files"
    for file in files:
        try:
            if file in sums and sums[file] != _sum(folder / file):
                return f"{file} was altered: it does not match its checksum"
        except OSError as error:
            return f"{file}: {reason(error)}"
    return None


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
