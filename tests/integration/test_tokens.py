"""Tokens that etcd refuses in mid-run: expired, of an older auth store, forgotten, revoked; and auth off and on again.

A refused token means that nothing was executed, so no operation fails for it and none is executed twice.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cluster.base.security import Security
from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Operation, Outcome
from loadgen.load.json_client import GatewayClient
from tests.support.command import start, until_load
from tests.support.etcds import default_and_others, version_of
from tests.support.waiting import until

HANG_S = 60.0
ROOT = Security(user="root", password="secret-of-root")
USER = Security(user="user", password="secret-of-user")


@pytest.fixture(scope="module")
def jwt_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a private RSA key, PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path_factory.mktemp("jwt") / "key.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return path


Made = Callable[..., LocalCluster]


@pytest.fixture
def with_auth(jwt_key: Path) -> Iterator[Made]:
    """Make clusters with auth, a user ``root`` and one ``user`` who may do everything with keys.

    Takes the etcd, the kind of tokens, the seconds that they are good for, and the number of members.
    """
    with contextlib.ExitStack() as stack:

        def make(etcd: str, kind: str, ttl_s: int = 300, nodes: int = 1) -> LocalCluster:
            # Passwords are hashed at the least cost: at the usual one a busy machine takes seconds for a login.
            args = ["--bcrypt-cost=4", f"--auth-token-ttl={ttl_s}"]
            if kind == "jwt":
                keys = f"priv-key={jwt_key},sign-method=RS256"
                args = ["--bcrypt-cost=4", f"--auth-token=jwt,{keys},ttl={ttl_s}s"]
            cluster = stack.enter_context(LocalCluster(nodes, binary=etcd, storage="memory", extra_args=args))
            with contextlib.closing(EtcdClient(cluster.endpoints[:1], timeout_s=HANG_S)) as client:
                for done in (
                    client.user_add("root", "secret-of-root"), client.role_add("root"),
                    client.user_grant_role("root", "root"), client.user_add("user", "secret-of-user"),
                    client.role_add("all"), client.role_grant_permission("all", 2, b"\0", b"\0"),
                    client.user_grant_role("user", "all"), client.auth_enable(),
                ):  # fmt: skip
                    ok(done)
            return cluster

        yield make


def ok(operation: Operation) -> Operation:
    assert operation.outcome is Outcome.OK, operation
    return operation


def each_kind() -> list[Any]:
    """Return a parameter for each etcd and kind of token."""
    return [
        pytest.param(etcd, kind, id=f"{version_of(etcd)}-{kind}")
        for etcd in default_and_others()
        for kind in ("simple", "jwt")
    ]


def counted(client: EtcdClient | GatewayClient, key: bytes) -> int:
    """Return how many writes of a key were executed."""
    found = ok(client.get(key)).response.kvs
    return found[0].version if found else 0


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_a_changed_auth_store_fails_nothing(with_auth: Made, etcd: str, kind: str) -> None:
    """A JSON web token is of one revision of the auth store; a simple one can meet a change between two checks."""
    cluster = with_auth(etcd, kind)
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    gateway = GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    ended: list[Operation] = []
    changed = 0

    def write(n: int) -> None:
        while changed < 3 or len(ended) < 60:
            ended.append(client.put(b"k%d" % n, b"v"))

    writers = [gevent.spawn(write, n) for n in range(4)]
    for n in range(3):
        before = len(ended)
        until(lambda before=before: len(ended) > before + 10, "writes", sleep=gevent.sleep)  # type: ignore[misc]
        ok(admin.user_add(f"other{n}", "x"))
        ended.append(gateway.put(b"k0", b"v"))
        changed += 1
    gevent.joinall(writers, timeout=HANG_S, raise_error=True)
    assert {each.outcome for each in ended} == {Outcome.OK}, {each.error for each in ended}
    if kind == "jwt":
        assert client.channel.resent >= 3
        assert gateway.resent >= 2  # the first put logged in
    assert sum(counted(client, b"k%d" % n) for n in range(len(writers))) == len(ended)
    for each in (client, gateway, admin):
        each.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_an_expired_token_fails_nothing(with_auth: Made, etcd: str, kind: str) -> None:
    cluster = with_auth(etcd, kind, ttl_s=2)
    clients: list[EtcdClient | GatewayClient] = [
        EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER, connections=2),
        GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER),
    ]
    for round_ in range(2):
        for n, client in enumerate(clients):
            for _ in range(4):  # over each of the connections
                ok(client.put(b"%d" % n, b"v"))
            assert counted(client, b"%d" % n) == 4 * (round_ + 1)
        gevent.sleep(4.5)  # nobody uses it for so long; etcd ends simple tokens in steps of a second
    lease = ok(clients[0].lease_grant(60)).response.ID  # type: ignore[union-attr]
    ok(clients[0].lease_keepalive(lease))  # type: ignore[union-attr]
    if kind == "simple":
        assert clients[0].channel.resent >= 1  # type: ignore[union-attr]
    assert clients[1].resent >= 1  # type: ignore[union-attr]
    for client in clients:
        client.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_auth_off_and_on_again(with_auth: Made, etcd: str, kind: str) -> None:
    cluster = with_auth(etcd, kind)
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    gateway = GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    expected = 0

    def both(count: int) -> None:
        nonlocal expected
        for _ in range(count):
            ok(client.put(b"k", b"v"))
            ok(gateway.put(b"k", b"v"))
        expected += 2 * count

    both(3)
    for _ in range(2):
        ok(admin.auth_disable())
        both(3)
        fresh = [gevent.spawn(gateway.put, b"k", b"v") for _ in range(3)]  # over new connections, which log in
        gevent.joinall(fresh, timeout=HANG_S, raise_error=True)
        assert {each.value.outcome for each in fresh} == {Outcome.OK}
        expected += 3
        ok(admin.auth_enable())
        both(3)
    assert counted(client, b"k") == expected
    for each in (client, gateway, admin):
        each.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_a_revoked_token(with_auth: Made, etcd: str, kind: str) -> None:
    """Another password ends a user's tokens: one that is the same again is a login, another one is a refusal."""
    cluster = with_auth(etcd, kind)
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    ok(client.put(b"k", b"v"))
    ok(admin.user_change_password("user", "secret-of-user"))
    ok(client.put(b"k", b"v"))
    assert client.channel.resent >= 1
    ok(admin.user_change_password("user", "of another"))
    for _ in range(2):
        refused = client.put(b"k", b"v")
        assert (refused.outcome, refused.error) == (Outcome.FAIL, "wrong user or password")
    assert counted(admin, b"k") == 2
    client.close()
    admin.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_members_that_hear_of_a_token_one_after_the_other(with_auth: Made, etcd: str, kind: str) -> None:
    """etcd hands simple tokens on through Raft: a member that is asked at once may not know one yet."""
    cluster = with_auth(etcd, kind, nodes=3)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER, connections=2)
    ended: list[Operation] = []
    for n in range(4):
        asked = [gevent.spawn(client.put, b"%d" % each, b"v") for each in range(12)]
        ok(admin.user_add(f"other{n}", "x"))
        ok(admin.user_change_password("user", "secret-of-user"))
        gevent.joinall(asked, timeout=HANG_S, raise_error=True)
        ended += [each.value for each in asked]
        ended += [client.put(b"%d" % each, b"v") for each in range(12)]
    assert {each.outcome for each in ended} == {Outcome.OK}, {each.error for each in ended}
    assert sum(counted(admin, b"%d" % each) for each in range(12)) == len(ended)
    client.close()
    admin.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
@pytest.mark.parametrize("transport", ["grpc", "gateway"])
def test_a_bench_while_users_come_and_auth_goes(
    with_auth: Made, etcd: str, kind: str, transport: str, tmp_path: Path
) -> None:
    """Nothing fails, the revision can be read at the end, and the keys are removed."""
    cluster = with_auth(etcd, kind, ttl_s=60)
    endpoint = cluster.endpoints[0]
    words = ("bench", "--endpoints", endpoint, "--user", "user:secret-of-user", "--duration", "6s", "--workers", "1")
    words += ("--concurrency", "4", "--transport", transport, "--output", "run", "--json")
    admin = EtcdClient([endpoint], timeout_s=HANG_S, security=ROOT)
    with start(*words, cwd=tmp_path) as process:
        until_load(process, tmp_path / "run")
        for n in range(3):
            ok(admin.user_add(f"other{n}", "x"))
            gevent.sleep(0.5)
        ok(admin.auth_disable())
        gevent.sleep(0.5)
        ok(admin.auth_enable())
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, err + out
    result = json.loads(out)
    assert (result["results"]["total"]["failed"], result["problems"]) == (0, [])
    assert result["results"]["total"]["succeeded"] > 0
    if kind == "jwt":
        assert result["generator"]["resent"] > 0
    books = result["books"]
    writes = books["writes_ok"]
    assert books["revision_delta"] == writes
    left = ok(admin.range(result["run"]["prefix"].encode(), result["run"]["prefix"].encode() + b"\xff"))
    assert left.response.count == 0
    admin.close()


@pytest.mark.parametrize(("etcd", "kind"), each_kind())
def test_watches_and_renewals_go_on(with_auth: Made, etcd: str, kind: str) -> None:
    """A watch that is refused for its token is created over another stream, and those beside it lose nothing."""
    cluster = with_auth(etcd, kind)
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    lease = ok(client.lease_grant(600)).response.ID
    watches = [client.watch(b"w")]
    assert watches[0].wait_created(HANG_S)
    written = []
    for n, change in enumerate((admin.user_add, admin.auth_disable, admin.auth_enable)):
        ok(change(f"other{n}", "x") if change == admin.user_add else change())
        watches.append(client.watch(b"w"))
        assert watches[-1].wait_created(HANG_S), watches[-1].error
        ok(client.lease_keepalive(lease))
        written.append((ok(client.put(b"w", b"%d" % n)).revision, n + 2))
    for n, watch in enumerate(watches):
        wanted = [revision for revision, there in written if there > n]
        seen: list[int] = []
        with gevent.Timeout(HANG_S):
            while len(seen) < len(wanted):
                answer = watch.next()
                assert answer is not None, watch.error
                seen += [event.kv.mod_revision for event in answer.response.events]
        assert seen == wanted
    client.close()
    admin.close()
