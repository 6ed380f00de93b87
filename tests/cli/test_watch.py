"""``tombola watch`` as it is typed; the page itself is tested in tests/report."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.lab.store import Store
from tombola.report.live import LivePage
from tombola.report.live_server import LiveServer

Result = tuple[int, str, str]
Tombola = Callable[..., Result]


def test_it_prints_an_address_that_answers(
    tombola: Tombola, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path / "store")
    monkeypatch.setattr("os.nice", lambda _: 0)

    def ctrl_c(server: LiveServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveServer, "serve_forever", ctrl_c)
    code, out, err = tombola("watch")
    assert (code, err) == (0, "")
    assert re.search(r"^open http://127\.0\.0\.1:\d+/[\w-]{43}/$", out, re.MULTILINE)


def test_what_cannot_be_watched_is_refused(
    tombola: Tombola, refused: Callable[[Result], str], tmp_path: Path
) -> None:
    assert refused(tombola("watch")).startswith(f"no store at {tmp_path / 'store'}; ")
    store = Store(tmp_path / "store")
    assert refused(tombola("watch", "--port", 70000)) == (
        "port is 70000; it must be between 0 (a free one) and 65535"
    )
    assert refused(tombola("watch", "table99")).startswith("no study 'table99'")
    with LiveServer(LivePage(store)) as other:
        assert refused(tombola("watch", "--port", other.server_port)) == (
            f"cannot listen on port {other.server_port} of 127.0.0.1: Address already in use; give another "
            "--port, or 0 for a free one"
        )
