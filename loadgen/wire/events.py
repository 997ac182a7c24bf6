"""The events that ``Connection.receive_data`` returns, apart from a finished call, which is its ``Stream``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from loadgen.wire.errors import ErrorCode
from loadgen.wire.stream import Stream


@dataclass(frozen=True, slots=True)
class Message:
    """One message on a stream opened with ``Connection.open_stream``; tell ``Connection.consumed`` once it is used."""

    stream: Stream
    data: bytes


@dataclass(frozen=True, slots=True)
class SettingsReceived:
    """The peer's SETTINGS have been applied; the first one proves that it speaks HTTP/2."""


@dataclass(frozen=True, slots=True)
class PingAcknowledged:
    """The peer answered our PING."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer takes no new streams here; those it has not processed come as ended streams beside this."""

    last_stream_id: int
    code: int
    debug: bytes


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """The peer broke the protocol. Every open stream has been ended; write what is left to send, then close."""

    code: ErrorCode
    detail: str


Event: TypeAlias = Stream | Message | SettingsReceived | PingAcknowledged | GoAway | ConnectionEnded
