"""What anybody may do without a user, though authentication is on. This module is the one to begin with.

A scenario drives actors and judges nothing: each call is recorded with who made it, and the general rules of ``check``
(here ``auth.anonymous``) are held against the record afterwards. So it tries what the bug allows, beside what every
etcd must refuse, which shows that the rule was tested. `Scenario` says what belongs to a record of one.
"""

from __future__ import annotations

from loadgen.bugs.scenario import Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.proto import etcd_pb2 as pb


def _ask_as_nobody(stage: Stage) -> None:
    """CVE-2026-33413: these three look at no token, and so at no right either."""
    root = stage.enable_auth()
    root.put(b"secret", b"1")
    nobody = stage.actor()
    nobody.get(b"secret")  # which every etcd refuses
    nobody.ask(pb.MemberListRequest(linearizable=True))
    nobody.ask(pb.LeaseGrantRequest(TTL=60))
    nobody.ask(pb.AlarmRequest(action=pb.AlarmRequest.GET))


def _move_the_leader_as_nobody(stage: Stage) -> None:
    """Have the only member lead, as it does; #14663: whoever asks needs no right, and no user."""
    root = stage.enable_auth()
    member = answer_of(root.ask(pb.StatusRequest()))["header"]["member_id"]
    nobody = stage.actor()
    nobody.get(b"secret")  # which every etcd refuses
    nobody.ask(pb.MoveLeaderRequest(targetID=member))


SCENARIOS = (
    Scenario("CVE-2026-33413", ("auth.anonymous",), _ask_as_nobody),
    Scenario("14663", ("auth.anonymous",), _move_the_leader_as_nobody),
)
