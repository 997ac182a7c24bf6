"""The JSON Schemas (draft 2020-12) of what the `cluster` and `etcd` commands print."""

from __future__ import annotations

import json
from importlib import resources


def load(name: str) -> dict[str, object]:
    """Return the schema ``name``.

    ``cluster`` is of `cluster up` and `cluster status`, ``fault`` of the faults and `cluster heal`, ``removed`` of
    `cluster down`, ``conformance`` of `cluster test`, ``releases`` of `etcd list`.

    Raises FileNotFoundError for a name that there is not.
    """
    text = resources.files(__name__).joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    schema: dict[str, object] = json.loads(text)
    return schema
