"""docs/cli.md says what the commands' help says, other files what the tables say; every command has an example."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from loadgen.cli.main import COMMANDS, build_parser

DOCS = Path(__file__).resolve().parents[2] / "docs"


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
