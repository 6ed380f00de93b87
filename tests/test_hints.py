"""What the public functions take is what their hints say: a user's file under mypy."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

USERS = """
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tombola as tb


def two_layers(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


recipe = tb.Recipe(epochs=1, batch_size=100, optimizer="adamw", augmentation=tb.Augmentation(cutout=2))
data = tb.data_from_tensors(
    (np.zeros((4, 3), np.float32), np.arange(4)), (torch.zeros(4, 3), torch.arange(4)), name="mine"
)
start = tb.initialize("convnet", "digits")
tb.initialize(two_layers, Path("a-folder"))
tb.initialize(nn.Linear(3, 4), data, init="orthogonal")
first = tb.train(start, "digits", recipe)
second = tb.train(start, Path("a-folder"), recipe, noise=1)
print(tb.barrier(first, second, "digits").height, tb.probe(first, data).accuracy)
for run in tb.imp(start, "digits", recipe, rounds=2, fraction=[0.5, 0.2], score="movement", scope="erk"):
    print(run.accuracy)
tb.imp(start, "digits", recipe, rounds=1, score=lambda run: {n: w.abs() for n, w in run.weights.items()})
tb.run_from("file.pt", network=two_layers, data="digits", start=nn.Linear(3, 4))
tb.pretrain(start, "digits", recipe, epochs="500it")
tb.take("digits", np.arange(3))
tb.convert(first, "out.onnx", normalize="digits")
tb.prune(first, fraction=0.5, data="digits")
tb.Lab("store").run([tb.job(tb.train, tb.job(tb.initialize, "convnet", "digits"), "digits", recipe)])


@tb.declare("mine")
def mine(run: tb.Run, data: tb.DataLike) -> float:
    return tb.untrained(run.ticket, data).accuracy


tb.train(start, 3, recipe)  # type: ignore[arg-type]
tb.train(start, "digits", {"epochs": 1})  # type: ignore[arg-type]
tb.barrier(first, start, "digits")  # type: ignore[arg-type]
"""

# Strict mode also refuses an ignore that nothing needs, so the last lines of the file have to be refused.
SETTINGS = "[mypy]\nstrict = true\n"
# PyTorch's own hints take most of the time. Without them a network may be anything.
SKIPPED = "".join(
    f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true\n"
    for name in ("torch", "pandas", "scipy", "matplotlib", "PIL", "rich", "tyro", "jinja2", "huggingface_hub")
)


@pytest.mark.parametrize("settings", [SETTINGS + SKIPPED, pytest.param(SETTINGS, marks=pytest.mark.long)])
def test_mypy_takes_a_users_file_and_refuses_what_is_refused(tmp_path: Path, settings: str) -> None:
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "mypy.ini").write_text(settings)
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--config-file", "mypy.ini", "users.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
