"""Tokens that etcd refuses in mid-run: expired, of an older auth store, forgotten, revoked; and auth off and on again.

A refused token means that nothing was executed, so no operation fails for it and none is executed twice.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cluster.base.security import Security
from cluster.gateway.control import ControlClient
from cluster.local.cluster import LocalCluster
from loadgen.client.etcd import EtcdClient
from loadgen.history.operation import Operation, Outcome
from loadgen.load.json_client import GatewayClient
from tests.support.command import start, until_load
from tests.support.etcds import default_and_others, version_of
from tests.support.pausing import pausing
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


@contextlib.contextmanager
def making(jwt_key: Path) -> Iterator[Made]:
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


@pytest.fixture
def with_auth(jwt_key: Path) -> Iterator[Made]:
    """Make such clusters for one test."""
    with making(jwt_key) as make:
        yield make


def kinds(*, older: tuple[str, ...] = ("simple", "jwt")) -> list[Any]:
    """Return a parameter for each etcd and kind of token; of the etcds before the newest, those kinds alone."""
    *others, newest = default_and_others()
    wanted = [(etcd, kind) for etcd in others for kind in older] + [(newest, "simple"), (newest, "jwt")]
    return [pytest.param((etcd, kind), id=f"{version_of(etcd)}-{kind}") for etcd, kind in wanted]


@pytest.fixture(scope="module", params=kinds())
def shared(request: pytest.FixtureRequest, jwt_key: Path) -> Iterator[tuple[LocalCluster, str]]:
    """Yield a member of each etcd with each kind of token, and the kind: keys and users of one's own, auth on."""
    etcd, kind = request.param
    with making(jwt_key) as make:
        yield make(etcd, kind), kind


numbers = itertools.count()


def other() -> str:
    """Return the name of a user that there has not been."""
    return f"other{next(numbers)}"


def ok(operation: Operation) -> Operation:
    assert operation.outcome is Outcome.OK, operation
    return operation


def counted(client: EtcdClient | GatewayClient, key: bytes) -> int:
    """Return how many writes of a key were executed."""
    found = ok(client.get(key)).response.kvs
    return found[0].version if found else 0


def test_a_changed_auth_store_fails_nothing(shared: tuple[LocalCluster, str]) -> None:
    """A JSON web token is of one revision of the auth store; a simple one can meet a change between two checks."""
    cluster, kind = shared
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    gateway = GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    ended: list[Operation] = []
    changed = 0

    def write(n: int) -> None:
        while changed < 3 or len(ended) < 60:
            ended.append(client.put(b"changed/%d" % n, b"v"))

    writers = [gevent.spawn(write, n) for n in range(4)]
    for _ in range(3):
        before = len(ended)
        until(lambda before=before: len(ended) > before + 10, "writes", sleep=gevent.sleep)  # type: ignore[misc]
        ok(admin.user_add(other(), "x"))
        ended.append(gateway.put(b"changed/0", b"v"))
        changed += 1
    gevent.joinall(writers, timeout=HANG_S, raise_error=True)
    assert {each.outcome for each in ended} == {Outcome.OK}, {each.error for each in ended}
    if kind == "jwt":
        assert client.channel.resent >= 3
        assert gateway.resent >= 2  # the first put logged in
    assert sum(counted(client, b"changed/%d" % n) for n in range(len(writers))) == len(ended)
    for each in (client, gateway, admin):
        each.close()


@pytest.mark.parametrize("etcd", default_and_others(), ids=version_of)
def test_an_expired_token_fails_nothing(with_auth: Made, etcd: str) -> None:
    """Of both kinds, whose ends are waited for together."""
    clients: dict[str, list[EtcdClient | GatewayClient]] = {}
    for kind in ("simple", "jwt"):
        endpoints = with_auth(etcd, kind, ttl_s=2).endpoints
        clients[kind] = [
            EtcdClient(endpoints, timeout_s=HANG_S, security=USER, connections=2),
            GatewayClient(endpoints, timeout_s=HANG_S, security=USER),
        ]
    for round_ in range(2):
        for of_kind in clients.values():
            for n, client in enumerate(of_kind):
                for _ in range(4):  # over each of the connections
                    ok(client.put(b"%d" % n, b"v"))
                assert counted(client, b"%d" % n) == 4 * (round_ + 1)
        gevent.sleep(4.5)  # nobody uses it for so long; etcd ends simple tokens in steps of a second
    for kind, of_kind in clients.items():
        client, gateway = of_kind
        lease = ok(client.lease_grant(60)).response.ID  # type: ignore[union-attr]
        ok(client.lease_keepalive(lease))  # type: ignore[union-attr]
        if kind == "simple":
            assert client.channel.resent >= 1  # type: ignore[union-attr]
        assert gateway.resent >= 1, kind  # type: ignore[union-attr]
        for each in of_kind:
            each.close()


def test_auth_off_and_on_again(shared: tuple[LocalCluster, str]) -> None:
    cluster, _ = shared
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    gateway = GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    expected = 0

    def both(count: int) -> None:
        nonlocal expected
        for _ in range(count):
            ok(client.put(b"off", b"v"))
            ok(gateway.put(b"off", b"v"))
        expected += 2 * count

    both(3)
    for _ in range(2):
        ok(admin.auth_disable())
        both(3)
        fresh = [gevent.spawn(gateway.put, b"off", b"v") for _ in range(3)]  # over new connections, which log in
        gevent.joinall(fresh, timeout=HANG_S, raise_error=True)
        assert {each.value.outcome for each in fresh} == {Outcome.OK}
        expected += 3
        ok(admin.auth_enable())
        both(3)
    assert counted(client, b"off") == expected
    for each in (client, gateway, admin):
        each.close()


def test_auth_goes_and_comes_while_a_request_is_tried_again(
    shared: tuple[LocalCluster, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's next connection can have no user, and the one after it, too."""
    cluster, _ = shared
    gateway = GatewayClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    ok(gateway.put(b"twice", b"v"))
    before = gateway.resent
    connected, made = gateway._connected, itertools.count()

    def while_auth_is_off(endpoint: str) -> ControlClient:
        if next(made) >= 2:
            return connected(endpoint)
        ok(admin.auth_disable())
        try:
            return connected(endpoint)
        finally:
            ok(admin.auth_enable())

    monkeypatch.setattr(gateway, "_connected", while_auth_is_off)
    ok(admin.auth_disable())
    ok(admin.auth_enable())
    ok(gateway.put(b"twice", b"v"))
    assert gateway.resent == before + 3
    assert counted(gateway, b"twice") == 2
    gateway.close()
    admin.close()


def test_a_revoked_token(shared: tuple[LocalCluster, str]) -> None:
    """Another password ends a user's tokens: one that is the same again is a login, another one is a refusal."""
    cluster, _ = shared
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    name = other()
    ok(admin.user_add(name, "x"))
    ok(admin.user_grant_role(name, "all"))
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=Security(user=name, password="x"))
    ok(client.put(b"revoked", b"v"))
    ok(admin.user_change_password(name, "x"))
    ok(client.put(b"revoked", b"v"))
    assert client.channel.resent >= 1
    ok(admin.user_change_password(name, "of another"))
    for _ in range(2):
        refused = client.put(b"revoked", b"v")
        assert (refused.outcome, refused.error) == (Outcome.FAIL, "wrong user or password")
    assert counted(admin, b"revoked") == 2
    client.close()
    admin.close()


@pytest.mark.parametrize("etcd_and_kind", kinds(older=("simple",)))
def test_members_that_hear_of_a_token_one_after_the_other(with_auth: Made, etcd_and_kind: tuple[str, str]) -> None:
    """etcd hands simple tokens on through Raft: a member that is asked at once may not know one yet.

    A JSON web token is refused by whichever member has another revision of the auth store, on every etcd alike.
    """
    cluster = with_auth(*etcd_and_kind, nodes=3)
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


def benches() -> list[Any]:
    """Return a parameter for each transport and kind of token on the newest etcd, and for each of them once on the
    older ones.
    """
    newest = default_and_others()[-1]
    return [
        pytest.param(each.values[0], transport, id=f"{transport}-{each.id}")
        for each in kinds()
        for transport in ("grpc", "gateway")
        if each.values[0][0] == newest or (each.values[0][1] == "jwt") == (transport == "grpc")
    ]


@pytest.mark.parametrize(("shared", "transport"), benches(), indirect=["shared"])
def test_a_bench_while_users_come_and_auth_goes(
    shared: tuple[LocalCluster, str], transport: str, tmp_path: Path
) -> None:
    """Nothing fails, the revision can be read at the end, and the keys are removed.

    The load ends by a signal, once all that has come and gone.
    """
    cluster, kind = shared
    endpoint = cluster.endpoints[0]
    words = ("bench", "--endpoints", endpoint, "--user", "user:secret-of-user", "--duration", "600s", "--workers", "1")
    words += ("--concurrency", "4", "--transport", transport, "--output", "run", "--json", *pausing(tmp_path))
    admin = EtcdClient([endpoint], timeout_s=HANG_S, security=ROOT)
    with start(*words, cwd=tmp_path) as process:

        def after_writes() -> None:
            """Let the run write some more."""
            revision = ok(admin.get(b"k")).revision + 20
            until(
                lambda: process.poll() is not None or ok(admin.get(b"k")).revision > revision, "writes",
                sleep=gevent.sleep,
            )  # fmt: skip

        until_load(process, tmp_path / "run")
        for _ in range(3):
            ok(admin.user_add(other(), "x"))
            after_writes()
        ok(admin.auth_disable())
        after_writes()
        ok(admin.auth_enable())
        after_writes()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG_S)
    assert process.returncode == 130, err + out
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


def test_watches_and_renewals_go_on(shared: tuple[LocalCluster, str]) -> None:
    """A watch that is refused for its token is created over another stream, and those beside it lose nothing."""
    cluster, _ = shared
    client = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=USER)
    admin = EtcdClient(cluster.endpoints, timeout_s=HANG_S, security=ROOT)
    lease = ok(client.lease_grant(600)).response.ID
    watches = [client.watch(b"w")]
    assert watches[0].wait_created(HANG_S)
    written = []
    for n, change in enumerate((admin.user_add, admin.auth_disable, admin.auth_enable)):
        ok(change(other(), "x") if change == admin.user_add else change())
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
