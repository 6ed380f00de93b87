"""Lines that commands print."""

import io

from rich.console import Console

from tombola.cli.console import say


def test_a_line_is_printed_as_it_is_on_a_terminal_too() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    line = "table2 [bold] 4 of 4 jobs, store /tmp/" + "a" * 60
    say(console, line)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == f"{line}\n"
