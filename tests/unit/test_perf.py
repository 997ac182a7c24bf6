"""The pass marks of `etcdctl check perf`, each alone, and a result in etcdctl's own form."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from xml.etree import ElementTree

import pytest

from cluster.base.console import Painter
from cluster.base.errors import ClusterError
from cluster.base.security import Security
from loadgen.history.operation import Operation, Outcome
from loadgen.load.keyspace import KeySpace
from loadgen.load.settings import Settings, SettingsError
from loadgen.load.workload import Keys
from loadgen.perf import checking, etcdctl_form, loads
from loadgen.perf.tidy import tidy
from loadgen.result import document, gate, junit, perf_marks, perf_table, table
from loadgen.run import Hooks
from tests.support.command import assert_refused, refusal

# What etcdctl 3.6.16 printed on stdout, as `python -m tests.soak.perf` has it do.
PRINTED = Path(__file__).parent.parent / "data" / "etcdctl-check"
RESULT = Path(__file__).parent.parent / "data" / "report" / "precise"


def judged(
    check: loads.Check, *, put: dict[str, Any] | None = None, duration_s: float = 60.0, stddev_ms: float | None = 5.0,
    max_ms: float | None = 20.0, lost: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Return a judged result of a check with these figures, and with so many workers that were lost."""
    result = cast("dict[str, Any]", document.build(RESULT))
    row = {**result["results"]["put"], "operations": 9000, "succeeded": 9000, "failed": 0, "errors": {}, **(put or {})}
    service = None if max_ms is None else {**row["latency"], "max_ms": max_ms, "stddev_ms": stddev_ms}
    row["latency"] = None if max_ms is None else {**row["latency"], "service": service}
    results = {**dict.fromkeys(result["results"]), "put": row, "total": row}
    measured: Any = {"put": {"operations": row["operations"], "succeeded": 1, "failed": 0, "duration_s": duration_s}}
    perf = perf_marks.judged(RESULT, check.block(), results, measured, result["target"], is_short=bool(lost))
    lost_workers = [{"name": f"worker {number}", "reason": "killed"} for number in range(lost)]
    generator = {**result["generator"], "rate_reached": True, "saturated": False}
    return cast("dict[str, Any]", gate.apply(
        {**result, "results": results, "perf": perf, "problems": [], "lost_workers": lost_workers, "books": None,
         "interrupted": None, "generator": generator},
        [],
    ))  # fmt: skip


def missed(result: dict[str, Any]) -> list[str]:
    return [mark["name"] for mark in result["perf"]["marks"] if mark["verdict"] == "fail"]


# ---- the loads


def test_the_loads_are_etcdctls() -> None:
    """Of check.go, which is the same in 3.5, 3.6 and 3.7."""
    sizes: tuple[loads.Size, ...] = ("s", "m", "l", "xl")
    assert [(each.rate, each.clients, each.seconds) for each in map(loads.perf, sizes)] == [
        (150, 50, 60), (1000, 200, 60), (8000, 500, 60), (15_000, 1000, 60)
    ]  # fmt: skip
    assert [(each.pairs, each.clients) for each in map(loads.datascale, sizes)] == [
        (10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)
    ]  # fmt: skip
    load = loads.perf("s").settings(2)
    assert (load.key_size, load.value_size, load.connections, load.max_in_flight) == (20 + 256, 1024, 25, 50)
    assert loads.datascale("s").settings(2).key_size == 25 + 512
    assert [loads.perf(size).heavy for size in sizes] == [False, False, True, True]
    assert loads.perf("l").writes == 480_000 * (20 + 256 + 1024)
    assert loads.datascale("xl").settings(3, max_rate=50.0).rate == 50


# ---- the marks


@pytest.mark.parametrize(
    ("figures", "fails"),
    [
        ({}, []),
        ({"put": {"succeeded": 8999, "failed": 1, "errors": {"NoSpace": 1}}}, ["errors"]),
        ({"put": {"operations": 8100, "succeeded": 8100}}, ["throughput"]),
        ({"put": {"operations": 8101, "succeeded": 8101}}, []),
        ({"max_ms": 500.0}, []),
        ({"max_ms": 500.001}, ["slowest"]),
        ({"stddev_ms": 100.0}, []),
        ({"stddev_ms": 100.001}, ["stddev"]),
    ],
)
def test_each_mark_alone(figures: dict[str, Any], fails: list[str]) -> None:
    """At its bound, and by as little as can be told beyond it."""
    result = judged(loads.perf("s"), **figures)
    assert missed(result) == fails
    assert result["verdict"] == ("fail" if fails else "pass")
    assert gate.exit_code(cast("Any", result)) == bool(fails)
    lines = etcdctl_form.ended(cast("Any", result))
    assert lines[-1] == ("FAIL" if fails else "PASS")


def test_a_missed_mark_says_by_how_much() -> None:
    result = judged(loads.perf("s"), max_ms=612.345, put={"operations": 7500, "succeeded": 7500})
    assert result["verdict_reasons"] == [
        "throughput 125.0/s: 10.0/s short of 135/s",
        "slowest 612.3 ms: 112.3 ms over 500 ms",
    ]
    lines = perf_table.marks(result["perf"], Painter(False))
    assert lines[1] == "FAIL     rate                125.0/s (above 135.0/s)  10.0/s short of 135/s"
    text = table.render(cast("Any", result), color=False)
    assert "\nverdict     FAIL\n" in text + "\n"
    assert text.count("112.3 ms over") == 1
    assert table.render_verdict(cast("Any", result), color=False).count("112.3 ms over") == 1
    root = ElementTree.fromstring(junit.to_xml(cast("Any", result)))
    assert [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None] == [
        "perf s: throughput", "perf s: slowest"
    ]  # fmt: skip
    assert [case.get("name") for case in root.iter("testcase") if case.find("error") is not None] == []


def test_without_a_success_a_latency_is_unknown_and_the_check_fails() -> None:
    """etcd's own report has a slowest of 0 then, and a deviation that is no number."""
    failed = {"operations": 9000, "succeeded": 0, "failed": 9000, "errors": {"NoSpace": 9000}}
    result = judged(loads.perf("s"), put=failed, max_ms=None)
    assert {mark["name"]: mark["verdict"] for mark in result["perf"]["marks"]} == {
        "errors": "fail", "throughput": "fail", "slowest": "unknown", "stddev": "unknown"
    }  # fmt: skip
    assert etcdctl_form.ended(cast("Any", result)) == [
        "FAIL: too many errors",
        "FAIL: ERROR(etcdserver: mvcc: database space exceeded) -> 9000",
        "FAIL: Throughput too low: 1 writes/s",
        "PASS: Slowest request took 0.000000s",
        "PASS: Stddev is NaNs",
        "FAIL",
    ]


def test_a_rate_that_a_lost_worker_may_have_missed_is_unknown() -> None:
    few = {"operations": 5000, "succeeded": 5000}
    assert missed(judged(loads.perf("s"), put=few)) == ["throughput"]
    result = judged(loads.perf("s"), put=few, lost=1)
    (mark,) = [each for each in result["perf"]["marks"] if each["name"] == "throughput"]
    assert (mark["verdict"], mark["reason"]) == ("unknown", "a worker was lost, so the load was lower than asked for")
    assert (result["verdict"], gate.exit_code(cast("Any", result))) == ("unknown", 3)
    assert missed(judged(loads.perf("s"), put=few, lost=1, max_ms=600.0)) == ["slowest"]


def test_what_is_unknown_is_no_pass_in_etcdctls_form() -> None:
    """It has no word for that; a script that reads PASS there would take it for one."""
    lines = etcdctl_form.ended(cast("Any", judged(loads.perf("s"), lost=1)))
    assert lines[0] == "FAIL: worker 0 was lost: killed"
    assert lines[-1] == "FAIL"
    few = {"operations": 5000, "succeeded": 5000}
    assert "FAIL: Throughput too low: 84 writes/s" in etcdctl_form.ended(
        cast("Any", judged(loads.perf("s"), put=few, lost=1))
    )
    short = judged(loads.datascale("s"), put={"operations": 9000, "succeeded": 9000})
    short["perf"]["marks"][2].update(value=1.0, verdict="pass", reason=None)
    short = cast("dict[str, Any]", gate.apply(cast("Any", short), []))
    assert etcdctl_form.ended(cast("Any", short)) == ["FAIL: pairs 9,000: 1,000 were not written"]


def test_pairs_that_were_not_written_leave_a_datascale_open() -> None:
    result = judged(loads.datascale("s"), put={"operations": 9000, "succeeded": 9000})
    (pairs,) = [mark for mark in result["perf"]["marks"] if mark["name"] == "pairs"]
    assert (pairs["verdict"], pairs["reason"]) == ("unknown", "1,000 were not written")


# ---- the run


def test_the_quotas_watch_passes_on_all_that_a_run_tells() -> None:
    told = {name for name, value in vars(Hooks).items() if callable(value) and not name.startswith("_")}
    assert told - vars(checking._Watched).keys() == set()


class _Tidied:
    """A client that refuses to defragment. Notes what it reads."""

    read: ClassVar[list[bytes]] = []

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def _done(self, *_: object, **__: object) -> Any:
        return Operation(0, "get", b"", None, 0, 0, outcome=Outcome.OK, revision=7)

    compact = _done

    def get(self, key: bytes) -> Any:
        self.read.append(key)
        return self._done()

    def defragment(self, _: str) -> Any:
        return Operation(0, "defragment", b"", None, 0, 0, outcome=Outcome.FAIL, error="PermissionDenied")

    def close(self) -> None:
        pass


def test_tidying_reads_under_the_prefix_alone_and_tells_what_it_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user of a check may have no right to other keys."""
    monkeypatch.setattr("loadgen.client.etcd.EtcdClient", _Tidied)
    lines: list[str] = []
    with pytest.raises(ClusterError, match="cannot defragment http://a:1: PermissionDenied"):
        tidy(("http://a:1", "http://b:1"), Security(), "/mine/", lines.append, compact=True, defragment=True)
    assert _Tidied.read == [b"/mine/"]
    assert lines == ["Compacting with revision 7", "Compacted with revision 7", 'Defragmenting "http://a:1"']


def test_errors_are_worded_as_etcds_client_words_them() -> None:
    errors = {"Timeout": 3, "UNAVAILABLE": 2, "DEADLINE_EXCEEDED": 1, "connection lost": 1}
    put = {"succeeded": 8993, "failed": 7, "errors": errors, "error_texts": {"UNAVAILABLE": "a proxy says no"}}
    assert etcdctl_form.ended(cast("Any", judged(loads.perf("s"), put=put)))[:5] == [
        "FAIL: too many errors",
        "FAIL: ERROR(etcdserver: request timed out) -> 3",
        "FAIL: ERROR(rpc error: code = Unavailable desc = a proxy says no) -> 2",
        "FAIL: ERROR(rpc error: code = DeadlineExceeded desc = DEADLINE_EXCEEDED) -> 1",
        "FAIL: ERROR(rpc error: code = Unavailable desc = connection lost) -> 1",
    ]


# ---- etcdctl's own form

_NUMBER = r"([0-9.]+)"


def figures_in(text: str) -> dict[str, Any]:
    """Return what `judged` takes, from what etcdctl printed."""

    def found(pattern: str) -> list[str]:
        return [part for match in re.finditer(pattern, text) for part in match.groups()]

    refused = found(r"ERROR\(etcdserver: mvcc: .*\) -> ([0-9]+)")
    errors = {"NoSpace": int(refused[0])} if refused else {}
    rate = float(found(rf"Throughput (?:is|too low:) {_NUMBER} ")[0]) - 0.5
    (slowest,) = found(rf"(?:took|long:) {_NUMBER}s\n")
    (stddev,) = found(rf"Stddev (?:is|too high:) {_NUMBER}s\n")
    failed, succeeded = sum(errors.values()), round(rate * 100)
    put = {"operations": succeeded + failed, "succeeded": succeeded, "failed": failed, "errors": errors}
    return {"put": put, "duration_s": 100.0, "max_ms": float(slowest) * 1000, "stddev_ms": float(stddev) * 1000}


@pytest.mark.parametrize("name", sorted(path.stem for path in PRINTED.glob("perf-*.txt")))
def test_the_form_is_etcdctls_byte_for_byte(name: str) -> None:
    printed = (PRINTED / f"{name}.txt").read_text()
    result = judged(loads.perf("s"), **figures_in(printed))
    tidied = [line for line in printed.splitlines() if line.startswith(("Compact", "Defrag"))]
    assert "\n".join(etcdctl_form.ended(cast("Any", result), tidied)) + "\n" == printed


def test_the_form_of_datascale_is_etcdctls() -> None:
    printed = (PRINTED / "datascale.txt").read_text()
    result = judged(loads.datascale("s"), put={"operations": 10_000, "succeeded": 10_000})
    used = re.findall(r"used : (.*) MB", printed)[0]
    result["perf"]["marks"][2]["value"] = float(used)
    lines = [*etcdctl_form.started(loads.datascale("s").block()), *etcdctl_form.ended(cast("Any", result))]
    assert "\n".join(lines) + "\n" == printed


# ---- the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--load", "xxl"), "--load takes s, m, l, xl, not 'xxl'"),
        (("--load", ""), "--load takes s, m, l, xl, not ''"),
        (("--datascale", "huge"), "--datascale takes s, m, l, xl, not 'huge'"),
        (("--prefix", ""), "--prefix takes printable ASCII characters, not ''"),
        (("--prefix", "schl\u00fcssel/"), "--prefix takes printable ASCII characters"),
        (("--load", "m", "--max-rate", "999"), "perf --load m is a load of 1,000 operations per second"),
        (("--load", "l", "--endpoints", "127.0.0.1:1"), "perf --load l writes up to 624.0 MB to 127.0.0.1:1"),
        (("--datascale", "s", "--endpoints", "127.0.0.1:1"), "give --destructive if it may"),
        (("--auto-compact",), "--auto-compact is for a cluster that stays"),
        (("--junit", "/no/such/folder/x.xml"), "name a file in a folder that is there"),
    ],
)
def test_what_cannot_be_is_refused(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str) -> None:
    assert_refused(refusal(capsys, "perf", *words), said)


def test_options_that_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--load", "s", "--datascale", "s"), ("--json", "--like-etcdctl")):
        done = refusal(capsys, "perf", *words)
        assert done.returncode == 2
        assert "not allowed with argument" in done.stderr


# ---- the keys


class _Client:
    """A client that notes what it is asked to delete. Takes how many keys there are."""

    def __init__(self, count: int = 0) -> None:
        self.deleted: list[tuple[bytes, bytes]] = []
        self.count = count

    def range(self, *_: object, **__: object) -> Any:
        found = SimpleNamespace(count=self.count)
        return Operation(0, "range", b"", None, 0, 0, outcome=Outcome.OK, response=cast("Any", found))

    def delete(self, first: bytes, end: bytes) -> Any:
        self.deleted.append((first, end))
        return Operation(0, "delete", first, None, 0, 0, outcome=Outcome.OK)


@pytest.mark.parametrize(
    ("load", "there", "requests"),
    [
        (loads.datascale("m").settings(2), 100_000, 10), (loads.perf("s").settings(2), 9_000, 1),
        (loads.perf("l").settings(2), 479_999, 48), (loads.perf("l").settings(2), 0, 1),
        (Settings(duration_s=5.0), 1000, 1), (Settings(operations=10**6), 1000, 1),
        # Keys that were written before the load, and loads by time.
        (Settings(operations=10, key_space=10**6), 10**6, 100), (Settings(duration_s=5.0, key_space=10**6), 25_000, 3),
    ],
)  # fmt: skip
def test_many_keys_are_removed_some_thousands_at_a_time(load: Settings, there: int, requests: int) -> None:
    """Without a gap between two requests; a delete of a million keys would keep etcd from serving anybody else."""
    client = _Client(there)
    space = KeySpace(cast("Any", client), load)
    space.remove()
    assert client.deleted == []  # no prefix was found to be free
    space.settings = Settings(**{**vars(load), "prefix": b"/etcdctl-check-datascale/"[: load.key_size - 8]})
    space.remove()
    firsts, ends = zip(*client.deleted, strict=True)
    assert len(firsts) == requests
    assert firsts[0] == space.settings.prefix
    assert ends[-1] == space.settings.prefix[:-1] + bytes([space.settings.prefix[-1] + 1])
    assert firsts[1:] == ends[:-1]
    assert list(firsts) == sorted(firsts)


def test_a_prefix_that_has_keys_is_named_as_a_shell_takes_it() -> None:
    with pytest.raises(SettingsError) as refused:
        KeySpace(cast("Any", _Client(1)), Settings(), b"a; b").prepare()
    assert "`etcdctl del --prefix 'a; b'`" in str(refused.value)


def test_a_prefix_is_taken_as_it_is() -> None:
    load = Settings(key_size=14, key_space=100, prefix=b"/50%d/%s/")
    assert Keys(load)[7] == b"/50%d/%s/00007"
    assert load.digits == 5
