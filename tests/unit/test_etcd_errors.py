"""etcd's client errors: the table beside etcd's own lists, and what it makes of texts and codes."""

from __future__ import annotations

import pytest

from cluster.base.errors import EtcdError, error_name, grpc_code_name
from cluster.base.etcd_errors import KINDS, kind_of
from loadgen.client.kv import classify
from loadgen.history.operation import Outcome
from loadgen.wire import Code
from tests.support.etcd_errors import NoGo, of_release, stored
from tests.support.missing import require

MINORS = ("3.4", "3.5", "3.6", "3.7")
CODES = {code.name: int(code) for code in Code}
# What a write may still come to after etcd has answered so; whoever moves a name says why, in the table.
UNSURE = {
    "NoSpace", "NoLeader", "LeaderChanged", "Stopped", "Timeout", "TimeoutDueToLeaderFail",
    "TimeoutDueToConnectionLost", "TimeoutWaitAppliedIndex", "Canceled", "DeadlineExceeded",
    "NotPrimary", "TimeoutLeaderTransfer",
}  # fmt: skip


@pytest.mark.parametrize("minor", MINORS)
def test_every_error_of_a_release_is_in_the_table(minor: str) -> None:
    _, rows = stored(minor)
    assert len(rows) >= 49
    for name, code, text in rows:
        kind = KINDS[name]
        assert (kind.text, code in kind.codes, kind.listed) == (text, True, True), name


def test_the_table_lists_no_more_than_the_releases_do() -> None:
    codes: dict[str, set[str]] = {}
    for minor in MINORS:
        for name, code, _ in stored(minor)[1]:
            codes.setdefault(name, set()).add(code)
    assert {name for name, kind in KINDS.items() if kind.listed} == set(codes)
    # UNKNOWN beside them is that of releases which do not translate the error.
    for name, found in codes.items():
        assert set(KINDS[name].codes) - {"UNKNOWN"} == found, name
        assert KINDS[name].codes[0] in found, name


@pytest.mark.parametrize("minor", MINORS)
def test_the_stored_list_is_etcds_own(minor: str) -> None:
    """``make etcd-errors`` writes it; a new release in tests/etcds asks for that."""
    try:
        found = of_release(minor)
    except NoGo as exc:
        require("etcds", str(exc))
    assert stored(minor) == found


def test_texts_and_names_are_told_apart() -> None:
    texts = [text for kind in KINDS.values() for text in (kind.text, *kind.others)]
    assert len(texts) == len(set(texts))
    assert all(kind.codes and set(kind.codes) <= set(CODES) and kind.reason for kind in KINDS.values())
    assert {name for name, kind in KINDS.items() if not kind.refused} == UNSURE


@pytest.mark.parametrize("name", KINDS)
def test_a_text_of_etcds_decides_whatever_the_code(name: str) -> None:
    """etcd's gRPC proxy sends each error with the code UNKNOWN, and releases differ."""
    expected = Outcome.INFO if name in UNSURE else Outcome.FAIL
    for text in (KINDS[name].text, *KINDS[name].others, f"rpc error: code = Unknown desc = {KINDS[name].text}"):
        for code in set(Code) - {Code.OK}:
            assert error_name(code, text) == name
            assert EtcdError(code, text).name == name
            assert classify("put", code, text, answered=True, unprocessed=False) is expected
            assert classify("get", code, text, answered=True, unprocessed=False) is Outcome.FAIL


@pytest.mark.parametrize(
    ("code", "text", "name", "outcome"),
    [
        # The request, measured by gRPC before any handler of etcd's: at the server, and at a proxy's client.
        (8, "grpc: received message larger than max (2097183 vs. 2097152)", "RequestTooLarge", Outcome.FAIL),
        (8, "grpc: received message larger than max 2097152", "RequestTooLarge", Outcome.FAIL),
        (8, "grpc: received message after decompression larger than max (9 vs. 5)", "RequestTooLarge", Outcome.FAIL),
        (8, "trying to send message larger than max (2097183 vs. 2097152)", "RequestTooLarge", Outcome.FAIL),
        (2, "rpc error: code = ResourceExhausted desc = trying to send message larger than max (9 vs. 5)",
         "RequestTooLarge", Outcome.FAIL),
        (2, "rpc error: code = Unknown desc = rpc error: code = ResourceExhausted desc = "
            "etcdserver: mvcc: database space exceeded", "NoSpace", Outcome.INFO),
        # What is none of etcd's: the code is all that is known.
        (8, "another limit", "RESOURCE_EXHAUSTED", Outcome.INFO),
        (8, "etcdserver: mvcc: database space exceeded, and more", "RESOURCE_EXHAUSTED", Outcome.INFO),
        (3, "a text of tomorrow", "INVALID_ARGUMENT", Outcome.FAIL),
        (2, "", "UNKNOWN", Outcome.INFO),
        (14, "transport is closing", "UNAVAILABLE", Outcome.INFO),
        (4, "context deadline exceeded", "DEADLINE_EXCEEDED", Outcome.INFO),
        (12, "unknown service etcdserverpb.KV", "UNIMPLEMENTED", Outcome.FAIL),
        (9, "rpc error: code = FailedPrecondition desc = of tomorrow", "FAILED_PRECONDITION", Outcome.FAIL),
    ],
)  # fmt: skip
def test_what_is_none_of_etcds(code: int, text: str, name: str, outcome: Outcome) -> None:
    assert (error_name(code, text), EtcdError(code, text).name) == (name, name)
    assert classify("put", code, text, answered=True, unprocessed=False) is outcome
    if name == grpc_code_name(code):
        assert kind_of(text) is None


def test_what_the_server_did_not_say_decides_nothing() -> None:
    """A text that we wrote ourselves, or an intermediary: the request may be under way."""
    text = KINDS["RequestTooLarge"].text
    assert classify("put", 3, text, answered=False, unprocessed=False) is Outcome.INFO
    assert classify("put", 14, "", answered=False, unprocessed=True) is Outcome.FAIL
