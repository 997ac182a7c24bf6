"""Frames that are about the whole connection: SETTINGS, PING and GOAWAY (RFC 9113, sections 6.5, 6.7 and 6.8)."""

from __future__ import annotations

from loadgen.wire import frames
from loadgen.wire.errors import ErrorCode, RemoteError
from loadgen.wire.events import Event, GoAway, PingAcknowledged, SettingsReceived
from loadgen.wire.grpc import Code
from loadgen.wire.sending import Sender

# What a hostile peer can make us keep: so many replies to PING and SETTINGS that it does not read (section 10.5).
_MAX_REPLIES = 4_096


class Control:
    """Handlers: each takes a frame's flags, stream id and payload, and the events to add to. They raise RemoteError."""

    __slots__ = ("_sender",)

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def on_settings(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """Apply the peer's settings, and acknowledge them (section 6.5.3)."""
        if stream_id:
            raise RemoteError("SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise RemoteError("SETTINGS of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        if flags & frames.ACK:
            return
        for name, value in frames.SETTING.iter_unpack(payload):
            self._sender.apply_setting(name, value)
        self._reply(frames.settings_ack())
        self._sender.pump()
        self._sender.open_waiting()
        events.append(SettingsReceived())

    def on_ping(self, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """Echo a PING; the echo of ours is an event (section 6.7)."""
        if stream_id:
            raise RemoteError("PING on a stream")
        if len(payload) != 8:
            raise RemoteError("PING of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        if flags & frames.ACK:
            events.append(PingAcknowledged(payload))
        else:
            self._reply(frames.ping(payload, ack=True))

    def on_goaway(self, _flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
        """Take no new calls; end those that the peer has not processed and never will (section 6.8)."""
        if stream_id:
            raise RemoteError("GOAWAY on a stream")
        if len(payload) < 8:
            raise RemoteError("GOAWAY of a wrong size", ErrorCode.FRAME_SIZE_ERROR)
        last, error = frames.GOAWAY_HEAD.unpack_from(payload)
        last &= 0x7FFFFFFF
        self._sender.refuse_new()
        events.append(GoAway(last, error, payload[8:]))
        for stream in [
            each for each in (*self._sender.streams.values(), *self._sender.waiting) if each.id == 0 or each.id > last
        ]:
            stream.unprocessed = True
            self._sender.end(stream, Code.UNAVAILABLE, "going away")
            events.append(stream)

    def _reply(self, data: bytes) -> None:
        self._sender.replies += 1
        if self._sender.replies > _MAX_REPLIES:
            raise RemoteError("too many PING or SETTINGS", ErrorCode.ENHANCE_YOUR_CALM)
        self._sender.put(data)
