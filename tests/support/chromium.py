"""The headless Chromium that tests of pages open, and the marks of those that need one."""

from __future__ import annotations

import shutil

import pytest

BROWSER = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")
        if (path := shutil.which(name))
    ),
    None,
)
MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="needs a Chromium: chromium or google-chrome in PATH"),
]
