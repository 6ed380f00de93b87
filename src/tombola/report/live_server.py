"""Serves the live page of a store on loopback, to whoever knows its address, and to no other page.

The address holds a token that is compared in constant time. A request must name this machine in its Host
header, so that no foreign name that was pointed here (DNS rebinding) reaches the page, and answers forbid
referrers, frames, and every script but the page's own. Only reading is served.
"""

from __future__ import annotations

import hmac
import io
import json
import re
import secrets
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tombola.errors import DeviceError, TombolaError, reason
from tombola.report.live import LivePage

HOST = "127.0.0.1"
# Any port: behind a tunnel a browser is told another than ours.
_OUR_NAMES = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
# Requests that are answered at once, and seconds that one may take to arrive, and an answer to be taken.
_MOST_AT_ONCE, _PATIENCE = 16, 10.0
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LiveServer(ThreadingHTTPServer):
    """A server of one page on a port of 127.0.0.1; 0 for a free one.

    address: of the page, with its token.

    Raises :class:`~tombola.errors.DeviceError` for a port that cannot be had.
    """

    daemon_threads = True

    def __init__(self, page: LivePage, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise DeviceError(f"port is {port}; it must be between 0 (a free one) and 65535")
        self.page = page
        self.token = secrets.token_urlsafe(32)
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise DeviceError(
                f"cannot listen on port {port} of {HOST}: {reason(error)}; give another --port, or 0 for a "
                "free one"
            ) from error

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        # HTTPServer's asks for this machine's full name, which may wait for a name server.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        # Other users of this machine can connect, too.
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a connection that broke off."""


class _Arrival(io.RawIOBase):
    """What arrives on a connection within a time for all of it: one that is fed by the byte ends, too."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not arrive in time")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: LiveServer

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_Arrival(self.connection, _PATIENCE))

    def do_GET(self) -> None:
        self.connection.settimeout(_PATIENCE)  # of each write as a whole
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _OUR_NAMES.fullmatch(hosts[0]):
            self._answer(HTTPStatus.FORBIDDEN, "this page is served to this machine alone\n")
            return
        if self.path == "/favicon.ico":  # browsers ask by themselves, and report a refusal as an error
            self._answer(HTTPStatus.NO_CONTENT, "")
            return
        token, slash, name = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("latin-1", "replace"), self.server.token.encode()):
            self._answer(HTTPStatus.FORBIDDEN, "wrong address; tombola watch printed the right one\n")
            return
        self._serve(slash + name)

    do_HEAD = do_GET

    def _serve(self, name: str) -> None:
        """Answers a request for one of the pages, to somebody who knows the token."""
        try:
            self._serve_page(name, self.server.page)
        except (TombolaError, OSError) as error:  # the store was taken away, say
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"{' '.join(str(error).split())}\n")

    def _serve_page(self, name: str, page: LivePage) -> None:
        if name == "":  # the address without its last slash, from which a page's own requests would go astray
            self._answer(HTTPStatus.PERMANENT_REDIRECT, "", place=f"/{self.server.token}/")
        elif name == "/":
            nonce = secrets.token_urlsafe(16)
            self._answer(HTTPStatus.OK, page.html(nonce), "text/html", scripts=f"'nonce-{nonce}'")
        elif name == "/state":
            self._answer(HTTPStatus.OK, json.dumps(page.parts()), "application/json")
        elif name == "/figures":
            self._answer(HTTPStatus.OK, page.report_part(), "text/html")
        elif name == "/report":
            report = page.report_html()
            if report is None:
                self._answer(HTTPStatus.NOT_FOUND, "there is no report yet\n")
            else:
                self._answer(HTTPStatus.OK, report, "text/html")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "no such page\n")

    def _answer(
        self,
        status: HTTPStatus,
        text: str,
        kind: str = "text/plain",
        scripts: str = "'none'",
        place: str | None = None,
    ) -> None:
        content = text.encode()
        self.send_response(status)
        if place is not None:
            self.send_header("Location", place)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", _POLICY.format(scripts=scripts))
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def version_string(self) -> str:
        return "tombola"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Writes no log: addresses hold the token."""
