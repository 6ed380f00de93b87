"""No change of our own numbers without a version: the modules that make them are pinned beside the versions.

A result is found by its function's name and version, so a change of the code alone would return yesterday's
numbers. Where a pinned module changes, this test is red until somebody says which it is: other numbers, by a
raised version, or a mere rewriting. Then ``python tests/test_numeric_modules.py`` pins what there is.
Comments, docstrings and line breaks do not count.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tombola import registry
from tombola.networks import initialization
from tombola.networks.initialization import init_names, written_init
from tombola.networks.network import Network, network_names
from tombola.pruning import scores
from tombola.pruning.scores import score_names, written_score
from tombola.source import FORM, file_fingerprint
from tombola.training.device import ENGINE_VERSIONS

PINNED = Path(__file__).with_name("numeric_modules.json")
PACKAGE = Path(__file__).parents[1] / "src" / "tombola"
COMMAND = "python tests/test_numeric_modules.py"

FOLDERS = ("data", "measures", "networks", "pruning", "training")
FILES = ("calls.py", "declarations.py", "search.py", "seeds.py", "ticket.py")
# The pixels behind a name are compared with those of the results, whatever reads them.
READERS = {f"data/{name}.py" for name in ("cache", "catalogue", "hub", "inside", "bounds", "load")}
# What refuses, measures time, or keeps things without changing them.
BESIDE = {f"training/{name}.py" for name in ("checkpoint", "preflight", "throughput")} | {"networks/fit.py"}

State = Mapping[str, Mapping[str, Any]]


def numeric_modules() -> list[str]:
    """The modules whose change may change numbers, as paths in the package."""
    paths = [PACKAGE / file for file in FILES]
    paths += [path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py")]
    names = {path.relative_to(PACKAGE).as_posix() for path in paths}
    return sorted(names - READERS - BESIDE)


def is_ours(function: Any) -> bool:
    """Whether a declared function is tombola's own, and no other test's."""
    return (function.__module__ or "").startswith("tombola.")


def present() -> State:
    """The modules with their fingerprints, and all that has a version with it."""
    own = [registry.declaration(name) for name in registry.function_names()]
    functions = {each.name: each.version for each in own if is_ours(each.function)}
    networks = {
        name: Network.of(name, channels=1, size=(1, 1), classes=1).written
        for name in network_names()
        if not Network(name, 1, (1, 1), 1).own
    }
    inits = {name: written_init(name) for name in init_names() if initialization._schemes.is_built_in(name)}
    own_scores = {name: written_score(name) for name in score_names() if scores._scores.is_built_in(name)}
    return {
        "form": {"fingerprint": FORM},
        "functions": dict(sorted(functions.items())),
        "networks": dict(sorted(networks.items())),
        "inits": dict(sorted(inits.items())),
        "scores": dict(sorted(own_scores.items())),
        "engine": ENGINE_VERSIONS,
        "modules": {name: file_fingerprint((PACKAGE / name).read_bytes()) for name in numeric_modules()},
    }


def changed(before: State, now: State) -> list[str]:
    """The modules that were pinned and are others now, or gone."""
    if before["form"] != now["form"]:
        return []  # then nobody knows
    return [name for name, text in before["modules"].items() if now["modules"].get(name) != text]


def raised(before: State, now: State) -> bool:
    """Whether something that was pinned has another version now."""
    return any(
        now[kind].get(name, version) != version
        for kind in before.keys() - {"form", "modules"}
        for name, version in before[kind].items()
    )


def refusal(before: State, now: State, *, same_numbers: bool) -> str | None:
    """Why what there is now must not be pinned, if so."""
    names = changed(before, now)
    if same_numbers or not names or raised(before, now):
        return None
    return (
        f"{', '.join(names)} changed and no version was raised: raise the version of whatever gives other "
        f"numbers now (on what changed rest {', '.join(resting_on(names)) or 'no declared functions'}) and "
        f"run {COMMAND}; if nothing does, add --same-numbers"
    )


def resting_on(modules: list[str]) -> list[str]:
    """The declared functions whose modules import one of these, through however many others."""
    reached = set(modules)
    imports = {name: imported_by(name) for name in numeric_modules()}
    while more := {name for name, others in imports.items() if others & reached} - reached:
        reached |= more
    homes = {
        name: registry.declaration(name).function.__module__.removeprefix("tombola.").replace(".", "/")
        + ".py"
        for name in present()["functions"]
    }
    return sorted(name for name, home in homes.items() if home in reached)


def imported_by(module: str) -> set[str]:
    """The modules of tombola that one imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("tombola.").replace(".", "/") + ".py" for name in names}


def test_numbers_change_only_with_a_version() -> None:
    before, now = json.loads(PINNED.read_text()), present()
    remedy = refusal(before, now, same_numbers=False)
    if remedy is None and before != now:
        different = [
            name
            for kind in sorted((before.keys() | now.keys()) - {"form"})
            for name in sorted(before.get(kind, {}).keys() | now.get(kind, {}).keys())
            if before.get(kind, {}).get(name) != now.get(kind, {}).get(name)
        ]
        remedy = f"{', '.join(different)}: new or of another version; pin what there is: {COMMAND}"
    assert remedy is None, remedy


def made_up(version: int = 1, **modules: str) -> dict[str, Any]:
    return {
        "form": {"fingerprint": 1},
        "functions": {"train": version},
        "networks": {"vgg16": "vgg16"},
        "inits": {"orthogonal": "orthogonal"},
        "engine": {"engine": 1},
        "modules": modules,
    }


@pytest.mark.parametrize(
    ("now", "allowed"),
    [
        (made_up(a="1", b="2"), True),
        (made_up(a="1", b="3"), False),
        (made_up(a="1"), False),
        (made_up(a="1", b="2", c="4"), True),
        (made_up(2, a="1", b="3"), True),
        (made_up(a="1", b="3") | {"networks": {"vgg16": "vgg16@2"}}, True),
        (made_up(a="1", b="3") | {"inits": {"orthogonal": "orthogonal@2"}}, True),
        (made_up(a="1", b="3") | {"engine": {"engine": 2}}, True),
        (made_up(a="1", b="3") | {"functions": {"train": 1, "another": 2}}, False),
        (made_up(a="5", b="6") | {"form": {"fingerprint": 2}}, True),
    ],
)
def test_a_changed_module_wants_a_version_or_the_word_that_numbers_stay(
    now: dict[str, Any], allowed: bool
) -> None:
    before = made_up(a="1", b="2")
    assert (refusal(before, now, same_numbers=False) is None) is allowed
    assert refusal(before, now, same_numbers=True) is None


def test_what_rests_on_a_module_is_named() -> None:
    assert {"train", "pretrain", "trunk"} <= set(resting_on(["training/loop.py"]))
    assert "barrier" in resting_on(["training/evaluation.py"])
    assert "initialize" in resting_on(["seeds.py"])
    assert resting_on(["measures/probe.py"]) == ["probe"]


def test_every_module_that_declares_a_function_is_pinned() -> None:
    pinned = set(numeric_modules())
    for name in present()["functions"]:
        home = registry.declaration(name).function.__module__.removeprefix("tombola.").replace(".", "/")
        assert f"{home}.py" in pinned
    assert all((PACKAGE / name).is_file() for name in READERS | BESIDE)


def main() -> None:
    """Pin what there is, unless numbers may have changed without a version."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--same-numbers", action="store_true", help="what changed gives the same numbers")
    same_numbers = parser.parse_args().same_numbers
    now = present()
    if PINNED.exists():
        before = json.loads(PINNED.read_text())
        cause = refusal(before, now, same_numbers=same_numbers)
        if cause is not None:
            sys.exit(cause)
        print("changed:", ", ".join(changed(before, now)) or "nothing")
    PINNED.write_text(json.dumps(now, indent=1) + "\n")
    print(f"pinned {len(now['modules'])} modules in {PINNED}")


if __name__ == "__main__":
    main()
