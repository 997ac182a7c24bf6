"""An operation and its outcome: the unit of every measurement and of every history.

The words are Jepsen's: a *process* invokes an operation *f* and it ends OK (it took effect), FAIL (it
certainly did not) or INFO (it may or may not have).
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class OperationType:
    """A type of operation, as results, thresholds and the documentation have it.

    Attributes:
        name: what `Operation.f` says.
        meaning: what one is, for the documentation.
        in_mix: whether `--mix` chooses it. Others come with scenarios of their own; see locustfiles/.
    """

    name: str
    meaning: str
    in_mix: bool = False


TYPES: dict[str, OperationType] = {
    each.name: each
    for each in (
        OperationType("put", "a write of one key", in_mix=True),
        OperationType("get", "a read of one key", in_mix=True),
        OperationType("txn", "a compare-and-swap transaction: it writes if nothing changed, and reads otherwise",
                      in_mix=True),
        OperationType("range", "a read of many keys"),
        OperationType("list", "a page of a paged list, as kube-apiserver reads it"),
        OperationType("create", "a transaction that writes a key if it does not exist"),
        OperationType("update", "a transaction that writes a key if it is as the client knows it"),
        OperationType("delete", "a deletion; in `kubernetes` a transaction that deletes a key if it is as the client "
                      "knows it"),
        OperationType("watch", "one delivery of an event to one watcher, from sending the write to reading the event, "
                      "both in the writer's worker and on its clock"),
        OperationType("lease_grant", "a new lease"),
        OperationType("lease_keepalive", "a lease kept alive"),
        OperationType("lease_revoke", "a lease revoked"),
        OperationType("refusal", "a refusal that `consistency` and `chaos` provoke: the request is for a compacted "
                      "revision or an ended lease, so etcd must refuse it"),
    )
}  # fmt: skip
IN_MIX = tuple(name for name, each in TYPES.items() if each.in_mix)
DELIVERY = TYPES["watch"].name
"""The one type that nobody asks for: it comes with the writes of others, and beyond `--operations`."""
REFUSAL = TYPES["refusal"].name
STOPPED = "STOPPED"
"""The error of an operation whose user was stopped while it was open."""


class Outcome(enum.StrEnum):
    """How an operation ended, as its client knows it."""

    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Operation:
    """One operation of one client.

    Attributes:
        process: the user that invoked it, unique within a run.
        f: what it did: ``put``, ``get``, ``delete``, ``txn``, …
        key: the key it was about, or the first one.
        value: the value it wrote; None for a read.
        due_ns: when it was due, on the monotonic clock; equal to ``call_ns`` in a closed loop.
        call_ns: when it was handed to the transport.
        return_ns: when the answer was read from the socket, or when it was given up.
        outcome: OK, FAIL or INFO.
        revision: the store revision in the answer's header; 0 where there was no answer.
        error: etcd's name of the error (``NoSpace``), the gRPC code's where the text is none of etcd's, or the
            transport's cause (``DEADLINE_EXCEEDED``, ``connection refused``); never a varying text, so that errors can
            be counted. None when OK.
        response: the answer: a protobuf message of ``loadgen.proto``, of the type that the call says; None unless OK.
        endpoint: whom it was sent to, as a URL; empty where it was not sent. The member behind it is in the answer's
            ``header.member_id``.
        code: the gRPC status of a server that refused it; 0 where none did, and where nobody answered.
        detail: what came with the failure, for people.
    """

    __slots__ = (
        "call_ns", "code", "detail", "due_ns", "endpoint", "error", "f", "key", "outcome", "process", "response",
        "return_ns", "revision", "value",
    )  # fmt: skip

    def __init__(
        self,
        process: int,
        f: str,
        key: bytes,
        value: bytes | None,
        due_ns: int,
        call_ns: int,
        return_ns: int = 0,
        outcome: Outcome = Outcome.INFO,
        revision: int = 0,
        error: str | None = None,
        response: Any = None,
        endpoint: str = "",
    ) -> None:
        self.process = process
        self.f = f
        self.key = key
        self.value = value
        self.due_ns = due_ns
        self.call_ns = call_ns
        self.return_ns = return_ns
        self.outcome = outcome
        self.revision = revision
        self.error = error
        self.response = response
        self.endpoint = endpoint
        self.code = 0
        self.detail = ""

    @property
    def latency_ns(self) -> int:
        """Nanoseconds from the moment it was due to its return."""
        return self.return_ns - self.due_ns

    def __repr__(self) -> str:
        what = self.error or f"revision {self.revision}"
        return f"<{self.f} {self.key!r} by {self.process}: {self.outcome} ({what})>"
