"""Both engines of the load path over real sockets and greenlets, against a server that answers by what it is asked.

What it says depends on the request alone, so that both have the same to count whatever comes first.
`tests/property/test_engine.py` holds them to each other byte by byte.
"""

from __future__ import annotations

import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import GreenletExit

from loadgen.client.etcd import EtcdClient
from loadgen.client.transport import Transport
from loadgen.history.format import INFO, OK
from loadgen.history.operation import Operation
from loadgen.history.writer import HistoryWriter
from loadgen.load import engines
from loadgen.load.engine_user import EngineUser, carry_out, note_revision
from loadgen.load.settings import Settings
from loadgen.load.worker_run import Load
from loadgen.load.workload import Workload
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import frames
from tests.support.examples import examples
from tests.support.http2_server import END, OPEN, Server, block, body, head, listening, until
from tests.support.two_engines import operations_in
from tests.support.waiting import HANG_S

pytest.importorskip("loadgen.engine.core", reason="the compiled core was not built")


class User:
    """What the engines need of an `EtcdUser`, without Locust."""

    leaving = False

    def __init__(self, load: Load) -> None:
        self.load: Any = load
        self.process = load.user_started()
        self.client: Any = load.client
        self.serializable = False
        self.workload = Workload(load.settings, self.process, load.keys)

    def do(self, f: str, key: bytes, value: bytes | None) -> Operation:
        if f == "get":
            return self.client.get(key, process=self.process)  # type: ignore[no-any-return]
        if f == "put":
            operation = self.client.put(key, value, process=self.process)
        else:
            operation = self.client.cas(key, value, self.load.revisions.get(key, 0), process=self.process)
        note_revision(self.load, operation)
        return operation  # type: ignore[no-any-return]

    def operate(self) -> None:
        if self.load.engine is not None:
            self.load.engine.serve(EngineUser(self))  # type: ignore[arg-type]
            return
        while (number := self.load.take()) is not None:
            carry_out(self, number, *self.workload.next(self.load.owed(number)), 0)  # type: ignore[arg-type]


class Run:
    """One worker's part of a run against an endpoint, by one of the engines."""

    def __init__(self, settings: Settings, endpoint: str, *, compiled: bool, history: Path) -> None:
        self.failures: list[tuple[str, object]] = []
        request = SimpleNamespace(_handlers=[None], fire=self._fire)
        environment: Any = SimpleNamespace(events=SimpleNamespace(request=request), user_classes=[])
        engine = engines.make(settings, 0, 1) if compiled else None
        self.history = HistoryWriter(history)
        if engine is not None:
            engine.record_in(self.history)
        self.client = EtcdClient(
            [endpoint], timeout_s=settings.timeout_s, history=self.history,
            make_transport=Transport if engine is None else engine.make_transport,
        )  # fmt: skip
        self.load = Load(
            environment, settings, self.client, rank=0, workers=1, users=1, sinks=[], starts_at_ns=0, engine=engine
        )
        self.users: list[gevent.Greenlet] = []

    def _fire(self, *, name: str, exception: object, **_: object) -> None:
        self.failures.append((name, exception))

    @property
    def recorded(self) -> list[tuple[object, ...]]:
        """The operations in the history without times, and without the endpoint, which has another port each time."""
        return [
            (method, outcome, code, process, flags, request, said)
            for method, outcome, code, process, _, flags, *_, request, said in operations_in(self.history.path)
        ]

    def start(self, users: int) -> None:
        for _ in range(users):
            self.users.append(gevent.spawn(User(self.load).operate))

    def result(self) -> tuple[dict[str, Any], Counter[tuple[str, object]], dict[str, int]]:
        """Wait for the users' end, return what was counted."""
        gevent.joinall(self.users, timeout=HANG_S, raise_error=True)
        assert all(user.ready() for user in self.users)
        if self.load.engine is not None:
            before = str(self.load.recorder.totals())
            self.load.engine.drain()
            assert before != str(self.load.recorder.totals()), "the core has done nothing"
        totals: dict[str, Any] = self.load.recorder.totals()
        for row in totals.values():
            del row["first_call_ns"], row["last_return_ns"]
        self.load._lag.stop()
        self.client.close()
        self.history.close()
        latencies, _ = self.load.recorder.take_series()
        counted = {f: sum(sum(row[-1].values()) for row in rows) for f, rows in latencies.items()}
        return totals, Counter(self.failures), counted


_ERRORS = {0: "NoSpace", 1: "INTERNAL", 2: "malformed answer", 4: "CANCELLED"}


class Script(Server):
    """A server that answers by the bytes of a request.

    Takes the first bytes of keys, a seed, and whether it goes away now and then: calls that wait for a stream are then
    sent again, too, and fail where they have been before.
    """

    def __init__(self, prefix: bytes, seed: int, *, leaves: bool) -> None:
        super().__init__(self.answer)
        self._prefix, self._seed, self._leaves = prefix, seed, leaves
        self._seen: set[bytes] = set()
        # What is to be counted of what it has answered.
        self.told: Counter[tuple[str, str]] = Counter()

    def answer(self, _: int, stream_id: int) -> bytes:
        request = self.requests[-1][2][5:]
        if request[2:7] == self._prefix:
            asked = pb.PutRequest.FromString(request)
            f, what = ("put", asked.value) if asked.value else ("get", asked.key)
        else:
            f, what = "txn", pb.TxnRequest.FromString(request).success[0].request_put.value
        chance = zlib.crc32(what, self._seed)
        kind = chance // 8 % 20
        message = self._message(f, chance)
        again, known = what in self._seen, f != "get"
        self._seen.add(what)
        if kind != 3 or not known or again:
            self.told[f, _ERRORS.get(kind, "ok")] += 1
        whole = head(stream_id, OPEN) + body(stream_id, message) + head(stream_id, END, end=True)
        match kind:
            case 0:
                fields = [(b"grpc-status", b"8"), (b"grpc-message", b"etcdserver: mvcc: database space exceeded")]
                return head(stream_id, OPEN) + head(stream_id, fields, end=True)
            case 1:
                return head(stream_id, [*OPEN, (b"grpc-status", b"13"), (b"grpc-message", b"what")], end=True)
            case 2:
                return head(stream_id, OPEN) + body(stream_id, b"\x0a\x7f") + head(stream_id, END, end=True)
            case 3 if known and not again:
                return frames.rst_stream(stream_id, 7)
            case 4:
                return frames.rst_stream(stream_id, 8)
            case 5:
                said = block(OPEN)
                return (
                    frames.frame(frames.HEADERS, 0, stream_id, said[:3])
                    + frames.frame(frames.CONTINUATION, frames.END_HEADERS, stream_id, said[3:])
                    + body(stream_id, message) + head(stream_id, END, end=True)
                )  # fmt: skip
            case 6:
                data = body(stream_id, message)[9:]
                parts = (frames.frame(frames.DATA, 0, stream_id, part) for part in (data[:4], data[4:]))
                return head(stream_id, OPEN) + b"".join(parts) + head(stream_id, END, end=True)
            case 7:
                return frames.ping(b"abcdefgh") + whole
            case 8:
                return frames.settings({frames.MAX_CONCURRENT_STREAMS: 2 + chance % 3}) + whole
            case 9 if self._leaves and chance // 160 % 5 == 0:  # a new connection waits a little
                return frames.goaway(0x7FFFFFFF, 0) + whole
        return whole

    def _message(self, f: str, chance: int) -> bytes:
        header = pb.ResponseHeader(revision=1 + chance)
        if f == "put":
            return pb.PutResponse(header=header).SerializeToString()
        if f == "get":
            return pb.RangeResponse(header=header, count=chance % 2).SerializeToString()
        answer = pb.TxnResponse(header=header, succeeded=bool(chance % 2))
        one = answer.responses.add()
        if answer.succeeded:
            one.response_put.SetInParent()
        else:
            one.response_range.SetInParent()
        return answer.SerializeToString()


def settings(seed: int, operations: int) -> Settings:
    return Settings(
        prefix=b"abcd/", mix={"put": 1.0, "get": 1.0, "txn": 1.0}, key_space=7, seed=seed, operations=operations,
        timeout_s=HANG_S,
    )  # fmt: skip


@pytest.mark.parametrize("users", [1, 5])
def test_both_count_and_record_what_the_server_has_told(users: int, tmp_path: Path) -> None:
    for seed in range(examples(20)):
        found = []
        for compiled in (False, True):
            script = Script(b"abcd/", seed, leaves=users == 1)
            with listening(script) as endpoint:
                run = Run(settings(seed, 60), endpoint, compiled=compiled, history=tmp_path / f"{seed}-{compiled}.hist")
                run.start(users)
                totals, failures, counted = run.result()
            told = {f: sum(n for (of, error), n in script.told.items() if of == f and error == "ok") for f in totals}
            assert {f: row["succeeded"] for f, row in totals.items()} == told, f"seed {seed}"
            assert failures == {what: n for what, n in script.told.items() if what[1] != "ok"}, f"seed {seed}"
            assert counted == {f: n for f, n in told.items() if n}, f"seed {seed}"
            assert sum(script.told.values()) == 60
            outcomes = Counter(outcome for _, outcome, *_ in run.recorded)
            assert (outcomes[OK], outcomes.total()) == (sum(told.values()), 60), f"seed {seed}"
            found.append((totals, Counter(request for _, _, request in script.requests), run.recorded))
        if users == 1:  # else it is a matter of turns who does how much
            assert found[0] == found[1], f"seed {seed}"


@pytest.mark.parametrize("compiled", [False, True])
def test_a_user_that_is_killed_while_its_operation_is_sent_again_is_counted_once(
    compiled: bool, tmp_path: Path
) -> None:
    """The fifth request is refused, and never answered when it comes again."""

    def respond(_: int, stream_id: int) -> bytes:
        place = len(server.requests)
        if place <= 4:
            return head(stream_id, OPEN) + body(stream_id) + head(stream_id, END, end=True)
        return frames.rst_stream(stream_id, 7) if place == 5 else b""

    server = Server(respond)
    with listening(server) as endpoint:
        load = Settings(prefix=b"abcd/", mix={"put": 1.0}, operations=100, timeout_s=HANG_S)
        run = Run(load, endpoint, compiled=compiled, history=tmp_path / "a.hist")
        run.start(1)
        until(lambda: len(server.requests) == 6)
        run.users[0].kill(GreenletExit)
        totals, failures, counted = run.result()
    assert totals["put"]["succeeded"] == 4
    assert (totals["put"]["failed"], failures) == (1, {("put", "STOPPED"): 1})
    assert counted == {"put": 4}
    assert [(outcome, said) for _, outcome, *_, said in run.recorded][4:] == [(INFO, b"killed")]
