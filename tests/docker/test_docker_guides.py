"""The documentation's commands that need Docker, as they stand there; see tests/integration/test_guides.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docker.conftest import Docker
from tests.support import guides

pytestmark = pytest.mark.docker
PAGES = [page for page in guides.pages() if any(each.docker for each in guides.commands(page))]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, engine: Docker, tmp_path: Path) -> None:
    script = [each for each in guides.commands(page) if each.docker]
    env = {**engine.env, "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
    ended = guides.run(script, tmp_path / "guide", {}, **env)
    assert ended.code == 0 and not ended.unexpected, ended.text[-6000:]


def test_a_page_has_some() -> None:
    assert PAGES == ["docs/cluster.md"]
