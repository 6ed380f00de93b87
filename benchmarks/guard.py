"""Watches what readers of a stranger's files do: where they go, what they start, how much they ask for."""

from __future__ import annotations

import resource
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tombola as tb

SECONDS = 20
# Never while something of a stranger's is read.
_FORBIDDEN = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.chmod", "os.symlink",
    "socket.connect", "urllib.Request", "pickle.find_class",
)  # fmt: skip
# Only within the folder that the reader was given.
_TOUCHING = (
    "open",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.rename",
    "os.link",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
)
_LIBRARIES = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib")})


class Escape(BaseException):
    """Something that no reader may do; no handler of Exception takes it for a clean error."""


class Guard:
    """Watches what the interpreter is asked to do while it is on."""

    def __init__(self) -> None:
        self.room: Path | None = None
        self.seen = ""
        self._own = (
            *_LIBRARIES,
            str(Path(tb.__file__).parents[1]),
            str(Path(__file__).parent),
            "/proc/",
            "/sys/",
            "/dev/",
        )
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGALRM, _too_long)

    def _inside(self, path: str) -> bool:
        room = str(self.room)
        inside = path == room or path.startswith((room + "/", *self._own)) or not path.startswith("/")
        return inside and ".." not in path.split("/")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.room is None:
            return
        if event in _FORBIDDEN:
            self._refuse(f"{event} {arguments!r:.200}")
        if event in _TOUCHING and arguments and isinstance(arguments[0], str | bytes):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                text = path.decode() if isinstance(path, bytes) else str(path)
                if not self._inside(text):
                    self._refuse(f"{event} {text!r:.200}")

    def opening(self, opened: Callable[..., Any]) -> Callable[..., Any]:
        """A function that opens files without the interpreter's knowledge, watched too."""

        def watched(path: Any, *arguments: Any, **options: Any) -> Any:
            if self.room is not None and not self._inside(str(path)):
                self._refuse(f"safe_open {str(path)!r:.200}")
            return opened(path, *arguments, **options)

        return watched

    def _refuse(self, what: str) -> None:
        self.seen = self.seen or what
        raise Escape(what)

    @contextmanager
    def on(self, room: Path) -> Iterator[None]:
        self.room, self.seen = room, ""
        signal.alarm(SECONDS)
        try:
            yield
        finally:
            signal.alarm(0)
            self.room = None
        if self.seen:
            raise Escape(self.seen)


def bound_memory() -> None:
    """Let an allocation of more than a GB fail, where the system can."""
    with suppress(OSError, ValueError):
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, now + 2**30))


def _too_long(*_: object) -> None:
    raise Escape(f"more than {SECONDS} seconds")
