"""The types of our documents, each held against its JSON Schema: the same keys, required or not, null or not."""

import dataclasses
import types
from collections.abc import Iterator
from typing import (
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import pytest

import cluster.schema
import loadgen.schema
from cluster.schema import bugs_documents, compare_documents, diagnose_documents, documents, run_documents
from viz.diagrams.model import MemberView
from viz.live.status import SnapshotMember

KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object",
         type(None): "null"}  # fmt: skip
DOCUMENTS = {
    "cluster": (documents.ClusterState, cluster.schema.load("cluster")),
    "fault": (documents.FaultDone, cluster.schema.load("fault")),
    "removed": (documents.Removed, cluster.schema.load("removed")),
    "releases": (documents.Releases, cluster.schema.load("releases")),
    "conformance": (documents.Conformance, cluster.schema.load("conformance")),
    "result": (run_documents.Result, loadgen.schema.load("result")),
    "run": (run_documents.Run, loadgen.schema.load("run")),
    "check": (run_documents.Check, loadgen.schema.load("check")),
    "compare": (compare_documents.Compared, loadgen.schema.load("compare")),
    "bugs": (bugs_documents.Bugs, loadgen.schema.load("bugs")),
    "diagnosis": (diagnose_documents.DiagnosisDocument, loadgen.schema.load("diagnosis")),
}


def arms(hint: Any) -> list[Any]:
    """Return the types of a union, without what says whether a key is required."""
    if get_origin(hint) in (NotRequired, Required):
        return arms(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [arm for each in get_args(hint) for arm in arms(each)]
    return [hint]


def of_kind(hint: Any, kind: type) -> list[Any]:
    """Return the arms of a type that are lists or dicts, TypedDicts among these."""
    return [arm for arm in arms(hint) if get_origin(arm) is kind or (kind is dict and is_typeddict(arm))]


def allowed(hint: Any) -> set[Any]:
    """Return what a type allows: kinds of JSON values, and the values of a Literal."""
    found: set[Any] = set()
    for arm in arms(hint):
        if get_origin(arm) is Literal:
            found |= set(get_args(arm))
        else:
            found.add("object" if is_typeddict(arm) else KINDS[get_origin(arm) or arm])
    return found


def wanted(part: dict[str, Any]) -> set[Any]:
    """Return what a part of a schema allows, as `allowed` has it."""
    values = part.get("enum", [part["const"]] if "const" in part else None)
    if values is None:
        kinds = part["type"]
        return {kinds} if isinstance(kinds, str) else set(kinds)
    return {"null" if value is None else value for value in values}


def departures(hint: Any, part: dict[str, Any], schema: dict[str, Any], where: str = "") -> Iterator[str]:
    """Where a type departs from a part of a schema, a line each."""
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].removeprefix("#/$defs/")]
    if where == "check":  # whose description refers to the schema of that name
        yield from departures(
            of_kind(hint, dict)[0], loadgen.schema.load("check"), loadgen.schema.load("check"), "check "
        )
        return
    has, needs = allowed(hint), wanted(part)
    # A choice of texts may be a plain text in the type.
    if has != needs and has != {each if each == "null" else "string" for each in needs}:
        yield f"{where}: the type allows {has}, the schema {needs}"
        return
    if "items" in part:
        yield from departures(get_args(of_kind(hint, list)[0])[0], part["items"], schema, f"{where}[]")
    properties, others = part.get("properties", {}), part.get("additionalProperties")
    for arm in of_kind(hint, dict):
        if is_typeddict(arm):
            if not properties:
                continue  # the schema says no more than that it is an object
            yield from keys(arm, part, where)
            for name, inner in get_type_hints(arm, include_extras=True).items():
                if name in properties:
                    yield from departures(inner, properties[name], schema, f"{where}.{name}".removeprefix("."))
        else:
            row = get_args(arm)[1]
            yield from departures(row, others, schema, f"{where}.*")
            for name, named in properties.items():
                # Of the names that a map has at least, one may never be null.
                full = schema["$defs"][named["$ref"].removeprefix("#/$defs/")] if "$ref" in named else named
                kinds = full["type"] if isinstance(full["type"], list) else [full["type"], "null"]
                yield from departures(row, {**full, "type": kinds}, schema, f"{where}.{name}")


def keys(arm: Any, part: dict[str, Any], where: str) -> Iterator[str]:
    hints, properties = get_type_hints(arm), part["properties"]
    if set(hints) != set(properties):
        yield f"{where}: keys of one only: {sorted(set(hints) ^ set(properties))}"
    required = set(part.get("required", ()))
    if required != arm.__required_keys__:
        yield f"{where}: required by one only: {sorted(required ^ arm.__required_keys__)}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_type_is_as_its_schema_says(name: str) -> None:
    document, schema = DOCUMENTS[name]
    assert list(departures(document, schema, schema)) == []


def test_a_snapshot_has_all_of_a_member() -> None:
    fields = {field.name for field in dataclasses.fields(MemberView)}
    assert fields | {"entries_per_s", "db_quota"} == SnapshotMember.__required_keys__


class Row(TypedDict):
    count: int | None


class Example(TypedDict):
    name: str
    row: NotRequired[Row]


EXAMPLE = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "row": {"type": "object", "required": ["count"], "properties": {"count": {"type": ["integer", "null"]}}},
    },
}


@pytest.mark.parametrize(
    ("change", "departure"),
    [
        ({}, []),
        ({"required": []}, [": required by one only: ['name']"]),
        ({"required": ["name", "row"]}, [": required by one only: ['row']"]),
        ({"properties": {"name": {"type": "string"}}}, [": keys of one only: ['row']"]),
        ({"properties": {**EXAMPLE["properties"], "name": {"type": ["string", "null"]}}},
         ["name: the type allows {'string'}, the schema "]),
        ({"properties": {**EXAMPLE["properties"], "row": {"type": "object", "required": ["count"],
                                                          "properties": {"count": {"type": "integer"}}}}},
         ["row.count: the type allows "]),
    ],
)  # fmt: skip
def test_a_departure_is_found(change: dict[str, Any], departure: list[str]) -> None:
    schema: dict[str, Any] = {**EXAMPLE, **change}
    found = list(departures(Example, schema, schema))
    assert len(found) == len(departure)
    assert all(line.startswith(start) for line, start in zip(found, departure, strict=True))
