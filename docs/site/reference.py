"""The pages of the Python reference and of the command line, from the public face and from the help pages."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

TOPICS = {
    "Data": ("data",),
    "Networks and tickets": ("networks", "ticket"),
    "Training": ("training",),
    "Pruning and search": ("pruning", "search"),
    "Measures": ("measures",),
    "Jobs, lab and experiments": ("registry", "lab", "experiments", "cost", "table"),
    "In and out": ("exchange", "sharing"),
    "Package": ("errors", "face", "version"),
}
"""The pages, and which parts of the package each is of."""


def public_names(sources: Path) -> dict[str, str]:
    """The public names in the order of ``__init__.pyi``, and the module that each comes from."""
    tree = ast.parse((sources / "tombola" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {entry.asname or entry.name: str(node.module) for node in imports for entry in node.names}


def python_pages(sources: Path) -> dict[str, str]:
    """By title, the page of each topic: its public names under the modules that they come from."""
    names = public_names(sources)
    topics = {part: title for title, parts in TOPICS.items() for part in parts}
    pages: dict[str, list[str]] = {title: [f"# {title}\n"] for title in TOPICS}
    for module in dict.fromkeys(names.values()):
        part = module.partition(".")[0]
        if part not in topics:
            raise SystemExit(
                f"tombola.{module} is of no topic of the reference; add {part} in {Path(__file__).name}"
            )
        page = pages[topics[part]]
        page.append(f"## {_heading(sources, module)}\n")
        own = [name for name, home in names.items() if home == module and not name.startswith("__")]
        page.extend(f"::: tombola.{name}\n    options:\n      heading_level: 3\n" for name in own)
        if not own:
            page.append("`tombola.__version__` is the version as text.\n")
    return {title: "\n".join(lines) for title, lines in pages.items()}


def _heading(sources: Path, module: str) -> str:
    """The first words of a module's docstring, up to a colon or the end of the sentence."""
    path = sources / "tombola" / f"{module.replace('.', '/')}.py"
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or module).split())
    words = re.split(r"[:;.](?: |$)|, (?:and|which|as) | \(", text)[0]
    return words.replace("``", "`")


def command_page() -> str:
    """The help page of every command, as ``tombola COMMAND --help`` prints it."""
    os.environ["COLUMNS"] = "100"
    from tombola.cli.main import COMMANDS

    lines = ["# The command line\n", "What `tombola COMMAND --help` prints. Generated from the program.\n"]
    for command in COMMANDS:
        lines += [f"## `tombola {command}`\n", "```text", _help(command), "```\n"]
    return "\n".join(lines)


def _help(command: str) -> str:
    from tombola import cli

    printed = io.StringIO()
    arguments = ["tombola", command, "--help"]
    with (
        mock.patch.object(sys, "argv", arguments),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        cli.main()
    return re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).strip()
