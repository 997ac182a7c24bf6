"""The workflows of the documentation as files, for actionlint: ``python -m tests.support.guide_workflows FOLDER``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.support.guides import ROOT

_BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main(folder: Path) -> None:
    """Write each workflow of docs/ as a file of its own; one that does not say when it runs gets `on: push`."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for number, text in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8"))):
            if "\njobs:\n" in text:
                head = "" if "\non:\n" in text else "on: push\n"
                (folder / f"{page.stem}-{number}.yml").write_text(head + text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
