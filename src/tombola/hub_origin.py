"""Where something was pulled from: a repository of the Hugging Face hub, at one exact revision of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# As the hub allows them: a name, or a user's or organisation's name and a name.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_repository(text: str) -> bool:
    """Whether a text can be the name of a repository, such as ``"me/x"``."""
    return bool(_REPOSITORY.fullmatch(text)) and "--" not in text and ".." not in text


@dataclass(frozen=True)
class HubOrigin:
    """A repository of the hub, such as ``"me/x"``, at a commit, 40 hexadecimal digits.

    Raises ValueError for anything else: it may come from a file that a stranger wrote.
    """

    repository: str
    revision: str

    def __post_init__(self) -> None:
        if not is_repository(self.repository):
            raise ValueError(f"{self.repository!r:.120} is no repository; one is called like 'me/x'")
        if not _COMMIT.fullmatch(self.revision):
            raise ValueError(f"{self.revision!r:.60} is no commit of {self.repository}")

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision[:12]}"

    def description(self) -> dict[str, str]:
        """The same as JSON values, from which :meth:`described` restores it."""
        return {"repository": self.repository, "revision": self.revision}

    @classmethod
    def described(cls, description: Mapping[str, Any] | None) -> HubOrigin | None:
        """The origin of a :meth:`description`; None of None."""
        return None if description is None else cls(description["repository"], description["revision"])
