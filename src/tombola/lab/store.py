"""The store: one folder of readable files for each finished job, on a file system that all machines share.

::

    jobs/ab/abcd.../    job.json           the call, as it was written down
                        result.json        the numbers of the result
                        result.safetensors its tensors, if it has any
                        history.csv        of a run: one row an epoch
                        ticket.safetensors of a run whose weights were removed, in place of its tensors
                        forgetting.safetensors of such a run: its forgetting record
                        provenance.json    versions, device, times, data fingerprint, sums of the text files
                        thin               marks a job whose tensors were removed, or left out of an import
                    restored/          of a thin job whose tensors are coming back: all its files anew
    objects/            tensors that many jobs share, by fingerprint (tombola.lab.objects)
    data/               what each data name stands for, and the fingerprint of its pixels
    files/              the user's own Python files by their hash (tombola.lab.user_code)
    studies.json        the scale that studies were last run at
    slurm/              scripts and logs of experiments under Slurm (tombola.lab.slurm)
    work/abcd.../       of a job under way: lease, attempts, checkpoints, the error if it failed
    work/.queue.*       of a driver at work: the names of its jobs (tombola.lab.queue)

A job's folder is written under work/ and appears under jobs/ by one atomic rename. Nothing is pickled.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tombola import disk
from tombola.disk import write_whole
from tombola.errors import (
    JobError,
    OddFile,
    StoreError,
    StoreUnwritable,
    TicketError,
    reason,
    remedy,
    unwritable,
)
from tombola.guarded import guard
from tombola.lab.description import check_description, describes, is_fingerprint
from tombola.untrusted import check_readable, json_object, read_regular

if TYPE_CHECKING:
    from torch import Tensor

    from tombola.lab.results import Packed

T = TypeVar("T")

FORMAT = 1

FOLDERS = {"jobs", "objects", "data", "files", "work"}
_MARK = "tombola.json"
SLURM = "slurm"
"""The folder of scripts and logs under Slurm, for whoever submits from this store."""

# The files in a job's folder.
DESCRIPTION, NUMBERS, HISTORY, PROVENANCE = "job.json", "result.json", "history.csv", "provenance.json"
TENSORS, TICKET, RECORD, THIN = "result.safetensors", "ticket.safetensors", "forgetting.safetensors", "thin"
# In a job's folder: what a thin job gets back, until each file is in its place.
_RESTORED = "restored"

# The kinds that tensor files give themselves; see tombola.files.
_RESULT_KIND, _RECORD_KIND = "tombola.result/1", "tombola.forgetting/1"
TICKET_KIND = "tombola.ticket/1"
# What the names of a run's tensors begin with that are its forgetting record.
_RECORD_PREFIX = "forgetting."


def default_place() -> Path:
    """Where the store lies by default: ``TOMBOLA_STORE``, or the platform's user data folder."""
    from platformdirs import user_data_path

    return Path(os.environ.get("TOMBOLA_STORE") or user_data_path("tombola") / "store")


class Store:
    """The results of finished jobs by name; any number of processes and machines may use one store at once.

    Raises :class:`~tombola.errors.StoreError` if the place cannot be used or is of another format.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None, *, create: bool = True) -> None:
        self.root = Path(default_place() if root is None else root).expanduser().absolute()
        mark = self.root / _MARK
        try:
            is_new = not mark.exists()
            if is_new:
                if self.root.is_dir() and any(_is_foreign(path.name) for path in self.root.iterdir()):
                    raise StoreError(f"{self.root} holds other files; a store wants a folder of its own")
                if not create:
                    raise StoreError(f"no store at {self.root}; name one with --store or TOMBOLA_STORE")
            # A folder that was refused is not guarded: links in it are none of a store's.
            guard(self.root, own_links=FOLDERS)
            if is_new:
                _make_lasting(self.root)
            for folder in (self.root / name for name in sorted(FOLDERS)):
                if os.path.lexists(folder) and not folder.is_dir():
                    raise StoreError(f"{folder} is no folder; put back the one that was there, or remove it")
                _make_lasting(folder)
            if is_new:
                write_json(mark, {"format": FORMAT})
            format_ = read_json(mark).get("format")
        except OSError as error:
            raise StoreUnwritable(
                f"cannot use a store at {self.root}: {reason(error)}; {remedy(error)}"
            ) from error
        except ValueError as error:
            cause = f"{mark.name} is {error.what}" if isinstance(error, OddFile) else reason(error)
            raise StoreError(
                f"cannot use a store at {self.root}: {cause}; if it is one, write "
                f"{json.dumps({'format': FORMAT})} into {mark.name} there"
            ) from error
        if format_ != FORMAT:
            raise StoreError(f"the store at {self.root} has format {format_!r}; this tombola reads {FORMAT}")

    def folder(self, name: str) -> Path:
        """The folder in which the finished job of that name is or will be."""
        return self.root / f"jobs/{name[:2]}/{name}"  # one path instead of three: listings make thousands

    def file(self, name: str, part: str) -> Path:
        """Where a file of a finished job lies now; in its folder, or below it while its tensors come back."""
        folder = f"{self.root}/jobs/{name[:2]}/{name}"  # text: paths take a third of a first listing
        if _is_restoring(folder) and (restored := Path(f"{folder}/{_RESTORED}/{part}")).exists():
            return restored
        return Path(f"{folder}/{part}")

    def workplace(self, name: str) -> Path:
        """The folder in which a job under way keeps its lease and checkpoints."""
        return self.root / "work" / name

    def has(self, name: str) -> bool:
        """Whether the job is finished."""
        return self.folder(name).is_dir()

    def is_thin(self, name: str) -> bool:
        """Whether a finished job lacks its tensors, which were removed or left out of an import."""
        return (self.folder(name) / THIN).exists() and not _is_restoring(self.folder(name))

    def names(self) -> Iterator[str]:
        """The names of all finished jobs; what lies among them and is none counts as not there."""
        for shelf in sorted((self.root / "jobs").glob("??")):
            yield from sorted(path.name for path in shelf.glob("*") if is_at_its_place(path.name, shelf.name))

    def strays(self) -> Iterator[Path]:
        """What lies among the finished jobs and is none, or not at its place; hidden files are nothing."""
        for shelf in sorted((self.root / "jobs").glob("[!.]*")):
            entries = sorted(shelf.glob("[!.]*")) if shelf.is_dir() else [shelf]
            yield from (path for path in entries if not is_at_its_place(path.name, shelf.name))

    def find(self, prefix: str) -> str:
        """The one finished job with this beginning; :class:`~tombola.errors.JobError` if none or several."""
        matches = [name for name in self.names() if name.startswith(prefix.lower())] if prefix else []
        if len(matches) != 1:
            what = "no job" if not matches else f"{len(matches)} jobs"
            raise JobError(f"{what} in {self.root} with a name that begins with {prefix!r}; see tombola ls")
        return matches[0]

    def description(self, name: str) -> dict[str, Any]:
        """The call that a finished job was; its references are proven to be fingerprints or file names."""
        description = self._json_object(name, DESCRIPTION)
        try:
            check_description(description)
        except ValueError as error:
            raise self.damaged(name, f"{DESCRIPTION}: {reason(error)}") from error
        return description

    def checked_description(self, name: str) -> dict[str, Any]:
        """The description of a finished job that is proven to have that name.

        Raises :class:`~tombola.errors.StoreError` if it was altered.
        """
        description = self.description(name)
        if not describes(description, name):
            raise self.damaged(name, f"{DESCRIPTION} was altered: it describes another job")
        return description

    def numbers(self, name: str) -> dict[str, Any]:
        """The numbers of a finished job's result, read without its tensors."""
        return self._json_object(name, NUMBERS)

    def provenance(self, name: str) -> dict[str, Any]:
        """Versions, device and times of a finished job."""
        return self._json_object(name, PROVENANCE)

    def packed(self, name: str) -> Packed:
        """The result of a finished job as numbers, details and tensors, their checksums verified.

        Raises :class:`~tombola.errors.StoreError` if it is damaged, or a thin job had tensors.
        """
        from tombola.lab.results import Packed

        self.check(name, NUMBERS)
        if not self.file(name, TENSORS).exists():
            if self.is_thin(name):
                raise StoreError(
                    f"of job {name[:12]} only the numbers are left; run it again to have the rest"
                )
            return Packed(self.numbers(name), {}, {})
        details, tensors = self._tensors(name, TENSORS, _RESULT_KIND)
        return Packed(self.numbers(name), details, tensors)

    def packed_ticket(self, name: str) -> Packed | None:
        """What is left of a run whose tensors were removed: its ticket, checksums verified, if it is there.

        Raises :class:`~tombola.errors.StoreError` if it is damaged.
        """
        from tombola.lab.results import Packed

        if not self.details(name):
            return None
        details, tensors = self._tensors(name, TICKET, TICKET_KIND)
        return Packed({}, details, tensors)

    def _tensors(self, name: str, part: str, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The description and the tensors in one of the files of a finished job; StoreError if damaged."""
        from tombola import files

        try:
            return self._read(name, part, lambda path: files.read_tensors(path, kind))
        except TicketError as error:
            raise self.damaged(name, str(error)) from error

    def history(self, name: str) -> list[dict[str, str]]:
        """The rows of a finished run's history, each by the names of its columns; none of another job."""
        try:
            return self._read(name, HISTORY, read_table) if self.file(name, HISTORY).exists() else []
        except (OSError, ValueError) as error:
            raise self.damaged(name, f"{HISTORY}: {reason(error)}") from error

    def details(self, name: str) -> dict[str, Any]:
        """What describes the tensors of a finished job, read without them; of a thin run, of its ticket."""
        from tombola import files

        part = TICKET if self.is_thin(name) else TENSORS
        if not self.file(name, part).exists():
            return {}
        try:
            details = self._read(name, part, files.read_description)
        except TicketError as error:
            raise self.damaged(name, str(error)) from error
        # The start is followed as a file name: it must be a fingerprint, and not another place.
        ticket = details.get("ticket", details)
        if not isinstance(ticket, dict) or (
            ticket.get("start_kept") == "none" and not is_fingerprint(ticket.get("start"))
        ):
            raise self.damaged(name, f"{part} names no dense start")
        return details

    def thin(self, name: str) -> None:
        """Remove the tensors of a finished job; of a run, its ticket and forgetting record stay.

        Raises :class:`~tombola.errors.StoreError` if it is damaged or cannot be written to.
        """
        from tombola import files

        self.finish_restoring(name)
        folder = self.folder(name)
        packed = self.packed(name)
        if "ticket" in packed.details:
            ticket = {
                key: value
                for key, value in packed.tensors.items()
                if key.partition(".")[0] not in ("final", "history", "forgetting")
            }
            files.write_tensors(folder / TICKET, TICKET_KIND, packed.details["ticket"], ticket)
            record = {key: value for key, value in packed.tensors.items() if key.startswith(_RECORD_PREFIX)}
            files.write_tensors(folder / RECORD, _RECORD_KIND, {}, record)
        # In this order: a job that is cut off in between is thin, and never damaged.
        write_whole(folder / THIN, b"")
        disk.remove(folder / TENSORS, missing_ok=True)

    def forgetting_tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a run's forgetting record, thin or not, read without its weights.

        Raises :class:`~tombola.errors.StoreError` if it is damaged, and
        :class:`~tombola.errors.JobError` if the job has none: it is no run, or came with its numbers only.
        """
        from tombola import files

        part, kind = (RECORD, _RECORD_KIND) if self.is_thin(name) else (TENSORS, _RESULT_KIND)

        def read(path: Path) -> dict[str, Tensor]:
            return files.read_tensors(path, kind, only=_RECORD_PREFIX)[1] if path.exists() else {}

        try:
            tensors = self._read(name, part, read)
        except TicketError as error:
            raise self.damaged(name, str(error)) from error
        if not tensors:
            raise JobError(f"job {name[:12]} has no forgetting record here")
        return tensors

    def write_forgetting_record(self, name: str, path: Path) -> None:
        """Write the forgetting record of a run to a file of its own, as a thin run has it."""
        from tombola import files

        files.write_tensors(path, _RECORD_KIND, {}, self.forgetting_tensors(name))

    def publish(
        self, name: str, description: Mapping[str, Any], packed: Packed, provenance: Mapping[str, Any]
    ) -> bool:
        """Add a finished job by one atomic rename; False if it was there already.

        Raises :class:`~tombola.errors.StoreError` if it cannot be written.
        """
        from tombola import files

        staging = self.workplace(name) / f"publish.{uuid.uuid4().hex[:8]}"
        try:
            disk.make_folder(staging, parents=True)
            # Not synced one by one: take_in forces them to the disk together before they can be seen.
            disk.write_part(staging / DESCRIPTION, _json_bytes({"name": name, **description}, DESCRIPTION))
            disk.write_part(
                staging / NUMBERS, _json_bytes(packed.numbers, "the result", "; return tensors instead")
            )
            if packed.table:
                disk.write_part(staging / HISTORY, _csv_bytes(packed.table))
            if packed.tensors:
                files.write_tensors(
                    staging / TENSORS, _RESULT_KIND, packed.details, packed.tensors, synced=False
                )
            sums = {file: _sha256(staging / file) for file in (NUMBERS, HISTORY) if (staging / file).exists()}
            disk.write_part(staging / PROVENANCE, _json_bytes({**provenance, "sums": sums}, PROVENANCE))
            return self.take_in(name, staging)
        except OSError as error:
            raise unwritable(f"the store at {self.root}", error) from error
        finally:
            disk.remove_tree(staging, ignore_errors=True)

    def take_in(self, name: str, staging: Path) -> bool:
        """Move a job's folder, written on the same file system, to its place; False if it is there already.

        Its files are forced to the disk before they appear. A thin job that is there gets its tensors back.
        """
        target = self.folder(name)
        disk.sync_folder(staging, files=True)
        _make_lasting(target.parent)
        try:
            disk.rename(staging, target)
        except OSError:
            if not target.is_dir():
                raise
            return self._restore_tensors(name, staging)
        disk.sync_folder(target.parent)
        return True

    def _restore_tensors(self, name: str, staging: Path) -> bool:
        """Give a thin job the tensors of the same job computed again; False if there is nothing to restore.

        With their numbers and history: tensors of one computation do not fit the history of another. They
        come by one rename, so that the job is thin before it, and whole after it.
        """
        folder = self.folder(name)
        self.finish_restoring(name)
        if not self.is_thin(name) or (staging / THIN).exists():
            return False
        try:
            disk.rename(staging, folder / _RESTORED)
        except OSError:
            if not _is_restoring(folder):
                raise
            return False  # another process was faster
        disk.sync_folder(folder)
        self.finish_restoring(name)
        return True

    def finish_restoring(self, name: str) -> None:
        """Put the files that a thin job got back in their places, which may have been cut off.

        Until the last step a file counts that is in the folder of restored ones, and no mark of a thin job.
        """
        folder = self.folder(name)
        restored = folder / _RESTORED
        if not _is_restoring(folder) or folder.is_symlink() or folder.parent.is_symlink():
            return
        for part in (DESCRIPTION, NUMBERS, HISTORY, PROVENANCE, TENSORS):
            with suppress(FileNotFoundError):  # it has none, or another process finishes it as well
                disk.replace(restored / part, folder / part)
        for part in (THIN, TICKET, RECORD):
            # Not removed from where they are: the other process may have finished, and thinned it again.
            with suppress(FileNotFoundError):
                disk.replace(folder / part, restored / f".{part}")
        disk.sync_folder(folder)
        disk.remove_tree(restored)

    def check(self, name: str, *files: str) -> None:
        """Verify the checksums of a finished job's numbers and history, or of one of the two.

        Raises :class:`~tombola.errors.StoreError` if it was altered. Results from before there were checksums
        are not checked.
        """
        while True:
            provenance = self.provenance(name)
            try:
                self._check(name, provenance.get("sums", {}), files or (NUMBERS, HISTORY))
                return
            except StoreError:
                if provenance == self.provenance(name):  # else its tensors came back meanwhile
                    raise

    def _check(self, name: str, sums: object, files: Sequence[str]) -> None:
        if not isinstance(sums, dict):
            raise self.damaged(name, f"{PROVENANCE} holds no sums of files")
        for file in files:
            try:
                if file in sums and sums[file] != self._read(name, file, _sha256):
                    raise self.damaged(name, f"{file} was altered: it does not match its checksum")
            except (OSError, OddFile) as error:
                raise self.damaged(name, f"{file}: {reason(error)}") from error

    def _read(self, name: str, part: str, read: Callable[[Path], T]) -> T:
        """What ``read`` makes of a job's file, which may move meanwhile when the job's tensors come back."""
        while True:
            path = self.file(name, part)
            try:
                return read(path)
            except (OSError, ValueError, TicketError):
                if path == self.file(name, part):
                    raise

    def damaged(self, name: str, cause: str) -> StoreError:
        """The error to raise for a finished job that cannot be read."""
        return StoreError(
            f"job {name[:12]} is damaged: {cause}; to have it computed again, delete {self.folder(name)}"
        )

    def _json_object(self, name: str, file: str) -> dict[str, Any]:
        """The object in a JSON file of a finished job."""
        try:
            return self._read(name, file, read_json)
        except (OSError, ValueError) as error:
            if not self.has(name):
                raise JobError(f"job {name[:12]} is not in the store at {self.root}") from None
            raise self.damaged(name, f"{file}: {reason(error)}") from error


def is_at_its_place(name: str, shelf: str) -> bool:
    """Whether a folder of this name is a job's on a shelf of that name."""
    return is_fingerprint(name) and name[:2] == shelf


def _is_restoring(folder: Path | str) -> bool:
    """Whether a job's tensors are coming back to it; not for a link in place of their folder."""
    try:
        return stat.S_ISDIR(os.lstat(f"{folder}/{_RESTORED}").st_mode)  # asked before every file is read
    except OSError:
        return False


def _make_lasting(folder: Path) -> None:
    """Make a folder that outlives a power loss, and those above it if need be."""
    if folder.is_dir():
        return
    if not folder.parent.exists():
        _make_lasting(folder.parent)
    disk.make_folder(folder, exist_ok=True)
    disk.sync_folder(folder.parent)


def _is_foreign(name: str) -> bool:
    """Whether an entry of a folder belongs neither to a store nor to the file system."""
    ours = name in FOLDERS or name in (_MARK, SLURM, "studies.json")
    return not ours and name != "lost+found" and not name.startswith(".")


def write_json(path: Path, value: Mapping[str, Any], *, synced: bool = True) -> None:
    """Write a JSON file atomically; ``synced`` as for :func:`~tombola.disk.write_whole`.

    Raises :class:`~tombola.errors.StoreError` when the place cannot be written to, or it would not be read.
    """
    write_whole(path, _json_bytes(value, path.name), synced=synced)


def _json_bytes(value: Mapping[str, Any], what: str, remedy: str = "") -> bytes:
    """A JSON file; StoreError, with the remedy, for one that would not be read again."""
    try:
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        check_readable(text, what)
    except ValueError as error:
        raise StoreError(f"{what} cannot be written: {reason(error)}{remedy}") from error
    return text.encode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, which may come from an untrusted source; ValueError if it holds none."""
    return json_object(read_regular(path), path.name)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a CSV file atomically; the first row names the columns.

    Raises :class:`~tombola.errors.StoreError` when the place cannot be written to.
    """
    write_whole(path, _csv_bytes(rows))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, which may come from an untrusted source.

    Raises ValueError for no table: a row of more or fewer cells than there are columns, or a column twice.
    """
    try:
        rows = [row for row in csv.reader(read_regular(path).decode().splitlines()) if row]
    except csv.Error as error:
        raise ValueError(f"it is no table: {error}") from error
    columns = rows.pop(0) if rows else []
    if not columns or len(set(columns)) < len(columns):
        raise ValueError("it is no table: its first row does not name its columns, each once")
    # Filled up, short rows would take far more memory than the file.
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise ValueError(f"it is no table: row {number} has {len(row):,} of {len(columns):,} cells")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_regular(path)).hexdigest()
