"""Builds the site: ``python docs/site/build.py``, into build/site/html.

The pages of docs/ are copied to a folder beside those that are generated (the paper's tables, the reference,
the notebooks), with whatever else of the repository they link to, and zensical makes the site of it.
A link without a target, an anchor or name that is not there, a missing picture, and a page that stands in no
part of the navigation are errors. Nothing generated is committed.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import checks
import notebooks
import paper_tables
import reference

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?(?: \"[^\"]*\")?\))")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "site")
    parser.add_argument(
        "--plain", action="store_true", help="notebooks without their outputs, which take minutes"
    )
    arguments = parser.parse_args()
    print(build(arguments.out, execute=not arguments.plain))


def build(out: Path, *, execute: bool) -> Path:
    """Build the site under a folder and return where its pages are.

    execute: run the notebooks, so that their pages show what came out.
    """
    shutil.rmtree(out, ignore_errors=True)
    pages = out / "pages"
    pages.mkdir(parents=True)
    generated = _generate(pages, execute=execute)
    _stage(pages)
    navigation = _navigation(generated)
    (out / "zensical.toml").write_text(_configuration(navigation), encoding="utf-8")
    checks.check_navigation(navigation, pages)
    # -m: of the environment that runs this; no colours, which would stand in a log as escapes.
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    ended = subprocess.run(
        command, cwd=out, check=False, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"}
    )
    if ended.returncode:
        raise SystemExit(f"zensical: {ended.stdout}{ended.stderr}")
    checks.check_links(out / "html")
    return out / "html"


def _generate(pages: Path, *, execute: bool) -> dict[str, list[str]]:
    """Write the generated pages; by folder their places in order."""
    places: dict[str, list[str]] = {"paper": [], "reference": [], "notebooks": []}

    def write(folder: str, name: str, text: str) -> None:
        places[folder].append(f"{folder}/{name}")
        path = pages / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    for title, text in paper_tables.paper_pages(REPOSITORY).items():
        write("paper", paper_tables.file_name(title), _relocated(text, "docs/paper/page.md"))
    for title, text in reference.python_pages(REPOSITORY / "src").items():
        write("reference", f"{title.lower().replace(' ', '-').replace(',', '')}.md", text)
    (pages / "command-line.md").write_text(reference.command_page(), encoding="utf-8")
    for path in sorted((DOCS / "notebooks").glob("*.ipynb")):
        text, pictures = notebooks.notebook_page(path, execute=execute)
        write("notebooks", f"{path.stem}.md", _relocated(text, f"docs/notebooks/{path.name}"))
        for name, content in pictures.items():
            (pages / "notebooks" / name).write_bytes(content)
        shutil.copy(path, pages / "notebooks")
    return places


def _stage(pages: Path) -> None:
    """Copy the pages of docs/, and whatever they and those pages link to, to their places on the site."""
    left = [path for path in DOCS.rglob("*.md") if "site" not in path.relative_to(DOCS).parts[:-1]]
    for path in pages.rglob("*.md"):
        left += _linked(path.read_text(encoding="utf-8"), DOCS / path.relative_to(pages))
    done: set[Path] = set()
    while left:
        path = left.pop()
        if path in done or not path.is_file():
            continue  # zensical, or the check of the links, says which is missing
        done.add(path)
        target = pages / _place(str(path.relative_to(REPOSITORY)))
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copy(path, target)
            continue
        text = path.read_text(encoding="utf-8")
        target.write_text(_relocated(text, str(path.relative_to(REPOSITORY))), encoding="utf-8")
        left += _linked(text, path)


def _linked(text: str, page: Path) -> list[Path]:
    """The files of the repository that a page links to."""
    found = [
        Path(os.path.normpath(page.parent / target))
        for _, target, _ in _LINK.findall(text)
        if ":" not in target
    ]
    return [path for path in found if path.is_relative_to(REPOSITORY)]


def _place(path: str) -> str:
    """Where a file of the repository is on the site: what is in docs/ at the top, all else as it is."""
    return path.removeprefix("docs/")


def _relocated(text: str, page: str) -> str:
    """A page of the repository with its links to other files as they are on the site."""

    def moved(link: re.Match[str]) -> str:
        if ":" in link[2]:
            return link[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2]))
        return link[1] + posixpath.relpath(_place(target), posixpath.dirname(_place(page)) or ".") + link[3]

    return _LINK.sub(moved, text)


def _navigation(generated: dict[str, list[str]]) -> list[Any]:
    """The navigation of zensical.toml with the generated pages in their places."""
    configured = tomllib.loads((DOCS / "site" / "zensical.toml").read_text(encoding="utf-8"))

    def expanded(entries: list[Any]) -> Iterator[Any]:
        for entry in entries:
            if isinstance(entry, str) and entry.endswith("/*"):
                yield from generated[entry.removesuffix("/*")]
            elif isinstance(entry, dict):
                [(title, inside)] = entry.items()
                if isinstance(inside, str):
                    inside = [inside] if inside.endswith("/*") else inside
                yield {title: list(expanded(inside)) if isinstance(inside, list) else inside}
            else:
                yield entry

    return list(expanded(configured["project"]["nav"]))


def _configuration(navigation: list[Any]) -> str:
    """zensical.toml with that navigation, and with the places of the sources and of the extension."""
    text = (DOCS / "site" / "zensical.toml").read_text(encoding="utf-8")
    text = re.sub(
        r"^nav = \[$.*?^\]$", lambda _: f"nav = {_toml(navigation)}", text, flags=re.MULTILINE | re.DOTALL
    )
    text = text.replace("SOURCES", str(REPOSITORY / "src"))
    return text.replace("DOCSTRINGS", str(DOCS / "site" / "docstrings.py"))


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(inside)}' for key, inside in value.items())} }}"
    return json.dumps(value)


if __name__ == "__main__":
    main()
