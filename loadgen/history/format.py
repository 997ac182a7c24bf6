"""The file format of a history: blocks of fixed records and, behind them, the bytes sent to and received from etcd.

A file is ``MAGIC``, then blocks: a head (``BLOCK``), the records (``RECORD``) of all its entries, then their
payloads, request before response, in the same order. Nothing is encoded twice: a request is the protobuf message that
went out, a response the one that came in. The CRC covers records and payloads, so a block that a crash cut short is
known from one that is whole. All numbers are little-endian.
"""

from __future__ import annotations

import enum
import struct

SCHEMA = "raftload.history/1"
MAGIC = b"raftload.history/1\n"
SUFFIX = ".hist"
FOLDER = "history"
BLOCK_MAGIC = b"RLHB"

BLOCK = struct.Struct("<4sIII")
"""Magic, number of records, bytes of payload, CRC-32 of records and payload."""

RECORD = struct.Struct("<BBBBIHHqqqII")
"""kind, method, outcome, code, process, endpoint, flags, due_ns, call_ns, return_ns, request and response size."""


class Kind(enum.IntEnum):
    """What a record is about."""

    HEADER = 1  # the first of a file: response is JSON
    OPERATION = 2
    WATCH_SENT = 3  # process is the watcher; request is a WatchRequest
    WATCH_RECEIVED = 4  # response is a WatchResponse
    WATCH_ENDED = 5  # the stream ended: code, and why in response
    MARKER = 6  # request is the name, response JSON
    ENDPOINT = 7  # endpoint is the number that the URL in response has in this file
    END = 8  # the last of a file: everything was written


class Method(enum.IntEnum):
    """The gRPC method of an operation."""

    OTHER = 0
    RANGE = 1
    PUT = 2
    DELETE_RANGE = 3
    TXN = 4
    COMPACT = 5
    LEASE_GRANT = 6
    LEASE_REVOKE = 7
    LEASE_KEEP_ALIVE = 8
    LEASE_TIME_TO_LIVE = 9
    LEASE_LEASES = 10
    STATUS = 11
    HASH_KV = 12
    MEMBER_LIST = 13
    MOVE_LEADER = 14
    DEFRAGMENT = 15
    ALARM = 16


METHODS = {
    b"/etcdserverpb.KV/Range": Method.RANGE,
    b"/etcdserverpb.KV/Put": Method.PUT,
    b"/etcdserverpb.KV/DeleteRange": Method.DELETE_RANGE,
    b"/etcdserverpb.KV/Txn": Method.TXN,
    b"/etcdserverpb.KV/Compact": Method.COMPACT,
    b"/etcdserverpb.Lease/LeaseGrant": Method.LEASE_GRANT,
    b"/etcdserverpb.Lease/LeaseRevoke": Method.LEASE_REVOKE,
    b"/etcdserverpb.Lease/LeaseKeepAlive": Method.LEASE_KEEP_ALIVE,
    b"/etcdserverpb.Lease/LeaseTimeToLive": Method.LEASE_TIME_TO_LIVE,
    b"/etcdserverpb.Lease/LeaseLeases": Method.LEASE_LEASES,
    b"/etcdserverpb.Maintenance/Status": Method.STATUS,
    b"/etcdserverpb.Maintenance/HashKV": Method.HASH_KV,
    b"/etcdserverpb.Cluster/MemberList": Method.MEMBER_LIST,
    b"/etcdserverpb.Maintenance/MoveLeader": Method.MOVE_LEADER,
    b"/etcdserverpb.Maintenance/Defragment": Method.DEFRAGMENT,
    b"/etcdserverpb.Maintenance/Alarm": Method.ALARM,
}
"""By the method's path."""

OK, FAIL, INFO = 0, 1, 2
"""Outcomes, as numbers."""

ANSWERED = 1
"""Flag: the status was the server's own; without it the client inferred it."""
FINAL = 2
"""Flag: read from one member (that of the endpoint) after faults were healed and traffic had ended."""
