"""A cluster of this machine is closed to its other users, whose attempts open an unprotected one."""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import os
import ssl
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from dask.utils import key_split
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker

import tombola as tb
from tombola.lab.cluster import local_cluster
from tombola.lab.slots import Crew

OTHER_USER = 65534
RUNS = ("run", "run_function")  # as the intruder has them
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform == "linux"
as_root = pytest.mark.skipif(not ROOT, reason="only root can become another user to try (on Linux)")


@pytest.fixture
def private_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of temporary files of the test's own, here and in workers, open to everybody as /tmp is."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def plain_cluster() -> SpecCluster:
    """What Dask starts by itself: a scheduler and one worker on loopback."""
    ends = {"host": "127.0.0.1"}
    return SpecCluster(
        workers={0: {"cls": Nanny, "options": ends | {"nthreads": 1, "silence_logs": logging.CRITICAL}}},
        scheduler={"cls": Scheduler, "options": ends | {"dashboard_address": "127.0.0.1:0"}},
        silence_logs=logging.CRITICAL,
    )


def processes() -> list[psutil.Process]:
    """This process and all that it started, and what those started."""
    own = psutil.Process()
    return [own, *own.children(recursive=True)]


def listening() -> dict[int, str]:
    """Ports that these processes listen at, with their addresses; whatever the protocol."""
    return {
        connection.laddr.port: connection.laddr.ip
        for process in processes()
        for connection in process.net_connections(kind="inet")
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)  # of UDP there is no status
    }


def listening_unix_sockets() -> list[str]:
    """Unix sockets, abstract ones too, at which these processes listen: lines of /proc/net/unix."""
    inodes = set()
    for process in processes():
        for entry in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
            except OSError:  # closed meanwhile
                continue
            if target.startswith("socket:["):
                inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    accepting = 0x10000  # __SO_ACCEPTCON of linux/net.h
    return [" ".join(line) for line in lines if line[6] in inodes and int(line[3], 16) & accepting]


def intrude(
    proof: Path,
    folders: list[str],
    patience: float,
    stolen: tuple[str, str] | None = None,
    in_plain: bool = False,
) -> dict[str, Any]:
    """What another user gets out of all that this process and its children listen at; see intruder.py.

    stolen: a certificate and its key. in_plain: only ways without TLS.
    """
    ports = listening()
    asked = {
        "uid": OTHER_USER,
        "ports": sorted(ports),
        "pids": [process.pid for process in processes()],
        "folders": folders,
        "proof": str(proof),
        "patience": patience,
        "stolen": stolen,
        "in plain": in_plain,
    }
    script = Path(__file__).with_name("intruder.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["uid"] == OTHER_USER
    assert not seen["could write the proof"]
    assert {attempt["port"] for attempt in seen["attempts"]} == set(ports)
    return seen


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    """The beginning of files that only this user's processes can write."""
    folder = tmp_path / "proof"
    folder.mkdir(mode=0o700)
    return folder / "run"


def written_by_us(proof: Path, port: int, operation: str, how: str) -> bool:
    """Whether a command that the other user sent to a port was run by a process of ours, as root."""
    written = proof.with_name(f"{proof.name}-{port}-{operation}-{how}")
    return written.exists() and written.read_text() == "0\n" and written.stat().st_uid == 0


@as_root
def test_another_user_runs_code_on_an_unprotected_cluster(proof: Path) -> None:
    # Shows that the attempts of the next test would succeed where nothing keeps them out.
    with plain_cluster() as cluster, Client(cluster) as client:
        ((worker, about),) = client.scheduler_info()["workers"].items()
        scheduler, nanny, worker = (
            int(address.rsplit(":", 1)[1]) for address in (cluster.scheduler_address, about["nanny"], worker)
        )
        seen = intrude(proof, [], patience=10, in_plain=True)
    for port, operation in ((scheduler, "run_function"), (nanny, "run"), (worker, "run")):
        assert written_by_us(proof, port, operation, "plain")
    replies = {(attempt["port"], attempt["attempt"]): attempt["reply"] for attempt in seen["attempts"]}
    assert "tcp://127.0.0.1" in replies[scheduler, "plain, Dask's identity"]
    for path in ("/info/main/workers.html", "/json/counts.json", "/health", "/sitemap.json"):
        assert any("200 OK" in reply for (_, name), reply in replies.items() if name == f"plain, GET {path}")


@as_root
def test_another_user_gets_no_reply_from_a_local_cluster(proof: Path, private_temporary_files: Path) -> None:
    before = listening_unix_sockets()  # such as that of the tests' own processes
    with local_cluster(Crew((1, 1))) as client:
        ports = listening()
        # A scheduler, two nannies and two workers, and nothing else: no HTTP.
        assert set(ports.values()) == {"127.0.0.1"}
        assert len(ports) == 5
        assert set(listening_unix_sockets()) <= set(before)
        scratch = [str(folder) for folder in private_temporary_files.iterdir()]
        seen = intrude(proof, scratch, patience=30)
        without_key = list(proof.parent.iterdir())
        # It works all the same, and after all that.
        assert client.submit(int, "7", pure=False).result() == 7
        # Nothing but the key kept the other user out: the attempts themselves are sound.
        stolen = (client.security.tls_client_cert, client.security.tls_client_key)
        intrude(proof, [], patience=30, stolen=stolen)
    for attempt in seen["attempts"]:
        assert attempt["reply"] == "", attempt
        assert "Timeout" not in attempt["refused"], attempt  # the connection was closed
    for how, alert in (("TLS", "CERTIFICATE_REQUIRED"), ("TLS with a certificate", "UNKNOWN_CA")):
        assert any(
            attempt["attempt"].startswith(f"{how},") and alert in attempt["refused"]
            for attempt in seen["attempts"]
        )
    assert without_key == []
    for port in ports:
        assert any(written_by_us(proof, port, operation, "certificate") for operation in RUNS)
    assert seen["environ"] == []
    assert len(scratch) > 0
    assert seen["folders"] == []


def test_the_key_of_a_cluster_is_in_no_command_line_environment_or_file(
    private_temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []
    really = ssl.SSLContext.load_cert_chain

    def load(self: ssl.SSLContext, certificate: str, key: str | None = None) -> None:
        # OpenSSL reads only files.
        places.append((Path(certificate).parent.stat().st_mode & 0o777, key))
        really(self, certificate, key)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    with local_cluster(Crew((1,))) as client:
        # Each line of the body of a PEM file is as good as unique.
        lines = [line for line in client.security.tls_worker_key.splitlines() if len(line) == 64]
        assert len(lines) > 20
        for process in processes()[1:] if sys.platform == "linux" else []:
            for kind in ("cmdline", "environ"):
                content = Path(f"/proc/{process.pid}/{kind}").read_text(errors="replace")
                assert not any(line in content for line in lines)
        files = [path for path in private_temporary_files.rglob("*") if path.is_file()]
        assert files != []  # Dask's locks
        for path in files:
            content = path.read_text(errors="replace")
            assert not any(line in content for line in lines)
    assert places != []
    assert {mode for mode, _ in places} == {0o700}
    assert not any(Path(key).exists() for _, key in places if key is not None)


def test_scratch_files_are_private_and_go_with_the_cluster(
    private_temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Within the test, so that it reaches the worker whole: that cannot import the tests.
    def scratch_of(dask_worker: Worker) -> tuple[str, list[str]]:
        return dask_worker.local_directory, sys.path

    before, finders = list(sys.path), set(sys.path_importer_cache)
    with local_cluster(Crew((1,))) as client:
        (folder,) = private_temporary_files.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        ((worker, paths),) = client.run(scratch_of).values()
        assert folder in Path(worker).parents
        scheduler = client.cluster.scheduler.local_directory
        assert folder in Path(scheduler).parents
        # Dask imports from there.
        added = set(sys.path) - set(before) | {paths[0]}
        assert len(added) > 1
        assert all(folder in Path(path).parents for path in added)
        monkeypatch.syspath_prepend("/somewhere")  # Dask takes away only what still stands first
    assert list(private_temporary_files.iterdir()) == []
    assert sys.path == ["/somewhere", *before]
    assert {path for path in set(sys.path_importer_cache) - finders if folder in Path(path).parents} == set()


def test_nothing_of_a_local_cluster_stays_in_memory() -> None:
    with local_cluster(Crew((1,))) as client:
        assert client.submit(abs, -1, key="abs-of-one").result() == 1
        ends = [client.cluster.scheduler, *client.cluster.workers.values(), client]
        kept = [weakref.ref(end) for end in ends]
        assert key_split.cache_info().currsize > 0
    del client, ends
    gc.collect()
    assert [end() for end in kept] == [None, None, None]
    assert key_split.cache_info().currsize == 0


@pytest.fixture
def planted(private_temporary_files: Path) -> Iterator[str]:
    """A module that another user left where Dask keeps its scratch files by default."""
    folder = private_temporary_files / "dask-scratch-space"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "planted_by_another.py").write_text("")
    before = list(sys.path)
    yield "planted_by_another"
    sys.path[:] = before


def test_nothing_is_imported_from_a_folder_that_another_user_made(planted: str) -> None:
    def finds(name: str) -> bool:
        return importlib.util.find_spec(name) is not None

    with plain_cluster() as cluster, Client(cluster):
        assert finds(planted)  # Dask's nannies look for modules there, in the driver
    assert not finds(planted)
    with local_cluster(Crew((1,))) as client:
        assert not finds(planted)
        assert set(client.run(finds, planted).values()) == {False}


def test_the_users_own_dask_configuration_of_tls_does_not_touch_a_local_cluster(tmp_path: Path) -> None:
    configuration = {
        "COMM__REQUIRE_ENCRYPTION": "True",
        "COMM__DEFAULT_SCHEME": "tls",
        "COMM__TLS__CA_FILE": "/nowhere/ca.pem",
        "COMM__TLS__CIPHERS": "NONE-OF-THESE",
        "COMM__TLS__MIN_VERSION": "9",
        "COMM__TLS__MAX_VERSION": "9",
        **{f"COMM__TLS__{role}__CERT": "/nowhere/cert.pem" for role in ("CLIENT", "SCHEDULER", "WORKER")},
        **{f"COMM__TLS__{role}__KEY": "/nowhere/key.pem" for role in ("CLIENT", "SCHEDULER", "WORKER")},
        "SCHEDULER__CONTACT_ADDRESS": "tls://127.0.0.1:9",
        "SCHEDULER__DASHBOARD__TLS__CERT": "/nowhere/cert.pem",
        "SCHEDULER__DASHBOARD__TLS__KEY": "/nowhere/key.pem",
        "SCHEDULER__HTTP__ROUTES": "['distributed.http.scheduler.info']",
        "WORKER__MULTIPROCESSING_METHOD": "forkserver",
    }
    script = tmp_path / "script.py"
    script.write_text(
        "from tombola.lab.cluster import Crew, local_cluster\n"
        "if __name__ == '__main__':\n"
        "    with local_cluster(Crew((1,))) as client:\n"
        "        print(client.submit(int, '7').result(), client.scheduler.address.split(':')[0])\n"
    )
    environment = os.environ | {f"DASK_DISTRIBUTED__{key}": value for key, value in configuration.items()}
    environment["PYTHONPATH"] = str(Path(tb.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "7 tls\n"), done.stderr


def test_a_worker_process_does_not_load_torch_before_it_is_told_its_gpu() -> None:
    # Dask's nanny sends the class of the worker together with CUDA_VISIBLE_DEVICES, and it is imported first.
    code = "import sys, tombola.lab.private; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, timeout=120).returncode == 0


def test_the_users_dask_configuration_is_as_before_after_a_local_cluster() -> None:
    before = json.dumps(dask.config.config, default=str)
    with local_cluster(Crew((1,))):
        pass
    assert json.dumps(dask.config.config, default=str) == before


def test_processes_import_nothing_out_of_the_current_folder(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    for module in ("multiprocessing", "pickle", "torch"):
        planted = shared / f"{module}.py"
        planted.write_text(f"open({str(tmp_path / f'{module} was run')!r}, 'w')\nraise SystemExit(3)\n")
    (own / "script.py").write_text(
        f"""
import tombola as tb
from tombola.report.drawing_pool import drawn
if __name__ == "__main__":
    job = tb.job(tb.initialize, "convnet", "digits")
    tb.Lab({str(tmp_path / "store")!r}, workers=1).run(job).raise_failures()
    with drawn(["no picture"] * 2, ["png"], 2) as files:
        try:
            next(files)
        except AttributeError:  # of a process that has begun
            print("done")
"""
    )
    path = {"PYTHONPATH": str(Path(tb.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(own / "script.py")],
        cwd=shared,
        env=os.environ | path,
        capture_output=True,
        text=True,
    )
    assert list(tmp_path.glob("* was run")) == []
    assert done.stdout == "done\n", done.stderr[-2000:]
