"""Whatever a stranger called things, what the command line prints of it moves, colours and hides nothing."""

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from tombola.cli import console
from tombola.cli.console import InertConsole
from tombola.cli.main import main
from tombola.errors import TombolaError
from tombola.lab.description import name_of
from tombola.lab.progress import Bar
from tombola.lab.results import Packed
from tombola.lab.store import Store
from tombola.report.terminal import grid_table
from tombola.table.key import Key
from tombola.table.number import Entry, Number, measured
from tombola.table.table import Table as NumberTable
from tombola.table.table import read_json
from tombola.views.exhibit import Exhibit

Result = tuple[int, str, str]
Tombola = Callable[..., Result]

CODES = (
    "\x1b[31m", "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x9b31m", "\x9d0;t\x9c", "\x07",
    "\b", "\r", "\x7f", "\x85", "\n", "\t", "\u202a", "\u202e", "\u2066", "\u2069", "\u200b", "\u200d",
    "\u2028", "\ufeff",
)  # fmt: skip
MARKUP = ("[bold]", "[/]", "[link=http://x]x[/link]", "[red]", ":warning:", "=1+1")
HOSTILE = st.lists(st.sampled_from((*CODES, *MARKUP, "a", "é", "紙", "/", '"', "|", ",")), max_size=12).map(
    "".join
)
EVERYTHING = "".join((*CODES, *MARKUP))


def speaks(text: str) -> str:
    """The characters of a text that a terminal would obey, or that would hide what it says."""
    return "".join(c for c in text if c != "\n" and not c.isprintable())


def strangers_store(root: Path, text: str) -> list[str]:
    """A store with a training and a barrier in which everything is called so; the names of the jobs."""
    store = Store(root)
    provenance = {"started": text, "seconds": 1.0, "hardware": text, "host": text, text: text}
    numbers = {"accuracy": 90.0, "best_accuracy": 91.0, "sparsity": 0.0, "round": 0, "failed": False}
    train = {
        "function": "train",
        "version": 1,
        "arguments": {
            "ticket": {"call": {"function": text, "version": 1, "arguments": {"network": text, text: text}}},
            "data": {"data": "digits"},
            "recipe": {text: text, "momentum": 0.9},
            "noise": text,
        },
    }
    strange = {
        "function": f"f{text}",
        "version": 1,
        "arguments": {text: text, "run": {"job": name_of(train)}},
    }
    for description, result in ((train, numbers), (strange, {"value": {text: 1.5, "note": text}})):
        store.publish(name_of(description), description, Packed(result, {}, {}), provenance)
    (store.root / "jobs" / "zz" / f"zz{text.replace('/', '')}").mkdir(parents=True)
    return [name_of(train), name_of(strange)]


def commands_on(text: str, names: list[str], folder: Path) -> list[list[str]]:
    """Every command that lists, shows or refuses, told of or asked for things that are called so."""
    file = folder / "own.toml"
    file.write_text(
        f"name = {json.dumps(text.replace('/', ' ').strip() or 'x', ensure_ascii=True)}\n"
        f"title = {json.dumps(text, ensure_ascii=True)}\n"
        "rounds = 1\n[recipe]\nepochs = 1\n",
        encoding="utf-8",
    )
    wrong = folder / "wrong.toml"
    wrong.write_text(f"networks = [{json.dumps(text)}]\n{json.dumps(text)} = 1\n", encoding="utf-8")
    return [
        ["ls"], ["ls", "--tickets", "--function", text or "x"], *(["show", name] for name in names),
        *(["table", *form] for form in ([], ["--json"], ["--markdown"], ["--csv", "-"])),
        ["table", str(file)], ["table", str(file), "--csv", "-"], ["plan", str(file), "--device", "cpu"],
        ["verify"],
        ["gc"], ["gc", "--keep", "needed"], ["export", names[0], str(folder / "out.zip"), "--no-weights"],
        ["run", str(wrong)], ["plan", str(wrong)], ["show", text or "x"], ["table", text or "x"],
        ["verify", "--import", f"{text}.py"], ["measure", text or "x"], ["imp", "--network", text],
        ["imp", "--data", text], ["ls", text or "x"], ["gc", "--keep", text or "x"], [text or "x"],
        ["table", "--epochs", text or "x"], ["imp", "--stop-after", text],
    ]  # fmt: skip


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(text=EVERYTHING)
@given(text=HOSTILE)
def test_no_command_lets_a_strangers_text_speak_to_the_terminal(
    tombola: Tombola, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    folder = tmp_path_factory.mktemp("strange")
    names = strangers_store(folder / "store", text)
    monkeypatch.setenv("TOMBOLA_STORE", str(folder / "store"))
    monkeypatch.chdir(folder)
    for arguments in commands_on(text, names, folder):
        code, out, err = tombola(*arguments)
        assert speaks(out + err) == "", (arguments, out, err)
        assert code in (0, 2), (arguments, err)


def test_the_table_of_a_strangers_exhibit_is_inert() -> None:
    key = Key(metric=EVERYTHING, network=EVERYTHING, dataset=EVERYTHING, more=((EVERYTHING, EVERYTHING),))
    other = replace(key, network="b", more=((EVERYTHING, "c"),))
    cells = [measured(one, [1.0, 2.0], epochs=1, failed=True) for one in (key, other)]
    entries = tuple(Entry(cell.key, (), cell) for cell in cells)
    screen, text = terminal()
    screen.print(grid_table(Exhibit(name="x", heading=EVERYTHING, title=EVERYTHING, entries=entries), screen))
    assert speaks(re.sub(r"\x1b\[[\d;]*m", "", text.getvalue())) == ""
    assert "[red]:warning:=1+1" in text.getvalue()


def test_brackets_and_colons_in_names_are_no_markup(tombola: Tombola, tmp_path: Path) -> None:
    names = strangers_store(tmp_path / "store", "[bold]a[/bold] :warning: [link=http://x]b[/link]")
    for arguments in (["ls"], ["show", names[1]], ["table"]):
        _, out, _ = tombola(*arguments)
        assert "[bold]a[/bold] :warning: [link=http://x]b[/link]" in out, out


def terminal() -> tuple[InertConsole, io.StringIO]:
    text = io.StringIO()
    return InertConsole(file=text, force_terminal=True, color_system="truecolor", width=200), text


def test_our_styles_survive_and_those_in_a_text_do_not() -> None:
    screen, text = terminal()
    table = Table("[bold]head", EVERYTHING)
    table.add_row(Text(EVERYTHING, style="red"), EVERYTHING)
    screen.print(table)
    screen.print(EVERYTHING, style="green")
    shown = text.getvalue()
    assert "\x1b[31m" in shown  # red, ours
    assert "\x1b[32m" in shown
    styled = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert speaks(styled) == ""
    assert "[2J" in styled  # what follows an escape is shown, and obeyed by nobody
    assert "[bold]head" in styled


def test_a_live_bar_moves_the_cursor_and_a_jobs_name_does_not() -> None:
    screen, text = terminal()
    with Bar(screen) as bar:
        bar._bar.update(bar._task, description=f"[red]{EVERYTHING}", total=2, advance=1)
        bar._bar.refresh()
    shown = text.getvalue()
    assert "\x1b[?25l" in shown  # the bar hides the cursor while it is drawn
    assert "[red]" in shown
    for code in ("\x1b[2J", "\x1b]0;", "\x9b", "\u202e", "\x07"):
        assert code not in shown


def test_a_warning_and_a_traceback_are_inert_too(
    tombola: Tombola, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"import warnings\nwarnings.warn({EVERYTHING!r})\nraise RuntimeError({EVERYTHING!r})\n")
    _, _, err = tombola("verify", "--import", file)
    assert "tombola: note: " in err
    assert speaks(err) == ""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main replaces it
    monkeypatch.setattr(sys, "argv", ["tombola", "--debug", "verify", "--import", str(file)])
    with pytest.raises(TombolaError) as raised:
        main()
    sys.excepthook(raised.type, raised.value, raised.tb)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert speaks(err) == ""


def test_json_has_every_character_and_prints_none_that_speaks() -> None:
    key = Key(metric="m", network=EVERYTHING, dataset="\U0001f468\u200d\U0001f469 é 紙")
    table = NumberTable([Number(key=key, value=1.0, epochs=1, note=EVERYTHING)])
    assert speaks(table.json()) == ""
    assert "é 紙" in table.json()
    assert read_json(table.json()).numbers == table.numbers


def test_a_file_of_csv_has_every_character_and_standard_output_none_that_speaks(
    tombola: Tombola, tmp_path: Path
) -> None:
    strangers_store(tmp_path / "store", "a\x1b[31mb")
    assert tombola("table", "--csv", tmp_path / "numbers.csv")[0] == 0
    assert "a\x1b[31mb" in (tmp_path / "numbers.csv").read_text()
    _, out, _ = tombola("table", "--csv", "-")
    assert "a\N{REPLACEMENT CHARACTER}[31mb" in out


def test_commands_print_through_the_doors_alone() -> None:
    folder = Path(console.__file__).parent
    for path in folder.glob("*.py"):
        others = re.findall(r"rich\.console|sys\.std\w+\.write|\bConsole\(", path.read_text(encoding="utf-8"))
        assert not others or path.name == "console.py", path.name
