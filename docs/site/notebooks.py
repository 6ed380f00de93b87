"""Notebooks as pages: executed here and now, so that no output is kept in the repository."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import ExtractOutputPreprocessor


def notebook_page(path: Path, *, execute: bool) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and the pictures that it shows, by their file names.

    execute: run its cells first, in an empty folder with a store of its own; an error in one is raised.
    """
    notebook = nbformat.read(path, as_version=4)
    if execute:
        with tempfile.TemporaryDirectory() as folder:
            place = {
                "TOMBOLA_STORE": f"{folder}/store",
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            }
            client = NotebookClient(
                notebook, timeout=600, resources={"metadata": {"path": folder}}, kernel_name="python3"
            )
            client.execute(env=os.environ | place)
    pictures = ExtractOutputPreprocessor(
        output_filename_template=f"{path.stem}-{{cell_index}}-{{index}}{{extension}}"
    )
    exporter = MarkdownExporter()
    exporter.register_preprocessor(pictures, enabled=True)
    text, resources = exporter.from_notebook_node(notebook)
    note = f"*This page is a notebook: [download it]({path.name}) and run it.*"
    heading, _, rest = text.strip().partition("\n")
    return f"{heading}\n\n{note}\n{rest}\n", dict(resources.get("outputs", {}))
