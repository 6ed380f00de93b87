"""Valid files of every kind, to be altered, and every way in which they are read."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import tombola as tb
from tombola.errors import TombolaError
from tombola.lab import evaluate
from tombola.lab.archive import import_
from tombola.lab.details import show_file, show_job
from tombola.lab.export import export
from tombola.lab.finished import finished_job, load_result
from tombola.lab.gc import gc
from tombola.lab.listing import listing
from tombola.lab.store import Store
from tombola.lab.verify import verify
from tombola.training.checkpoint import Checkpoints


class Bait:
    """Valid files of every kind, made once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        draws = torch.Generator().manual_seed(0)
        split = torch.randint(0, 256, (40, 1, 8, 8), generator=draws).byte(), torch.arange(40) % 10
        data = tb.data_from_tensors(split, split, name="made-up")
        self.recipe = tb.Recipe(epochs=2, batch_size=20, momentum=0.9)
        digits = tb.Recipe(epochs=1, batch_size=600)
        self.ticket = tb.initialize("convnet", data)
        lab = tb.Lab(place / "room" / "store")
        start = tb.job(tb.initialize, "convnet", "digits")
        dense = tb.job(tb.train, start, "digits", digits)
        pruned = tb.job(tb.train, tb.job(tb.prune, dense, fraction=0.5), "digits", digits)
        line = tb.job(tb.barrier, dense, pruned, "digits", points=3)
        lab.run([line]).raise_failures()
        self.store, self.names = lab.store, [each.name for each in (start, dense, pruned, line)]
        run = lab.result(pruned)
        self.room = place / "room"
        self.files = {"ticket": self.room / "a.ticket", "run": self.room / "a.run"}
        run.ticket.save(self.files["ticket"], with_start=True)
        run.save(self.files["run"])
        self.files["export"] = self.room / "export.tombola"
        export(self.store, [pruned.name], self.files["export"])
        self._checkpoint(data)
        self.files["checkpoint"] = self.room / "checkpoints" / "checkpoint"
        self.data = data
        (place / "outside").write_text("canary")
        self.in_store = sorted(path for path in self.store.root.rglob("*") if path.is_file())

    def _checkpoint(self, data: tb.Data) -> None:
        class Cut(Checkpoints):
            def keep(self, checkpoint: Any) -> None:
                super().keep(checkpoint)
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            tb.train(self.ticket, data, self.recipe, watch=Cut(self.room / "checkpoints", every=0.0))


def readers(bait: Bait) -> dict[str, list[Callable[[Path], Any]]]:
    """Every way to read a file of each kind."""

    def shown(what: Any) -> None:
        text = io.StringIO()
        Console(file=text, width=120).print(what)
        text.getvalue().encode()

    def resumed(path: Path) -> None:
        tb.train(bait.ticket, bait.data, bait.recipe, watch=Checkpoints(path.parent, every=1e9))

    def imported(path: Path) -> None:
        taken = Store(bait.room / "taken")
        try:
            import_(taken, path)
            shown(listing(taken))
            list(verify(taken))
        finally:
            shutil.rmtree(taken.root)

    def each_job(read: Callable[[str], Any]) -> Callable[[Path], None]:
        def reader(path: Path) -> None:
            touched = path.parent.name
            for name in [touched] if touched in bait.names else bait.names:
                with suppress(TombolaError):
                    read(name)

        return reader

    store = bait.store

    def evaluated(path: Path) -> None:
        if path.parent.name == bait.names[3]:
            with suppress(Exception):  # arguments that do not fit fail the job, whatever they raise
                evaluate.evaluate(store, store.description(bait.names[3]), {})

    return {
        "ticket": [tb.Ticket.load, lambda path: shown(show_file(path))],
        "run": [lambda path: tb.Run.load(path).summary(), lambda path: shown(show_file(path))],
        "checkpoint": [lambda path: Checkpoints(path.parent).resume(), resumed],
        "export": [imported],
        "store": [
            lambda path: shown(listing(store)),
            each_job(lambda name: shown(show_job(store, name))),
            each_job(lambda name: load_result(store, name)),
            each_job(lambda name: finished_job(store, name).name),
            evaluated,
            each_job(lambda name: export(store, [name], bait.room / "out.tombola")),
            lambda path: [str(each) for each in verify(store)],
            lambda path: gc(store, "tickets", grace=0.0),
            lambda path: tb.Lab(store.root)._check_data(
                [tb.job(tb.initialize, "convnet", "digits")], needed=True
            ),
        ],
    }
