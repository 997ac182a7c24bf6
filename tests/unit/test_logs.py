"""Lines of etcd's log in both formats of its logger, and the reason for an end that they give."""

from __future__ import annotations

import json

import pytest

from cluster.observe import raftlog
from cluster.observe.logs import why_it_ended_text, zap_entry

# What etcd 3.7.3 wrote with --log-format=console where its data folder was a file.
CONSOLE = """\
2026-11-28T07:40:23.903092Z	info	etcdmain/etcd.go:63	Running: 	{"args": ["etcd", "--log-format=console"]}
2026-11-28T07:40:23.903168Z	fatal	etcdmain/etcd.go:201	failed to list data directory	{"dir": "/d/x", "error": "open /d/x: not a directory"}
go.etcd.io/etcd/server/v3/etcdmain.identifyDataDirOrDie
	go.etcd.io/etcd/server/v3@v3.7.3/etcdmain/etcd.go:201
"""  # noqa: E501


def test_both_formats_say_the_same() -> None:
    fields = {"local-member-id": "a1", "error": "broken"}
    entry = {"level": "warn", "ts": "2026-11-28T07:40:23.9Z", "caller": "a/b.go:7", "msg": "lost it", **fields}
    console = f"{entry['ts']}\twarn\ta/b.go:7\tlost it\t{json.dumps(fields)}"
    named = f"{entry['ts']}\twarn\traft\ta/b.go:7\tlost it\t{json.dumps(fields)}"
    read = zap_entry(json.dumps(entry))
    assert read is not None
    read.pop("caller")
    assert (
        zap_entry(console)
        == zap_entry(named)
        == read
        == {"level": "warn", "ts": entry["ts"], "msg": "lost it", **fields}
    )
    assert zap_entry(f"{entry['ts']}\tinfo\ta/b.go:7\tno fields") == {
        "level": "info", "ts": entry["ts"], "msg": "no fields",
    }  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "", "[1]", "7", "{", '{"a":', "plain", "2026-11-28T07:40:23.9Z\tloud\ta/b.go:7\tmessage",
        "2026-11-28T07:40:23.9Z\tinfo\ta/b.go:7\tmessage\t{cut", "\tgo.etcd.io/etcd/main.go:10",
        "2021-09-11 14:46:26.379622 I | raft: a1 became leader at term 2",
    ],
)  # fmt: skip
def test_what_is_no_entry(line: str) -> None:
    assert zap_entry(line) is None


def test_the_reason_for_an_end() -> None:
    reason = "failed to list data directory: open /d/x: not a directory"
    assert why_it_ended_text(CONSOLE) == reason
    as_json = {"level": "fatal", "ts": "2026-11-28T07:40:24Z", "msg": "failed to list data directory",
               "error": "open /d/x: not a directory"}  # fmt: skip
    assert why_it_ended_text(json.dumps(as_json)) == reason


def test_a_refused_flag_of_3_4_is_told_although_it_has_plain_lines_too() -> None:
    lines = (
        "2026-11-28 07:43:47.893761 I | pkg/flags: recognized and used environment variable ETCD_ELECTION_TIMEOUT=1",
        '{"level":"warn","ts":"2026-11-28T07:43:47.894Z","msg":"failed to verify flags","error":"-e[1ms]"}',
    )
    assert why_it_ended_text("\n".join(lines)) == "failed to verify flags: -e[1ms]"
    assert why_it_ended_text(lines[0]) == lines[0]


# What etcd 3.6.16 wrote with --log-format=console: an error, its stack, and the line after it.
STACK = """\
2026-11-28T08:37:55.361474Z\terror\tversion/monitor.go:120\tfailed to update storage version\t{"error": "…"}
go.etcd.io/etcd/server/v3/etcdserver/version.(*Monitor).UpdateStorageVersionIfNeeded
\tgo.etcd.io/etcd/server/v3@v3.6.16/etcdserver/version/monitor.go:120
go.etcd.io/etcd/server/v3/etcdserver.(*EtcdServer).GoAttach.func1
\tgo.etcd.io/etcd/server/v3@v3.6.16/etcdserver/server.go:2556
2026-11-28T08:37:55.361500Z\tinfo\traft/raft.go:988\t8e9e05c52164694d became follower at term 2
""".splitlines()


def test_a_stack_below_a_console_line_belongs_to_it() -> None:
    log = raftlog.read_log(STACK)
    assert (log.lines, log.garbage) == (6, 0)
    assert [(event.kind, event.term) for event in log.events] == [("became", 2)]
    alone = raftlog.read_log([STACK[1], STACK[2]])
    assert (alone.lines, alone.garbage) == (2, 2)
    assert raftlog.read_log([STACK[0], "not of etcd"]).garbage == 1


# What etcd 3.7.3 wrote for a watch through its gateway that the client cut off, and gRPC's own form of it.
OF_A_REQUEST = (
    "2026/11/28 17:33:54 ERROR: Failed to decode request: http: invalid Read on closed Body",
    "WARNING: 2026/11/28 17:33:54 [core] grpc: addrConn.createTransport failed to connect to 127.0.0.1:1",
)


def test_what_a_library_within_etcd_writes_by_gos_logger_is_etcds() -> None:
    became = '{"level":"info","ts":"2026-11-28T17:33:54Z","msg":"8e9e05c52164694d became follower at term 2"}'
    log = raftlog.read_log((OF_A_REQUEST[0], became, OF_A_REQUEST[1]))
    assert (log.lines, log.garbage) == (3, 0)
    assert [(event.kind, event.term) for event in log.events] == [("became", 2)]
    assert raftlog.read_log(["2026/11/28 not of etcd"]).garbage == 1


def test_what_is_said_of_one_request_is_not_why_a_member_ended() -> None:
    last = "listen tcp 127.0.0.1:2379: bind: address already in use"
    assert why_it_ended_text("\n".join((last, *OF_A_REQUEST))) == last
    assert why_it_ended_text("\n".join(OF_A_REQUEST)) == ""
    fatal = "2026/11/28 17:33:54 cannot open the store"
    assert why_it_ended_text(fatal) == fatal
