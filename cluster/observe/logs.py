"""The reason why a member ended, from its log."""

from __future__ import annotations

import json
import re
from pathlib import Path

_TAIL_BYTES = 64 * 1024
ADDRESS_IN_USE = "address already in use"
# Time, level, sometimes a logger's name, the place in the source, the message, sometimes fields as JSON.
_CONSOLE = re.compile(
    r"(?P<ts>\d{4}-\d\d-\d\dT\S+)\t(?P<level>debug|info|warn|error|dpanic|panic|fatal)\t"
    r"(?:[^\t]+\t)??[^\t]*\.go:\d+\t(?P<msg>[^\t]*)(?:\t(?P<fields>\{.*\}))?$"
)
_LEVEL = r"(?:INFO|WARNING|ERROR): "
# What Go's own logger writes where a library within etcd uses it. The gateway of etcd 3.7 does, for a request that its
# client cut off: ``2026/11/28 17:33:54 ERROR: Failed to decode request: http: invalid Read on closed Body``.
GO_LOG = re.compile(rf"(?P<grpc>{_LEVEL})?\d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d (?P<gateway>{_LEVEL})?")


def zap_entry(line: str) -> dict[str, object] | None:
    """Return what a line of etcd's logger zap holds, ``ts``, ``level``, ``msg`` and the fields among it.

    Takes a line of either format, JSON or what ``--log-format=console`` (etcd 3.6 and later) makes. Returns None for
    any other line.
    """
    found = None if line.startswith("{") else _CONSOLE.match(line)
    try:
        entry = json.loads(line if found is None else found["fields"] or "{}")
    except (ValueError, RecursionError):
        return None
    if found is not None:
        entry = {**entry, "ts": found["ts"], "level": found["level"], "msg": found["msg"]}
    return entry if isinstance(entry, dict) else None


def why_it_ended(log: Path, since: int = 0) -> str:
    """Why a member ended, in one line.

    Takes its log, JSON or console lines as etcd writes them or plain text, and the byte from which to read. Returns
    the last line of level fatal, panic or error with its cause, else the first plain line that speaks of an error,
    else the last warning of an error, else the last plain line; empty where there is none of these.
    """
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return why_it_ended_text(text)


def why_it_ended_text(text: str) -> str:
    """Return the same from the log's own text."""
    said: list[dict[str, object]] = []
    warned: list[dict[str, object]] = []
    plain: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        entry = zap_entry(line)
        if entry is None:
            of_go = GO_LOG.match(line)
            if of_go is None or not (of_go["grpc"] or of_go["gateway"]):  # a library's word about one request
                plain.append(line.strip())
        elif entry.get("level") in ("fatal", "panic", "error", "dpanic"):
            said.append(entry)
        elif entry.get("level") == "warn" and entry.get("error"):
            warned.append(entry)
    if said:
        return _sentence(said[-1])
    for line in plain:
        if any(
            word in line.lower()
            for word in ("error", "panic", "fatal", "not defined", "invalid value", "cannot", "denied")
        ):
            return line[:300]
    if warned:  # some releases only warn of flags that they then refuse
        return _sentence(warned[-1])
    return plain[-1][:300] if plain else ""


def _sentence(entry: dict[str, object]) -> str:
    message, cause = str(entry.get("msg", "")), str(entry.get("error", ""))
    return f"{message}: {cause}" if cause and cause not in message else message
