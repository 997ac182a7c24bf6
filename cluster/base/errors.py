"""Errors that end a command; every message is one line and says what to do."""

from __future__ import annotations

from pathlib import Path

from cluster.base.etcd_errors import kind_of


class RaftloadError(Exception):
    """An error that ends a command, with one line for the person at the terminal.

    Attributes:
        exit_code: the command's; 4 where the environment is in the way, 2 where something else should be asked for.
        refers_to: the file or folder to look at, which the line names; None where there is none.
    """

    exit_code = 4

    def __init__(self, message: str = "", *, refers_to: Path | None = None) -> None:
        super().__init__(message)
        self.refers_to = refers_to


class UsageError(RaftloadError):
    """What was asked for makes no sense, or not here."""

    exit_code = 2


class ClusterError(RaftloadError):
    """The cluster cannot be started, asked or changed."""


class EtcdNotFound(ClusterError):  # noqa: N818
    """There is no etcd binary to run."""


class EtcdBroken(ClusterError):  # noqa: N818
    """There is an etcd binary, but it does not run or is not etcd."""


class MemberFailed(ClusterError):  # noqa: N818
    """A member exited, or did not become healthy in time.

    Attributes:
        member: its name, such as ``etcd-node2``.
        last_line: the last line of its log that says why, empty if it left none.
    """

    def __init__(self, message: str, *, member: str, last_line: str = "") -> None:
        super().__init__(message)
        self.member = member
        self.last_line = last_line


class NoAnswer(ClusterError):  # noqa: N818
    """A member did not answer in time, or not as etcd does.

    Attributes:
        cause: why, in words that do not vary from call to call: ``timeout``, ``connection refused``, ``host not
            found``, ``host unreachable``, ``no socket``, ``socket not permitted``, ``connection lost``, ``tls``,
            ``login``, ``permission denied``, ``user required``, ``not etcd``, or the name of a gRPC code, as
            ``unavailable``; for counting.
        sent: whether the request may have reached the member, so that a write may have taken effect.
    """

    def __init__(self, message: str, *, cause: str = "no answer", sent: bool = True) -> None:
        super().__init__(message)
        self.cause = cause
        self.sent = sent


class EtcdError(ClusterError):
    """etcd answered with an error.

    Attributes:
        code: the gRPC status code, 1 to 16.
        detail: etcd's own text, such as ``etcdserver: requested lease not found``.
        name: etcd's own, such as ``LeaseNotFound``; that of the code where the text is none of etcd's.
    """

    def __init__(self, code: int, detail: str) -> None:
        self.name = error_name(code, detail)
        super().__init__(f"{self.name}: {detail}")
        self.code = code
        self.detail = detail


_GRPC_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def grpc_code_name(code: int) -> str:
    """Take a gRPC status code, return its name; ``CODE_99`` for one that gRPC does not know."""
    return _GRPC_CODES[code] if 0 <= code < len(_GRPC_CODES) else f"CODE_{code}"


def error_name(code: int, text: str) -> str:
    """Take a server's status and its text, return etcd's name of the error; the code's where the text is none of them.

    >>> error_name(8, "etcdserver: mvcc: database space exceeded"), error_name(8, "another text")
    ('NoSpace', 'RESOURCE_EXHAUSTED')
    """
    kind = kind_of(text)
    return kind.name if kind else grpc_code_name(code)
