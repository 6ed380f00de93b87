"""A model hub on loopback that speaks what huggingface_hub asks for, with repositories in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_the_owner"
READER = "hf_of_a_reader"


@dataclass
class Repository:
    """Its commits, oldest first, each with all of its files; branches point to the last."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, changes: dict[str, bytes]) -> str:
        files = {**(list(self.commits.values())[-1] if self.commits else {}), **changes}
        name = hashlib.sha1(repr((len(self.commits), sorted(changes))).encode()).hexdigest()
        self.commits[name] = files
        return name

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = list(self.commits)[-1] if revision == "main" and self.commits else revision
        return (name, self.commits[name]) if name in self.commits else None


class FakeHub(ThreadingHTTPServer):
    """The owner of ``me/`` has the token TOKEN; READER may read and not write."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.status = 0  # with which all is answered, if not 0
        self.sizes: dict[str, int] = {}  # what is said of a file in place of its size

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, name: str, files: dict[str, bytes], kind: str = "model") -> str:
        """Commit files past all checks; the name of the commit."""
        return self.repositories.setdefault((kind, name), Repository()).commit(files)

    def files(self, name: str, kind: str = "model") -> dict[str, bytes]:
        return list(self.repositories[kind, name].commits.values())[-1]


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_ROUTES = {
    "POST": [
        (r"/api/repos/create", "create"),
        (r"/api/validate-yaml", "validate"),
        (rf"/api/(?P<kind>model|dataset)s/{_NAME}/preupload/(?P<revision>[^/]+)", "preupload"),
        (rf"/api/(?P<kind>model|dataset)s/{_NAME}/commit/(?P<revision>[^/]+)", "commit"),
        (rf"/(?:datasets/)?{_NAME}\.git/info/lfs/objects/batch", "batch"),
    ],
    "PUT": [(r"/blobs/(?P<oid>[0-9a-f]{64})", "store")],
    "GET": [
        (rf"/api/(?P<kind>model|dataset)s/{_NAME}(?:/revision/(?P<revision>[^/]+))?", "info"),
        (rf"/(?P<set>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
    ],
}
_ROUTES["HEAD"] = _ROUTES["GET"]


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _route(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        if self.server.status:
            self._error(self.server.status)
            return
        for pattern, name in _ROUTES[self.command]:
            match = re.fullmatch(pattern, path)
            if match:
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value}
                getattr(self, f"_{name}")(**parts)
                return
        self._error(404)

    do_GET = do_HEAD = do_POST = do_PUT = _route

    def _answer(self, value: object, **headers: str) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})

    def _error(self, status: int, code: str = "", message: str = "refused") -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def _token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _may_write(self, name: str) -> bool:
        if self._token not in (TOKEN, READER):
            self._error(401, message="Invalid credentials in Authorization header")
        elif self._token == READER or not name.startswith("me/"):
            self._error(403, message="You don't have the rights to write there")
        else:
            return True
        return False

    def _repository(self, kind: str, name: str) -> Repository | None:
        there = self.server.repositories.get((kind, name))
        if there is None or (there.private and self._token != TOKEN):
            self._error(404 if self._token else 401, "RepoNotFound", "Repository not found")
            return None
        return there

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        kind = asked.get("type") or "model"
        if not self._may_write(name):
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        url = f"{self.server.address}/{'datasets/' * (kind == 'dataset')}{name}"
        if (kind, name) in self.server.repositories:
            body = json.dumps({"error": "You already created this repo", "url": url}).encode()
            self._send(409, body, {})
            return
        self.server.repositories[kind, name] = Repository(bool(private))
        self._answer({"url": url, "name": name})

    def _validate(self) -> None:
        content = json.loads(self.body)["content"]
        good = content.startswith("---\n") and "\n---\n" in content
        self._answer({"errors": [] if good else [{"message": "no metadata"}], "warnings": []})

    def _preupload(self, kind: str, name: str, revision: str) -> None:
        if self._may_write(name):
            files = [
                {
                    "path": entry["path"],
                    "uploadMode": "regular" if entry["path"].endswith(".md") else "lfs",
                    "shouldIgnore": False,
                }
                for entry in json.loads(self.body)["files"]
            ]
            self._answer({"files": files})

    def _batch(self, name: str) -> None:
        if self._may_write(name):
            objects = [
                {
                    **entry,
                    "actions": {"upload": {"href": f"{self.server.address}/blobs/{entry['oid']}"}},
                }
                for entry in json.loads(self.body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            self._error(422)
            return
        self.server.blobs[oid] = self.body
        self._answer({})

    def _commit(self, kind: str, name: str, revision: str) -> None:
        if not self._may_write(name):
            return
        changes: dict[str, bytes] = {}
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = self.server.blobs[value["oid"]]
        commit = self.server.repositories[kind, name].commit(changes)
        self._answer(
            {
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.server.address}/{name}/commit/{commit}",
            }
        )

    def _at(self, kind: str, name: str, revision: str) -> tuple[Repository, str, dict[str, bytes]] | None:
        """A repository, with commit and files of a revision; None where that was answered with an error."""
        there = self._repository(kind, name)
        if there is None:
            return None
        found = there.at(revision)
        if found is None:
            self._error(404, "RevisionNotFound", "Revision not found")
            return None
        return there, *found

    def _info(self, kind: str, name: str, revision: str = "main") -> None:
        found = self._at(kind, name, revision)
        if found is None:
            return
        there, commit, files = found
        siblings = [
            {"rfilename": path, "size": self.server.sizes.get(path, len(content))}
            for path, content in files.items()
        ]
        self._answer({"_id": "1", "id": name, "sha": commit, "private": there.private, "siblings": siblings})

    def _resolve(self, name: str, revision: str, file: str, set: str = "") -> None:
        found = self._at("dataset" if set else "model", name, revision)
        if found is None:
            return
        _, commit, files = found
        if file not in files:
            self._error(404, "EntryNotFound", "Entry not found")
            return
        headers = {"ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"', "X-Repo-Commit": commit}
        self._send(200, files[file], headers)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on loopback in place of the real one, with the owner logged in and an empty cache."""
    server = FakeHub()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    point_to(monkeypatch, server.address, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def point_to(monkeypatch: pytest.MonkeyPatch, address: str, folder: Path) -> None:
    """What HF_ENDPOINT and HF_HOME would do, had they been set before the library was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nothing listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    server.server_close()
    point_to(monkeypatch, address, tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return address
