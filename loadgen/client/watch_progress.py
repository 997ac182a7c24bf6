"""The watches of a stream that an answer to a progress request is about. Pure."""

from __future__ import annotations


class ProgressRequests:
    """How often one watch stream was asked for its progress, and was told.

    etcd's send loop (``server/etcdserver/api/v3rpc/watch.go``) may put the answer to a request from before a watch was
    asked for behind the news that the watch was created. Such an answer is not about what the watch has yet to see, and
    of no later revision than its creation. As etcd does not answer while a watch lags, answers cannot be told from each
    other by counting them off.

    Attributes: ``asked``, ``told``.
    """

    __slots__ = ("asked", "told")

    def __init__(self) -> None:
        self.asked = self.told = 0

    def is_about(self, created: int, asked_before: int, revision: int) -> bool:
        """Return whether the answer just counted is about a watch.

        Takes the store's revision when the watch was created, how often the stream had been asked before the watch was
        asked for, and the revision of the answer.
        """
        return revision > created or self.told > asked_before
