"""The address of the Docker Engine, and one true line where there is none."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib.util
import json
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.base.errors import ClusterError
from cluster.docker import address as addresses
from cluster.docker.address import EngineAddress
from cluster.docker.create import _addresses, refuse_another_machine
from cluster.docker.engine import connect, talking
from cluster.lifecycle.up import ClusterRequest, up


def context(folder: Path, name: str, host: str, *, tls: bool = False) -> None:
    """Write a context as `docker context create` does."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    if tls:
        (folder / "contexts" / "tls" / digest / "docker").mkdir(parents=True)


@pytest.fixture
def tmp_path(short_folder: Path) -> Path:
    """Where the sockets of Engines are."""
    return short_folder


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment in which no Engine of this machine is known."""
    values = {"DOCKER_CONFIG": str(tmp_path), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(addresses, "DEFAULT", tmp_path / "default.sock")
    return values


def test_the_default_one(env: dict[str, str], tmp_path: Path) -> None:
    for text in (None, "{}", "{", "[]", '{"currentContext": "default"}', '{"currentContext": ""}'):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        found = EngineAddress.find(env)
        assert (found.host, str(found)) == (f"unix://{tmp_path}/default.sock", f"{tmp_path}/default.sock")


def test_a_context_is_followed_as_docker_does(env: dict[str, str], tmp_path: Path) -> None:
    context(tmp_path, "rootless", "unix:///run/user/1000/docker.sock")
    context(tmp_path, "far", "tcp://10.0.0.1:2376", tls=True)
    (tmp_path / "config.json").write_text('{"currentContext": "rootless"}')
    rootless = EngineAddress.find(env)
    assert rootless == EngineAddress("unix:///run/user/1000/docker.sock", "the Docker context rootless")
    assert str(rootless) == "unix:///run/user/1000/docker.sock (the Docker context rootless)"
    far = EngineAddress.find({**env, "DOCKER_CONTEXT": "far"})
    assert (far.host, far.source, far.verify) == ("tcp://10.0.0.1:2376", "the Docker context far", True)
    assert far.certificates is not None and far.certificates.parts[-1] == "docker"
    assert EngineAddress.find({**env, "DOCKER_CONTEXT": "default"}).source == ""
    # The variable wins over the context, as in the docker command.
    named = EngineAddress.find({**env, "DOCKER_HOST": "tcp://h:1", "DOCKER_CONTEXT": "far"})
    assert (named.host, named.source, named.certificates) == ("tcp://h:1", "$DOCKER_HOST", None)
    secure = EngineAddress.find({**env, "DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1"})
    assert (secure.certificates, secure.verify) == (tmp_path, True)


def test_a_context_that_is_not_there_or_damaged(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        ClusterError, match=r"^there is no Docker context 'gone' \(\$DOCKER_CONTEXT\): `docker context ls`"
    ):
        EngineAddress.find({**env, "DOCKER_CONTEXT": "gone"})
    context(tmp_path, "odd", "unix:///x")
    next(tmp_path.glob("contexts/meta/*/meta.json")).write_text("{}")
    (tmp_path / "config.json").write_text('{"currentContext": "odd"}')
    with pytest.raises(
        ClusterError, match=r"^the Docker context 'odd' \(currentContext of .*config.json\) cannot be read"
    ):
        EngineAddress.find(env)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("unix:///x", True), ("tcp://127.0.0.1:2375", True), ("tcp://[::1]:2375", True), ("tcp://localhost:2375", True),
        ("tcp://docker:2375", False), ("ssh://me@10.0.0.1", False), ("tcp://10.0.0.1:2376", False),
    ],
)  # fmt: skip
def test_whose_loopback_it_is(host: str, local: bool) -> None:
    assert EngineAddress(host).is_local is local


def test_an_engine_on_another_machine_is_not_asked(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is pulled onto it, and no cluster of it removed, before it is refused."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        # Leads here, and is none of the loopback's addresses.
        monkeypatch.setenv("DOCKER_HOST", f"tcp://0.0.0.0:{there.getsockname()[1]}")
        with pytest.raises(
            ClusterError, match=r"^the Docker Engine at tcp://0\.0\.0\.0:\d+ \(\$DOCKER_HOST\) is on another"
        ):
            up(ClusterRequest(backend="docker", nodes=1), lambda text: None)
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.accept()


# One true line, by real sockets


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def engine(path: Path, version: str, error: str = "") -> Iterator[None]:
    """Answer as an Engine of another API version does, as far as it is asked. Takes what it refuses pings with."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ping = self.path.endswith("/_ping")
            body = json.dumps({"message": error} if is_ping else {"ApiVersion": version}).encode()
            if is_ping and not error:
                body = b"OK"
            self.send_response(500 if is_ping and error else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def address_string(self) -> str:
            return "unix"

    with _Server(str(path), Handler) as server:  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()


def refusal() -> str:
    with pytest.raises(ClusterError) as caught:
        connect().close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_socket_that_was_tried_is_named(env: dict[str, str], tmp_path: Path) -> None:
    context(tmp_path, "rootless", f"unix://{tmp_path}/rootless.sock")
    (tmp_path / "config.json").write_text('{"currentContext": "rootless"}')
    where = f"unix://{tmp_path}/rootless.sock (the Docker context rootless)"
    assert refusal().startswith(f"no Docker Engine at {where}: install or start Docker, or go without (")
    server = _Server(str(tmp_path / "rootless.sock"), http.server.BaseHTTPRequestHandler)  # type: ignore[arg-type]
    server.server_close()
    assert refusal().startswith(f"the Docker Engine at {where} is not running: start it, or go without (")


@pytest.mark.parametrize("other", ["docker.sock", "podman/podman.sock"])
def test_another_engine_on_this_machine_is_named(env: dict[str, str], tmp_path: Path, other: str) -> None:
    """Rootless Docker's and Podman's sockets lie in the user's folder."""
    (tmp_path / other).parent.mkdir(exist_ok=True)
    with engine(tmp_path / other, "1.41"):
        assert refusal().startswith(
            f"no Docker Engine at {tmp_path}/default.sock: install or start Docker, or use the one at "
            f"{tmp_path}/{other} (DOCKER_HOST=unix://{tmp_path}/{other}), or go without ("
        )


@pytest.mark.parametrize("version", ["1.24", "1.41", "1.52", "2.0"])
def test_an_engine_of_any_version_of_the_api_is_taken(
    env: dict[str, str], tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(tmp_path / "e.sock", version):
        context(tmp_path, "mine", f"unix://{tmp_path}/e.sock")
        monkeypatch.setenv("DOCKER_CONTEXT", "mine")
        client = connect()
        assert client.api._version == version  # type: ignore[attr-defined]
        client.close()


def test_what_an_engine_says_is_not_taken_for_what_the_sdk_lacks(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(tmp_path / "e.sock", "1.41", "the tunnel of paramiko is closed"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/e.sock")
        said = refusal()
    assert said.startswith(f"no Docker Engine answers at unix://{tmp_path}/e.sock ($DOCKER_HOST) (500 Server Error"), (
        said
    )


def test_an_engine_that_is_too_old_for_the_sdk_is_said_to_be(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine(tmp_path / "e.sock", "1.12"):
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/e.sock")
        assert refusal().startswith(f"the Docker Engine at unix://{tmp_path}/e.sock ($DOCKER_HOST) is too old (")


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("/var/run/docker.sock", "is no address (Invalid bind address format: /var/run/docker.sock): write unix:///PATH"),
        ("tcp://127.0.0.1:port", "is no address (Port could not be cast"), ("tcp://h", "is no address (Invalid bind"),
        ("unix://HERE", "is no socket of a Docker Engine: name another one"), ("unix://HERE/file", "is no socket of"),
        ("tcp://no-such-host.invalid:2375", "no host has that name"),
        pytest.param(
            "ssh://h", "needs the Python package paramiko",
            marks=pytest.mark.skipif(importlib.util.find_spec("paramiko") is not None, reason="paramiko is there"),
        ),
        ("unix:///a\nb", "no Docker Engine at unix:///a b ($DOCKER_HOST)"),
        ("tcp://[::1:2375", "is no address (Invalid IPv6 URL)"),
    ],
)  # fmt: skip
def test_an_address_of_no_use_says_why(
    host: str, says: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DOCKER_HOST", host.replace("HERE", str(tmp_path)))
    assert says in refusal()


@pytest.mark.parametrize("host", ["/var/run/docker.sock", "tcp://[::1:2375", "tcp://:2375"])
def test_what_is_no_address_is_not_said_to_be_another_machine(
    host: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    refuse_another_machine()
    assert refusal()


def test_a_host_is_read_as_docker_does(env: dict[str, str], tmp_path: Path) -> None:
    """Files of variables end lines with blanks; a context may name no host."""
    default = f"unix://{tmp_path}/default.sock"
    for host in (" ", "\n", "unix://", " unix:// "):
        assert EngineAddress.find({**env, "DOCKER_HOST": host}).host == default
    assert EngineAddress.find({**env, "DOCKER_HOST": "unix:///x.sock \r\n"}).host == "unix:///x.sock"
    context(tmp_path, "mine", "")
    assert EngineAddress.find({**env, "DOCKER_CONTEXT": "mine"}).host == default


@pytest.mark.parametrize("text", ["null", "[1]", "5", '{"auths": 5}', '{"proxies": 5}'])
def test_a_damaged_config_is_one_line(text: str, env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with engine(tmp_path / "default.sock", "1.41"):
        assert refusal() == "Docker's config.json is damaged: it is not what the docker command writes"


def test_the_users_own_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context(tmp_path / ".docker", "mine", "unix:///m")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert EngineAddress.find({"DOCKER_CONTEXT": "mine"}).host == "unix:///m"
    assert os.path.isabs(EngineAddress.find({}).host.removeprefix("unix://"))  # noqa: PTH117


# What an Engine says


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("driver failed programming external connectivity on endpoint etcd-node1 (abc): Bind for 127.0.0.1:2379 "
         "failed: port is already allocated",
         "port 2379 is taken: stop what uses it, or choose another --base-port"),
        ("rootlessport listen tcp 127.0.0.1:2380: bind: address already in use", "port 2380 is taken"),
        ("failed to bind host port for 127.0.0.1:81:172.18.0.2:2379/tcp: address already in use", "port 81 is taken"),
        ("failed to bind host port for [::1]:2381:172.18.0.2:2379/tcp: address already in use", "port 2381 is taken"),
        ("Bind failed: port is already allocated", "a port is taken"),
        ("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
         "its address pools have no free subnet: `docker network prune`"),
        ("all predefined address pools have been fully subnetted", "its address pools have no free subnet"),
    ],
)  # fmt: skip
def test_what_the_engine_refuses_is_one_line_with_what_to_do(said: str, told: str) -> None:
    from docker.errors import APIError

    with pytest.raises(ClusterError, match=rf"^cannot start it: {told}") as caught, talking("start it"):
        raise APIError("500", explanation=said)
    assert said[-60:] in str(caught.value)


@pytest.mark.parametrize(
    ("subnet", "nodes", "addresses"),
    [
        ("172.18.0.0/16", 3, ("172.18.0.11", "172.18.0.12", "172.18.0.13")),
        ("10.9.0.0/28", 3, ("10.9.0.11", "10.9.0.12", "10.9.0.13")),
        ("10.9.0.16/28", 5, tuple(f"10.9.0.{16 + n}" for n in range(10, 15))),
        ("10.9.0.8/29", 5, tuple(f"10.9.0.{8 + n}" for n in range(2, 7))),
    ],
)
def test_members_fit_into_small_subnets(subnet: str, nodes: int, addresses: tuple[str, ...]) -> None:
    assert _addresses(subnet, nodes) == addresses


def test_a_subnet_that_is_too_small_is_refused() -> None:
    with pytest.raises(
        ClusterError, match="gives subnets of 8 addresses, of which 3 are not for members: too few for 6"
    ):
        _addresses("10.9.0.8/29", 6)
