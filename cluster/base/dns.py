"""SRV records (RFC 2782) asked of the system's nameservers, which Python's standard library cannot.

A query of one type is a hundred lines; dnspython would be the first dependency of this package that is for one option.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

from cluster.base.errors import ClusterError, UsageError

NAMESERVER = "RAFTLOAD_NAMESERVER"
"""The variable that names the nameserver to ask, ``127.0.0.1:5353``, in place of those of the system."""
RESOLV_CONF = Path("/etc/resolv.conf")
_PORT, _SRV, _OPT, _IN = 53, 33, 41, 1
# Of one question to one nameserver; each is asked twice, as resolv.conf(5) has it.
ANSWER_S, ATTEMPTS = 2.0, 2
# What an answer over UDP may take without being cut into fragments (https://www.dnsflagday.net/2020/).
_UDP_BYTES = 1232
_CODES = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}

Server = tuple[str, int]


class NoRecord(ClusterError):  # noqa: N818
    """There is no SRV record of a name, or no nameserver says."""


class NoNameserver(ClusterError):  # noqa: N818
    """No nameserver answers anything, so there is no use in asking for another name."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Service:
    """One SRV record, in the order in which they are to be used; ``target`` ends in a dot."""

    priority: int
    negative_weight: int
    target: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Resolver:
    """Where names are looked up.

    Attributes:
        servers: the nameservers, in the order in which they are asked.
        search: suffixes to try a name with.
        ndots: a name with fewer dots is tried with the suffixes first.
    """

    servers: tuple[Server, ...]
    search: tuple[str, ...] = ()
    ndots: int = 1

    @classmethod
    def of_system(cls) -> Resolver:
        """Return that of $RAFTLOAD_NAMESERVER, else of /etc/resolv.conf. Raises UsageError."""
        if os.environ.get(NAMESERVER):
            return cls((_server(os.environ[NAMESERVER]),))
        try:
            text = RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        return cls.from_text(text)

    @classmethod
    def from_text(cls, text: str) -> Resolver:
        """Take the text of a resolv.conf. Without a nameserver that of this machine is asked (resolv.conf(5))."""
        servers: list[Server] = []
        search: tuple[str, ...] = ()
        ndots = 1
        for line in text.splitlines():
            word, *rest = line.split() or [""]
            if word == "nameserver" and rest:
                servers.append((rest[0], _PORT))
            elif word in ("search", "domain"):
                search = tuple(each for each in rest if each.strip("."))
            elif word == "options":
                for option in rest:
                    count = option.removeprefix("ndots:")
                    if count != option and count.isascii() and count.isdecimal():
                        ndots = int(count)
        return cls(tuple(servers[:3]) or (("127.0.0.1", _PORT),), search, ndots)

    def names(self, name: str) -> Iterator[str]:
        """Yield the names to ask for, each with a dot at its end."""
        if name.endswith("."):
            yield name
            return
        suffixed = [f"{name}.{suffix.strip('.')}." for suffix in self.search]
        yield from [f"{name}.", *suffixed] if name.count(".") >= self.ndots else [*suffixed, f"{name}."]

    def services(self, name: str, silent: set[Server] | None = None) -> list[Service]:
        """Return the SRV records of a name, the first to use first.

        Takes the nameservers that did not answer before, to which those are added that do not answer now; they are
        asked last. Raises NoRecord, NoNameserver, and UsageError for no name.
        """
        silent = set() if silent is None else silent
        why = ""
        for each in self.names(name):
            try:
                found = self._ask_all(each, silent)
            except NoRecord as exc:
                why = why or str(exc)
                continue
            if found:
                return sorted(found)
            why = why or "no such record"
        raise NoRecord(why)

    def _ask_all(self, name: str, silent: set[Server]) -> list[Service]:
        reasons: list[str] = []
        query = _query(name)
        for _ in range(ATTEMPTS):
            for server in sorted(self.servers, key=silent.__contains__):
                where = server[0] if server[1] == _PORT else f"{server[0]}:{server[1]}"
                try:
                    return _ask(server, query)
                except NoRecord as exc:
                    raise NoRecord(f"{exc} from {where}") from exc
                except OSError as exc:
                    silent.add(server)
                    reasons.append(f"{where}: {_why(exc)}")
                except (ValueError, IndexError, struct.error) as exc:
                    reasons.append(f"{where}: {exc}")
        kind = NoNameserver if silent.issuperset(self.servers) else NoRecord
        raise kind("no nameserver answers: " + "; ".join(dict.fromkeys(reasons)))


def _why(exc: OSError) -> str:
    return "no answer" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)


def _server(text: str) -> Server:
    from cluster.base.endpoint import Endpoint

    has_port = text.rpartition(":")[2].isdecimal() and not text.endswith("]")
    try:
        at = Endpoint.parse(text if has_port else f"{text}:{_PORT}")
    except ValueError as exc:
        raise UsageError(f"${NAMESERVER} is {text!r}: write the address of a nameserver, such as 127.0.0.1:53") from exc
    return at.host, at.port


def _query(name: str) -> bytes:
    """Return the question for the SRV records of a name that ends in a dot (RFC 1035, section 4; RFC 6891)."""
    header = struct.pack(">HHHHHH", secrets.randbits(16), 0x0100, 1, 0, 0, 1)
    size = struct.pack(">BHHIH", 0, _OPT, _UDP_BYTES, 0, 0)
    return header + _coded(name) + struct.pack(">HH", _SRV, _IN) + size


def _coded(name: str) -> bytes:
    try:
        labels = [label.encode("idna") if not label.isascii() else label.encode() for label in name[:-1].split(".")]
    except UnicodeError:
        labels = [b""]
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise UsageError(f"{name[:-1]!r} is not a domain name")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _ask(server: Server, query: bytes) -> list[Service]:
    """Ask over UDP, and over TCP where the answer is cut.

    Raises OSError where there is no answer over UDP, ValueError, IndexError or struct.error for one of no use, and
    NoRecord.
    """
    until = monotonic() + ANSWER_S
    family, _, _, _, where = socket.getaddrinfo(*server, 0, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        asked.connect(where)  # so that nobody else answers, and a closed port is told
        asked.send(query)
        while True:
            asked.settimeout(max(0.001, until - monotonic()))
            answer = asked.recv(65535)
            if answer[:2] == query[:2] and len(answer) >= 12:
                break
    if not answer[2] & 0x02:
        return _records(answer, query)
    try:
        with socket.create_connection(server, timeout=ANSWER_S) as stream:
            stream.sendall(struct.pack(">H", len(query)) + query)
            with stream.makefile("rb") as answers:
                (size,) = struct.unpack(">H", answers.read(2))
                whole = answers.read(size)
    except OSError as exc:
        raise ValueError(f"over TCP: {_why(exc)}") from exc
    return _records(whole, query)


def _records(answer: bytes, query: bytes) -> list[Service]:
    """Return the SRV records of an answer. Raises NoRecord where there is no such name, ValueError for garbage."""
    number, flags, questions, count = struct.unpack(">HHHH", answer[:8])
    if number != struct.unpack(">H", query[:2])[0] or not flags & 0x8000:
        raise ValueError("not an answer to the question")
    code = flags & 0x000F
    if code == 3:
        raise NoRecord("NXDOMAIN")
    if code:
        raise ValueError(_CODES.get(code, f"error {code}"))  # another nameserver may know
    at = 12
    for _ in range(questions):
        at = _name(answer, at)[1] + 4
    found = []
    for _ in range(count):
        at = _name(answer, at)[1]
        kind, _, _, length = struct.unpack(">HHIH", answer[at : at + 10])
        at += 10
        if kind == _SRV:
            priority, weight, port = struct.unpack(">HHH", answer[at : at + 6])
            target = _name(answer, at + 6)[0]
            if target != ".":  # the service is decidedly not there (RFC 2782)
                found.append(Service(priority, -weight, target, port))
        at += length
    return found


def _name(message: bytes, at: int) -> tuple[str, int]:
    """Return the name at a place, and the place after it. Raises ValueError for one that points in circles."""
    labels: list[str] = []
    after = 0
    for _ in range(128):
        length = message[at]
        if length >= 0xC0:  # a pointer (RFC 1035, section 4.1.4)
            after = after or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
        elif not length:
            return ".".join(labels) + ".", after or at + 1
        else:
            labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
            at += 1 + length
    raise ValueError("a name without an end")


def endpoints_of(domain: str, name: str = "", resolver: Resolver | None = None) -> Sequence[str]:
    """Return the client URLs that a domain's SRV records name, as etcdctl finds them.

    Those of ``_etcd-client-ssl._tcp`` are ``https://``, those of ``_etcd-client._tcp`` ``http://``; ``name`` is a
    suffix of both services, as in ``_etcd-client-NAME._tcp``. Raises ClusterError where there is none, UsageError for
    what is no domain.
    """
    _coded(f"{domain.removesuffix('.')}.")
    resolver = resolver or Resolver.of_system()
    suffix = f"-{name}" if name else ""
    found: list[str] = []
    reasons: list[str] = []
    silent: set[Server] = set()
    for service, scheme in ((f"etcd-client-ssl{suffix}", "https"), (f"etcd-client{suffix}", "http")):
        asked = f"_{service}._tcp.{domain}"
        try:
            found += [f"{scheme}://{each.target}:{each.port}" for each in resolver.services(asked, silent)]
        except NoRecord as exc:
            reasons.append(f"{asked}: {exc}")
        except NoNameserver as exc:
            reasons.append(str(exc))
            break
    if not found:
        raise ClusterError(f"no endpoints of {domain} by DNS SRV: {'; '.join(reasons)}")
    return found
