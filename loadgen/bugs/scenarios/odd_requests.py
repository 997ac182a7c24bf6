"""Requests that no client of etcd's own makes, and that a member must refuse and not die of."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from pathlib import Path

from loadgen.bugs.scenario import ClusterOptions, Scenario
from loadgen.bugs.stage import Stage, answer_of
from loadgen.check.rules import Finding
from loadgen.proto import etcd_pb2 as pb

# Any file will do for the key by which tokens are signed.
_KEY = Path(__file__)
_NO_TARGET, _NO_TEXT = 100, b"\xff\xfe"


def _sort_by_nothing(stage: Stage) -> None:
    """#13554: what sorts is chosen by the target, and is nothing where there is no such target."""
    actor = stage.actor()
    actor.put(b"key", b"1")
    stage.died_of(actor.ask(pb.RangeRequest(key=b"key", sort_target=_NO_TARGET)))  # type: ignore[arg-type]


def _raise_no_alarm(stage: Stage) -> None:
    """#13084: the alarm is stored by what it is about, which is an empty key."""
    stage.died_of(stage.actor().ask(pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE)))


def _grant_nothing(stage: Stage) -> None:
    """#13086: every member reads the right that is to be granted, when it applies the entry of the log."""
    actor = stage.actor()
    answer_of(actor.ask(pb.AuthRoleAddRequest(name="some")))
    stage.died_of(actor.ask(pb.AuthRoleGrantPermissionRequest(name="some")))


def _name_no_version(stage: Stage) -> None:
    """#13553: the version becomes a label of a metric, which has to be UTF-8."""
    stage.died_of(stage.actor(metadata=((b"client-api-version", _NO_TEXT),)).get(b"key"))


def _show_a_token_of_nobody(stage: Stage) -> None:
    """Sign a token that names no user, as a service that makes tokens for others may by mistake.

    #14931: etcd takes it for granted that the name is there, and is text.
    """
    stage.enable_auth()
    stage.died_of(stage.actor(metadata=((b"token", _token({})),)).get(b"key"))


def _token(claims: dict[str, object]) -> bytes:
    """Return a JSON web token (RFC 7519) that is signed by HMAC with SHA-256."""
    parts = [_base64(json.dumps(each).encode()) for each in ({"alg": "HS256", "typ": "JWT"}, claims)]
    said = b".".join(parts)
    return said + b"." + _base64(hmac.digest(_KEY.read_bytes(), said, hashlib.sha256))


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _dies_of(method: str) -> Callable[[Finding], bool]:
    """Return the signature of a member that ends when it is asked for this."""

    def fits(finding: Finding) -> bool:
        return bool(finding.calls) and finding.calls[-1].method == method

    return fits


SCENARIOS = (
    Scenario("13084", ("member.lives",), _raise_no_alarm, fits=_dies_of("Alarm")),
    Scenario("13086", ("member.lives",), _grant_nothing, fits=_dies_of("RoleGrantPermission")),
    Scenario("13553", ("member.lives",), _name_no_version, fits=_dies_of("Range")),
    Scenario("13554", ("member.lives",), _sort_by_nothing, fits=_dies_of("Range")),
    Scenario(
        "14931", ("member.lives",), _show_a_token_of_nobody, fits=_dies_of("Range"),
        cluster=ClusterOptions(args=(f"--auth-token=jwt,sign-method=HS256,priv-key={_KEY}",)),
    ),
)  # fmt: skip
