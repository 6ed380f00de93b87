"""Our docstrings as the Markdown that mkdocstrings shows: an extension of griffe, which reads the sources.

A docstring names its arguments without a heading, ``noise: number of the noise``, further lines indented;
they become a list. Roles such as ``:func:`~tombola.train``` become links where the name has a place in the
reference, and code elsewhere.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"(?P<names>\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*): (?P<text>\S.*)")
_SENTENCE_END = re.compile(r"\. (?=[a-z_]\w*(?:, [a-z_]\w*)*: )")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`(?P<short>~?)(?P<path>[\w.]+)`")
_CODE = re.compile(r"``(.+?)``", re.DOTALL)


def as_markdown(text: str, names: set[str], public: set[str]) -> str:
    """A docstring as Markdown.

    names: of the arguments or fields, which entries begin with. public: paths that the reference has.
    """
    lines = [line for whole in text.splitlines() for line in _apart(whole, names)]
    shown: list[str] = []
    within = False
    for line in lines:
        entry = _ENTRY.fullmatch(line)
        if entry and _all_known(entry["names"], names):
            if not within and shown and shown[-1]:
                shown.append("")
            listed = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            shown.append(f"- {listed}: {entry['text']}")
            within = True
            continue
        if within and line and not line.startswith(" "):
            shown.append("")
        within = within and (not line or line.startswith(" "))
        shown.append(re.sub(r"::$", ":\n", line))
    linked = _ROLE.sub(lambda role: _link(role, public), "\n".join(shown))
    return _CODE.sub(lambda code: f"`{code[1]}`", linked)


def _all_known(listed: str, names: set[str]) -> bool:
    return {name.lstrip("*") for name in listed.split(", ")} <= names


def _apart(line: str, names: set[str]) -> list[str]:
    """A line that names several arguments, ``jobs: of it. epochs: of those``, as one line for each."""
    if line.startswith(" ") or not (entry := _ENTRY.fullmatch(line)) or not _all_known(entry["names"], names):
        return [line]
    parts = _SENTENCE_END.split(line)
    return [
        part if last else f"{part}."
        for part, last in zip(parts, [False] * (len(parts) - 1) + [True], strict=True)
    ]


def _link(role: re.Match[str], public: set[str]) -> str:
    path = role["path"]
    shown = path.rpartition(".")[2] if role["short"] else path
    here = f"tombola.{path.rpartition('.')[2]}"
    target = path if path in public else here if here in public else None
    return f"[`{shown}`][{target}]" if target else f"`{shown}`"


class Docstrings(griffe.Extension):
    """Rewrites every docstring of the package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of what the public face names, and of its members."""
        face = {
            name: member
            for name, member in pkg.members.items()
            if member.is_alias and not name.startswith("_")
        }
        public = {f"tombola.{name}" for name in face}
        for alias in face.values():
            if isinstance(alias, griffe.Alias):
                _rewrite(alias.final_target, public)


def _rewrite(entry: griffe.Object, public: set[str]) -> None:
    if entry.docstring is not None and "docstring_rewritten" not in entry.extra["tombola"]:
        entry.extra["tombola"]["docstring_rewritten"] = True
        names = set(entry.members)
        if isinstance(entry, griffe.Function):
            names |= {parameter.name.lstrip("*") for parameter in entry.parameters}
        if entry.is_class and "__init__" in entry.members:
            names |= {parameter.name for parameter in entry.members["__init__"].parameters}
        entry.docstring.value = as_markdown(entry.docstring.value, names, public)
    if entry.is_class:
        for member in entry.members.values():
            if isinstance(member, griffe.Object):
                _rewrite(member, public)
