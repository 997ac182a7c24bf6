"""Messages of questions to a member, held to protobuf's own encoder and decoder."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.observe.messages import Message, encode
from cluster.observe.probe import MemberInfo, MemberStatus
from loadgen.proto import etcd_pb2 as pb

UINT64 = st.integers(0, 2**64 - 1)
INT64 = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
URLS = st.lists(TEXT, max_size=3)


@given(UINT64, UINT64, UINT64, UINT64, UINT64, INT64, INT64, TEXT, st.booleans(), st.lists(TEXT, max_size=4))
def test_a_status_is_read_as_protobuf_reads_it(
    member: int, leader: int, term: int, index: int, applied: int, revision: int, size: int, version: str,
    learner: bool, errors: list[str],
) -> None:  # fmt: skip
    said = pb.StatusResponse(
        header=pb.ResponseHeader(cluster_id=1, member_id=member, revision=revision, raft_term=2), version=version,
        dbSize=size, leader=leader, raftIndex=index, raftTerm=term, raftAppliedIndex=applied, errors=errors,
        dbSizeInUse=3, isLearner=learner,
    )  # fmt: skip
    assert MemberStatus.from_grpc(said.SerializeToString(), name="m", endpoint="e:1") == MemberStatus(
        "m", "e:1", member, leader, term, index, applied, revision, size, version, learner, tuple(errors)
    )


def test_what_etcd_36_adds_to_a_status() -> None:
    more = {11: "3.6.0", 12: 2 << 30, 13: encode({1: 1, 2: "3.5.0"}), 14: "later"}
    status = MemberStatus.from_grpc(encode({2: "3.6.16", **more}), name="", endpoint="")
    assert (status.version, status.storage_version, status.db_quota) == ("3.6.16", "3.6.0", 2 << 30)
    assert status.downgrade_to == "3.5.0"
    over = MemberStatus.from_grpc(encode({13: encode({2: "3.5.0"})}), name="", endpoint="")
    assert over.downgrade_to == ""  # not enabled


@given(st.lists(st.tuples(UINT64, TEXT, URLS, URLS, st.booleans()), max_size=5))
def test_a_list_of_members(members: list[tuple[int, str, list[str], list[str], bool]]) -> None:
    said = pb.MemberListResponse(
        members=[
            pb.Member(ID=number, name=name, peerURLs=peers, clientURLs=clients, isLearner=learner)
            for number, name, peers, clients, learner in members
        ]
    )
    assert [MemberInfo.from_grpc(each) for each in Message(said.SerializeToString()).messages(2)] == [
        MemberInfo(number, name, tuple(peers), tuple(clients), learner)
        for number, name, peers, clients, learner in members
    ]


@given(st.binary(max_size=300), UINT64, TEXT)
def test_requests(key: bytes, number: int, name: str) -> None:
    assert pb.RangeRequest.FromString(encode({1: key})) == pb.RangeRequest(key=key)
    assert pb.MoveLeaderRequest.FromString(encode({1: number})) == pb.MoveLeaderRequest(targetID=number)
    wanted = pb.AuthenticateRequest(name=name, password=name)
    assert pb.AuthenticateRequest.FromString(encode({1: name, 2: name})) == wanted


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        said = Message(data)
        for number in range(1, 14):
            for read in (said.number, said.text, said.messages):
                with contextlib.suppress(ValueError):
                    read(number)


def test_fields_of_the_wrong_kind() -> None:
    with pytest.raises(ValueError, match="field 2 is not a number"):
        Message(encode({2: "text"})).number(2)
    with pytest.raises(ValueError, match="field 1 is a number"):
        Message(encode({1: 5})).text(1)
    for cut in (b"\x08", b"\x12\x05ab", b"\x0d\x01", b"\x0b"):
        with pytest.raises(ValueError, match=r"field|number"):
            Message(cut)
