"""Tables of numbers as data sets of the Hugging Face hub: what is in one, pushed and pulled.

A repository has the rows as a parquet file, which ``datasets.load_dataset`` reads by the card; the whole
table with its curves as JSON, which tombola reads; and the card.
"""

from __future__ import annotations

import io

from tombola.errors import ExperimentError, HubError, reason
from tombola.sharing.hub_traffic import CARD, Push, check_repository, push_files, snapshot
from tombola.sharing.table_card import EXACT, NUMBERS, Shown, table_card
from tombola.table.table import Table, read_json
from tombola.untrusted import LONGEST_TEXT, read_regular


def push_table(
    table: Table,
    repository: str,
    shown: Shown,
    *,
    private: bool = False,
    license: str | None = None,
    dry_run: bool = False,
) -> Push:
    """Upload a table; arguments and errors as of :meth:`Table.push_to_hub`."""
    check_repository(repository)
    if not len(table):
        raise ExperimentError("the table has no numbers, so there is nothing to push")
    buffer = io.BytesIO()
    table.frame().to_parquet(buffer, index=False)
    files = {
        CARD: table_card(table, shown, repository, license).encode(),
        NUMBERS: buffer.getvalue(),
        EXACT: table.json().encode(),
    }
    message = f"{len(table):,} numbers"
    return push_files(repository, "dataset", files, private=private, dry_run=dry_run, message=message)


def pull_table(repository: str, revision: str | None) -> Table:
    """The table of a repository; arguments and errors as of :meth:`Table.from_hub`."""
    there = snapshot(repository, "dataset", revision, (EXACT,))
    path = there.file(EXACT, LONGEST_TEXT)
    if path is None:
        raise HubError(f"{there.origin} holds no table of tombola: it has no {EXACT}; {there.contents()}")
    try:
        table = read_json(read_regular(path, follow=True).decode())
    except (ExperimentError, ValueError, OSError) as error:
        raise ExperimentError(f"{there.origin}: {EXACT}: {reason(error)}") from error
    table.hub = there.origin
    return table
