"""The promises over calls of actors: violations planted in records are found, and healthy records have none."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cluster.base.verdict import Verdict
from loadgen.history.calls import MemberEvent
from loadgen.history.operation import Outcome
from tests.support.call_scripts import BROKEN, KEPT, MS, A, B, CallScript

KV = {"kv": {"key": "b", "value": "1"}}


def _authed() -> CallScript:
    """Auth is on; alice may read and write ``a`` alone."""
    script = CallScript("alice")
    script.auth(alice=("READWRITE", "a", ""))
    return script


# ---- users


def test_a_record_of_users_who_keep_to_their_rights_is_healthy() -> None:
    script = _authed()
    script.ok("Put", {"key": "a", "value": "1", "prev_kv": True}, {"prev_kv": {"key": "a"}})
    script.ok("Range", {"key": "a"}, {"kvs": [{"key": "a"}]})
    script.no("Range", {"key": "b"})
    script.no("Put", {"key": "b"})
    script.no("Range", {"key": "a", "range_end": "c"})
    script.no("Watch", {"key": "a", "range_end": "\0"})
    script.ok("Watch", {"key": "a"}, {"created": True})
    script.ok("Watch", {"key": "a"}, {"events": [{"kv": {"key": "a"}}]})
    script.no("MemberAdd", {"peerURLs": ["http://x"]})
    script.no("Range", {"key": "a"}, user="", error="UserEmpty")
    script.ok("Range", {"key": "b"}, {"kvs": [{"key": "b"}]}, user="root")
    script.ok("MemberList", {"linearizable": True}, {"members": []})
    script.ok("Status", {}, {}, user="")
    assert script.verdicts() == {
        "auth.denied": KEPT, "auth.granted": KEPT, "auth.anonymous": KEPT, "member.lives": KEPT, "member.reads": KEPT,
        "member.forwards": KEPT,
    }  # fmt: skip


NESTED = {"success": [{"request_txn": {"success": [{"request_range": {"key": "b"}}]}}]}
NESTED_ANSWER = {
    "succeeded": True,
    "responses": [{"response_txn": {"succeeded": True, "responses": [{"response_range": {"kvs": [KV["kv"]]}}]}}],
}
SEEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("Range", {"key": "b"}, {"kvs": [KV["kv"]]}),
    ("Range", {"key": "a", "range_end": "c"}, {"kvs": [KV["kv"]]}),
    ("Range", {"key": "a", "range_end": "\0"}, {}),
    ("Put", {"key": "b", "value": "2"}, {}),
    ("DeleteRange", {"key": "b"}, {}),
    ("Txn", NESTED, NESTED_ANSWER),
    ("Txn", {"compare": [{"key": "b", "target": "VALUE", "value": "1"}]}, {"succeeded": True}),
    ("Txn", {"success": [{"request_put": {"key": "b"}}]}, {"succeeded": True, "responses": [{"response_put": {}}]}),
    ("Watch", {"key": "a", "range_end": "\0"}, {"events": [{"kv": {"key": "a"}}, {"kv": {"key": "b"}}]}),
    ("LeaseTimeToLive", {"ID": 7, "keys": True}, {"ID": 7, "TTL": 5, "grantedTTL": 5, "keys": ["a", "b"]}),
    ("MemberAdd", {"peerURLs": ["http://x"]}, {}),
    ("Snapshot", {}, {"bytes": 1}),
    ("UserGrantRole", {"user": "alice", "role": "root"}, {}),
]


@pytest.mark.parametrize(("method", "request_", "answer"), SEEN)
def test_who_gets_what_they_may_not_is_found(method: str, request_: dict[str, Any], answer: dict[str, Any]) -> None:
    script = _authed()
    script.ok(method, request_, answer)
    assert script.broken() == {"auth.denied"}


def test_the_previous_value_needs_the_right_to_read() -> None:
    script = CallScript("bob")
    script.auth(bob=("WRITE", "a", ""))
    script.ok("Put", {"key": "a", "prev_kv": True}, {})
    assert not script.broken()
    script.ok("Put", {"key": "a", "prev_kv": True}, {"prev_kv": {"key": "a"}})
    assert script.broken() == {"auth.denied"}


def test_the_branch_that_was_not_taken_shows_nothing() -> None:
    script = _authed()
    script.ok("Txn", {"success": [{"request_range": {"key": "a"}}], "failure": [{"request_range": {"key": "b"}}]},
              {"succeeded": True, "responses": [{"response_range": {}}]})  # fmt: skip
    assert not script.broken()


@pytest.mark.parametrize("method", ["Range", "MemberList", "Alarm", "LeaseGrant", "Compact", "Watch", "UserAdd"])
def test_nobody_gets_nothing(method: str) -> None:
    script = _authed()
    script.ok(method, {"key": "a"} if method in ("Range", "Watch") else {}, {}, user="")
    assert "auth.anonymous" in script.broken()


def test_before_auth_is_on_and_after_it_is_off_everybody_may() -> None:
    script = CallScript()
    script.ok("Range", {"key": "b"})
    script.auth(alice=("READ", "a", ""))
    script.ok("AuthDisable", user="root")
    script.ok("Range", {"key": "b"})
    assert not script.broken()


def test_what_was_begun_before_auth_was_on_may_be_answered() -> None:
    script = CallScript()
    script.auth()
    early = script.calls[-1]
    script.beside(early)
    script.ok("Range", {"key": "b"})
    assert not script.broken()


def test_another_member_may_hear_of_a_change_later() -> None:
    script = _authed()
    script.ok("Range", {"key": "b", "serializable": True}, member=B, user="")
    assert not script.broken()
    script.ok("Range", {"key": "a"}, member=B)  # by the log: from now on it knows
    script.ok("Range", {"key": "b", "serializable": True}, member=B, user="")
    assert script.broken() == {"auth.anonymous"}


def test_a_member_that_was_started_again_may_hear_of_a_change_later() -> None:
    script = _authed()
    script.events.append(MemberEvent(A, "started", script.at))
    script.at += MS
    script.ok("Range", {"key": "b", "serializable": True}, user="")
    assert not script.broken()


def test_a_denied_call_with_every_right_is_found() -> None:
    script = _authed()
    script.no("Range", {"key": "a"})
    assert script.broken() == {"auth.granted"}


def test_a_right_from_several_ranges_is_one() -> None:
    script = CallScript("carol")
    script.auth(carol=("READ", "a", "c"))
    script.ok("RoleGrantPermission", {"name": "carol", "perm": {"permType": "READ", "key": "c", "range_end": "e"}},
              user="root")  # fmt: skip
    script.no("Range", {"key": "b", "range_end": "d"})
    assert script.broken() == {"auth.granted"}


def test_root_is_never_denied() -> None:
    script = _authed()
    script.no("Defragment", user="root")
    assert script.broken() == {"auth.granted"}


def test_a_right_that_was_taken_away_is_gone() -> None:
    script = _authed()
    script.ok("RoleRevokePermission", {"role": "alice", "key": "a"}, user="root")
    script.no("Range", {"key": "a"})
    assert not script.broken()
    script.ok("Range", {"key": "a"})
    assert script.broken() == {"auth.denied"}


def test_a_change_that_may_not_have_been_made_excuses_both() -> None:
    script = _authed()
    script.add("RoleRevokePermission", {"role": "alice", "key": "a"}, None, outcome=Outcome.INFO, user="root")
    script.no("Range", {"key": "a"})
    script.ok("Range", {"key": "a"})
    assert not script.broken()


def test_a_member_that_has_not_heard_of_authentication_lets_a_change_of_members_through() -> None:
    script = _authed()
    script.ok("MemberAdd", {"peerURLs": ["http://x"]}, user="", member=B)  # which it looks at before the log tells it
    assert not script.broken()
    script.ok("Range", {"key": "a"}, member=B)
    script.ok("MemberAdd", {"peerURLs": ["http://x"]}, user="", member=B)
    assert script.broken() == {"auth.anonymous"}


def test_a_change_that_another_member_was_asked_for_may_come_late_and_hides_nothing_else() -> None:
    script = _authed()
    script.add("AuthDisable", None, None, outcome=Outcome.INFO, user="root", member="m2")
    script.ok("AuthDisable", user="root")
    script.ok("AuthEnable", user="root")
    script.ok("Range", {"key": "b"}, user="")  # the first one has come only now
    assert not script.broken()
    assert script.verdicts()["auth.anonymous"] is Verdict.UNKNOWN
    script = _authed()
    script.add("UserGrantRole", {"user": "alice", "role": "other"}, None, outcome=Outcome.INFO, user="root")
    script.ok("UserGrantRole", {"user": "alice", "role": "other"}, user="root")
    script.ok("Range", {"key": "b"})
    assert script.broken() == {"auth.denied"}


def test_many_changes_that_were_given_up_are_judged_in_no_time() -> None:
    script = _authed()
    for _ in range(100):
        script.add("AuthDisable", None, None, outcome=Outcome.INFO, user="root")
        script.ok("AuthEnable", user="root")
    assert not script.broken()
    for number in range(100):
        script.add("UserAdd", {"name": f"user{number}"}, None, outcome=Outcome.INFO, user="root")
    assert script.verdicts()["auth.denied"] is Verdict.UNKNOWN


def test_who_is_a_user_may_see_how_a_member_is() -> None:
    script = _authed()
    script.no("Status", user="mallory")  # whom nobody has added
    script.no("Status", user="", error="UserEmpty")
    assert not script.broken()
    script.no("Status")
    assert script.broken() == {"auth.granted"}


def test_with_authentication_off_nobody_is_refused() -> None:
    script = _authed()
    script.no("Range", {"key": "a"}, error="InvalidAuthToken")
    script.ok("AuthDisable", user="root")
    script.no("Range", {"key": "a", "serializable": True}, error="InvalidAuthToken", member=B)  # it may not know yet
    assert not script.broken()
    script.no("Range", {"key": "a"}, error="InvalidAuthToken")
    assert script.broken() == {"auth.granted"}


def test_who_was_given_no_token_while_authentication_was_off_is_refused_without_one() -> None:
    script = _authed()
    script.no("Range", {"key": "a"}, error="UserEmpty")
    script.no("AuthDisable", user="root", error="UserEmpty")
    assert not script.broken()
    script.no("Range", {"key": "a"}, error="PermissionDenied")
    assert script.broken() == {"auth.granted"}


def test_who_is_served_with_authentication_off_shows_that_nobody_is_refused() -> None:
    script = _authed()
    script.ok("AuthDisable", user="root")
    script.ok("Range", {"key": "a"}, user="")  # who shows no token cannot be refused for one
    assert script.verdicts()["auth.granted"] is not KEPT
    script.ok("Range", {"key": "a"})
    assert script.verdicts()["auth.granted"] is KEPT


# ---- the keys of leases


def _foreign_lease() -> CallScript:
    """Alice may write ``a`` alone, and root has attached ``b`` to a lease."""
    script = _authed()
    script.ok("LeaseGrant", {"TTL": 60}, {"ID": 7, "TTL": 60}, user="root")
    script.ok("Put", {"key": "b", "lease": 7}, user="root")
    return script


ATTACHED = {"key": "a", "lease": 7}
INNER = {"success": [{"request_put": ATTACHED}]}
IN_TXN = {"success": [{"request_put": {"key": "c"}}], "failure": [{"request_txn": INNER}]}
TAKEN = {"responses": [{"response_txn": {"succeeded": True, "responses": [{"response_put": {}}]}}]}
OTHERWISE = {"succeeded": True, "responses": [{"response_put": {}}]}


@pytest.mark.parametrize(
    ("method", "request_", "answer"),
    [("Put", ATTACHED, {}), ("Txn", IN_TXN, TAKEN), ("LeaseRevoke", {"ID": 7}, {})],
)
def test_who_takes_a_lease_with_keys_of_others_is_found(
    method: str, request_: dict[str, Any], answer: dict[str, Any]
) -> None:
    script = _foreign_lease()
    script.ok(method, request_, answer)
    assert script.broken() == {"auth.denied"}


def test_what_a_lease_may_have_no_more_is_no_foreign_key() -> None:
    def deleted(script: CallScript) -> None:
        script.ok("DeleteRange", {"key": "a", "range_end": "c"}, user="root")

    def written(script: CallScript) -> None:
        script.ok("Put", {"key": "b"}, user="root")

    def perhaps(script: CallScript) -> None:
        script.add("Txn", {"failure": [{"request_put": {"key": "b"}}]}, None, outcome=Outcome.INFO, user="root")

    def revoked(script: CallScript) -> None:
        script.add("LeaseRevoke", {"ID": 7}, None, outcome=Outcome.INFO, user="root")

    def over(script: CallScript) -> None:
        script.pass_s(60)

    for change in (deleted, written, perhaps, revoked, over):
        script = _foreign_lease()
        change(script)
        script.ok("Put", ATTACHED)
        assert not script.broken(), change


def test_a_call_that_names_a_key_twice_hides_no_other_that_touched_it() -> None:
    script = _authed()
    script.ok("LeaseGrant", {"TTL": 60}, {"ID": 7, "TTL": 60}, user="root")
    deletes = script.ok("DeleteRange", {"key": "b"}, user="root", long=4)
    script.beside(deletes)
    twice = {"success": [{"request_put": {"key": "b", "lease": 7}}], "failure": [{"request_put": {"key": "b"}}]}
    script.ok("Txn", twice, OTHERWISE, user="root", long=4)
    inner = {"success": [{"request_put": {"key": "b"}}], "failure": [{"request_put": {"key": "b"}}]}
    takes = {"success": [{"request_put": ATTACHED}], "failure": [{"request_txn": inner}]}
    script.ok("Txn", takes, OTHERWISE)
    assert not script.broken()


def test_a_branch_that_was_not_taken_attaches_nothing() -> None:
    script = _authed()
    script.ok("RoleGrantPermission", {"name": "alice", "perm": {"permType": "WRITE", "key": "c"}}, user="root")
    script.ok("LeaseGrant", {"TTL": 60}, {"ID": 7, "TTL": 60}, user="root")
    script.ok("Txn", {**IN_TXN, "failure": [{"request_put": {"key": "b", "lease": 7}}]}, OTHERWISE, user="root")
    script.ok("Put", ATTACHED)
    script.ok("Txn", IN_TXN, OTHERWISE)
    assert not script.broken()


# ---- leases


def _leased(ttl: int = 5) -> CallScript:
    script = CallScript()
    script.ok("LeaseGrant", {"TTL": ttl}, {"ID": 7, "TTL": ttl})
    return script


def _told(script: CallScript, ttl: int, granted: int = 5, term: int = 2) -> None:
    answer = {"header": {"raft_term": term}, "ID": 7, "TTL": ttl, "grantedTTL": granted}
    script.ok("LeaseTimeToLive", {"ID": 7}, answer)


def test_a_lease_that_runs_down_is_renewed_and_runs_out_is_healthy() -> None:
    script = _leased()
    _told(script, 4)
    script.pass_s(2)
    _told(script, 2)
    script.ok("LeaseKeepAlive", {"ID": 7}, {"ID": 7, "TTL": 5})
    _told(script, 4)
    script.pass_s(6)
    script.no("LeaseKeepAlive", {"ID": 7}, "LeaseNotFound")
    _told(script, -1)
    assert script.verdicts() == {
        "lease.ttl": KEPT, "lease.revoked": KEPT, "lease.renewed": KEPT, "lease.ends": KEPT, "member.lives": KEPT,
    }  # fmt: skip


def test_more_than_was_granted_is_found() -> None:
    script = _leased()
    _told(script, 6)
    assert script.broken() == {"lease.ttl"}


def test_a_new_leader_gives_leases_more() -> None:
    script = _leased()
    _told(script, 2)
    _told(script, 6, term=3)
    assert not script.broken()


def test_time_that_grows_or_stands_still_is_found() -> None:
    script = _leased()
    _told(script, 3)
    script.pass_s(1.5)
    _told(script, 3)
    assert script.broken() == {"lease.ttl"}


def test_a_renewal_that_may_have_been_made_excuses_it() -> None:
    script = _leased()
    _told(script, 3)
    script.add("LeaseKeepAlive", {"ID": 7}, None, outcome=Outcome.INFO)
    script.pass_s(1.5)
    _told(script, 3)
    assert not script.broken()


@pytest.mark.parametrize("method", ["LeaseKeepAlive", "LeaseTimeToLive"])
def test_a_revoked_lease_that_lives_is_found(method: str) -> None:
    script = _leased()
    script.ok("LeaseRevoke", {"ID": 7})
    script.ok(method, {"ID": 7}, {"ID": 7, "TTL": 5, "grantedTTL": 5}, member=B)
    assert script.broken() == {"lease.revoked"}


def test_an_ended_lease_that_is_renewed_is_found() -> None:
    script = _leased()
    script.pass_s(6)
    _told(script, -1)
    script.ok("LeaseKeepAlive", {"ID": 7}, {"ID": 7, "TTL": 5})
    assert script.broken() == {"lease.revoked"}


def test_a_lease_that_was_granted_anew_is_another() -> None:
    script = _leased()
    script.ok("LeaseRevoke", {"ID": 7})
    script.ok("LeaseGrant", {"ID": 7, "TTL": 5}, {"ID": 7, "TTL": 5})
    script.ok("LeaseKeepAlive", {"ID": 7}, {"ID": 7, "TTL": 5})
    assert not script.broken()


def test_a_lease_that_is_gone_before_its_time_is_found() -> None:
    script = _leased()
    script.pass_s(4)
    script.ok("LeaseKeepAlive", {"ID": 7}, {"ID": 7, "TTL": 5})
    script.pass_s(4)
    script.no("LeaseKeepAlive", {"ID": 7}, "LeaseNotFound")
    assert script.broken() == {"lease.renewed"}


@pytest.mark.parametrize(("heard", "broken"), [(False, False), (True, True)])
def test_a_leader_that_was_replaced_may_say_what_it_knew(heard: bool, broken: bool) -> None:
    """It asks nobody before it says how long a lease lives, and goes on for up to 2 s where it is cut off."""
    newer, older = {"raft_term": 3}, {"raft_term": 2}
    for gone in (True, False):
        script = CallScript()
        script.ok("LeaseGrant", {"ID": 7, "TTL": 60}, {"header": newer if gone else older, "ID": 7, "TTL": 60})
        if not gone:
            script.ok("LeaseRevoke", {"ID": 7}, {"header": newer})
        if heard:
            script.ok("Put", {"key": "a"}, {"header": newer}, member=B)
        if gone:
            script.no("LeaseTimeToLive", {"ID": 7}, "LeaseNotFound", member=B)
        else:
            header = newer if heard else older
            script.ok("LeaseTimeToLive", {"ID": 7}, {"header": header, "ID": 7, "TTL": 50, "grantedTTL": 60}, member=B)
        assert script.broken() == ({"lease.renewed" if gone else "lease.revoked"} if broken else set())


def test_a_revocation_without_an_answer_excuses_it() -> None:
    script = _leased()
    script.add("LeaseRevoke", {"ID": 7}, None, outcome=Outcome.INFO)
    script.no("LeaseKeepAlive", {"ID": 7}, "LeaseNotFound")
    assert not script.broken()


# ---- members


def _listing(*learners: int) -> dict[str, Any]:
    return {"members": [{"ID": 1, "peerURLs": ["http://a"]}] + [
        {"ID": each, "peerURLs": ["http://b"], **({"isLearner": True} if each in learners else {})} for each in (2,)
    ]}  # fmt: skip


def _with_learner(script: CallScript | None = None) -> CallScript:
    script = script or CallScript()
    added = {"ID": 2, "isLearner": True}
    script.ok("MemberAdd", {"isLearner": True, "peerURLs": ["http://b"]}, {"member": added, **_listing(2)})
    return script


def test_a_learner_that_is_promoted_is_healthy() -> None:
    script = _with_learner()
    script.ok("MemberUpdate", {"ID": 2, "peerURLs": ["http://b"]}, _listing(2))
    script.ok("MemberList", {"linearizable": True}, _listing(2))
    script.ok("MemberPromote", {"ID": 2}, _listing())
    script.ok("MemberList", {"linearizable": True}, _listing())
    verdicts = script.verdicts()
    assert verdicts["member.role"] is verdicts["member.list"] is KEPT
    assert not script.broken()


def test_a_learner_that_becomes_a_voter_by_itself_is_found() -> None:
    script = _with_learner()
    script.ok("MemberUpdate", {"ID": 2, "peerURLs": ["http://b"]}, _listing())
    assert script.broken() == {"member.role"}


def test_a_voter_that_becomes_a_learner_again_is_found() -> None:
    script = _with_learner()
    script.ok("MemberPromote", {"ID": 2}, _listing())
    script.ok("MemberList", {}, _listing(2))
    assert "member.role" in script.broken()


def test_a_member_that_has_not_heard_of_a_promotion_is_excused() -> None:
    script = _with_learner()
    script.ok("MemberPromote", {"ID": 2}, _listing())
    script.ok("MemberList", {}, _listing(2), member=B)
    assert not script.broken()


def test_lists_that_differ_are_found() -> None:
    script = _with_learner()
    script.ok("Put", {"key": "a"}, member=B)
    script.ok("MemberList", {}, {"members": [{"ID": 1, "peerURLs": ["http://a"]}]}, member=B)
    assert script.broken() == {"member.list"}


@pytest.mark.parametrize("asked", [("MemberUpdate", {"ID": 2}), ("MemberAdd", {"peerURLs": ["http://b"]})])
def test_a_change_without_an_answer_hides_only_whom_it_is_about(asked: tuple[str, dict[str, Any]]) -> None:
    one = {"ID": 1, "peerURLs": ["http://a"]}
    for listed, broken in (([one], set()), (_listing(2)["members"][1:], {"member.list"})):
        script = CallScript()
        script.add(*asked, None, outcome=Outcome.INFO, error="Timeout", member=B)
        script.ok("MemberUpdate", {"ID": 1, "peerURLs": ["http://a"]}, _listing(2))
        script.ok("Put", {"key": "a"}, member=B)
        script.ok("MemberList", {}, {"members": listed}, member=B)
        assert script.verdicts()["member.list"] is (BROKEN if broken else KEPT)
        assert script.broken() == broken


def _promoting(
    served: int, answer: dict[str, Any] | None = None, term: int = 2, script: CallScript | None = None
) -> CallScript:
    """A learner that is promoted for 10 s at B, which does some puts meanwhile, in a term of Raft."""
    script = _with_learner(script)
    script.ok("Put", {"key": "a"}, member=B)
    outcome = Outcome.INFO if answer is None else Outcome.OK
    error = "Timeout" if answer is None else ""
    asked = script.add("MemberPromote", {"ID": 2}, answer, member=B, long=1000, outcome=outcome, error=error)
    end = script.at
    script.beside(asked)
    for _ in range(served):
        script.ok("Put", {"key": "a"}, {"header": {"raft_term": term}}, member=B)
    script.at = end
    return script


def test_a_change_without_an_answer_is_in_the_way_until_another_is_made() -> None:
    script = CallScript()
    script.add("MemberRemove", {"ID": 3}, None, outcome=Outcome.INFO, error="Timeout")
    assert _promoting(served=5, script=script).broken() == {"member.forwards"}
    script = _promoting(served=5)
    add = script.calls[0]
    script.calls[0] = dataclasses.replace(add, outcome=Outcome.INFO, answer=None, error="Timeout")
    assert not script.broken()


def test_a_change_that_a_member_does_not_pass_on_is_found() -> None:
    assert _promoting(served=5).broken() == {"member.forwards"}


def test_a_change_that_is_answered_late_or_not_by_a_member_that_does_nothing_is_healthy() -> None:
    assert not _promoting(served=5, answer=_listing()).broken()
    assert not _promoting(served=0).broken()


def test_a_change_may_be_lost_with_its_leader_or_beside_other_losses() -> None:
    assert not _promoting(served=5, term=3).broken()
    script = _promoting(served=5)
    script.beside(script.calls[-6])
    script.add("Put", {"key": "a"}, None, outcome=Outcome.INFO, error="Timeout", member=B)
    assert not script.broken()


def test_a_change_may_wait_for_another() -> None:
    script = _promoting(served=5)
    script.beside(script.calls[-6])
    script.ok("MemberUpdate", {"ID": 1, "peerURLs": ["http://a"]}, _listing(2))
    assert not script.broken()


def test_a_member_that_ends_by_itself_is_found() -> None:
    script = CallScript()
    script.ok("Range", {"key": "a"})
    script.events += [MemberEvent(B, "killed", script.at), MemberEvent(A, "ended", script.at + MS, "panic: no")]
    assert script.verdicts() == {"member.lives": BROKEN, "member.reads": KEPT}


# ---- alarms

FULL = {"alarms": [{"memberID": 1, "alarm": "NOSPACE"}]}


def test_a_full_store_that_takes_nothing_is_healthy() -> None:
    script = CallScript()
    script.ok("Put", {"key": "a"})
    script.ok("Alarm", {}, FULL)
    script.no("Put", {"key": "a"}, "NoSpace")
    script.no("Txn", {"success": [{"request_put": {"key": "a"}}]}, "NoSpace")
    script.ok("Range", {"key": "a"})
    script.ok("DeleteRange", {"key": "a"})
    script.ok("Alarm", {}, FULL, member=B)
    script.ok("Alarm", {"action": "DEACTIVATE", "alarm": "NOSPACE"})
    script.ok("Alarm", {}, {})
    script.ok("Put", {"key": "a"})
    assert script.verdicts() == {
        "alarm.nospace": KEPT, "alarm.kept": KEPT, "member.lives": KEPT, "member.reads": KEPT,
    }  # fmt: skip


@pytest.mark.parametrize("member", [A, B])
def test_a_full_store_that_is_written_is_found(member: str) -> None:
    script = CallScript()
    script.ok("Alarm", {}, FULL)
    script.ok("Put", {"key": "a"}, member=member)
    assert script.broken() == {"alarm.nospace"}


def test_a_full_store_that_refuses_a_deletion_is_found() -> None:
    script = CallScript()
    script.ok("Alarm", {}, FULL)
    script.no("DeleteRange", {"key": "a"}, "NoSpace")
    assert script.broken() == {"alarm.nospace"}


def test_a_full_store_that_a_nested_transaction_writes_is_found() -> None:
    script = CallScript()
    script.ok("Alarm", {}, FULL)
    script.ok("Txn", {**IN_TXN, "success": []}, {"succeeded": True})
    assert not script.broken()
    script.ok("Txn", IN_TXN, TAKEN)
    assert script.broken() == {"alarm.nospace"}


@pytest.mark.parametrize("op", ["request_range", "request_delete_range"])
def test_a_full_store_that_refuses_a_transaction_that_takes_no_space_is_found(op: str) -> None:
    script = CallScript()
    script.ok("Alarm", {}, FULL)
    script.no("Txn", {"success": [{op: {"key": "a"}}]}, "NoSpace")
    assert script.broken() == {"alarm.nospace"}


def test_an_alarm_that_is_off_by_itself_is_found() -> None:
    script = CallScript()
    script.ok("Alarm", {}, FULL)
    script.ok("Alarm", {}, {}, member=B)
    assert script.broken() == {"alarm.kept"}


# ---- what is not known


def test_a_revocation_without_an_answer_may_come_late() -> None:
    script = _leased()
    script.add("LeaseRevoke", {"ID": 7}, None, outcome=Outcome.INFO)
    script.ok("LeaseKeepAlive", {"ID": 7}, {"ID": 7, "TTL": 5})
    script.no("LeaseKeepAlive", {"ID": 7}, "LeaseNotFound")
    assert not script.broken()


def test_changes_of_which_the_order_is_not_known_leave_it_open() -> None:
    script = _authed()
    change = script.ok("RoleRevokePermission", {"role": "alice", "key": "a"}, user="root")
    script.beside(change)
    perm = {"permType": "READ", "key": "a"}
    script.ok("RoleGrantPermission", {"name": "alice", "perm": perm}, user="root")
    script.no("Range", {"key": "a"})
    assert script.verdicts()["auth.granted"] is Verdict.UNKNOWN


def test_a_change_without_an_answer_is_over_when_its_member_has_done_the_next() -> None:
    """A member passes on in order what it is asked; what came before a change whose place is not known is judged."""
    for member, known in ((A, True), (B, False)):
        script = CallScript()
        script.auth(alice=("READWRITE", "a", ""))
        script.no("Range", {"key": "secret"}, user="alice")
        script.add("AuthDisable", {}, None, outcome=Outcome.INFO, error="DEADLINE_EXCEEDED", user="root")
        script.ok("AuthDisable", {}, user="root", member=member)
        script.ok("AuthEnable", {}, member=member)
        script.ok("Range", {"key": "secret"}, user="alice", member=member)
        assert script.verdicts()["auth.denied"] is (BROKEN if known else KEPT)


def test_a_member_that_lags_may_refuse_by_what_it_knows() -> None:
    """Of a grant of a lease etcd 3.5.35 looks at who asks before it proposes anything."""
    for shown in (False, True):
        script = CallScript()
        script.auth()
        script.ok("AuthDisable", {}, user="root")
        if shown:
            script.ok("Put", {"key": "a"}, member=B)
        script.no("LeaseGrant", {"TTL": 60}, "UserEmpty", member=B)
        assert ("auth.granted" in script.broken()) is shown
