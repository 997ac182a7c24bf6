"""Errors of a connection: by whom, and under which HTTP/2 error code."""

from __future__ import annotations

import enum


class ErrorCode(enum.IntEnum):
    """HTTP/2 error codes (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ProtocolError(Exception):
    """The rules were broken; ``code`` says how, the subclass by whom."""

    def __init__(self, text: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


class LocalError(ProtocolError):
    """We were asked for something that the connection cannot do now, such as a call after GOAWAY."""


class NoStreamError(LocalError):
    """The peer allows no further stream at present (MAX_CONCURRENT_STREAMS): use another connection, or wait."""


class RemoteError(ProtocolError):
    """The peer broke the protocol: the connection is over."""
