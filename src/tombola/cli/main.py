"""The ``tombola`` command: its commands, and how it ends."""

from __future__ import annotations

import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from types import TracebackType
from typing import Any

import tyro

from tombola.cli.bench import bench
from tombola.cli.compare import compare
from tombola.cli.console import inert_errors, say_error
from tombola.cli.conversion import convert
from tombola.cli.demo import demo
from tombola.cli.imp import imp
from tombola.cli.imports import import_files, split_imports
from tombola.cli.listing import diff, ls, show
from tombola.cli.measure import COMMAND, measure, measure_by_name
from tombola.cli.mistyped import refused_in_one_line
from tombola.cli.named_recipe import check_budget, with_named_recipe
from tombola.cli.optional import OPTIONAL
from tombola.cli.plan import plan, studies
from tombola.cli.predictors import predictors
from tombola.cli.report import claims, report
from tombola.cli.run import run
from tombola.cli.share import pull, push, shelf
from tombola.cli.stop import UNFINISHED, joined, stops_end_here
from tombola.cli.store import doctor, export, gc, import_, rm, verify
from tombola.cli.table import table
from tombola.cli.track import track
from tombola.cli.upgrades import upgrades
from tombola.cli.watch import watch
from tombola.errors import ExperimentError, TombolaError, Unfinished, unknown
from tombola.untrusted import printable_lines

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": demo,
    "imp": imp,
    "studies": studies,
    "plan": plan,
    "run": run,
    "report": report,
    "claims": claims,
    "table": table,
    "track": track,
    "predictors": predictors,
    "bench": bench,
    COMMAND: measure,
    "watch": watch,
    "ls": ls,
    "show": show,
    "diff": diff,
    "compare": compare,
    "verify": verify,
    "gc": gc,
    "rm": rm,
    "doctor": doctor,
    "upgrades": upgrades,
    "export": export,
    "convert": convert,
    "push": push,
    "pull": pull,
    "shelf": shelf,
    "import": import_,
}


def main() -> None:
    """Entry point of the ``tombola`` command."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments == ["--version"]:
        from tombola.version import __version__

        print(__version__)
        return
    warnings.showwarning = _show_warning
    sys.excepthook = _show_traceback
    # A refusal of arguments repeats them, and a file may be called anything.
    with nullcontext() if all(map(str.isprintable, arguments)) else inert_errors():
        _run(arguments, debug)


def _run(arguments: list[str], debug: bool) -> None:
    """Run the command that the arguments name."""
    try:
        if arguments[:1] == ["imp"]:
            check_budget(arguments)
        if arguments[:1] in (["imp"], [COMMAND]):
            arguments = with_named_recipe(arguments)
        if arguments[:1] == [COMMAND] and len(arguments) > 1 and arguments[1] not in ("-h", "--help"):
            measure_by_name(arguments[1:])  # each measure has options of its own
            return
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise ExperimentError(f"{unknown('command', arguments[0], COMMANDS)} (tombola --help lists them)")
        if arguments[:1] == ["imp"]:
            import_files(
                split_imports(arguments)[0]
            )  # a recipe among the arguments may name what they declare
        if arguments[:1] in (["verify"], ["table"], ["predictors"], ["upgrades"]):
            split_imports(arguments)  # refuses an --import without a file, and names the remedy
        name, typed = "".join(arguments[:1]), joined(arguments)
        command = COMMANDS.get(name)
        with (
            refused_in_one_line(name if command else "", command, typed[bool(command) :], COMMANDS),
            stops_end_here(),
        ):
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="tombola",
                description="The laboratory for lottery tickets and SGD noise. --debug shows tracebacks.",
                args=typed,
                registry=OPTIONAL,
            )
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _leave(str(error) or "interrupted; the same command continues where it was", 130, debug)
    except Unfinished as error:
        _leave(" ".join(str(error).split()), UNFINISHED, debug)
    except BrokenPipeError as error:
        if not _reader_is_gone():
            _leave(str(error), 2, debug)
        sys.exit(1)
    except (TombolaError, OSError) as error:
        _leave(" ".join(str(error).split()), 2, debug)


def _reader_is_gone() -> bool:
    """Whether what reads our output has closed it, such as head; then nothing more is written there."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)  # errors are told all the same
    gone = bool(pipe.poll(0))
    if gone:
        # What is still unwritten would be tried, and told, once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def _leave(message: str, code: int, debug: bool) -> None:
    """End with one line on standard error; inside an exception, with its traceback if asked for."""
    if debug:
        raise
    say_error(message)
    sys.stdout.flush()
    # Not sys.exit: worker threads must not hold up a command that was interrupted or stopped.
    os._exit(code) if code in (130, UNFINISHED) else sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """A warning as one line, without the source line that Python adds."""
    say_error(f"note: {message}")


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback as Python writes it, made printable."""
    print(printable_lines("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
