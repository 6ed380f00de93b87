"""What goes to a model hub and comes from it, and its failures in one line each.

All traffic is that of the library huggingface_hub: its address (``HF_ENDPOINT``), its token (``HF_TOKEN`` or
``hf auth login``), its cache. A repository is untrusted: only files of names known beforehand are fetched, of
sizes that are looked at first, and at the one revision that the hub said the repository has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tombola.errors import HubError, TombolaError, reason
from tombola.hub_origin import HubOrigin, is_repository
from tombola.one_line import OneLine

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]

CARD = "README.md"

# How long the hub may take to say what a repository holds, in seconds.
_PATIENCE = 10.0
# Names of files that an error lists.
_MOST_NAMED = 6
_NO_NAME = "{!r} is no name of a repository; give user/name, such as me/x"
_LOG_IN = "run hf auth login, or set HF_TOKEN to a token that may write"


@dataclass(frozen=True, repr=False)
class Push(OneLine):
    """What was uploaded to a repository, or would be.

    repository: as it was named. kind: of the repository. private: whether it would be made so.
    files: each with its content, the card included. origin: the repository in full with its new revision;
    None of a dry run.
    """

    repository: str
    kind: Kind
    files: Mapping[str, bytes] = field(repr=False)
    private: bool = False
    origin: HubOrigin | None = None

    @property
    def card(self) -> str:
        """The card of the repository, as Markdown."""
        return self.files[CARD].decode()

    @property
    def sizes(self) -> dict[str, int]:
        """The files with their sizes in bytes."""
        return {name: len(content) for name, content in self.files.items()}

    @property
    def address(self) -> str:
        """Where the repository is to be seen."""
        from huggingface_hub import constants

        name = self.repository if self.origin is None else self.origin.repository
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{name}"

    def _in_one_line(self) -> str:
        done = "would be pushed" if self.origin is None else "pushed"
        total = f"{len(self.files)} files, {sum(self.sizes.values()):,} bytes"
        revision = "" if self.origin is None else f" at {self.origin.revision[:12]}"
        return f"<{total}, {done} to {self.address}{revision}>"

    def _facts(self) -> dict[str, object]:
        return {"repository": self.address, **{name: f"{size:,} bytes" for name, size in self.sizes.items()}}


@dataclass(frozen=True)
class Snapshot:
    """A repository at one revision.

    named: the branch, tag or commit that was asked for; None for main.
    sizes: its files in bytes; None where the hub does not answer and only the local cache is at hand.
    """

    origin: HubOrigin
    kind: Kind
    named: str | None
    sizes: Mapping[str, int] | None

    def file(self, name: str, longest: int) -> Path | None:
        """A file of it on this machine, fetched unless it is there; None if the repository has none such.

        longest: bytes that it may have.

        Raises :class:`~tombola.errors.HubError` for a longer one, or if it cannot be fetched.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        if self.sizes is not None and name not in self.sizes:
            return None
        if self.sizes is not None and self.sizes[name] > longest:
            raise HubError(
                f"{name} in {self.origin} has {self.sizes[name]:,} bytes; at most {longest:,} are fetched"
            )
        with _told(self.origin.repository, "fetched"):
            try:
                # By its name, under which the cache has it when the hub does not answer.
                path = hf_hub_download(
                    self.origin.repository, name, repo_type=self.kind, revision=self.named,
                    local_files_only=self.sizes is None,
                )  # fmt: skip
            except EntryNotFoundError:
                if self.sizes is None:
                    return None
                raise  # it was listed; the library says so, too, when the network fails
        if Path(path).parent.name != self.origin.revision:
            raise HubError(f"{self.origin.repository} was written to meanwhile; pull it again")
        return Path(path)

    def contents(self) -> str:
        """What it holds, in words."""
        if self.sizes is None:
            return "the hub does not answer, and what is in the local cache is no such repository"
        names = sorted(self.sizes)
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        return f"it holds {', '.join(names[:_MOST_NAMED])}{more}" if names else "it is empty"


def snapshot(repository: str, kind: Kind, revision: str | None, names: Sequence[str]) -> Snapshot:
    """A repository at a revision, by default the newest of its main branch; from the cache when offline.

    names: of the files that may be fetched.

    Raises :class:`~tombola.errors.HubError` for one that there is not, or that cannot be reached.
    """
    from huggingface_hub import HfApi

    check_repository(repository)
    try:
        with _told(repository, "read", revision):
            info: Any = HfApi().repo_info(
                repository, repo_type=kind, revision=revision, files_metadata=True, timeout=_PATIENCE
            )
            sizes = {str(entry.rfilename): int(entry.size or 0) for entry in info.siblings or ()}
            return Snapshot(HubOrigin(info.id or repository, str(info.sha)), kind, revision, sizes)
    except HubError as error:
        unreachable = _is_unreachable(error.__cause__)
        origin = _cached_origin(repository, kind, revision, names) if unreachable else None
        if origin is None:
            raise
        return Snapshot(origin, kind, revision, None)


def _cached_origin(
    repository: str, kind: Kind, revision: str | None, names: Sequence[str]
) -> HubOrigin | None:
    """The commit of a repository that the local cache has one of these files of; None if it has none."""
    from huggingface_hub import try_to_load_from_cache

    with suppress(Exception):  # a cache that cannot be read is none
        for name in names:
            path = try_to_load_from_cache(repository, name, repo_type=kind, revision=revision)
            if isinstance(path, str):
                return HubOrigin(repository, Path(path).parent.name)
    return None


def check_repository(repository: str) -> None:
    """Raises :class:`~tombola.errors.HubError` for what cannot be the name of a user's repository."""
    if not is_repository(repository) or "/" not in repository:
        raise HubError(_NO_NAME.format(repository))


def push_files(
    repository: str, kind: Kind, files: Mapping[str, bytes], *, private: bool, dry_run: bool, message: str
) -> Push:
    """Commit files to a repository at once, which is made if it is not there; other files in it stay.

    Raises :class:`~tombola.errors.HubError` without a token, without rights and without network, and where
    ``private`` is asked for a repository that everybody can read.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if dry_run:
        return Push(repository, kind, files, private)
    with _told(repository, "written to"):
        if get_token() is None:
            raise HubError(f"no token for the hub, so nothing can be pushed to {repository}; {_LOG_IN}")
        api = HfApi()
        if private:
            _refuse_public(api, repository, kind)
        # None and not False: a repository that is there stays as private as it is.
        url = api.create_repo(repository, repo_type=kind, private=private or None, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        commit = api.create_commit(
            url.repo_id, operations, repo_type=kind, revision="main", commit_message=message
        )
        return Push(repository, kind, files, private, HubOrigin(url.repo_id, commit.oid))


def _refuse_public(api: HfApi, repository: str, kind: Kind) -> None:
    """Raises HubError for a repository that is there already and that everybody can read."""
    from huggingface_hub.errors import RepositoryNotFoundError

    with suppress(RepositoryNotFoundError):  # then it is made
        if not api.repo_info(repository, repo_type=kind, timeout=_PATIENCE).private:
            raise HubError(
                f"{repository} is there and public, so nothing was uploaded; make it private on the hub, or "
                "push without private"
            )


@contextmanager
def _told(repository: str, done: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the library raises into a HubError of one line.

    done: what was to be done with the repository, such as "read".
    """
    try:
        yield
    except TombolaError:
        raise
    except Exception as error:  # of the library, of what it speaks HTTP with, or of the machine
        raise HubError(_line(error, repository, done, revision)) from error


def _line(error: Exception, repository: str, done: str, revision: str | None) -> str:
    """What failed and what to do, from the most special error of the library to the most general."""
    from huggingface_hub import constants, errors

    cause = f"{reason(error):.160}"
    if isinstance(error, errors.HFValidationError):
        return _NO_NAME.format(repository)
    if isinstance(error, errors.GatedRepoError):
        return f"{repository} is gated: ask for access at {constants.ENDPOINT}/{repository}, then log in"
    if isinstance(error, errors.RevisionNotFoundError):
        where = "" if revision is None else f" {revision!r}"
        return f"{repository} has no revision{where}; give a branch, a tag or a commit of it"
    if isinstance(error, errors.RepositoryNotFoundError):
        what = f"no repository {repository!r} on {constants.ENDPOINT}"
        if done == "written to":
            return f"{what} that this token may write to; {_LOG_IN}"
        return f"{what}, or it is private and this token may not read it; hf auth login gives it one"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"the hub does not accept the token for {repository}; {_LOG_IN}"
    if status == 403:
        return f"this token has no rights to {repository}, which cannot be {done}; {_LOG_IN} there"
    if _is_unreachable(error) or _is_unreachable(error.__cause__):
        return (
            f"{repository} cannot be {done}: the hub at {constants.ENDPOINT} cannot be reached "
            f"({type(error).__name__}); look to the network, HF_ENDPOINT and HF_HUB_OFFLINE"
        )
    return f"{repository} cannot be {done}: {cause or type(error).__name__}"


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether the hub gave no answer at all, as whichever library speaks HTTP says it, or one of a fault."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return bool(status >= 500)
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(
        {"ConnectionError", "TransportError", "RequestException", "OfflineModeIsEnabled", "TimeoutError"}
    )
