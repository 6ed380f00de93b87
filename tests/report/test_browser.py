"""Pages as a browser shows them: no error, nothing run, no wider than a narrow screen.

A copy of the page gets a script at its end that measures it and writes what it saw into the title, which the
browser prints with the rest of the page.
"""

from __future__ import annotations

import html
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import BROWSER, MARKS

from tombola.report.figure import draw, svg_text
from tombola.report.page import report_html

Made = Any

pytestmark = MARKS
WIDTH = 400
ERRORS = """<script>
window.seen = [];
const note = event => window.seen.push(String(event.message || event.target.tagName));
window.addEventListener("error", note, true);
window.alert = text => window.seen.push("alert " + text);
</script>"""
# A frame has the width of a phone, which a window of the browser may not be narrowed to.
FRAME = """<!DOCTYPE html><html><head><title>wait</title></head><body style="margin:0">
<iframe id="page" style="border:0;width:{width}px;height:3000px" srcdoc="{page}"></iframe><script>
const frame = document.getElementById("page");
frame.addEventListener("load", () => setTimeout(() => {{
  const inner = frame.contentDocument, root = inner.documentElement;
  const wide = [...inner.querySelectorAll("body *")].filter(element =>
    !element.closest(".scroll, .picture") && element.getBoundingClientRect().right > {width} + 1);
  document.title = JSON.stringify({{
    scroll: root.scrollWidth, client: root.clientWidth, seen: frame.contentWindow.seen,
    scripts: inner.scripts.length, images: inner.images.length,
    wide: wide.map(element => element.tagName + "." + element.className).slice(0, 5),
    headings: inner.querySelectorAll("h3").length, hidden: [...inner.querySelectorAll(".picture svg")]
      .filter(svg => svg.getBoundingClientRect().width < 500).length,
  }});
}}, 300));
</script></body></html>"""


def shown(page: str, folder: Path) -> dict[str, Any]:
    """What a browser measured of a page as wide as a phone, with every folded part of it open."""
    opened = page.replace("<details", "<details open").replace("<head>", f"<head>{ERRORS}", 1)
    outer = folder / "outer.html"
    outer.write_text(FRAME.format(width=WIDTH, page=html.escape(opened, quote=True)), encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            # It looks for nothing of its own in the network, and so waits for nothing there.
            "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", outer.as_uri(),
        ],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    # What a page says to its console the browser writes to its own log.
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title, done.stderr
    measured: dict[str, Any] = json.loads(html.unescape(title[1]))
    return measured


def page_of(made: Made, **more: Any) -> str:
    report = made.report(**more)
    return report_html(
        report,
        {exhibit.name: svg_text(draw(exhibit.picture)) for exhibit in report.exhibits if exhibit.picture},
    )


def test_a_page_is_quiet_and_as_narrow_as_a_phone(made: Made, tmp_path: Path) -> None:
    measured = shown(page_of(made, missing=[("demo", 7, 84)], missing_together=(7, 84)), tmp_path)
    assert measured["seen"] == []
    assert measured["wide"] == []
    assert measured["scroll"] <= measured["client"] == WIDTH
    assert measured["headings"] >= len(made.exhibits)
    # Pictures keep a width at which they can be read, and scroll within their frame.
    assert measured["hidden"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert('run')</script>",
        '"><img src=x onerror="alert(1)">',
        "long" * 200,
        "two\nlines\tand a tab",
        "{{ 7 * 7 }} </style></title><svg onload=alert(2)>",
    ],
)
def test_hostile_names_are_inert(made: Made, tmp_path: Path, name: str) -> None:
    numbers = [
        replace(
            one, key=replace(one.key, dataset=dataset, network=name, more=(*one.key.more, (name, name))),
            note=name, jobs=(name,),
        )
        for dataset in (name, "digits")
        for one in made.numbers
        if one.key.metric in ("val_accuracy", "barrier")
    ]  # fmt: skip
    hostile = replace(made.only(numbers), title=name)
    text = page_of(hostile, missing=[(name, 7, 84)], missing_together=(7, 84), note=name)
    measured = shown(text, tmp_path)
    assert measured["seen"] == []
    assert measured["scripts"] == 1  # the one that listens for errors
    assert measured["images"] == 0
    assert measured["wide"] == []
    assert measured["scroll"] <= measured["client"]
    assert "49" not in re.sub(r"<svg.*?</svg>", "", text[:400], flags=re.DOTALL)
