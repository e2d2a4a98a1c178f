"""A real browser on a rendered page: Chromium, driven headless by Playwright, with what went wrong in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "playwright" if find_spec("playwright") is None else "chromium" if PROGRAM is None else None
"""What there is none of here, for a skip's reason; ``None`` where all is there."""


@contextmanager
def launched() -> Iterator["Browser"]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", file: Path, *, fragment: str = "", **context: Any) -> Iterator["Page"]:
    """The page, ready; on the way out, it must have asked for nothing but its file and have complained of nothing."""
    with browser.new_context(**context) as inside:
        page = inside.new_page()
        complaints: list[str] = []
        asked_for: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked_for.append(request.url))
        page.goto(file.as_uri() + fragment)
        yield page
        assert complaints == []
        assert [url for url in asked_for if not url.startswith(("data:", "blob:", file.as_uri()))] == []
