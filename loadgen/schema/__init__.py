"""The JSON Schemas (draft 2020-12) of what a run leaves behind, and a check against them.

The check knows the keywords that these two schemas use and no more, so that reading a file that somebody
edited, or that a full disk cut, needs no further package. The tests hold it to ``jsonschema``.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TypedDict

RESULT = "raftload.result/1"
RUN = "raftload.run/1"
COMPARE = "raftload.compare/1"

JsonSchema = TypedDict(
    "JsonSchema",
    {
        "$defs": "dict[str, JsonSchema]",
        "$ref": str,
        "type": str | list[str],
        "const": object,
        "enum": list[object],
        "minimum": float,
        "maximum": float,
        "required": list[str],
        "properties": "dict[str, JsonSchema]",
        "additionalProperties": "JsonSchema",
        "items": "JsonSchema",
    },
    total=False,
)
"""A schema, or a part of one, with the keywords that the check knows."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def load(name: str) -> JsonSchema:
    """Return the schema ``name``: ``result`` for result.json, ``run`` for run.json, ``check`` of a check, ``compare``
    of a comparison, ``bugs`` of known bugs, ``diagnosis`` of a diagnosis and ``progress`` for events.

    Raises FileNotFoundError for any other name.
    """
    text = resources.files(__name__).joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
    schema: JsonSchema = json.loads(text)
    return schema


def problem(document: object, name: str) -> str | None:
    """Return in one line where a document departs from the schema ``name`` first; None where it does not."""
    schema = load(name)
    return _problem(document, schema, schema["$defs"], "")


def _problem(value: object, schema: JsonSchema, definitions: dict[str, JsonSchema], where: str) -> str | None:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    at = where or "the document"
    kinds = schema.get("type")
    if kinds is not None and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return f"{at} is not {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
    if "const" in schema and value != schema["const"]:
        return f"{at} is {_short(value)}, not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is {_short(value)}, not one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and not value >= schema["minimum"]:
            return f"{at} is {value}, below {schema['minimum']}"
        if "maximum" in schema and not value <= schema["maximum"]:
            return f"{at} is {value}, above {schema['maximum']}"
    if isinstance(value, dict):
        missing = [field for field in schema.get("required", ()) if field not in value]
        if missing:
            return f"{at} has no {missing[0]!r}"
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for field, part in value.items():
            shown = field if field.isprintable() else repr(field)  # one line, whatever a document's fields are called
            inner = f"{where}.{shown}" if where else shown
            if found := _problem(part, properties.get(field, others), definitions, inner):
                return found
    if isinstance(value, list) and "items" in schema:
        for index, part in enumerate(value):
            if found := _problem(part, schema["items"], definitions, f"{where}[{index}]"):
                return found
    return None


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    # JSON Schema has one kind of number: 1.0 is an integer.
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
