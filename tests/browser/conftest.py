"""A real browser, and pages that fail the test on an error or a request to another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

_CHROMIUM = "/usr/bin/chromium"
# What a browser does of its own accord must not be taken for what a page does.
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_OWN_SCHEMES = {"about", "blob", "data", "file"}
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

OpenPage = Callable[..., Page]
Screenshot = Callable[[Page, str], Path]


# Not for the session: as long as Playwright is there, its event loop counts as running in this
# thread, and asynchronous tests of other modules could not start theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; a test of the browser is skipped without Chromium."""
    if not Path(_CHROMIUM).exists():
        pytest.skip(f"there is no browser at {_CHROMIUM}")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open blank pages, each with options of `Browser.new_context`; all must behave.

    The test fails at its end if a page wrote an error to its console, raised one that nobody
    caught, or asked any host but this one for anything.
    """
    wrong: list[str] = []

    def note_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    with ExitStack() as contexts:

        def make(**options: Any) -> Page:
            context = browser.new_context(**options)
            contexts.callback(context.close)
            context.on("console", note_console)
            context.on("weberror", lambda error: wrong.append(f"page: {error.error}"))
            context.on("request", lambda r: None if _is_local(r.url) else wrong.append(r.url))
            return context.new_page()

        yield make
    assert not wrong


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page of `open_page`, 1280 by 800, light."""
    return open_page(viewport={"width": 1280, "height": 800}, color_scheme="light")


@pytest.fixture(scope="session")
def screenshot(pytestconfig: pytest.Config) -> Screenshot:
    """Keep a picture of a page as build/screenshots/NAME.png, for people to look at."""
    folder = pytestconfig.rootpath / "build" / "screenshots"

    def take(page: Page, name: str) -> Path:
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        return path

    return take


def _is_local(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in _OWN_SCHEMES or parts.hostname in _LOOPBACK
