"""The generator of what the documentation and the schemas have from the code: ``python docs/reference.py``.

That is docs/cli.md from the commands' own help, the tables of settings and of operation types in docs/formats.md, both
in the schemas of results and runs, and the names of faults in theirs. A test fails where the files differ. The parsers
are read, not their printed help, whose layout differs between versions of Python.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.base.parser import OLD_NAMES
from cluster.faults.kinds import HEAL, KINDS
from loadgen.cli.main import build_parser
from loadgen.history.operation import IN_MIX, TYPES
from loadgen.load.settings import PARAMETERS, Parameter

ROOT = Path(__file__).resolve().parents[1]
FAULT = "cluster/schema/fault.schema.json"
RESULT, RUN = "loadgen/schema/result.schema.json", "loadgen/schema/run.schema.json"
FORMATS = "docs/formats.md"
HEAD = """\
# Commands

`make reference` writes this page from the commands' `--help`. Results go to stdout; messages and progress go to stderr.
Durations are numbers with units, such as `250ms`, `30s` or `1h30m`; a plain number is seconds.

## Exit codes

| exit code | means |
| --- | --- |
| 0 | pass, or nothing was judged |
| 1 | a threshold, check or test failed, a condition of `--abort-on` ended the run, every operation failed, NEW is\
 slower than BASE, or something is slow in the cluster of `diagnose` |
| 2 | wrong usage |
| 3 | inconclusive: no samples, a lost worker, the rate not reached, a bound broken while the generator was saturated,\
 counts that do not agree, too few runs to compare, `unsure` of `diagnose` |
| 4 | environment: cluster unreachable, no Docker, no etcd, disk full |
| 70 | a bug in raftload |
| 130, 143 | ended by SIGINT or SIGTERM; the results until then are written |
| 141 | the output was closed before all of it was written, as `head` does |

If several apply, the first of these is the exit code: 70, 2, 4, 130 or 143, 1, 3, 0. The exit code of `gate` is the
verdict, also for a run that a signal ended. `cluster status` exits with 0 if there is a quorum, 1 if there is none,
3 if only learners answer, and 4 if no member answers.
"""


def files() -> dict[Path, str]:
    """Return the text of every file that is written, by its path."""
    return {
        ROOT / "docs" / "cli.md": page(), ROOT / FAULT: _fault_schema(), ROOT / FORMATS: _formats(),
        ROOT / RESULT: _with_tables(RESULT, "results", "run"), ROOT / RUN: _with_tables(RUN, "measured"),
    }  # fmt: skip


def _formats() -> str:
    text = (ROOT / FORMATS).read_text(encoding="utf-8")
    settings = [f"| `{each.field}` | `{each.flag}` | {_values_of(each)} | {each.meaning} |" for each in PARAMETERS]
    types = [f"| `{name}` | {each.meaning} |" for name, each in TYPES.items()]
    for name, lines in (
        ("settings", ["| field | option | value | meaning |", "| --- | --- | --- | --- |", *settings]),
        ("types", ["| type | one of them is |", "| --- | --- |", *types]),
    ):
        before, begin, rest = text.partition(f"<!-- {name}: written by `make reference` -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        assert end, f"{FORMATS} has no place for the {name}"
        text = "\n".join([before + begin, *lines, "", end + after])
    return text


def _values_of(setting: Parameter) -> str:
    return ", ".join(f"`{choice}`" for choice in setting.choices) if setting.choices else setting.json


def _with_tables(path: str, rows_in: str, settings_in: str = "") -> str:
    """Return a schema with the rows of operation types and the settings as their tables say.

    Takes the names of the properties that hold them; the settings may stand at the top.
    """
    schema = json.loads((ROOT / path).read_text(encoding="utf-8"))
    rows = schema["properties"][rows_in]
    rows["properties"] = {**dict.fromkeys(IN_MIX, rows["additionalProperties"]), "total": rows["properties"]["total"]}
    if "required" in rows:
        rows["required"] = [*IN_MIX, "total"]
    holder = schema["properties"][settings_in] if settings_in else schema
    holder["properties"] |= {each.field: each.schema for each in PARAMETERS}
    return _json(schema)


def _fault_schema() -> str:
    schema = json.loads((ROOT / FAULT).read_text(encoding="utf-8"))
    schema["properties"]["fault"] = {"enum": [*KINDS, HEAL]}
    return _json(schema)


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    """Return the page of commands."""
    return "\n".join([HEAD, *_old_names(), *_sections(build_parser(), 0)]).rstrip() + "\n"


def _old_names() -> Iterator[str]:
    yield "## Old names\n"
    yield "Every command that has an option of this table also takes it under the old name. No help shows old names.\n"
    yield "| old name | option |\n| --- | --- |"
    yield from (f"| `{old}` | `{new}` |" for old, new in OLD_NAMES.items())
    yield ""


def _sections(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    if level:
        yield f"{'#' * (level + 1)} {parser.prog}\n"
        if parser.description:
            yield f"{_cell(parser.description)}\n"
        yield from _options(parser)
        if parser.epilog:
            yield f"```text\n{parser.epilog.strip()}\n```\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from _sections(child, level + 1)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS and _is_shown(action)]
        if not actions:
            continue
        if group.title not in ("positional arguments", "options"):
            yield f"**{group.title}**{': ' + _cell(group.description) if group.description else ''}\n"
        yield "| option | means |\n| --- | --- |"
        yield "\n".join(
            f"| {_name(action)} | {_cell((action.help or '') % _values(parser, action))} |" for action in actions
        )
        yield ""


def _is_shown(action: argparse.Action) -> bool:
    return not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)


def _values(parser: argparse.ArgumentParser, action: argparse.Action) -> dict[str, object]:
    return {**vars(action), "prog": parser.prog}


def _name(action: argparse.Action) -> str:
    if action.choices is not None:
        value = "\\|".join(map(str, action.choices))
    elif isinstance(action.metavar, tuple):
        value = " ".join(action.metavar)
    else:
        value = (action.metavar or ("" if action.nargs == 0 else action.dest.upper())).replace("|", "\\|")
    if not action.option_strings:
        return f"`{value.lower() if action.metavar is None and action.choices is None else value}`"
    flags = "`, `".join(action.option_strings)
    return f"`{flags}{' ' + value if value else ''}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
