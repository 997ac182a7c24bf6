"""The page fixture itself, since every other test here relies on it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.support.waiting import until

pytestmark = pytest.mark.browser


def test_errors_and_requests_to_elsewhere_are_noticed(page: Page, wrong: list[str]) -> None:
    def noticed(text: str) -> None:
        until(lambda: any(text in each for each in wrong), text, sleep=lambda s: page.wait_for_timeout(s * 1000))

    page.set_content("<h1>hi</h1><script>console.log('fine')</script>")
    assert page.inner_text("h1") == "hi"
    assert wrong == []
    page.evaluate("console.error('broken')")
    assert wrong.pop() == "console: broken"
    page.evaluate("() => { setTimeout(() => { throw new Error('thrown') }) }")
    noticed("thrown")
    page.evaluate("() => { new Image().src = 'http://192.0.2.1/pixel.png' }")
    noticed("192.0.2.1")
    page.set_content('<meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><script>1</script>')
    noticed("Content Security Policy")
    wrong.clear()
