"""The description on PyPI: the README with absolute addresses, for its pictures and files are not there.

All else about the package stands in ``pyproject.toml``, the address of the repository too.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_PLACE = Path(__file__).parent
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")


def description(readme: str, source: str, version: str) -> str:
    """The README with the pictures and files of a release in place of those beside it.

    source: the address of the repository; version: of the release, which has the tag ``v<version>``.
    """
    raw = source.replace("https://github.com/", "https://raw.githubusercontent.com/")

    def absolute(link: re.Match[str]) -> str:
        picture, text, path = link.groups()
        place = f"{raw}/v{version}" if picture else f"{source}/blob/v{version}"
        return f"{picture}[{text}]({place}/{path})"

    return _LINK.sub(absolute, readme)


def _description_here() -> str:
    project = tomllib.loads((_PLACE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (_PLACE / "README.md").read_text(encoding="utf-8")
    return description(readme, project["urls"]["Source"], project["version"])


if __name__ == "__main__":
    from setuptools import setup

    setup(long_description=_description_here(), long_description_content_type="text/markdown")
