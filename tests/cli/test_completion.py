"""Completion as docs/completion.md has it: the script is loaded into a real shell and asked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tombola.cli.main import COMMANDS

Result = tuple[int, str, str]
_ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p tombola | sed 's/.*-F \\([^ ]*\\).*/\\1/') tombola "${COMP_WORDS[$COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_options_and_choices(tombola: Callable[..., Result], tmp_path: Path) -> None:
    code, script, _ = tombola("--tyro-print-completion", "bash")
    assert code == 0
    (tmp_path / "tombola").write_text(script)

    def completed(*words: str) -> set[str]:
        command = ["bash", "-c", _ASK, "ask", str(tmp_path / "tombola"), "tombola", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("") >= COMMANDS.keys()
    assert completed("ls", "--sor") == {"--sort"}
    assert completed("gc", "--keep", "") == {"all", "needed", "tickets"}
