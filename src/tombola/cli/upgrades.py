"""``tombola upgrades``: what the running versions mean for a store."""

from __future__ import annotations

from tombola.cli.arguments import AsJson, Device, Imports, Store
from tombola.cli.console import write_json, write_out
from tombola.cli.imports import import_files


def upgrades(
    store: Store = None, device: Device = "auto", import_: Imports = (), as_json: AsJson = False
) -> None:
    """What new versions mean for a store: what stays, what would be trained anew, what would mix.

    Nothing is changed. docs/upgrades.md says what to do.
    """
    from tombola.lab import upgrades as plan
    from tombola.lab.store import Store as StoreFolder
    from tombola.lab.upgrade_lines import upgrade_lines

    import_files(import_)
    meaning = plan.upgrades(StoreFolder(store, create=False), device)
    if as_json:
        write_json(meaning.to_json())
        return
    write_out("".join(f"{line}\n" for line in upgrade_lines(meaning)))
