"""The live page without a browser: what it holds, whom it is served to, and what it costs."""

from __future__ import annotations

import http.client
import io
import json
import math
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest

from tombola.errors import DeviceError
from tombola.lab.activity import Watcher
from tombola.lab.store import Store
from tombola.report import live, live_server
from tombola.report.live import SECTIONS, LivePage
from tombola.report.live_server import LiveServer
from tombola.report.sketch import sketch
from tombola.report.style import free_look
from tombola.views.exhibit import Exhibit
from tombola.views.picture import Line, Panel, Picture

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\x1b[31m"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def server(store: Store) -> Iterator[LiveServer]:
    with LiveServer(LivePage(store)) as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def answer(
    server: LiveServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), text


def test_who_knows_the_address_gets_the_page_and_its_parts(server: LiveServer) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", server.address)
    status, headers, text = answer(server, f"/{server.token}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    (nonce,) = re.findall(r"script-src 'nonce-([\w-]+)'", policy)
    assert re.findall(r"<script[^>]*>", text) == [f'<script nonce="{nonce}">']
    assert not re.search(r"(src|href)=\"(?!report)", text)  # nothing is loaded from anywhere
    status, headers, text = answer(server, f"/{server.token}/state")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(text).keys() == {"now", *SECTIONS}
    assert answer(server, f"/{server.token}/report")[0] == 404
    assert answer(server, f"/{server.token}/", method="HEAD")[::2] == (200, "")
    status, headers, _ = answer(server, f"/{server.token}")  # without the last slash, as it may be copied
    assert (status, headers["Location"]) == (308, f"/{server.token}/")
    assert answer(server, "/favicon.ico")[0] == 204


@pytest.mark.parametrize(
    "path", ["/", "/state", "//", "/{wrong}/", "/{wrong}/state", "/{short}/", "/{token}x/"]
)
def test_without_the_token_nothing_is_told(server: LiveServer, path: str) -> None:
    token = server.token
    wrong = ("B" if token[0] == "A" else "A") + token[1:]
    status, _, text = answer(server, path.format(token=token, wrong=wrong, short=token[:-1]))
    assert (status, text) == (403, "wrong address; tombola watch printed the right one\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8888", 200), ("[::1]:99", 200), ("rebound.test", 403),
        ("127.0.0.1.rebound.test", 403), ("localhost@rebound.test", 403), ("0.0.0.0", 403), ("", 403),
    ],
)  # fmt: skip
def test_a_foreign_name_of_this_machine_is_refused(server: LiveServer, host: str, status: int) -> None:
    assert answer(server, f"/{server.token}/", host)[0] == status


def test_odd_requests_end_in_an_answer_and_change_nothing(server: LiveServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert answer(server, f"/{server.token}/", method=method)[0] == 501
    assert answer(server, f"/{server.token}/other")[0] == 404
    assert answer(server, f"/{server.token}/../state")[0] == 404
    for request in (b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: a\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
            connection.sendall(request)
            assert b" 403 " in connection.recv(100)


def test_it_listens_on_loopback_alone_and_to_so_many_at_once(server: LiveServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    idle = [socket.create_connection(("127.0.0.1", server.server_port), timeout=20) for _ in range(16)]
    more = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
    assert more.recv(1) == b""  # closed at once
    for connection in (*idle, more):
        connection.close()


def test_a_request_fed_by_the_byte_has_one_time_for_all_of_it(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, waits = [100.0], []

    class Feeding:
        """A connection on which a byte comes every four seconds."""

        def settimeout(self, seconds: float) -> None:
            waits.append(seconds)

        def recv_into(self, buffer: memoryview) -> int:
            now[0] += 4
            buffer[0] = ord("x")
            return 1

    with monkeypatch.context() as clock:
        clock.setattr(live_server, "time", SimpleNamespace(monotonic=lambda: now[0]))
        arriving = io.BufferedReader(live_server._Arrival(cast(socket.socket, Feeding()), 10))
        with pytest.raises(TimeoutError, match="did not arrive in time"):
            arriving.readline()
    assert waits == [10, 6, 2]
    monkeypatch.setattr(live_server, "_PATIENCE", 0)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        assert connection.recv(1) == b""  # though nothing was sent yet


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_be_is_refused(store: Store, server: LiveServer, port: int) -> None:
    with pytest.raises(DeviceError, match=f"port is {port}; it must be between 0"):
        LiveServer(LivePage(store), port)


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_whatever_a_stranger_called_things_is_text_on_the_page(store: Store) -> None:
    for name, file in (("a" * 64, "error.txt"), ("c" * 64, "checkpoint")):
        workplace = store.workplace(name)
        workplace.mkdir()
        (workplace / file).write_text(HOSTILE)
        report = {
            "function": HOSTILE,
            "arguments": HOSTILE,
            "epoch": 1,
            "epochs": 2,
            "left": 3,
            "curve": [[1, 2, 3, 4]],
        }
        (workplace / "under-way.json").write_text(json.dumps(report))
    queue = {"host": HOSTILE, "pid": os.getpid(), "begun": 1.0, "jobs": {"b" * 64: HOSTILE}}
    (store.root / "work" / ".queue.00000000").write_text(json.dumps(queue))
    page = LivePage(store)
    parts = page.parts()
    for text in (*parts.values(), page.html("nonce")):
        elements = Elements()
        elements.feed(text)
        assert "img" not in elements.names
        assert elements.names.count("script") == text.count('<script nonce="nonce">')
        assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)" in parts["finished"]
    assert "{{ 7 * 7 }}" in parts["queue"]


def test_a_look_is_shared_and_a_report_waits_while_something_trains(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0

    def gather() -> live.Report:
        nonlocal made
        made += 1
        return live.Report(exhibits=[], title="mine", of_paper=False)

    page = LivePage(store, gather)
    page.parts()
    assert page._drawing is None  # without a number there is nothing to draw
    idle = page._watcher.look()
    finished = [SimpleNamespace(name="first", function="train")]
    monkeypatch.setattr(Watcher, "rows", finished)
    page._draw_report_if_due(idle)
    assert page._drawing is not None
    page._drawing.join()
    assert (made, page.parts()["report"]) == (1, "1 ")
    assert "mine" in str(page.report_html())
    finished.append(SimpleNamespace(name="second", function="train"))
    page._next_report = math.inf
    page._draw_report_if_due(replace(idle, under_way=[None]))  # type: ignore[list-item]
    assert made == 1
    page._draw_report_if_due(idle)  # nothing trains
    page._drawing.join()
    assert made == 2


def test_a_first_report_is_at_once_of_what_was_finished_and_waits_for_what_comes_while_something_trains(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather() -> live.Report:
        return live.Report(exhibits=[], title="mine", of_paper=False)

    rows = [SimpleNamespace(name="first", function="train")]
    busy = replace(LivePage(store)._watcher.look(), under_way=[None])  # type: ignore[list-item]
    opened_early = LivePage(store, gather)
    monkeypatch.setattr(Watcher, "rows", rows)
    opened_early._draw_report_if_due(busy)
    assert opened_early._drawing is None
    awaited, opened_early._next_look = opened_early._awaited, math.inf
    assert re.fullmatch(r"\d\d:\d\d:\d\d", awaited)
    assert awaited in opened_early.parts()["report"]  # so that the section is asked for
    opened_late = LivePage(store, gather)
    opened_late._draw_report_if_due(busy)
    assert opened_late._drawing is not None
    opened_late._drawing.join()
    assert "mine" in str(opened_late.report_html())


def test_a_figure_is_drawn_again_only_if_it_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    page = LivePage(store)
    monkeypatch.setattr(live, "draw", lambda picture: drawn.append(picture.title))
    monkeypatch.setattr(live, "svg_text", lambda _: "<svg/>")
    pictures = [
        Picture(name, f"{name} {height}", "", [Panel("", "", "", [Line("a", [0.0, 1.0], [0.0, height])])])
        for height in (1.0, 2.0)
        for name in ("same", "other")
    ]
    shown = [pictures[:2], [pictures[0], pictures[3]]]

    def gather() -> live.Report:
        exhibits = [Exhibit(name=picture.name, heading="", picture=picture) for picture in shown.pop(0)]
        return live.Report(exhibits=exhibits, of_paper=False)

    for _ in range(2):
        page._draw_report(gather)
        assert page._report_error == ""
    assert drawn == ["same 1.0", "other 1.0", "other 2.0"]


def test_lines_are_drawn_where_their_points_are() -> None:
    line = Line("a", [0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 10.0, math.nan, 30.0, 40.0])
    panel = Panel("<title>", "<x> & y", "y", [line, Line("none", [1.0], [math.inf])])
    root = ElementTree.fromstring(sketch(panel, lambda one: free_look(one.label == "a")))
    (path,) = (one for one in root.iter("path") if one.get("stroke-linejoin"))
    assert path.get("stroke") == free_look(1).color
    first, second = str(path.get("d")).split("M")[1:]  # interrupted where there is no number
    points = [tuple(map(float, pair.split())) for part in (first, second) for pair in part.split("L")]
    (x0, y0), (x1, y1), (x3, y3), (x4, y4) = points
    assert (x1 - x0, x4 - x3) == (
        pytest.approx(x4 / 4 - x0 / 4, abs=0.2),
        pytest.approx(x4 / 4 - x0 / 4, abs=0.2),
    )
    assert y0 > y1 > y3 > y4  # up is less in an SVG
    assert y0 - y1 == pytest.approx((y0 - y4) / 4, abs=0.2)
    texts = [str(one.text) for one in root.iter("text")]
    assert texts == ["0", "10", "20", "30", "40", "0", "1", "2", "3", "4", "<x> & y", "y"]


@pytest.mark.parametrize(
    "values", [[], [5.0], [0.0, 0.0], [-1.7e308, 1.7e308], [1e-320, 2e-320], [1e16, 1e16 + 2]]
)
def test_any_numbers_can_be_drawn(values: list[float]) -> None:
    panel = Panel("", "", "", [Line("a", list(map(float, range(len(values)))), values)])
    ElementTree.fromstring(sketch(panel, lambda _: free_look(0)))
