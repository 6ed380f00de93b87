"""The live page in a headless Chromium while a chain runs: values change, nothing errs, and it fits a phone.

The browser is driven over a pipe by its own protocol (DevTools), a message of JSON ended by a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chromium import BROWSER, MARKS

import tombola as tb
from tombola.lab.execute import Settings
from tombola.lab.store import Store
from tombola.report.gather import gather_chains
from tombola.report.live import LivePage
from tombola.report.live_server import LiveServer

pytestmark = MARKS
WIDTH = 400
EXPERIMENT = tb.Experiment(
    "watched", ["convnet"], ["digits"], tb.Recipe(epochs=15, batch_size=64, lr=0.1), rounds=1, seeds=[0]
)
# What runs in a process of its own, as tombola run would: a chain of two trainings, which take their time.
CHAIN = """
import sys
import time
import tombola as tb
from tombola.experiments.compute import run_experiments
from tombola.training.engines import EagerEngine

advance = EagerEngine.advance
def slowly(*arguments):
    time.sleep(0.15)
    advance(*arguments)
EagerEngine.advance = slowly
lab = tb.Lab(sys.argv[1])
experiment = tb.Experiment(
    "watched", ["convnet"], ["digits"], tb.Recipe(epochs=15, batch_size=64, lr=0.1), rounds=1, seeds=[0]
)
run_experiments(lab, [experiment.at()]).outcome.raise_failures()
"""


class Browser:
    """A page of a browser. said: errors, warnings and messages of its console so far."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self.process = process
        self.said: list[str] = []
        self._read, self._write = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
        self._rest = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = self._read.read(2**16)
            assert part, "the browser ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read

    def _note(self, event: dict[str, Any]) -> None:
        told = (
            "Log.entryAdded",
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Page.javascriptDialogOpening",
        )
        if event.get("method") in told:
            self.said.append(json.dumps(event["params"]))

    def open(self, address: str, width: int = WIDTH) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 120.0) -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.value(expression)):
            assert time.monotonic() < end, (expression, self.value("document.body.innerText"))
            time.sleep(0.2)
        return value

    def picture(self, path: Path) -> None:
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(image))


@contextmanager
def browser(folder: Path, *options: str) -> Iterator[Browser]:
    """A browser with a profile of its own."""
    assert BROWSER is not None
    to_read, its_write = os.pipe()
    its_read, to_write = os.pipe()
    arguments = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", *options,
    ]  # fmt: skip

    def give() -> None:
        # The protocol's descriptors are 3 and 4, either of which may be one of ours here.
        read, write = (fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in (its_read, its_write))
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        arguments, preexec_fn=give, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(its_read)
    os.close(its_write)
    try:
        yield Browser(process, to_read, to_write)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def served(store: Store, *, report: bool = False) -> Iterator[LiveServer]:
    """The live page of a store, served by a thread of this process."""
    lab = tb.Lab(store.root, settings=Settings(device="cpu"))
    page = LivePage(store, (lambda: gather_chains(lab, [EXPERIMENT.at()], {})) if report else None)
    with LiveServer(page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def overflowing(page: Browser) -> list[str]:
    """The elements that reach beyond a phone's width and do not lie in what scrolls by itself."""
    wide: list[str] = page.value(
        """[...document.querySelectorAll("body *")].filter(one => !one.closest(".scroll, .picture")
        && one.getBoundingClientRect().right > WIDTH + 1).map(one => one.outerHTML.slice(0, 80))""".replace(
            "WIDTH", str(WIDTH)
        )
    )
    return wide


def test_the_page_lives_while_a_chain_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    chain = subprocess.Popen([sys.executable, "-c", CHAIN, str(store.root)])
    try:
        with served(store, report=True) as server, browser(tmp_path) as page:
            page.open(server.address)
            assert page.value("document.scripts.length") == 1
            first = page.wait_for("document.querySelector('#running').innerText.match(/epoch [^,]*/)?.[0]")
            page.wait_for(
                f"document.querySelector('#running').innerText.match(/epoch [^,]*/)?.[0] != {first!r}"
            )
            assert "train" in page.wait_for("document.querySelector('#queue').innerText")
            page.wait_for("document.querySelectorAll('#curves svg[role=img]').length == 2")
            # The curve of a training grows while it runs.
            path = "document.querySelector('#curves svg[role=img] path[stroke-linejoin]')?.getAttribute('d')"
            curve = page.value(path)
            page.wait_for(f"({path} ?? '').length != {len(curve or '')}")
            page.wait_for("/^[1-9]/.test(document.querySelector('#throughput').innerText)")
            page.wait_for("document.querySelector('#report svg') !== null")
            assert overflowing(page) == []
            assert page.value("document.documentElement.scrollWidth") <= WIDTH
            assert page.value("document.referrer") == ""
            assert chain.wait(timeout=300) == 0
            page.wait_for("document.querySelector('#running').innerText.includes('Nothing runs')")
            assert page.said == []
            page.open(f"{server.address}report")
            assert page.value("document.documentElement.scrollWidth") <= WIDTH
            assert page.said == []
    finally:
        chain.kill()
        chain.wait()


def test_a_wrong_token_and_a_foreign_name_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with served(store) as server:
        rules = f"MAP rebound.test 127.0.0.1:{server.server_port}"
        with browser(tmp_path, f"--host-resolver-rules={rules}") as page:
            page.open(server.address)
            assert "What the store is doing" in page.value("document.body.innerText")
            page.open(server.address.replace(server.token, "x" * len(server.token)))
            assert "wrong address" in page.value("document.body.innerText")
            # Another name that leads here, as by DNS rebinding, with the right token.
            page.open(f"http://rebound.test/{server.token}/")
            assert "served to this machine alone" in page.value("document.body.innerText")


def test_hostile_names_are_inert(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m" + "long" * 100
    workplace = store.workplace("a" * 64)
    workplace.mkdir()
    (workplace / "error.txt").write_text(hostile)
    report = {"function": hostile, "arguments": hostile, "epoch": 1, "epochs": 2, "left": 3.0}
    (workplace / "under-way.json").write_text(json.dumps(report))
    queue = {"host": hostile, "pid": os.getpid(), "begun": 1.0, "jobs": {"b" * 64: hostile}}
    (store.root / "work" / ".queue.00000000").write_text(json.dumps(queue))
    with served(store) as server, browser(tmp_path) as page:
        page.open(server.address)
        page.wait_for("document.querySelector('#queue').innerText.includes('<script>')")
        time.sleep(2.5)  # the script has put the sections in place once
        assert "<script>alert(1)" in page.value("document.querySelector('#finished').innerText")
        assert page.value("document.images.length") == 0
        assert page.value("document.scripts.length") == 1
        assert overflowing(page) == []
        assert page.said == []
