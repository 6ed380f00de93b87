"""Another user of this machine who tries every way into the ports of somebody's cluster.

Started as root by the tests of ``tombola.lab.private``: imports what it needs, which another user might not
be able to read, then takes the user id that standard input names and never gets root's back. What came back
from each attempt goes to standard output as JSON.
"""

from __future__ import annotations

import asyncio
import encodings.idna  # noqa: F401  loaded while still root, as is all that would be loaded later
import json
import os
import pickle
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distributed.comm.registry import get_backend
from distributed.security import Security

PATHS = (
    "/", "/info", "/info/main/workers.html", "/info/logs.html", "/status", "/json", "/json/identity.json",
    "/json/counts.json", "/health", "/metrics", "/sitemap.json", "/statics/css/base.css", "/jupyter",
    "/proxy/1/x/",
)  # fmt: skip
# What runs code on a scheduler, a nanny and a worker, and what only asks.
RUNS = ("run", "run_function")
ASKS = ("identity", "get_logs", "versions")


def encryptions(stolen: tuple[str, str] | None) -> dict[str, ssl.SSLContext | None]:
    """Ways to speak: in plain, with TLS but no certificate, and with a stolen one or a forgery."""
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    security = Security.temporary()
    if stolen is not None:
        security.tls_client_cert, security.tls_client_key = stolen
    certified: ssl.SSLContext = security.get_connection_args("client")["ssl_context"]
    for context in (without, certified):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return {"plain": None, "TLS": without, "TLS with a certificate": certified}


async def dask_reply(port: int, context: ssl.SSLContext | None, message: dict[str, Any]) -> str:
    """What a Dask server says to a message, its handshake included."""
    if context is None:
        comm = await get_backend("tcp").get_connector().connect(f"127.0.0.1:{port}")
    else:
        connector = get_backend("tls").get_connector()
        comm = await connector.connect(f"127.0.0.1:{port}", ssl_context=context)
    heard: list[Any] = []
    try:
        await comm.write(comm.handshake_info())
        heard.append(await comm.read())
        comm.remote_info, comm.local_info = heard[0], comm.handshake_info()
        comm.handshake_options = comm.handshake_configuration(comm.local_info, comm.remote_info)
        await comm.write({**message, "reply": True})
        heard.append(await comm.read())
    except OSError:
        pass
    finally:
        comm.abort()
    return repr(heard)[:300] if heard else ""


def bytes_reply(port: int, context: ssl.SSLContext | None, content: bytes, patience: float) -> str:
    """All bytes that come back for some bytes, up to the first few hundred."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as plain:
        stream = plain if context is None else context.wrap_socket(plain)
        try:
            stream.sendall(content)
            while len(heard) < 300 and (more := stream.recv(300)):
                heard += more
        except ConnectionError:
            pass
    return heard.decode("latin-1")


def attempts(
    port: int, proof: str, contexts: dict[str, ssl.SSLContext | None], patience: float
) -> Iterator[tuple[str, Callable[[], Awaitable[str]]]]:
    """Everything that is tried at one port, each with its name."""
    for how, context in contexts.items():
        for operation in RUNS:
            command = f"id -u > '{proof}-{port}-{operation}-{how.split()[-1]}'"
            message = {
                "op": operation,
                "function": pickle.dumps(os.system),
                "args": pickle.dumps((command,)),
                "kwargs": {},
                "wait": True,
            }
            yield f"{how}, Dask's {operation}", lambda c=context, m=message: dask_reply(port, c, m)
        for operation in ASKS:
            yield (
                f"{how}, Dask's {operation}",
                lambda c=context, o=operation: dask_reply(port, c, {"op": o}),
            )
        for path in PATHS:
            request = f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode()
            yield (
                f"{how}, GET {path}",
                lambda c=context, r=request: asyncio.to_thread(bytes_reply, port, c, r, patience),
            )
        if len(contexts) > 1:  # a plain server would wait for the rest of it
            yield (
                f"{how}, noise",
                lambda c=context: asyncio.to_thread(bytes_reply, port, c, bytes(range(256)) * 4, patience),
            )


async def intrude(
    ports: list[int], proof: str, contexts: dict[str, ssl.SSLContext | None], patience: float
) -> list[dict[str, Any]]:
    """What each attempt at each port brought: a reply, perhaps empty, or how it was refused.

    patience: seconds by which whoever wants to say nothing has to close the connection.
    """

    async def one(port: int, name: str, attempt: Callable[[], Awaitable[str]]) -> dict[str, Any]:
        outcome: dict[str, Any] = {"port": port, "attempt": name, "reply": "", "refused": ""}
        try:
            outcome["reply"] = await asyncio.wait_for(attempt(), patience)
        except (OSError, ValueError) as error:  # ValueError: tornado's, of whoever speaks before TLS begins
            outcome["refused"] = f"{type(error).__name__}: {error}"
        return outcome

    tried = [
        one(port, name, attempt)
        for port in ports
        for name, attempt in attempts(port, proof, contexts, patience)
    ]
    # A thread for each: none spends its patience standing in line.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(tried)))
    return list(await asyncio.gather(*tried))


def readable(pids: list[int], folders: list[str]) -> dict[str, Any]:
    """What this user sees of the processes and folders of the other."""
    seen: dict[str, Any] = {"environ": [], "cmdline": {}, "folders": []}
    for pid in pids:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            seen["cmdline"][pid] = file.read().decode(errors="replace")
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                file.read()
            seen["environ"].append(pid)
        except PermissionError:
            pass
    for folder in folders:
        try:
            os.listdir(folder)
            seen["folders"].append(folder)
        except PermissionError:
            pass
    return seen


def main() -> None:
    """Become the other user, and try."""
    given = json.load(sys.stdin)
    contexts, patience = encryptions(given["stolen"]), given["patience"]
    if given["in plain"]:
        contexts = {"plain": None}
    with socket.socket() as silent:  # nobody listens there; what connecting needs is loaded
        silent.bind(("127.0.0.1", 0))
        asyncio.run(intrude([silent.getsockname()[1]], given["proof"], contexts, patience))
    os.setgroups([])
    os.setresgid(given["uid"], given["uid"], given["uid"])
    os.setresuid(given["uid"], given["uid"], given["uid"])
    seen = {
        "uid": os.getuid(),
        "could write the proof": os.access(os.path.dirname(given["proof"]), os.W_OK),
        "attempts": asyncio.run(intrude(given["ports"], given["proof"], contexts, patience)),
        **readable(given["pids"], given["folders"]),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
