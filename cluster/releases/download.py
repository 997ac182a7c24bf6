"""Downloads of release pages: a base address, and the files under it, over http, https or from a folder.

Proxies (``https_proxy``, ``no_proxy`` …), ``~/.netrc`` and ``REQUESTS_CA_BUNDLE`` mean what they mean to requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.request import url2pathname

from cluster.base.errors import ClusterError, UsageError
from cluster.base.signals import importing

if TYPE_CHECKING:
    import requests
    import urllib3

ENV = "RAFTLOAD_ETCD_BASE_URL"
BASE_URL = "https://github.com/etcd-io/etcd/releases/download"
SILENCE_S = 30.0
_CONNECT_S = 10.0
_CHUNK = 1 << 16


class NotThere(ClusterError):  # noqa: N818
    """The address has no such file."""


class DownloadFailed(ClusterError):  # noqa: N818
    """A file cannot be had, or not whole."""


@dataclasses.dataclass(frozen=True, slots=True)
class Body:
    """A file that comes.

    Attributes:
        size: its bytes, None where the server does not say.
        chunks: the bytes; raises DownloadFailed where it ends too early.
    """

    size: int | None
    chunks: Iterator[bytes]


class Base:
    """The address of a release page."""

    def __init__(self, url: str, silence_s: float = SILENCE_S) -> None:
        """Take the address, and for how many seconds nothing may come. Raises UsageError for what is no address."""
        try:
            parts = urllib.parse.urlsplit(url.strip())
            _ = parts.port
        except ValueError as exc:
            raise UsageError(f"{url!r} is not an address: {exc}") from exc
        good = parts.path.startswith("/") if parts.scheme == "file" else parts.scheme in ("http", "https")
        if not good or bool(parts.hostname) == (parts.scheme == "file") or parts.query or parts.fragment:
            raise UsageError(
                f"{_shown(parts)!r} is not a base address: write it like https://mirror.example/etcd or file:///srv/etcd"
            )
        self._url = url.strip().rstrip("/")
        self._silence_s = silence_s
        self.shown = _shown(parts).rstrip("/")
        """The address for people, without user and password."""
        self._parts = parts

    @classmethod
    def choose(cls, given: str | None, silence_s: float = SILENCE_S, env: Mapping[str, str] | None = None) -> Base:
        """Return the address that was given, else that of the environment, else etcd's own. Raises UsageError."""
        return cls(given or (os.environ if env is None else env).get(ENV) or BASE_URL, silence_s)

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[Body]:
        """Yield a file under the address, for a block. Raises NotThere and DownloadFailed."""
        where = f"{self.shown}/{path}"
        if self._parts.scheme == "file":
            with _open_file(Path(url2pathname(self._parts.path), path), where) as file:
                yield Body(os.fstat(file.fileno()).st_size, _read_file(file, where))
            return
        with importing():
            import requests

        with requests.Session() as session:
            try:
                response = session.get(
                    f"{self._url}/{path}", stream=True, timeout=(min(_CONNECT_S, self._silence_s), self._silence_s),
                    headers={"Accept-Encoding": "identity", "User-Agent": "raftload"},
                )  # fmt: skip
            except (requests.RequestException, http.client.HTTPException, OSError, ValueError) as exc:
                raise self._why(exc, where) from exc
            with response:
                self._expect_file(response, where)
                length = response.headers.get("Content-Length", "")
                size = int(length) if length.isdecimal() else None
                yield Body(size, self._read(response.raw, size, where))

    def read(self, path: str, most: int) -> bytes:
        """Return a small file under the address, of ``most`` bytes at most. Raises NotThere and DownloadFailed."""
        content = b""
        with self.open(path) as body:
            for chunk in body.chunks:
                content += chunk
                if len(content) > most:
                    raise DownloadFailed(
                        f"{self.shown}/{path} has more than {most:,} bytes: this is not a release page"
                    )
        return content

    def _expect_file(self, response: requests.Response, where: str) -> None:
        if response.status_code in (404, 410):
            raise NotThere(f"{where} does not exist")
        if response.status_code != 200:
            raise DownloadFailed(
                f"{where} answers {response.status_code} {response.reason or ''}".rstrip() + ": try again later, "
                "or name a mirror by --base-url"
            )
        if self._parts.scheme == "https" and not response.url.startswith("https:"):
            raise DownloadFailed(f"{where} redirects to an address without TLS: name a mirror by --base-url")

    def _read(self, raw: urllib3.BaseHTTPResponse, size: int | None, where: str) -> Iterator[bytes]:
        import urllib3

        done = 0
        while True:
            try:
                chunk: bytes = raw.read(_CHUNK, decode_content=False)
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as exc:
                if isinstance(exc, urllib3.exceptions.ReadTimeoutError):
                    reason = f"no data for {self._silence_s:g} s"
                else:
                    reason = _reason(exc) or "the connection was closed"
                raise _cut(where, done, size, reason) from exc
            if not chunk:
                break
            done += len(chunk)
            yield chunk
        if size is not None and done < size:
            raise _cut(where, done, size, "the connection was closed")

    def _why(self, exc: Exception, where: str) -> DownloadFailed:
        """Return what a request failed by, in one line that says what to do."""
        import requests

        advice = f"check the network and https_proxy, or name a mirror by --base-url or ${ENV}"
        reason = _reason(exc)
        if isinstance(exc, requests.exceptions.ProxyError):
            return DownloadFailed(f"the proxy does not connect to {where} ({reason or 'refused'}): check https_proxy")
        if isinstance(exc, requests.exceptions.SSLError):
            return DownloadFailed(
                f"{where} cannot be trusted ({reason or 'TLS'}): set REQUESTS_CA_BUNDLE to the file of its CA"
            )
        if isinstance(exc, requests.exceptions.Timeout):
            connecting = isinstance(exc, requests.exceptions.ConnectTimeout)
            within_s = min(_CONNECT_S, self._silence_s) if connecting else self._silence_s
            return DownloadFailed(f"{where} does not answer within {within_s:g} s: {advice}")
        if isinstance(exc, requests.exceptions.TooManyRedirects):
            return DownloadFailed(f"{where} redirects in a loop: name a mirror by --base-url")
        return DownloadFailed(f"{where} cannot be reached ({reason or type(exc).__name__}): {advice}")


def _open_file(path: Path, where: str) -> IO[bytes]:
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotThere(f"{where} does not exist") from exc
    except OSError as exc:
        raise DownloadFailed(f"{where} cannot be read: {exc.strerror or exc}") from exc


def _read_file(file: IO[bytes], where: str) -> Iterator[bytes]:
    try:
        while chunk := file.read(_CHUNK):
            yield chunk
    except OSError as exc:
        raise DownloadFailed(f"{where} cannot be read: {exc.strerror or exc}") from exc


def _cut(where: str, done: int, size: int | None, reason: str) -> DownloadFailed:
    of = f" of {size:,}" if size is not None else ""
    return DownloadFailed(f"{where} was cut after {done:,}{of} bytes ({reason}): run the command again")


def _shown(parts: urllib.parse.SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _reason(exc: BaseException) -> str:
    """Return the system's own words for what is behind an error of requests; empty where there are none."""
    found = ""
    seen: set[int] = set()
    each: BaseException | None = exc
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, OSError) and each.strerror:
            found = each.strerror
        elif isinstance(each, OSError) and each.args and isinstance(each.args[0], str) and each.__context__ is None:
            found = found or each.args[0]
        # urllib3 wraps what TLS fails by, and chains nothing.
        inner = each.args[0] if each.args and isinstance(each.args[0], BaseException) else None
        each = each.__cause__ or each.__context__ or inner
    return " ".join(found.split())[:200]
