"""The report on disk: the numbers, the pictures and the page, each written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.atomic import write_whole
from tombola.report.demo_page import report_html
from tombola.report.figure import png_bytes, svg_text
from tombola.report.figures import accuracy_by_sparsity, training_curves
from tombola.report.stability import barriers, interpolation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "accuracy_by_sparsity": accuracy_by_sparsity,
    "interpolation": interpolation,
    "barriers": barriers,
    "training_curves": training_curves,
}
"""How each picture is drawn, by the name of its file."""


def write_report(summary: Mapping[str, Any], out_dir: Path) -> list[Path]:
    """Write ``summary.json``, ``figures/*.svg``, ``figures/*.png`` and ``report.html``; return their paths.

    The folder is made if need be, and files of an earlier report are replaced. Equal summaries give equal
    files.

    Raises :class:`~tombola.errors.StoreError` when the folder cannot be written to, and ``ValueError`` when a
    number of the summary is not finite: what was not measured is None.
    """
    numbers = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    files = [_write(out_dir / "summary.json", numbers.encode())]
    svgs = {}
    for name, draw in PICTURES.items():
        figure = draw(summary)
        svgs[name] = svg_text(figure)
        files.append(_write(out_dir / "figures" / f"{name}.svg", svgs[name].encode()))
        files.append(_write(out_dir / "figures" / f"{name}.png", png_bytes(figure)))
    files.append(_write(out_dir / "report.html", report_html(summary, svgs).encode()))
    return files


def _write(path: Path, content: bytes) -> Path:
    write_whole(path, content, make_folder=True)
    return path
