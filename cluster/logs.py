"""What a member's log says about its end."""

from __future__ import annotations

import json
from pathlib import Path

_TAIL_BYTES = 64 * 1024
ADDRESS_IN_USE = "address already in use"


def why_it_ended(log: Path, since: int = 0) -> str:
    """Why a member ended, in one line.

    Takes its log, JSON as etcd writes it or plain text, and the byte from which to read. Returns the last
    line of level fatal, panic or error with its cause, else the first plain line that speaks of an error,
    else the last line; empty for an empty or missing log.
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
    """The same from the log's own text."""
    said: list[dict[str, object]] = []
    warned: list[dict[str, object]] = []
    plain: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            plain.append(line.strip())
            continue
        if isinstance(entry, dict) and entry.get("level") in ("fatal", "panic", "error", "dpanic"):
            said.append(entry)
        elif isinstance(entry, dict) and entry.get("level") == "warn" and entry.get("error"):
            warned.append(entry)
    if said:
        return _sentence(said[-1])
    for line in plain:
        if any(word in line.lower() for word in ("error", "panic", "fatal", "not defined", "cannot", "denied")):
            return line[:300]
    if plain:
        return plain[-1][:300]
    return _sentence(warned[-1]) if warned else ""  # some releases only warn of flags that they then refuse


def _sentence(entry: dict[str, object]) -> str:
    message, cause = str(entry.get("msg", "")), str(entry.get("error", ""))
    return f"{message}: {cause}" if cause and cause not in message else message
