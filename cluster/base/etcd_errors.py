"""etcd's client errors by etcd's own names, and whether a write that one of them answers has certainly not happened.

The list is etcd's (api/v3rpc/rpctypes/error.go), of 3.4 to 3.7. An error is known by its text: the code beside it
differs between releases, and etcd's gRPC proxy sends every text with the code UNKNOWN. Each release has errors that it
forgets to translate; their texts stand beside the list, with the code UNKNOWN.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True, slots=True)
class EtcdErrorKind:
    """One of etcd's client errors.

    Attributes:
        name: etcd's own, as ``NoSpace`` of ``ErrGRPCNoSpace``.
        text: what etcd says.
        codes: names of the gRPC codes that it has in one release or another; the newest release's first.
        refused: a write that is answered so has certainly not happened, and will not.
        reason: why that is so, or why not.
        others: other texts that mean the same, from releases and layers that do not translate them.
        listed: whether etcd's list has it.
    """

    name: str
    text: str
    codes: tuple[str, ...]
    refused: bool
    reason: str
    others: tuple[str, ...] = ()
    listed: bool = True


FAIL, INFO = True, False

# Reasons that several errors share.
_CHECKED = "the member checks the request before it proposes it"
_APPLIER = "every member checks the request before it applies anything of it, with the same result"
_BEFORE_HANDLER = "the member refuses the call before its handler sees it"
_MEMBERS = "the change of the members is refused as a whole, before it is proposed or where it would be applied"
_AUTH = "the user is checked before the request is proposed and before it is applied; nothing of it is applied"
_AUTH_STORE = "the change of users or roles is refused as a whole where it would be applied"
_DOWNGRADE = "the downgrade is checked before it is proposed"
_TIMED_OUT = "the request may have been proposed, and may be committed later"
_LEADERLESS = "a renewal may have been passed on to a leader before it was lost"

KINDS: dict[str, EtcdErrorKind] = {
    each.name: each
    for each in (
        # Requests
        EtcdErrorKind("EmptyKey", "etcdserver: key is not provided", ("INVALID_ARGUMENT",), FAIL, _CHECKED),
        EtcdErrorKind("KeyNotFound", "etcdserver: key not found", ("INVALID_ARGUMENT",), FAIL, _APPLIER),
        EtcdErrorKind("ValueProvided", "etcdserver: value is provided", ("INVALID_ARGUMENT",), FAIL, _CHECKED),
        EtcdErrorKind("LeaseProvided", "etcdserver: lease is provided", ("INVALID_ARGUMENT",), FAIL, _CHECKED),
        EtcdErrorKind("TooManyOps", "etcdserver: too many operations in txn request", ("INVALID_ARGUMENT",), FAIL,
                      _CHECKED),
        EtcdErrorKind("DuplicateKey", "etcdserver: duplicate key given in txn request", ("INVALID_ARGUMENT",), FAIL,
                      _CHECKED),
        EtcdErrorKind("InvalidClientAPIVersion", "etcdserver: invalid client api version", ("INVALID_ARGUMENT",), FAIL,
                      _BEFORE_HANDLER),
        EtcdErrorKind("InvalidSortOption", "etcdserver: invalid sort option", ("INVALID_ARGUMENT",), FAIL, _CHECKED),
        EtcdErrorKind("Compacted", "etcdserver: mvcc: required revision has been compacted", ("OUT_OF_RANGE",), FAIL,
                      _APPLIER),
        EtcdErrorKind("FutureRev", "etcdserver: mvcc: required revision is a future revision", ("OUT_OF_RANGE",), FAIL,
                      _APPLIER),
        EtcdErrorKind("NoSpace", "etcdserver: mvcc: database space exceeded", ("RESOURCE_EXHAUSTED",), INFO,
                      "etcd says it before it proposes a write, and also after it has applied the one that takes the "
                      "store over its quota"),
        EtcdErrorKind("RequestTooLarge", "etcdserver: request is too large", ("INVALID_ARGUMENT",), FAIL,
                      "the member, or gRPC before it, measures the request before it is proposed"),
        EtcdErrorKind("TooManyRequests", "etcdserver: too many requests", ("RESOURCE_EXHAUSTED", "UNKNOWN"), FAIL,
                      "a member that has too much left to apply refuses before it proposes"),
        # Leases and watches
        EtcdErrorKind("LeaseNotFound", "etcdserver: requested lease not found", ("NOT_FOUND",), FAIL, _APPLIER,
                      ("lease not found",)),
        EtcdErrorKind("LeaseExist", "etcdserver: lease already exists", ("FAILED_PRECONDITION",), FAIL, _APPLIER),
        EtcdErrorKind("LeaseTTLTooLarge", "etcdserver: too large lease TTL", ("OUT_OF_RANGE",), FAIL, _APPLIER),
        EtcdErrorKind("WatchCanceled", "etcdserver: watch canceled", ("CANCELLED",), FAIL, "a watch writes nothing"),
        # Members
        EtcdErrorKind("MemberExist", "etcdserver: member ID already exist", ("FAILED_PRECONDITION",), FAIL, _MEMBERS),
        EtcdErrorKind("PeerURLExist", "etcdserver: Peer URLs already exists", ("FAILED_PRECONDITION",), FAIL, _MEMBERS),
        EtcdErrorKind("MemberNotEnoughStarted",
                      "etcdserver: re-configuration failed due to not enough started members",
                      ("FAILED_PRECONDITION", "UNKNOWN"), FAIL, _MEMBERS),
        EtcdErrorKind("MemberBadURLs", "etcdserver: given member URLs are invalid", ("INVALID_ARGUMENT",), FAIL,
                      _CHECKED),
        EtcdErrorKind("MemberNotFound", "etcdserver: member not found", ("NOT_FOUND",), FAIL, _MEMBERS),
        EtcdErrorKind("MemberNotLearner", "etcdserver: can only promote a learner member", ("FAILED_PRECONDITION",),
                      FAIL, _MEMBERS),
        EtcdErrorKind("LearnerNotReady", "etcdserver: can only promote a learner member which is in sync with leader",
                      ("FAILED_PRECONDITION",), FAIL, _MEMBERS),
        EtcdErrorKind("TooManyLearners", "etcdserver: too many learner members in cluster", ("FAILED_PRECONDITION",),
                      FAIL, _MEMBERS),
        EtcdErrorKind("ClusterIDMismatch", "etcdserver: cluster ID mismatch", ("FAILED_PRECONDITION",), FAIL,
                      "members ask each other for a hash, which writes nothing"),
        EtcdErrorKind("Unhealthy", "etcdserver: unhealthy cluster", ("UNAVAILABLE",), FAIL, _MEMBERS),
        # Users and roles
        EtcdErrorKind("RootUserNotExist", "etcdserver: root user does not exist", ("FAILED_PRECONDITION",), FAIL,
                      _AUTH_STORE),
        EtcdErrorKind("RootRoleNotExist", "etcdserver: root user does not have root role", ("FAILED_PRECONDITION",),
                      FAIL, _AUTH_STORE),
        EtcdErrorKind("UserAlreadyExist", "etcdserver: user name already exists", ("FAILED_PRECONDITION",), FAIL,
                      _AUTH_STORE),
        EtcdErrorKind("UserEmpty", "etcdserver: user name is empty", ("INVALID_ARGUMENT",), FAIL, _AUTH,
                      ("auth: user name is empty",)),
        EtcdErrorKind("UserNotFound", "etcdserver: user name not found", ("FAILED_PRECONDITION",), FAIL, _AUTH_STORE),
        EtcdErrorKind("RoleAlreadyExist", "etcdserver: role name already exists", ("FAILED_PRECONDITION",), FAIL,
                      _AUTH_STORE),
        EtcdErrorKind("RoleNotFound", "etcdserver: role name not found", ("FAILED_PRECONDITION",), FAIL, _AUTH_STORE),
        EtcdErrorKind("RoleEmpty", "etcdserver: role name is empty", ("INVALID_ARGUMENT",), FAIL, _AUTH_STORE),
        EtcdErrorKind("AuthFailed", "etcdserver: authentication failed, invalid user ID or password",
                      ("INVALID_ARGUMENT",), FAIL, "a login writes nothing"),
        EtcdErrorKind("PermissionNotGiven", "etcdserver: permission not given", ("INVALID_ARGUMENT", "UNKNOWN"), FAIL,
                      _AUTH_STORE, ("auth: permission not given",)),
        EtcdErrorKind("PermissionDenied", "etcdserver: permission denied", ("PERMISSION_DENIED",), FAIL, _AUTH,
                      ("auth: permission denied",)),
        EtcdErrorKind("RoleNotGranted", "etcdserver: role is not granted to the user", ("FAILED_PRECONDITION",), FAIL,
                      _AUTH_STORE),
        EtcdErrorKind("PermissionNotGranted", "etcdserver: permission is not granted to the role",
                      ("FAILED_PRECONDITION",), FAIL, _AUTH_STORE),
        EtcdErrorKind("AuthNotEnabled", "etcdserver: authentication is not enabled", ("FAILED_PRECONDITION",), FAIL,
                      "a login writes nothing"),
        EtcdErrorKind("InvalidAuthToken", "etcdserver: invalid auth token", ("UNAUTHENTICATED",), FAIL, _AUTH,
                      ("auth: invalid auth token",)),
        EtcdErrorKind("InvalidAuthMgmt", "etcdserver: invalid auth management", ("INVALID_ARGUMENT",), FAIL,
                      _AUTH_STORE),
        EtcdErrorKind("AuthOldRevision", "etcdserver: revision of auth store is old", ("INVALID_ARGUMENT", "UNKNOWN"),
                      FAIL, _AUTH, ("auth: revision in header is old",)),
        # The cluster's state
        EtcdErrorKind("NoLeader", "etcdserver: no leader", ("UNAVAILABLE",), INFO, _LEADERLESS),
        EtcdErrorKind("NotLeader", "etcdserver: not leader", ("FAILED_PRECONDITION",), FAIL,
                      "only the leader hands over, and another member refuses before it does anything"),
        EtcdErrorKind("LeaderChanged", "etcdserver: leader changed", ("UNAVAILABLE",), INFO,
                      "etcd says it of linearizable reads; of a write it would not say what became of it"),
        EtcdErrorKind("NotCapable", "etcdserver: not capable", ("FAILED_PRECONDITION", "UNAVAILABLE"), FAIL,
                      _BEFORE_HANDLER),
        EtcdErrorKind("Stopped", "etcdserver: server stopped", ("UNAVAILABLE",), INFO, _TIMED_OUT),
        EtcdErrorKind("Timeout", "etcdserver: request timed out", ("UNAVAILABLE",), INFO, _TIMED_OUT),
        EtcdErrorKind("TimeoutDueToLeaderFail",
                      "etcdserver: request timed out, possibly due to previous leader failure", ("UNAVAILABLE",), INFO,
                      _TIMED_OUT),
        EtcdErrorKind("TimeoutDueToConnectionLost",
                      "etcdserver: request timed out, possibly due to connection lost", ("UNAVAILABLE",), INFO,
                      _TIMED_OUT),
        EtcdErrorKind("TimeoutWaitAppliedIndex",
                      "etcdserver: request timed out, waiting for the applied index took too long",
                      ("UNAVAILABLE", "UNKNOWN"), INFO, _LEADERLESS),
        EtcdErrorKind("Corrupt", "etcdserver: corrupt cluster", ("DATA_LOSS",), FAIL,
                      "under the CORRUPT alarm no member applies a write"),
        EtcdErrorKind("NotSupportedForLearner", "etcdserver: rpc not supported for learner",
                      ("FAILED_PRECONDITION", "UNAVAILABLE"), FAIL, _BEFORE_HANDLER),
        EtcdErrorKind("BadLeaderTransferee", "etcdserver: bad leader transferee", ("FAILED_PRECONDITION",), FAIL,
                      "the leader checks the target before it hands over"),
        EtcdErrorKind("WrongDowngradeVersionFormat", "etcdserver: wrong downgrade target version format",
                      ("INVALID_ARGUMENT",), FAIL, _DOWNGRADE),
        EtcdErrorKind("InvalidDowngradeTargetVersion", "etcdserver: invalid downgrade target version",
                      ("INVALID_ARGUMENT",), FAIL, _DOWNGRADE),
        EtcdErrorKind("ClusterVersionUnavailable", "etcdserver: cluster version not found during downgrade",
                      ("FAILED_PRECONDITION", "UNAVAILABLE"), FAIL, _DOWNGRADE),
        EtcdErrorKind("DowngradeInProcess", "etcdserver: cluster has a downgrade job in progress",
                      ("FAILED_PRECONDITION",), FAIL, _DOWNGRADE),
        EtcdErrorKind("NoInflightDowngrade", "etcdserver: no inflight downgrade job", ("FAILED_PRECONDITION",), FAIL,
                      _DOWNGRADE),
        EtcdErrorKind("Canceled", "etcdserver: request canceled", ("CANCELLED", "UNKNOWN"), INFO, _TIMED_OUT,
                      ("etcdserver: request cancelled",)),
        EtcdErrorKind("DeadlineExceeded", "etcdserver: context deadline exceeded", ("DEADLINE_EXCEEDED",), INFO,
                      _TIMED_OUT),
        # Not in the list: what every release says as it is, by the names that etcd's own code has for it.
        EtcdErrorKind("ProposalDropped", "raft proposal dropped", ("UNKNOWN",), FAIL,
                      "the member's Raft did not take the proposal: it knew no leader, or was handing over",
                      listed=False),
        EtcdErrorKind("NotPrimary", "not a primary lessor", ("UNKNOWN",), INFO, _LEADERLESS, listed=False),
        EtcdErrorKind("TimeoutLeaderTransfer", "etcdserver: request timed out, leader transfer took too long",
                      ("UNKNOWN",), INFO, "leadership may move later", listed=False),
        EtcdErrorKind("NoPasswordUser", "auth: authentication failed, password was given for no password user",
                      ("UNKNOWN",), FAIL, "a login writes nothing", listed=False),
    )
}  # fmt: skip
"""etcd's client errors by name."""

_BY_TEXT = {text: each for each in KINDS.values() for text in (each.text, *each.others)}
# What gRPC says of a message that is too large, as the server and as a proxy's client; the numbers differ.
_TOO_LARGE = re.compile(
    r"(grpc: )?(received message( after decompression)?|trying to send message) larger than max\b.*", re.DOTALL
)
# As Go writes a gRPC error into another text; etcd ends a watch with such a text, and a proxy may wrap one again.
_WRAPPED = re.compile(r"(rpc error: code = \w+ desc = )+")


def kind_of(text: str) -> EtcdErrorKind | None:
    """Take what etcd says of an error, return which one it is; None where it is none of etcd's.

    >>> kind_of("etcdserver: mvcc: database space exceeded").name
    'NoSpace'
    """
    found = _BY_TEXT.get(text)
    if found is None:
        text = _WRAPPED.sub("", text, count=1) if text.startswith("rpc error: ") else text
        found = _BY_TEXT.get(text)
        if found is None and _TOO_LARGE.fullmatch(text):
            found = KINDS["RequestTooLarge"]
    return found
