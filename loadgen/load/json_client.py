"""etcd over its JSON gateway, by etcd3-py: the interface of ``EtcdClient`` at a hundred times its cost.

The quirks of etcd3-py are mended in ``cluster.gateway.etcd3py``. Requests are made as protobuf messages and turned into
the gateway's JSON and back, so that both clients give the same answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from time import perf_counter_ns
from typing import TYPE_CHECKING, Unpack

import gevent
from google.protobuf import json_format
from google.protobuf.message import Message

from cluster.base.endpoint import Endpoint
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.security import Security
from cluster.gateway.control import ControlClient
from loadgen.client.kv import KvResponse, RangeOptions, classify, get_op, mod_revision_is, put_op
from loadgen.client.login import TOKEN_PAUSES_S, is_token_refusal
from loadgen.history.operation import Operation, Outcome
from loadgen.proto import etcd_pb2 as pb
from loadgen.wire import Code

if TYPE_CHECKING:
    from cluster.schema.gateway_answers import GatewayAnswer


class GatewayClient:
    """A client for any number of greenlets of one process that gevent has patched.

    Takes the endpoints, used in turn; the time that connecting, and then a wait for an answer, may take in seconds; how
    to speak TLS and who logs in; and ``abandoned``, as ``EtcdClient`` does. Raises ValueError for a malformed endpoint.
    Methods raise nothing for what etcd or the network do. Each greenlet that calls at the same moment has a connection
    of its own, which is kept: etcd3-py's client is for one at a time, and never gives its memory back.

    Attributes: ``resent``, requests sent again since their token was refused.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        timeout_s: float = 5.0,
        security: Security | None = None,
        abandoned: Callable[[Operation], None] | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("no endpoint given")
        if timeout_s <= 0:
            raise ValueError(f"timeout must be positive, not {timeout_s}")
        urls = [str(Endpoint.parse(each)) for each in endpoints]
        self._timeout_s = timeout_s
        self._abandoned = abandoned
        self._security = security
        self._turn: Iterator[str] = cycle(urls)
        self._idle: dict[str, list[ControlClient]] = {each: [] for each in urls}
        self._closed = False
        self._logged_in = False
        self.resent = 0

    def close(self) -> None:
        """Close the connections that are not in use; those that are close after their call."""
        self._closed = True
        for clients in self._idle.values():
            while clients:
                clients.pop().close()

    def put(
        self,
        key: bytes,
        value: bytes,
        *,
        process: int = 0,
        due_ns: int = 0,
        lease: int = 0,
        prev_kv: bool = False,
        ignore_value: bool = False,
        ignore_lease: bool = False,
    ) -> Operation:
        """Write a value. ``response`` is a ``PutResponse``."""
        request = pb.PutRequest(
            key=key, value=value, lease=lease, prev_kv=prev_kv, ignore_value=ignore_value, ignore_lease=ignore_lease
        )
        return self._run("/kv/put", request, pb.PutResponse, "put", key, value, process, due_ns)

    def get(
        self, key: bytes, *, serializable: bool = False, revision: int = 0, process: int = 0, due_ns: int = 0
    ) -> Operation:
        """Read one key, linearizably unless ``serializable``. ``response`` is a ``RangeResponse``."""
        request = pb.RangeRequest(key=key, serializable=serializable, revision=revision)
        return self._run("/kv/range", request, pb.RangeResponse, "get", key, None, process, due_ns)

    def range(
        self, key: bytes, range_end: bytes, *, process: int = 0, due_ns: int = 0, **options: Unpack[RangeOptions]
    ) -> Operation:
        """Read the keys from ``key`` up to, not including, ``range_end``. ``response`` is a ``RangeResponse``."""
        request = pb.RangeRequest(key=key, range_end=range_end, **options)
        return self._run("/kv/range", request, pb.RangeResponse, "range", key, None, process, due_ns)

    def delete(
        self, key: bytes, range_end: bytes = b"", *, prev_kv: bool = False, process: int = 0, due_ns: int = 0
    ) -> Operation:
        """Delete a key, or a range of them. ``response`` is a ``DeleteRangeResponse``."""
        request = pb.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=prev_kv)
        return self._run("/kv/deleterange", request, pb.DeleteRangeResponse, "delete", key, None, process, due_ns)

    def txn(
        self,
        compare: Sequence[pb.Compare],
        success: Sequence[pb.RequestOp],
        failure: Sequence[pb.RequestOp] = (),
        *,
        process: int = 0,
        due_ns: int = 0,
    ) -> Operation:
        """If all of ``compare`` hold does ``success``, else ``failure``. ``response`` is a ``TxnResponse``."""
        request = pb.TxnRequest(compare=compare, success=success, failure=failure)
        key = compare[0].key if compare else b""
        return self._run("/kv/txn", request, pb.TxnResponse, "txn", key, None, process, due_ns)

    def cas(self, key: bytes, value: bytes, mod_revision: int, *, process: int = 0, due_ns: int = 0) -> Operation:
        """Write ``value`` if the key was last written at ``mod_revision`` (0: do not exist), else read it."""
        request = pb.TxnRequest(
            compare=[mod_revision_is(key, mod_revision)], success=[put_op(key, value)], failure=[get_op(key)]
        )
        return self._run("/kv/txn", request, pb.TxnResponse, "txn", key, value, process, due_ns)

    # ---- one call

    def _run(
        self,
        path: str,
        request: Message,
        answer: Callable[[], KvResponse],
        f: str,
        key: bytes,
        value: bytes | None,
        process: int,
        due_ns: int,
    ) -> Operation:
        body = json_format.MessageToDict(request, preserving_proto_field_name=True)
        call_ns = perf_counter_ns()
        operation = Operation(process, f, key, value, due_ns or call_ns, call_ns)
        try:
            operation.endpoint = endpoint = next(self._turn)
            said = self._ask(endpoint, path, body)
            operation.return_ns = perf_counter_ns()
            response = json_format.ParseDict(said, answer(), ignore_unknown_fields=True)  # type: ignore[arg-type]
            operation.outcome = Outcome.OK
            operation.revision = response.header.revision
            operation.response = response
        except EtcdError as exc:
            operation.error, operation.code, operation.detail = exc.name, exc.code, exc.detail
            operation.outcome = classify(f, exc.code, exc.detail, answered=True, unprocessed=False)
        except NoAnswer as exc:
            code = Code.DEADLINE_EXCEEDED if exc.cause == "timeout" else Code.UNAVAILABLE
            operation.error = code.name if exc.cause == "timeout" else exc.cause
            operation.outcome = classify(f, code, answered=False, unprocessed=not exc.sent)
        except json_format.ParseError:
            operation.error = "malformed answer"
            operation.outcome = classify(f, Code.INTERNAL, answered=False, unprocessed=False)
        except BaseException:
            # Killed while it waited: whoever keeps the books is told, then the kill goes on.
            operation.return_ns = perf_counter_ns()
            operation.error = "killed"
            if self._abandoned is not None:
                self._abandoned(operation)
            raise
        operation.return_ns = operation.return_ns or perf_counter_ns()
        return operation

    def _ask(self, endpoint: str, path: str, body: Mapping[str, object]) -> GatewayAnswer:
        """Ask, and again with another login as long as the token is refused: then nothing was executed.

        Auth may go and come again while the next connection is made, which then has no user. No further try begins
        after the timeout.
        """
        until_ns = perf_counter_ns() + int(self._timeout_s * 1e9)
        for pause_s in (0.0, *TOKEN_PAUSES_S[1:], None):
            try:
                return self._ask_once(endpoint, path, body)
            except EtcdError as exc:
                if not self._logged_in or not is_token_refusal(exc.name):
                    raise
                refused = exc
            self._forget_connections(endpoint)
            left_s = (until_ns - perf_counter_ns()) / 1e9
            if pause_s is None or left_s <= pause_s:
                break
            gevent.sleep(pause_s)
            self.resent += 1
        raise refused

    def _forget_connections(self, endpoint: str) -> None:
        """Close those that are kept for an endpoint: they have the old token, as a rule."""
        idle, self._idle[endpoint] = self._idle[endpoint], []
        for client in idle:
            client.close()

    def _ask_once(self, endpoint: str, path: str, body: Mapping[str, object]) -> GatewayAnswer:
        idle = self._idle[endpoint]
        client = idle.pop() if idle else self._connected(endpoint)
        try:
            said = client.rpc(path, body)
        except (EtcdError, NoAnswer) as exc:
            if isinstance(exc, EtcdError) and is_token_refusal(exc.name):
                client.close()  # its token has expired; the next one logs in anew
            else:
                self._give_back(endpoint, client)  # the session reconnects by itself
            raise
        except BaseException:
            client.close()
            raise
        self._give_back(endpoint, client)
        return said

    def _connected(self, endpoint: str) -> ControlClient:
        """Return a new connection, whose requests are the user's. Raises EtcdError and NoAnswer."""
        security = self._security
        try:
            client = ControlClient(endpoint, timeout_s=self._timeout_s, security=security)
        except EtcdError as exc:
            if not self._logged_in or security is None or exc.name != "AuthNotEnabled":
                raise
            # Auth was on, and is off now.
            nobody = dataclasses.replace(security, user=None, password=None)
            return ControlClient(endpoint, timeout_s=self._timeout_s, security=nobody)
        self._logged_in = security is not None and security.user is not None
        return client

    def _give_back(self, endpoint: str, client: ControlClient) -> None:
        if self._closed:
            client.close()
        else:
            self._idle[endpoint].append(client)
