"""The folder in which a newcomer stands, and a browser to open pages in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.app.material import furnish

CHROMIUM = Path("/usr/bin/chromium")
Opened = Callable[..., AbstractContextManager[Any]]
LANDMARKS = """[...document.querySelectorAll('section, nav, [role=region]')].map(each =>
    each.ariaLabel ?? document.getElementById(each.getAttribute('aria-labelledby')).innerText)"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working directory with net.py and data.npz, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("STEEPEST_"):
            monkeypatch.delenv(name)
    return furnish(tmp_path)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens a page in Chromium, offline: `with opened(html, width, scheme) as view`; options of the context by name.

    At the end of each `with` the page must have been silent, asked for nothing but itself, fitted the width, and have
    told its landmarks apart.
    """
    sync = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("no Chromium on this machine")
    target = tmp_path / "page.html"
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])

        @contextmanager
        def shown(html: str, width: int, scheme: str, **more: bool) -> Iterator[Any]:
            target.write_text(html, encoding="utf-8")
            said: list[str] = []
            asked: list[str] = []
            size = {"width": width, "height": 800}
            view = browser.new_context(offline=True, viewport=size, color_scheme=scheme, **more).new_page()
            view.on("console", lambda message: said.append(message.text))
            view.on("pageerror", lambda error: said.append(str(error)))
            view.on("request", lambda request: asked.append(request.url))
            view.goto(target.as_uri())
            yield view
            assert said == [] and [url for url in asked if not url.startswith("data:")] == [target.as_uri()]
            assert view.evaluate("document.documentElement.scrollWidth") <= width
            names = view.evaluate(LANDMARKS)
            assert all(names) and [each for each in names if names.count(each) > 1] == []

        yield shown
        browser.close()
