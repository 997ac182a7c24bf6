"""The folder of a comparison by turns: turns.csv, compare.json, and below it the run folder of each turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from loadgen.result.document import ReportError
from loadgen.schema import problem

if TYPE_CHECKING:
    from cluster.schema.compare_documents import Compared

TURNS, COMPARED = "turns.csv", "compare.json"


def load(folder: Path) -> Compared:
    """Return the comparison that a folder has, with the folders of its runs as they are now. Raises ReportError."""
    path = folder / COMPARED
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    if wrong := problem(document, "compare"):
        raise ReportError(f"{path} is no comparison: {wrong}")
    for side in ("base", "new"):
        for each in document[side]["runs"]:
            each["folder"] = str(folder / each["id"])
    return cast("Compared", document)
