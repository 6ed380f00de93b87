"""The templates of the HTML pages, all of which escape what is put into them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(name: str) -> Template:
    """The page of that name; it extends ``base.html.jinja``, which holds the look that all pages share."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from tombola.lab.deadline import in_words
    from tombola.untrusted import printable

    environment = Environment(
        loader=PackageLoader("tombola.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"duration": in_words, "printable": printable}
    return environment.get_template(f"{name}.html.jinja")
