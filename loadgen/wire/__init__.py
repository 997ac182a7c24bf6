"""Sans-IO client side of gRPC over HTTP/2: bytes in, events out. Knows no socket and no clock.

``Connection`` is the whole of it: ``call`` takes a request, ``data_to_send`` gives the bytes to write,
``receive_data`` takes the bytes read and returns what came of them. The rest of the package is its parts.
"""

from loadgen.wire.connection import Connection
from loadgen.wire.errors import ErrorCode, LocalError, NoStreamError, ProtocolError, RemoteError
from loadgen.wire.events import ConnectionEnded, Event, GoAway, Message, PingAcknowledged, SettingsReceived
from loadgen.wire.grpc import Code
from loadgen.wire.stream import Stream

__all__ = [
    "Code",
    "Connection",
    "ConnectionEnded",
    "ErrorCode",
    "Event",
    "GoAway",
    "LocalError",
    "Message",
    "NoStreamError",
    "PingAcknowledged",
    "ProtocolError",
    "RemoteError",
    "SettingsReceived",
    "Stream",
]
