"""The answers of etcd's JSON gateway, as types: the fields that raftload reads.

64-bit numbers are texts in it, bytes are in base64, and what is zero or empty is absent.
"""

from __future__ import annotations

from typing import TypedDict


class Header(TypedDict, total=False):
    """The header of each answer."""

    member_id: str
    revision: str
    raft_term: str


class GatewayKeyValue(TypedDict, total=False):
    """A key with its value."""

    key: str
    value: str
    create_revision: str
    mod_revision: str
    version: str
    lease: str


class ListedMember(TypedDict, total=False):
    """A member as the cluster lists it."""

    ID: str
    name: str
    peerURLs: list[str]
    clientURLs: list[str]
    isLearner: bool


class RaisedAlarm(TypedDict, total=False):
    """An alarm of a member."""

    memberID: str
    alarm: str


class Downgrade(TypedDict, total=False):
    """A downgrade of the cluster, from etcd 3.6 on."""

    enabled: bool
    targetVersion: str


class Status(TypedDict, total=False):
    """The answer of ``/maintenance/status``."""

    header: Header
    leader: str
    raftTerm: str
    raftIndex: str
    raftAppliedIndex: str
    dbSize: str
    version: str
    isLearner: bool
    errors: list[str]
    storageVersion: str
    dbSizeQuota: str
    downgradeInfo: Downgrade


class GatewayEvent(TypedDict, total=False):
    """What a watch delivers of one change."""

    type: str
    kv: GatewayKeyValue
    prev_kv: GatewayKeyValue


class StreamResult(TypedDict, total=False):
    """A message of a stream: of a watch, of a lease that is kept alive, or of a snapshot."""

    TTL: str
    blob: str
    created: bool
    canceled: bool
    cancel_reason: str
    compact_revision: str
    events: list[GatewayEvent]


class GatewayAnswer(Status, total=False):
    """The answer of any call; each call has a few of these fields."""

    ID: str
    TTL: str
    alarms: list[RaisedAlarm]
    code: int
    compact_revision: str
    count: str
    deleted: str
    error: object
    etcdcluster: str
    etcdserver: str
    grantedTTL: str
    grpc_code: int
    hash: int
    keys: list[str]
    kvs: list[GatewayKeyValue]
    member: ListedMember
    members: list[ListedMember]
    message: str
    prev_kv: GatewayKeyValue
    prev_kvs: list[GatewayKeyValue]
    responses: list[dict[str, GatewayAnswer]]
    result: StreamResult
    succeeded: bool
    token: str
