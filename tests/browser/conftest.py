"""A real Chromium without a window, and pages that fail the test for whatever a person would find in the console."""

from __future__ import annotations

import shutil
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.missing import BROWSERS

PageFactory = Callable[..., Page]
_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# A guard against a page that hangs: no test asserts that something is quicker.
expect.set_options(timeout=120_000)
_HERE = ("", "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield the machine's Chromium, headless, for the tests of one module."""
    path = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[*_FLAGS], timeout=120_000)
        yield running
        running.close()


@pytest.fixture
def wrong() -> list[str]:
    """Return what went wrong in the test's pages so far; whatever is left in it at the end fails the test."""
    return []


@pytest.fixture
def new_page(browser: Browser, wrong: list[str]) -> Iterator[PageFactory]:
    """Make pages, each with storage of its own; take the options of Playwright's ``new_context``.

    After the test there must have been no error on any page's console, no exception in a script, no violation of a
    content security policy, and no request to anywhere but this machine.
    """
    contexts = []

    def make(**options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        page.on("request", lambda request: wrong.extend(_elsewhere(request.url)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert not wrong, "in the browser:\n" + "\n".join(wrong)


@pytest.fixture
def page(new_page: PageFactory) -> Page:
    """One page of 1280 x 800."""
    return new_page(viewport={"width": 1280, "height": 800})


def _elsewhere(url: str) -> list[str]:
    parts = urllib.parse.urlsplit(url)
    inside = parts.scheme in ("data", "blob", "about", "file") or parts.hostname in _HERE
    return [] if inside else [f"request to {url}"]
