"""``--recipe NAME``: the recipe of a classic network in place of its many options; one budget, not two."""

from __future__ import annotations

from collections.abc import Sequence

from tombola.errors import RecipeError
from tombola.training.named_recipes import NAMED_RECIPES, as_options

_OPTION = "--recipe"
_BUDGET = "--recipe.epochs"


def with_named_recipe(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with a recipe's name written out, before all else that they say of it.

    So that ``--recipe lenet300 --recipe.epochs 6`` is that recipe for six epochs; the ``--epochs`` of ``imp``
    does the same.

    Raises :class:`~tombola.errors.RecipeError` for a name that there is not, or none.
    """
    others = list(arguments)
    named: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == _OPTION or argument.startswith(f"{_OPTION}="):
            name = (
                argument.partition("=")[2] if "=" in argument else "".join(arguments[place + 1 : place + 2])
            )
            if not name or name.startswith("-"):
                raise RecipeError(f"{_OPTION} has no name; give one of {', '.join(NAMED_RECIPES)}")
            if named:
                raise RecipeError(f"{_OPTION} is given twice; give one name")
            named = as_options(name)
            # Left in, it would stand against the other way to give it as if both had been typed.
            if arguments[0] == "imp" and any(text.partition("=")[0] == "--epochs" for text in arguments):
                budget = named.index(_BUDGET)
                del named[budget : budget + 2]
            del others[place : place + (1 if "=" in argument else 2)]
    return _inserted(others, named)


def check_budget(arguments: Sequence[str]) -> None:
    """Raise :class:`~tombola.errors.RecipeError` where ``--epochs`` and ``--recipe.epochs`` differ.

    Looked for among what was typed, since a recipe does not tell whether a default was typed.
    """
    short, long = (_typed(arguments, option) for option in ("--epochs", _BUDGET))
    if short is None or long is None or short.removesuffix("ep") == long.removesuffix("ep"):
        return
    raise RecipeError(f"--epochs {short} and {_BUDGET} {long} were given; they are the same, give one")


def _typed(arguments: Sequence[str], option: str) -> str | None:
    """What an option has among arguments, the last time that it is there; None if it is not."""
    value = None
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.partition("=")[0] == option:
            value = argument.partition("=")[2] if "=" in argument else following
    return value


def _inserted(others: list[str], named: list[str]) -> list[str]:
    """Options before the first other one, behind the command and what it takes by position."""
    first = next((place for place, text in enumerate(others) if text.startswith("--")), len(others))
    return [*others[:first], *named, *others[first:]]
