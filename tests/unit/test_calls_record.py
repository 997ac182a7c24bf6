"""The record of calls: what is written is read again, and what is damaged is told with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loadgen.client.actor import UNARY, plain
from loadgen.client.call import Caller
from loadgen.history.calls import FILE, Call, CallWriter, MemberEvent, has_calls, read_calls
from loadgen.history.format import FOLDER, SUFFIX
from loadgen.history.operation import Operation, Outcome
from loadgen.history.reader import HistoryError
from loadgen.history.writer import HistoryWriter
from loadgen.proto import auth_pb2
from loadgen.proto import etcd_pb2 as pb

CALLS = (
    Call(1, "", "etcd-node1", "Put", {"key": "\xff"}, {"header": {"revision": 2}}, 1, 2, Outcome.OK),
    Call(2, "alice", "etcd-node1", "Range", {"key": "a"}, None, 3, 4, Outcome.FAIL, "PermissionDenied", "etcd: no"),
)
EVENTS = (MemberEvent("etcd-node1", "started", 1), MemberEvent("etcd-node1", "ended", 9, "panic: no"))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    writer = CallWriter(tmp_path)
    assert [writer.begin(), writer.begin()] == [1, 2]
    writer.call(CALLS[1])  # in the order in which they end
    for event in EVENTS:
        writer.member(event)
    writer.call(CALLS[0])
    writer.close()
    writer.close()
    writer.call(CALLS[0])
    return tmp_path


def test_what_is_written_is_read_again(written: Path) -> None:
    found = read_calls(written)
    assert (found.calls, found.events, found.cut) == (CALLS, EVENTS, "")
    assert has_calls(written)
    assert not has_calls(written / "logs")


def test_a_record_without_its_end_is_cut(written: Path) -> None:
    path = written / FILE
    text = path.read_text()
    path.write_text(text[: text.rindex('{"kind":"end"')])
    assert read_calls(written).calls == CALLS
    assert read_calls(written).cut.startswith("it has no end")
    path.write_text(text[: text.rindex('{"kind":"end"') - 9])
    assert read_calls(written).calls == CALLS[1:]
    assert read_calls(written).cut.startswith("it has no end")
    path.write_text(text.replace('"records":4', '"records":5'))
    assert read_calls(written).cut == "records are missing"


def _damage(at: int, **changes: Any) -> Any:
    def damage(lines: list[str]) -> list[str]:
        line = json.loads(lines[at])
        for name, value in changes.items():
            line.pop(name, None)
            if value is not ...:
                line[name] = value
        return [*lines[:at], json.dumps(line), *lines[at + 1 :]]

    return damage


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda lines: [lines[0], "{", *lines[2:]], "line 2: not JSON"),
        (lambda lines: [lines[0], "[]", *lines[2:]], "line 2: not a JSON object"),
        (_damage(0, schema="other/1"), "line 1: schema 'other/1'"),
        (_damage(1, kind="thing"), "line 2: kind 'thing'"),
        (_damage(1, user=...), "line 2: no user"),
        (_damage(1, invoked_ns="3"), "line 2: invoked_ns is '3'"),
        (_damage(1, number=True), "line 2: number is True"),
        (_damage(1, outcome="maybe"), "line 2: outcome 'maybe'"),
        (_damage(1, outcome="ok"), "line 2: outcome ok, with answer None"),
        (_damage(2, what="sat down"), "line 3: what 'sat down'"),
    ],
)
def test_damage_is_told_with_its_line_and_cause(written: Path, damage: Any, says: str) -> None:
    path = written / FILE
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    with pytest.raises(HistoryError) as told:
        read_calls(written)
    assert says in str(told.value)
    assert str(path) in str(told.value)


def test_what_a_later_version_adds_is_passed_over(written: Path) -> None:
    path = written / FILE
    lines = _damage(1, more=1)(path.read_text().splitlines())
    path.write_text("\n".join(lines) + "\n")
    assert read_calls(written).calls == CALLS


def test_no_record_and_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="no record of calls"):
        read_calls(tmp_path)
    (tmp_path / FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(HistoryError, match="not UTF-8"):
        read_calls(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(HistoryError, match="no first line"):
        read_calls(tmp_path)


def test_no_password_and_no_token_is_recorded(tmp_path: Path) -> None:
    writer = CallWriter(tmp_path)
    request = {"name": "alice", "password": "secret", "hashedPassword": "secret"}
    login = Call(1, "", "etcd-node1", "Authenticate", request, {"header": {}, "token": "secret"}, 1, 2, Outcome.OK)
    writer.call(login)
    writer.close()
    assert login.answer is not None
    assert login.answer["token"] == "secret"  # for who goes on with it
    (tmp_path / FOLDER).mkdir()
    history = HistoryWriter(tmp_path / FOLDER / f"some{SUFFIX}")
    caller = Caller(["127.0.0.1:1"], timeout_s=1.0, history=history)
    for path, password, token in ((b"Authenticate", "secret", "secret"), (b"UserAdd", "secret", "")):
        sent = pb.AuthenticateRequest(name="alice", password=password).SerializeToString()
        said = pb.AuthenticateResponse(token=token).SerializeToString()
        done = Operation(0, "authenticate", b"", None, 1, 1, return_ns=2, outcome=Outcome.OK)
        caller.record(b"/etcdserverpb.Auth/" + path, done, sent, said)
    history.close()
    caller.close()
    written = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert len(written) == 2
    assert not any(b"secret" in each.read_bytes() for each in written)
    assert read_calls(tmp_path).calls[0].request == {"name": "alice"}


def test_messages_are_plain_values() -> None:
    permission = auth_pb2.Permission(permType=auth_pb2.Permission.READWRITE, key=b"a\xff")
    request = pb.AuthRoleGrantPermissionRequest(name="r", perm=permission)
    assert plain(request) == {"name": "r", "perm": {"permType": "READWRITE", "key": "a\xff"}}
    nested = pb.TxnRequest(success=[pb.RequestOp(request_txn=pb.TxnRequest(compare=[pb.Compare(key=b"k")]))])
    assert plain(nested) == {"success": [{"request_txn": {"compare": [{"key": "k"}]}}]}
    assert plain(pb.MemberAddRequest(peerURLs=["http://a"])) == {"peerURLs": ["http://a"]}
    json.dumps(plain(nested))


def test_every_unary_method_has_its_name() -> None:
    by_name = {rpc.name: rpc for rpc in UNARY.values()}
    assert by_name["LeaseGrant"].path == b"/etcdserverpb.Lease/LeaseGrant"
    names = {name: by_name[name].f for name in ("Range", "MemberList", "HashKV", "LeaseTimeToLive", "LeaseLeases")}
    assert names == {
        "Range": "range", "MemberList": "member_list", "HashKV": "hash_kv", "LeaseTimeToLive": "lease_time_to_live",
        "LeaseLeases": "lease_list",
    }  # fmt: skip
