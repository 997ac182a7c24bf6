"""The JSON Schemas (draft 2020-12) of what a run leaves behind."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

RESULT = "raftload.result/1"
RUN = "raftload.run/1"


def load(name: str) -> dict[str, Any]:
    """Return the schema ``name``: ``result`` for result.json, ``run`` for run.json.

    Raises FileNotFoundError for any other name.
    """
    text = resources.files(__name__).joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
