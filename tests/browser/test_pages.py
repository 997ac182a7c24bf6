"""What the fixture for pages notices, since every other test here relies on it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_errors_and_requests_to_elsewhere_are_noticed(page: Page, wrong: list[str]) -> None:
    page.set_content("<h1>hi</h1><script>console.log('fine')</script>")
    assert page.inner_text("h1") == "hi"
    assert wrong == []
    page.evaluate("console.error('broken')")
    assert wrong.pop() == "console: broken"
    page.evaluate("() => { setTimeout(() => { throw new Error('thrown') }) }")
    page.wait_for_timeout(100)
    assert "thrown" in wrong.pop()
    page.evaluate("() => { new Image().src = 'http://192.0.2.1/pixel.png' }")
    page.wait_for_timeout(100)
    assert any("192.0.2.1" in each for each in wrong)
    page.set_content('<meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><script>1</script>')
    page.wait_for_timeout(100)
    assert any("Content Security Policy" in each for each in wrong)
    wrong.clear()
