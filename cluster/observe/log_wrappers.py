"""What stands around a line of etcd's log: prefixes, documents of log pipelines, colours, and what pasting makes of it.

No wrapper is known by its name alone. A line of etcd is looked for within any line: an object of zap, also as text
within other documents, a line of zap's console format, or text; what stands before it is where it is from.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from typing import Any

from cluster.observe.log_times import Stamp, find_stamp, parse_stamp, without_times
from cluster.observe.logs import zap_entry

_COLOURS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][0-9A-Za-z]|\x1b[@-Z\\-_78=>]"  # ECMA-48
    r"|(?:#033|\^\[|\\033|\\x1b|\\e|\\u001b|\u241b)\[[0-9;?]*[A-Za-z]"  # what rsyslog, cat -v and Go write for them
)
_OVERWRITTEN = re.compile(r"[^\x08]\x08")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u2060]")  # also those of no width
PASTED = re.compile(r"\[(?:[0-9]{1,3}(?:;[0-9]{1,3})*)?[mK]")  # colours that lost their ESC
_QUOTES = str.maketrans({"\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00a0": " "})
# etcd's own times, and those that zap writes for a program that has etcd within it. None is longer: without the bound
# a search would take the square of the time for a long line of dates.
_TIME = (
    r"(?:[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}(?:T\S{1,40}| [0-9:]{8}\S*)|1\.[0-9]+e\+[0-9]{2}|1[0-9]{9,18}(?:\.[0-9]+)?)"
)
_LEVEL = r"(?:debug|info|warn|error|dpanic|panic|fatal|DEBUG|INFO|WARN|ERROR|DPANIC|PANIC|FATAL)"
_CONSOLE = re.compile(rf"{_TIME}[\t ]+{_LEVEL}[\t ]+(?:\S+[\t ]+)??\S*\.go:[0-9]+[\t ]")
_CONSOLE_PARTS = re.compile(
    rf"(?P<ts>{_TIME})\s+(?P<level>\w+)\s+(?:\S+\s+)??\S*\.go:[0-9]+\s+(?P<msg>.*?)(?:\s+(?P<fields>\{{.*\}}))?\s*$"
)
# Keys under which log pipelines keep a line, the likeliest first; others are looked into after them.
_TEXT_KEYS = ("log", "MESSAGE", "message", "line", "msg", "textPayload", "jsonPayload", "@message", "_raw", "body",
              "text", "values", "stringValue", "short_message", "full_message")  # fmt: skip
_TIME_KEYS = ("time", "@timestamp", "timestamp", "_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP", "ts", "_time",
              "date", "eventTime", "receiveTimestamp", "timeUnixNano", "observedTimeUnixNano")  # fmt: skip
_OF_A_PLACE = re.compile(
    r"(?:_?hostname|host|pod(?:_?name)?|container(?:_?name|_?id)?|service|unit|_systemd_unit|instance|node(?:_?name)?|app"
    r"|source|filename|file|path|logstream|logstreamname)",
    re.IGNORECASE,
)
# Fields that pipelines add to an entry of zap; etcd has none of these names.
_ADDED = {"kubernetes", "resource", "labels", "docker", "host", "hostname", "_hostname", "pod", "pod_name", "namespace",
          "container_name", "container_id", "service", "logStreamName"}  # fmt: skip
_NUMBERS = re.compile(r"(?<![^\s:\[(#|])[0-9]+(?=[\s:\])|]|$)")
_DECODER = json.JSONDecoder(strict=False)
_LEAST_JOINED = 80  # characters of two lines
_MOST_TRIES = 24
_DEEPEST = 10  # documents of OpenTelemetry have a line that deep in lists


@dataclasses.dataclass(slots=True)
class Record:
    """What a line holds: an ``entry`` of zap, or else a ``text``.

    Attributes:
        source: what the wrapper says of where the line is from, such as a pod; empty for a line without one.
        stamp: when the wrapper says that it was written.
        console: the entry is of the console format, below which zap writes stacks.
        torn: the text is what is left of an entry of zap within which another one was written.
    """

    entry: dict[str, object] | None
    text: str = ""
    source: str = ""
    stamp: Stamp | None = None
    console: bool = False
    torn: bool = False


# What a line of etcd's begins with that is no object.
_BEGIN = re.compile(
    rf"{_CONSOLE.pattern}"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]+ [A-Z] \| [\w/.-]+: |raft[0-9]{4}/[0-9]{2}/[0-9]{2} [0-9:]{8} \w+: "
)


def apart(line: str) -> list[str]:
    """Return a line as the lines of text that it was before their ends were lost: one, where none were."""
    if line.startswith(("{", '["')) or len(line) < _LEAST_JOINED:
        return [line]
    begins = [found.start() for found in _BEGIN.finditer(line)]
    if len(begins) < 2 or "{" in line[: begins[0]]:  # what stands in an object is for its decoder
        return [line]
    return [line[start:end] for start, end in itertools.pairwise([0, *begins[1:], len(line)])]


def unwrap(line: str, zone: tzinfo) -> list[Record]:
    """Return what a line holds: nothing, one record, or several where lines were joined. Takes the zone of times that
    do not say theirs.
    """
    if line.startswith("{"):
        entry = zap_entry(line)
        if entry is not None and _is_zaps(entry):
            return [Record(entry, source=_added(entry))]
    if line.startswith('["'):
        try:
            return list(_of_value(json.loads(line), zone, 0, listed=True)) or [Record(None, line)]
        except (ValueError, RecursionError):
            pass
    return _unwrap(without_colours(line), zone, 0)


def without_colours(line: str) -> str:
    """Return a line without what colours it and other control characters; tabs stay."""
    if "\x1b" in line or "[" in line:
        line = _COLOURS.sub("", line)
    while "\b" in line and (mended := _OVERWRITTEN.sub("", line)) != line:
        line = mended
    line = _CONTROL.sub("", line) if not line.isprintable() else line
    line = line.replace("\u00a0", " ") if "\u00a0" in line else line
    line = line.removeprefix("\u00ef\u00bb\u00bf")  # the mark of UTF-8, read as another encoding
    return line.replace("#011", "\t") if "#011" in line else line  # rsyslog's tab


@functools.lru_cache(4096)
def source_of(prefix: str) -> str:
    """Return what a prefix says of where its lines are from: all but times and numbers of lines and processes."""
    if not prefix or prefix.isspace():
        return ""
    shown = _NUMBERS.sub("", without_times(prefix))
    return " ".join(re.sub(r"\b(?:stdout|stderr) [FP]\b|\[\]", " ", shown).split()).strip(" |>-:'\"=\u2502")


def _is_zaps(entry: Mapping[str, object]) -> bool:
    return isinstance(entry.get("msg"), str) and isinstance(entry.get("ts"), str | int | float)


def _unwrap(line: str, zone: tzinfo, depth: int) -> list[Record]:
    """Take a line without colours."""
    console = _CONSOLE.search(line)
    # What stands in an object is for its decoder, unless the object is the fields of a console line.
    first = console is not None and "{" not in line[: console.start()]
    found = _of_console(line, console) if first and console is not None else []
    if not found and "{" in line:
        found = _objects(line, zone, depth)
        for mend in _MENDS:
            if found:
                break
            mended = mend(line)
            if mended != line:
                found = _objects(mended, zone, depth)
    if not found and not first and console is not None:
        found = _of_console(line, console)
    return found or [Record(None, line)]


def _of_console(line: str, found: re.Match[str]) -> list[Record]:
    entry = zap_entry(line[found.start() :].rstrip()) or _console(line[found.start() :])
    return [] if entry is None else [Record(entry, source=source_of(line[: found.start()]), console=True)]


def _console(line: str) -> dict[str, object] | None:
    """Return what a console line holds whose tabs became blanks."""
    found = _CONSOLE_PARTS.match(line)
    if found is None:
        return None
    try:
        fields = json.loads(found["fields"] or "{}")
    except (ValueError, RecursionError):
        fields = {}
    return {**fields, "ts": found["ts"], "level": found["level"], "msg": found["msg"]}


def _unescaped(line: str) -> str:
    """Return a line with the first quoted object in it as it was before it was quoted, as Go's ``%q`` and logfmt do."""
    start = line.find('{\\"')
    if start < 0:
        return line
    inside = line[start : line.rfind("}") + 1]
    return line[:start] + re.sub(r"\\(.)", r"\1", inside)


_MENDS = (
    _unescaped,
    lambda line: line.replace('""', '"') if '{""' in line else line,  # a cell of a CSV
    lambda line: html.unescape(line) if "&quot;" in line or "&#34;" in line else line,
    lambda line: line.translate(_QUOTES),
    lambda line: PASTED.sub("", line),
)


def _objects(line: str, zone: tzinfo, depth: int) -> list[Record]:
    """Return what the objects in a line hold."""
    found: list[Record] = []
    start = end = tries = 0
    outside = ""
    while tries < _MOST_TRIES and (start := line.find("{", start)) >= 0:
        try:
            document, stop = _DECODER.raw_decode(line, start)
        except (ValueError, RecursionError):
            start, tries = start + 1, tries + 1
            continue
        if isinstance(document, dict):
            records = _of_document(document, zone, depth)
            if records:
                prefix = line[end:start]
                source = source_of(prefix)
                for record in records:
                    record.source = " ".join(filter(None, (source, record.source)))
                    if record.stamp is None and record.entry is None:
                        record.stamp = find_stamp(prefix, zone)
                found += records
                outside += prefix
            else:
                outside += line[end:start]
        start = end = stop
    if found and '"msg":' in (outside := outside + line[end:]):
        found.append(Record(None, outside, torn=True))
    return found


def _of_document(document: dict[str, Any], zone: tzinfo, depth: int) -> list[Record]:
    """Return what a document of JSON holds: an entry itself, or in one of its values."""
    if _is_zaps(document):
        return [Record(document, source=_added(document))]
    if depth >= _DEEPEST:
        return []
    stamp = _time(document, zone)
    if "local-member-id" in document or ("caller" in document and "level" in document):  # a pipeline renamed its keys
        text = next((document[key] for key in ("msg", "message", "log") if isinstance(document.get(key), str)), None)
        if text is not None and stamp is not None:
            return [Record({**document, "msg": text, "ts": stamp.at}, source=_place(document))]
    for key in (*_TEXT_KEYS, *(key for key in document if key not in _TEXT_KEYS)):
        records = list(_of_value(document.get(key), zone, depth, listed=key in _TEXT_KEYS))
        if not records:
            continue
        place = _place(document)
        for record in records:
            record.source = " ".join(filter(None, (place, record.source)))
            record.stamp = record.stamp or stamp
        return records
    return []


def _of_value(value: object, zone: tzinfo, depth: int, *, listed: bool) -> Iterator[Record]:
    if isinstance(value, list) and value and all(isinstance(each, int) and 0 <= each < 256 for each in value):
        value = bytes(value).decode(errors="replace")  # journald's way to write what is not printable
    if isinstance(value, str):
        for line in value.splitlines():
            records = _unwrap(without_colours(line), zone, depth + 1)
            # Of a key that nobody knows only what is certainly zap's.
            yield from (each for each in records if each.entry is not None or (listed and each.text.strip()))
    elif isinstance(value, dict):
        yield from _of_document(value, zone, depth + 1)
    elif isinstance(value, list) and [type(each) for each in value[:2]] == [str, str] and value[0].isdecimal():
        yield from _of_document({"timestamp": value[0], "line": value[1]}, zone, depth + 1)  # Loki's
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, dict | str | list) and depth < _DEEPEST:
                yield from _of_value(each, zone, depth + 1, listed=listed)


def _time(document: Mapping[str, object], zone: tzinfo) -> Stamp | None:
    for key in _TIME_KEYS:
        value = document.get(key)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            try:
                return parse_stamp(str(value), zone)
            except (ValueError, OverflowError):
                continue
    return None


def _added(entry: Mapping[str, object]) -> str:
    """Return what a pipeline says in an entry of zap of where it is from."""
    return _place({key: entry[key] for key in sorted(entry.keys() & _ADDED)}) if entry.keys() & _ADDED else ""


def _place(document: Mapping[str, object], depth: int = 0) -> str:
    """Return what a document says of where it is from."""
    found = []
    for key, value in document.items():
        if isinstance(value, str) and _OF_A_PLACE.fullmatch(key):
            found.append(value[:200])
        elif isinstance(value, dict) and depth < 3 and "msg" not in value:
            found.append(_place(value, depth + 1))
    return " ".join(filter(None, found))


# Lines that a wrapper broke


_CRI = re.compile(
    r"(?P<prefix>.*?[0-9]{4}-[0-9]{2}-[0-9]{2}T\S+ (?:stdout|stderr) )(?P<tag>[PF])(?::\S*)?(?: (?P<text>.*))?$",
    re.DOTALL,
)
_BEGINS = re.compile(r'\{\s*(?:"|$)')  # an object of JSON; what a value holds may begin a piece of a line, too
_MOST_JOINED = 1 << 20
_MOST_LINES = 1_000_000
_MOST_WRAPPED = 100  # lines that one line may be in where it was broken at a width


class Joiner:
    """Joins what wrappers broke: long lines in parts, as container engines keep them, and JSON over several lines."""

    def __init__(self) -> None:
        """Begin with nothing joined."""
        self._parts: dict[str, str] = {}
        self._object: list[str] = []
        self._indent = 0
        self._broken_line: list[str] = []
        self.joined = 1  # how many lines are in what was returned last

    def feed(self, line: str) -> list[str]:
        """Take a line with its indent and without its end; return the lines that are whole now."""
        self.joined = 1
        if self._broken_line:
            if not _BEGINS.match(line) and len(self._broken_line) < _MOST_WRAPPED:
                self._broken_line.append(line)
                return self._mended() if line.rstrip().endswith("}") else []
            lines, self._broken_line = self._broken_line, []
            return [*lines, *self.feed(line)]
        if line.startswith('{"') and not line.rstrip().endswith("}"):
            self._broken_line = [line]
            return []
        indent = len(line) - len(line.lstrip())
        if self._object:
            ends = indent == self._indent and line.lstrip().startswith("}")
            if (indent > self._indent or ends) and len(self._object) < _MOST_LINES:
                self._object.append(line)
                return self._closed() if ends else []
            return [*self._broken(), *self.feed(line)]
        if line.strip() == "{":
            self._object, self._indent = [line], indent
            return []
        return [self._part(line)] if self._parts or "std" in line else [line]

    def close(self) -> list[str]:
        """Return what is left at the end."""
        parts = list(self._parts.values())
        self._parts.clear()
        lines, self._broken_line = self._broken_line, []
        return [*self._broken(), *lines, *parts]

    def _mended(self) -> list[str]:
        """Return a line that was broken at the width of a terminal; nothing where it goes on."""
        text = "".join(self._broken_line)
        try:
            json.loads(text, strict=False)
        except (ValueError, RecursionError):
            return []
        self.joined, self._broken_line = len(self._broken_line), []
        return [text]

    def _closed(self) -> list[str]:
        text = " ".join(self._object)
        try:
            json.loads(without_colours(text).strip().rstrip(","), strict=False)
        except (ValueError, RecursionError):
            return self._broken()
        self.joined, self._object = len(self._object), []
        return [text]

    def _broken(self) -> list[str]:
        lines, self._object = self._object, []
        return lines

    def _part(self, line: str) -> str:
        """Return a line with what came before of it; empty for a part that is not the last."""
        found = _CRI.match(line)
        if found is not None:
            key = source_of(found["prefix"])
            text = self._parts.pop(key, "") + (found["text"] or "")
            if found["tag"] == "P" and len(text) < _MOST_JOINED:
                self._parts[key] = text
                return ""
            return f"{found['prefix']}F {text}"
        if line.startswith('{"') and '"log"' in line:
            try:
                document = json.loads(line)
                key, text = str(document.get("stream")), document["log"]
                text = self._parts.pop(key, "") + text
            except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
                return line
            if text.startswith("{") and not text.rstrip().endswith("}") and not text.endswith("\n"):
                self._parts[key] = text[:_MOST_JOINED]
                return ""
            return json.dumps({**document, "log": text})
        return line
