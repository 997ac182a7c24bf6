"""Corrections of etcd3-py 0.1.6, which speaks to etcd's JSON gateway; ``control.py`` builds on them.

What they correct: every server error became a TypeError; nothing was bounded in time; an unreachable endpoint
was an AttributeError; empty values were None, and absent ones looked like empty ones; certificates were not verified;
proxies of the environment were used; each call looked up 221 signatures. Its ``Lock`` excludes nobody and is not
offered. Each client holds about 28 KB for good, so clients are made once and kept.

It works in a process that gevent has patched and in one that it has not; patch before the first client is made.
"""

from __future__ import annotations

import functools
import inspect
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from cluster.base.dial import connect
from cluster.base.errors import EtcdError, NoAnswer
from cluster.base.security import tls_cause
from cluster.observe.calls import no_connection, tls_fails

if TYPE_CHECKING:
    import requests
    from requests.adapters import HTTPAdapter

    from cluster.base.endpoint import Endpoint
    from cluster.schema.gateway_answers import GatewayAnswer

# etcd3-py's own number of connections that a client keeps.
_POOL = 30
# Where no timeout is set; a client of ours always sets one.
_LONGEST_WAIT_S = 3600.0

P = ParamSpec("P")
R = TypeVar("R")


class GatewayClient(Protocol):
    """What we use of etcd3-py's Client, which has no types."""

    server_version: str
    timeout: float
    token: str

    def close(self) -> None:
        """Close its connections."""

    def call_rpc(self, method: str, data: Mapping[str, object], **options: object) -> requests.Response:
        """Call the gateway by the path of the call."""

    def put(self, key: bytes, value: bytes, *, lease: int, prev_kv: bool) -> GatewayAnswer:
        """Set a key."""

    def range(self, key: bytes, **options: object) -> GatewayAnswer:
        """Read a key or a range."""

    def delete_range(self, key: bytes, *, range_end: bytes | None, prev_kv: bool) -> GatewayAnswer:
        """Delete a key or a range."""

    def txn(
        self, compare: list[dict[str, object]], success: list[dict[str, object]], failure: list[dict[str, object]]
    ) -> GatewayAnswer:
        """Do one of two lists of operations."""

    def compact(self, revision: int, *, physical: bool) -> object:
        """Forget history."""


@functools.cache
def client_class() -> Callable[..., GatewayClient]:
    """etcd3-py's Client, mended.

    Made at the first use: it imports requests, which gevent must have patched by then.
    """
    import etcd3
    import etcd3.utils
    import requests
    import semantic_version  # type: ignore[import-untyped]
    import urllib3

    etcd3.utils.getargspec = functools.cache(inspect.getfullargspec)  # asked for at every call

    class Client(etcd3.Client):  # type: ignore[misc,name-defined,unused-ignore]
        def __init__(self, at: Endpoint, verify: str | bool, **kwargs: object) -> None:
            if not verify:
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # it was asked for
            self._checked, self._at = verify, at
            host, port = at.http_host.rpartition(":")[0], at.port
            if at.path:
                host, port = at.tls_name if at.tls else "localhost", 80
            super().__init__(verify=verify, host=host, port=port, **kwargs)
            self._session.verify = verify
            self._prepare(self._session)

        def _prepare(self, session: requests.Session) -> None:
            session.trust_env = False  # no proxy, no .netrc
            adapter = _adapter_to(self._at)
            session.mount("http://", adapter)
            session.mount("https://", adapter)

        def _retrieve_version(self) -> None:
            with requests.Session() as session:
                self._prepare(session)
                url = self._url("/version", prefix=False)
                response = session.get(url, cert=self.cert, verify=self._checked, timeout=self.timeout)
            if response.status_code == 400 and "HTTPS server" in response.text:
                raise NoAnswer(f"{self._at.authority} speaks TLS: use https://", cause="tls", sent=False)
            answer = as_json(response, url)
            try:
                self.server_version = answer["etcdserver"]
                self.cluster_version = answer["etcdcluster"]
                self.server_version_sem = semantic_version.Version(self.server_version)
            except (KeyError, ValueError, TypeError) as exc:
                raise NoAnswer(f"{url}: not an answer of etcd", cause="not etcd") from exc

        @staticmethod
        def _raise_for_status(response: requests.Response) -> None:
            if response.status_code < 400:
                return
            answer = as_json(response, response.url)
            code = answer.get("code") or answer.get("grpc_code") or 2
            raise EtcdError(int(code), str(answer.get("message") or answer.get("error") or "no reason given"))

        def _modelizeResponseData(self, method: str, data: object, decode: bool = True) -> object:  # noqa: N802
            return data  # the models make no difference between what is absent and what is empty

        def _get(self, url: str, **kwargs: object) -> object:
            kwargs.setdefault("timeout", self.timeout)
            return super()._get(url, **kwargs)

    return Client


def _adapter_to(endpoint: Endpoint) -> HTTPAdapter:
    """Return what has requests connect to an endpoint, whatever host their URLs name.

    requests knows no Unix socket and no zone of an address, and gives each address of a name the whole timeout.
    """
    import requests.adapters
    import urllib3

    def opened(waiting: urllib3.connection.HTTPConnection) -> socket.socket:
        limit = waiting.timeout if isinstance(waiting.timeout, int | float) else _LONGEST_WAIT_S
        try:
            made: socket.socket = connect(endpoint, limit)
        except socket.gaierror as exc:
            raise urllib3.exceptions.NameResolutionError(waiting.host, waiting, exc) from exc
        except TimeoutError as exc:
            raise urllib3.exceptions.ConnectTimeoutError(waiting, f"no connection within {limit:g} s") from exc
        except OSError as exc:
            raise urllib3.exceptions.NewConnectionError(waiting, str(exc)) from exc
        made.settimeout(limit)
        return made

    class Plain(urllib3.connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class Encrypted(urllib3.connection.HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return opened(self)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    return Adapter(pool_connections=1, pool_maxsize=_POOL)


def as_json(response: requests.Response, endpoint: str) -> GatewayAnswer:
    """Return the object that an answer holds. Raises NoAnswer where it holds none, which etcd's always do."""
    try:
        answer: GatewayAnswer = response.json()
    except ValueError as exc:
        raise NoAnswer(f"{endpoint}: not an answer of etcd", cause="not etcd") from exc
    if not isinstance(answer, dict):
        raise NoAnswer(f"{endpoint}: not an answer of etcd", cause="not etcd")
    return answer


def translated(endpoint: str, certificate: bool, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call, and turns what requests and etcd3-py raise into NoAnswer and EtcdError.

    Takes whom it asks, for people, whether the client shows a certificate, and the call with its arguments.
    """
    import http.client
    import ssl

    import requests
    import urllib3.exceptions

    try:
        return call(*args, **kwargs)
    except requests.exceptions.ConnectTimeout as exc:
        raise NoAnswer(f"{endpoint}: no connection in time", cause="timeout", sent=False) from exc
    except requests.exceptions.Timeout as exc:
        raise NoAnswer(f"{endpoint}: no answer in time", cause="timeout") from exc
    except requests.exceptions.ConnectionError as exc:
        broken = next((cause for cause in _causes(exc) if isinstance(cause, ssl.SSLError)), None)
        if broken is not None:
            raise tls_fails(endpoint, tls_cause(broken, certificate=certificate)) from exc
        reason = getattr(exc.args[0] if exc.args else None, "reason", None)
        if isinstance(reason, urllib3.exceptions.NewConnectionError):
            why = reason.__cause__
            raise no_connection(endpoint, why if isinstance(why, OSError) else OSError(str(reason))) from exc
        if any(type(cause) is http.client.BadStatusLine for cause in _causes(exc)):
            raise NoAnswer(f"{endpoint}: not an answer of etcd", cause="not etcd") from exc
        raise NoAnswer(f"{endpoint}: connection lost", cause="connection lost") from exc
    except requests.exceptions.RequestException as exc:
        raise NoAnswer(f"{endpoint}: {_root(exc)}", cause="not etcd") from exc


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that this one wraps in its arguments, or as its reason, as requests and urllib3 do."""
    for inner in (*exc.args, getattr(exc, "reason", None)):
        if isinstance(inner, BaseException):
            yield inner
            yield from _causes(inner)


def _root(exc: BaseException) -> str:
    """Return the innermost text of an exception that wraps others, on one line."""
    text = str(getattr(exc.args[0] if exc.args else exc, "reason", exc))
    return " ".join(text.split())[-200:]


def stream_error(error: object) -> EtcdError:
    """Return what etcd says where it ends a stream, from the gateway's JSON."""
    if not isinstance(error, dict):
        return EtcdError(2, str(error))
    return EtcdError(int(error.get("grpc_code") or error.get("code") or 2), str(error.get("message", "")))
