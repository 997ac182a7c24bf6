"""What can go wrong with the cluster under test; every message is one line and says what to do."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """The cluster cannot be started, asked or changed.

    Raised with one line for the person at the terminal.
    """


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
