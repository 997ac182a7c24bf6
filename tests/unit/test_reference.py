"""The documentation agrees with the code and with itself: the reference of commands, links, and names of modules."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from loadgen.cli.main import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *sorted(DOCS.rglob("*.md"))]


def test_the_files_are_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    written = reference.files()
    assert DOCS / "cli.md" in written
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `make reference`"


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_is_on_the_page_with_an_example(name: str) -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert f"## raftload {name}\n" in text
    assert f"  raftload {name}" in text or f"\nraftload {name}" in text
    assert "{" not in build_parser(name).format_usage()


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings; of equal ones the second ends in -1."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{name}-{count}" if (count := found.count(name)) else name)
    return set(found)


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead to, those to other sites apart."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"https?:", target)]


def dead(page: Path) -> list[str]:
    """Return the links of a page that lead to nothing."""
    wrong = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not (there.is_relative_to(ROOT) and there.exists()) or (anchor and anchor not in anchors(there)):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead(page) == []


def test_a_dead_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## `What` it is\n\n## What it is\n\n```sh\n# no heading, [no](link.md)\n```\n")
    good = ["page.md", "#what-it-is", "page.md#what-it-is-1", "page.md#a-page"]
    bad = ["gone.md", "#no-heading-nolinkmd", "page.md#what-it-is-2", "../outside.md"]
    with page.open("a") as file:
        file.writelines(f"[text]({target}) and `[code](nothing.md)`\n" for target in [*good, *bad])
    assert dead(page) == bad


def test_every_page_is_in_the_index() -> None:
    listed = {(DOCS / target.partition("#")[0]).resolve() for target in links(DOCS / "README.md")}
    assert set(DOCS.rglob("*.md")) - listed == {DOCS / "README.md"}


def test_the_modules_that_the_architecture_names_are_there() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[\w/]+\.py\b", page))
    assert len(named) > 30
    modules = [path for package in ("cluster", "loadgen", "viz") for path in (ROOT / package).rglob("*.py")]
    paths = [f"/{path.relative_to(ROOT)}" for path in modules]
    for name in named:
        assert sum(path.endswith(f"/{name}") for path in paths) == 1, f"docs/architecture.md names {name}"
    for name in re.findall(r"`((?:cluster|loadgen|viz)/\w+)`", page):
        assert (ROOT / name).is_dir()
