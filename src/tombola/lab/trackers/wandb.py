"""Weights & Biases: a run for each job, whose number there is the job's name; online or offline.

``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``WANDB_DIR`` and all other variables of W&B mean what
they always do. Which jobs are there is read off W&B's own folder of runs on this machine. A job that is
entered from another machine, too, has the same number, under which the server keeps one run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tombola import disk
from tombola.errors import TrackerError
from tombola.lab.tracker import DEFAULT_PROJECT, TrackedJob

PACKAGE = "wandb"

_FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-([0-9a-f]{64})")
# In the folder of a run, once all of it is there.
_WHOLE = "tombola-whole"
# What W&B allows of tags: their number, and characters of each.
_MOST_TAGS, _LONGEST_TAG = 20, 64


def open_tracker(folder: Path | None) -> WandbTracker:
    """W&B as its settings have it, with its files in a folder; by default ``WANDB_DIR``."""
    import wandb

    settings = wandb.setup().settings
    if settings.mode in ("online", "shared") and not wandb.login(prompt=False, verify=False):
        raise TrackerError("wandb has no API key; wandb login sets it, or say WANDB_MODE=offline")
    mode = (
        "disabled" if settings.mode == "disabled" else "offline" if settings.mode == "offline" else "online"
    )
    files = wandb.Settings(root_dir=str(folder)).wandb_dir if folder else settings.wandb_dir
    return WandbTracker(folder, Path(files), settings.project or DEFAULT_PROJECT, mode)


class WandbTracker:
    """The runs of a project.

    root: what W&B is given as its folder. folder: the one in it where runs lie. mode: ``"online"``,
    ``"offline"`` or ``"disabled"``.
    """

    def __init__(self, root: Path | None, folder: Path, project: str, mode: str) -> None:
        self._root, self._folder, self._project, self._mode = root, folder, project, mode

    def place(self) -> str:
        if self._mode == "disabled":
            return "nowhere: WANDB_MODE is disabled"
        if self._mode == "offline":
            return f"in {self._folder}; wandb sync {self._folder}/offline-run-* sends them to the server"
        return f"in project {self._project}"

    def absent(self, names: Sequence[str]) -> list[str]:
        if self._mode == "disabled":
            return []
        held = {name for name, folder in self._runs() if (folder / _WHOLE).exists()}
        return [name for name in names if name not in held]

    def add(self, job: TrackedJob) -> None:
        import wandb

        for name, folder in self._runs():
            if name == job.name:  # what an interruption left
                disk.remove_tree(folder)
        if self._root is not None:
            self._root.mkdir(parents=True, exist_ok=True)
        tags = [job.function, *(f"from {parent[:12]}" for parent in job.parents)]
        run = wandb.init(
            project=self._project, id=job.name, name=job.title, dir=self._root, reinit="create_new",
            config=_nested(job), tags=[tag[:_LONGEST_TAG] for tag in tags[:_MOST_TAGS]],
            settings=wandb.Settings(
                # Of this process, which is not the one that computed the job.
                console="off", disable_code=True, disable_git=True, x_disable_stats=True, x_disable_meta=True,
                silent=True,
            ),
        )  # fmt: skip
        for point in job.curve:
            run.log({f"curve/{name}": value for name, value in point.values.items()}, step=point.step)
        run.summary.update(dict(job.numbers))
        files = Path(run.dir).parent
        run.finish()
        disk.write_whole(files / _WHOLE, b"")

    def _runs(self) -> Iterator[tuple[str, Path]]:
        """The names of the jobs whose runs were begun here, and their folders."""
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                if match := _FOLDER.fullmatch(entry.name):
                    yield match[1], Path(entry.path)


def _nested(job: TrackedJob) -> dict[str, Any]:
    """The parameters in the groups in which W&B shows them; names there have no points."""
    groups: dict[str, dict[str, Any]] = {"recipe": {}, "provenance": {}}
    config: dict[str, Any] = {}
    for key, value in job.parameters.items():
        group, _, rest = key.partition(".")
        name = rest if group in groups and rest else key
        groups.get(group if rest else "", config)[name.replace(".", "_")] = value
    return {**config, **groups, "job": job.name, "parents": list(job.parents)}
