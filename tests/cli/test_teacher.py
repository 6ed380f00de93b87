"""``tombola imp --teacher``, and experiment files that name a teacher."""

from collections.abc import Callable
from pathlib import Path

import tombola as tb

Result = tuple[int, str, str]
QUICK = ("--recipe.epochs", "4it", "--recipe.batch-size", 400, "--device", "cpu")


def test_a_finished_run_teaches_a_chain_and_the_chains_of_a_file(
    tombola: Callable[..., Result], refused: Callable[[Result], str], tmp_path: Path
) -> None:
    distil = ("imp", *QUICK, "--rounds", 0, "--recipe.loss", "distillation")
    line = (
        "loss 'distillation' needs a teacher; give a finished run or ticket, teacher=, or on the command line"
    )
    assert refused(tombola(*distil)).startswith(line)
    assert "teacher '3f2a' is no file, and a finished job is found" in refused(
        tombola(*distil, "--teacher", "3f2a")
    )
    assert tombola("imp", *QUICK, "--rounds", 0)[0] == 0
    lab = tb.Lab(tmp_path / "store", workers=0)
    [teacher] = [name for name in lab.store.names() if lab.store.description(name)["function"] == "train"]
    assert tombola(*distil, "--rewind", "1it", "--teacher", teacher[:10])[0] == 0
    [student] = [name for name in lab.store.names() if "teacher" in lab.store.description(name)["arguments"]
                 and lab.store.description(name)["function"] == "train"]  # fmt: skip
    assert lab.store.description(student)["arguments"]["teacher"] == {"job": teacher}
    assert lab.store.description(student)["arguments"]["recipe"]["epochs"] == "4it"
    assert refused(tombola("imp", *QUICK, "--teacher", teacher)).startswith("a teacher is given, but loss is")
    assert "with a name that begins with 'beef'" in refused(tombola(*distil, "--teacher", "beef"))
    # The same chain from a file: everything is there already.
    file = tmp_path / "taught.toml"
    file.write_text(
        f'teacher = "{teacher[:8]}"\nrewind = "1it"\n[recipe]\nepochs = "4it"\nbatch_size = 400\n'
        'loss = "distillation"\n',
        encoding="utf-8",
    )
    code, out, _ = tombola("plan", file)
    assert (code, "left to do: 0 epochs" in out) == (0, True)
    code, out, _ = tombola("run", file, "--workers", 0, "--device", "cpu")
    assert (code, "nothing to compute" in out) == (0, True)
    code, out, _ = tombola("table", file)
    assert (code, f"teacher_job={teacher[:12]}" in out) == (0, True)
