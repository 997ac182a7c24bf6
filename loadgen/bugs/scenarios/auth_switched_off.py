"""What goes on once authentication is switched off again."""

from __future__ import annotations

from loadgen.bugs.scenario import Scenario
from loadgen.bugs.stage import PASSWORD, Permission, Stage, answer_of
from loadgen.client.auth import READWRITE
from loadgen.proto import etcd_pb2 as pb


def _go_on_with_a_token(stage: Stage) -> None:
    """Go on with the token of before, as a client does that does not log in anew.

    #13577: etcd looks tokens up with authentication off too, and has dropped them all by then.
    """
    root = stage.enable_auth({"alice": (Permission(READWRITE, b"a"),)})
    login = stage.actor().ask(pb.AuthenticateRequest(name="alice", password=PASSWORD))
    token = answer_of(login)["token"].encode()
    alice = stage.actor(user="alice", password="", metadata=((b"token", token),))
    alice.put(b"a", b"1")
    stage.disable_auth(root)
    alice.get(b"a")
    stage.actor().get(b"a")


SCENARIOS = (Scenario("13577", ("auth.granted",), _go_on_with_a_token),)
