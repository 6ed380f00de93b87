"""What zensical's strict mode does not look at: the navigation, and links and pictures of the built pages."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def check_navigation(navigation: list[Any], pages: Path) -> None:
    """Ends with a line if a page stands in no part of the navigation, or the navigation names none."""
    named = list(_places(navigation))
    there = {str(path.relative_to(pages)) for path in pages.rglob("*.md")}
    problems = [
        f"{name} is in no part of the navigation (docs/site/zensical.toml)"
        for name in sorted(there - set(named))
    ]
    problems += [f"the navigation names {name}, which is no page" for name in named if name not in there]
    problems += [
        f"the navigation names {name} twice"
        for name in sorted({name for name in named if named.count(name) > 1})
    ]
    if problems:
        raise SystemExit("\n".join(problems))


def _places(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, dict):
            for inside in entry.values():
                yield from _places(inside if isinstance(inside, list) else [inside])
        else:
            yield entry


class _Page(HTMLParser):
    """The anchors of a page, and what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif value and (name == "src" or (name == "href" and tag in ("a", "link"))):
                self.references.append(value)


def check_links(site: Path) -> None:
    """Ends with a line for each local link, anchor or picture of a built page that leads nowhere."""
    pages = {path.resolve(): _Page() for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        page.feed(path.read_text(encoding="utf-8"))
    problems = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # whose links begin at the address that the site will have
        for reference in dict.fromkeys(page.references):
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                problems.append(f"{path.relative_to(site.resolve())}: {reference} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                problems.append(f"{path.relative_to(site.resolve())}: {reference} has no such anchor")
    if problems:
        raise SystemExit("\n".join(problems))
