"""Figures as files, and as parts of one HTML page.

Equal figures give equal bytes, and no file carries a date. Several SVGs in one page share one name space, so
every id gets its figure's name before it. Ink, paper and grid become the page's own colours, so that a
picture is readable on a dark page too.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from tombola.report.style import INK, PAPER, RULE, SOFT, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DOTS_PER_INCH = 150


def svg_text(figure: Figure) -> str:
    """The figure as a complete SVG file."""
    buffer = io.StringIO()
    with drawing():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def svg_bytes(figure: Figure) -> bytes:
    """The same as the bytes of a file."""
    return svg_text(figure).encode()


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=PNG_DOTS_PER_INCH)
    return buffer.getvalue()


def pdf_bytes(figure: Figure) -> bytes:
    """The figure as a PDF file."""
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


def inline_svg(svg: str, name: str, title: str) -> str:
    """That SVG file as an element of a page, whose CSS variables --ink, --paper, --rule and --soft colour it.

    name: unlike that of any other figure of the page; letters, digits and underscores.
    title: what the picture shows, for those who hear the page; plain text without markup.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element)
    element = element.replace("url(#", f"url(#{name}-")
    for color, variable in ((INK, "ink"), (PAPER, "paper"), (RULE, "rule"), (SOFT, "soft")):
        element = element.replace(color, f"var(--{variable})")
    # Width and height in points would keep the picture from following the width of the page.
    head, rest = element.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{title}">{rest}'
