"""The members of the cluster: the Cluster service."""

from __future__ import annotations

from collections.abc import Sequence

from loadgen.client.call import Caller
from loadgen.history.operation import Operation
from loadgen.proto import etcd_pb2 as pb

MEMBER_ADD = b"/etcdserverpb.Cluster/MemberAdd"
MEMBER_REMOVE = b"/etcdserverpb.Cluster/MemberRemove"
MEMBER_UPDATE = b"/etcdserverpb.Cluster/MemberUpdate"
MEMBER_PROMOTE = b"/etcdserverpb.Cluster/MemberPromote"
MEMBER_LIST = b"/etcdserverpb.Cluster/MemberList"


class MemberCalls(Caller):
    """The Cluster service; members are named by their id. Each answer lists the members as they are then."""

    def member_list(self, *, linearizable: bool = True) -> Operation:
        """List the members. ``response`` is a ``MemberListResponse``."""
        request = pb.MemberListRequest(linearizable=linearizable).SerializeToString()
        return self._run(MEMBER_LIST, request, pb.MemberListResponse.FromString, "member_list")

    def member_add(self, peer_urls: Sequence[str], *, learner: bool = False) -> Operation:
        """Add a member, which is then to be started; a learner has no vote. ``response``: ``MemberAddResponse``."""
        request = pb.MemberAddRequest(peerURLs=peer_urls, isLearner=learner).SerializeToString()
        return self._run(MEMBER_ADD, request, pb.MemberAddResponse.FromString, "member_add")

    def member_promote(self, member_id: int) -> Operation:
        """Give a learner its vote; refused until it has caught up. ``response``: ``MemberPromoteResponse``."""
        request = pb.MemberPromoteRequest(ID=member_id).SerializeToString()
        return self._run(MEMBER_PROMOTE, request, pb.MemberPromoteResponse.FromString, "member_promote")

    def member_update(self, member_id: int, peer_urls: Sequence[str]) -> Operation:
        """Change where a member listens for its peers. ``response`` is a ``MemberUpdateResponse``."""
        request = pb.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls).SerializeToString()
        return self._run(MEMBER_UPDATE, request, pb.MemberUpdateResponse.FromString, "member_update")

    def member_remove(self, member_id: int) -> Operation:
        """Remove a member for good. ``response`` is a ``MemberRemoveResponse``."""
        request = pb.MemberRemoveRequest(ID=member_id).SerializeToString()
        return self._run(MEMBER_REMOVE, request, pb.MemberRemoveResponse.FromString, "member_remove")
