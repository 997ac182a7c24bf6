"""The end of a conformance test, without a cluster."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from cluster.base.errors import ClusterError, EtcdError, NoAnswer
from cluster.base.etcd_values import KeyValue
from cluster.base.verdict import Verdict
from cluster.conformance import Bounds, Report, Result
from cluster.conformance.model import Broken, Env, Inconclusive, NotApplicable, Target, judge
from cluster.conformance.model import Test as Promise
from cluster.conformance.suite import select
from cluster.conformance.table import render
from cluster.conformance.watch import Change, difference
from cluster.gateway.client import WatchEvent

WANTED: list[Change] = [
    (2, "put", b"a", b"1"),
    (3, "put", b"b", b"1"),
    (3, "put", b"c", b"1"),
    (4, "delete", b"a", b""),
]


def event(change: Change) -> WatchEvent:
    revision, kind, key, value = change
    return WatchEvent("delete" if kind == "delete" else "put", KeyValue(key, value, 0, revision, 0))


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        ([0, 1, 2, 3], ""),
        ([0, 1, 2], "1 of 4 changes never delivered, the first a delete of a at revision 4"),
        ([0, 2, 3], "1 of 4 changes never delivered, the first a put of b at revision 3"),
        ([], "4 of 4 changes never delivered, the first a put of a at revision 2"),
        ([0, 1, 1, 2, 3], "delivered twice: put of b at revision 3"),
        ([1, 2, 0, 3], "delivered out of order: put of a at revision 2, after revision 3"),
        ([0, 2, 1, 3], "delivered out of order within a transaction"),
    ],
)
def test_what_is_wrong_with_a_watch(order: list[int], wrong: str) -> None:
    assert difference(WANTED, [event(WANTED[place]) for place in order]) == wrong


def test_a_watch_that_begins_too_early_or_invents() -> None:
    early = event((1, "put", b"z", b"1"))
    assert difference(WANTED, [early]).endswith("put of z at revision 1, before the start revision")
    assert difference(WANTED, [event((3, "put", b"b", b"2"))]) == (
        "delivered what was not asked for: put of b at revision 3"
    )
    assert difference([], []) == ""


def nothing(env: Env) -> str:
    return "all is well"


def raising(error: Exception) -> Callable[[Env], str]:
    def test(env: Env) -> str:
        raise error

    return test


def judged(run: Callable[[Env], str], unreachable: tuple[str, ...] = (), *, needs_all: bool = False) -> Result:
    def no_client(endpoint: str) -> None:
        raise NoAnswer(f"{endpoint} is not there")

    target = Target("etcd-node1", "127.0.0.1:1", 1)
    env = Env(no_client, [target], b"/t/", bounds=Bounds(), stop=threading.Event())  # type: ignore[arg-type]
    return judge(Promise("kv.own-member", "a promise", run, needs_all=needs_all), env, unreachable)


@pytest.mark.parametrize(
    ("error", "verdict", "reason"),
    [
        (Broken("lost write"), Verdict.FAIL, "lost write"),
        (Inconclusive("too little load"), Verdict.UNKNOWN, "too little load"),
        (NotApplicable("one member"), Verdict.SKIP, "one member"),
        (NoAnswer("no answer in time"), Verdict.UNKNOWN, "no answer in time"),
        (ClusterError("gone"), Verdict.UNKNOWN, "gone"),
        (EtcdError(14, "no leader"), Verdict.UNKNOWN, "etcd could not serve: UNAVAILABLE: no leader"),
        (
            EtcdError(8, "etcdserver: mvcc: database space exceeded"),
            Verdict.UNKNOWN,
            "etcd could not serve: NoSpace: etcdserver: mvcc: database space exceeded",
        ),
        (EtcdError(8, "no space"), Verdict.UNKNOWN, "etcd could not serve: RESOURCE_EXHAUSTED: no space"),
        (EtcdError(7, "denied"), Verdict.UNKNOWN, "etcd could not serve: PERMISSION_DENIED: denied"),
        (EtcdError(3, "bad"), Verdict.FAIL, "etcd refused a valid request: INVALID_ARGUMENT: bad"),
        (EtcdError(15, "corrupt"), Verdict.FAIL, "etcd refused a valid request: DATA_LOSS: corrupt"),
    ],
)
def test_how_a_test_ends(error: Exception, verdict: Verdict, reason: str) -> None:
    result = judged(raising(error))
    assert (result.verdict, result.reason) == (verdict, reason)


def test_a_mistake_of_ours_is_no_verdict_about_etcd() -> None:
    with pytest.raises(ZeroDivisionError):
        judged(raising(ZeroDivisionError("ours")))


def test_a_member_that_is_away_leaves_a_promise_about_all_open() -> None:
    assert judged(nothing, ("b:1",)).verdict == Verdict.PASS
    result = judged(nothing, ("b:1",), needs_all=True)
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, "b:1 did not answer; on the others: all is well")
    assert judged(raising(Broken("lost")), ("b:1",), needs_all=True).verdict == Verdict.FAIL


def report(*verdicts: Verdict) -> Report:
    results = tuple(
        Result(f"kv.t{number}", "reads see writes", verdict, "a reason " * 12, 0.5)
        for number, verdict in enumerate(verdicts)
    )
    return Report("2026-01-01T00:00:00.000Z", 1.5, "3.5.1", (), {}, results)


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        ((Verdict.PASS, Verdict.SKIP), Verdict.PASS, 0),
        ((Verdict.SKIP,), Verdict.UNKNOWN, 0),
        ((Verdict.PASS, Verdict.UNKNOWN), Verdict.UNKNOWN, 3),
        ((Verdict.UNKNOWN, Verdict.FAIL, Verdict.PASS), Verdict.FAIL, 1),
    ],
)
def test_what_a_run_comes_to(verdicts: tuple[Verdict, ...], verdict: Verdict, code: int) -> None:
    made = report(*verdicts)
    assert (made.verdict, made.exit_code) == (verdict, code)
    assert sum(made.to_json()["summary"].values()) == len(verdicts)


@pytest.mark.parametrize("width", [40, 80, 100, 300])
def test_the_table_fits_and_names_the_broken_guarantee(width: int) -> None:
    text = render(report(Verdict.PASS, Verdict.FAIL), width=width)
    assert max(map(len, text.splitlines())) <= min(max(width, 80), 120)
    assert "broken guarantee: reads see writes" in text
    assert text.splitlines()[-1] == "FAIL: 1 PASS, 1 FAIL, 0 UNKNOWN, 0 SKIP in 1.5 s"
    assert "\x1b[31mFAIL" in render(report(Verdict.FAIL), color=True)


def test_names_choose_tests_and_groups() -> None:
    assert [test.name for test in select(["kv.delete", "auth"])] == ["kv.delete", "auth.on-off"]
    assert not any(test.extended for test in select([]))
    assert {test.group for test in select([], extended=True)} >= {"kv", "members", "auth", "snapshot", "alarm"}
