"""TLS and login options of a cluster: etcdctl's flags and environment names, and the text of TLS errors.

``ssl`` is imported where it is used: it must not be before gevent has patched it, in a process that gevent patches.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import getpass
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cluster.base.errors import UsageError
from cluster.base.units import duration_text, parse_duration

if TYPE_CHECKING:
    import ssl

DIAL_TIMEOUT_S = 5.0
_TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})  # Go's strconv.ParseBool
_FALSE = frozenset({"", "0", "f", "F", "false", "False", "FALSE"})

WRONG_CA = "certificate not trusted"
EXPIRED = "certificate expired"
NOT_YET = "certificate not valid yet"
WRONG_HOST = "certificate of another host"
CERTIFICATE_WANTED = "client certificate required"
CERTIFICATE_REFUSED = "client certificate refused"
NO_ALPN = "no HTTP/2 over TLS"
PLAIN_SPOKEN = "TLS not spoken"
TLS_FAILED = "TLS failed"

TLS_HINTS = {
    WRONG_CA: "its certificate is signed by an unknown CA; give that CA's certificate with --cacert ($ETCDCTL_CACERT)",
    EXPIRED: "its certificate has expired; is the clock right?",
    NOT_YET: "its certificate is not valid yet; is the clock right?",
    WRONG_HOST: "its certificate does not name this host or address; use a name that it has",
    CERTIFICATE_WANTED: "it requires a client certificate; give one with --cert and --key",
    CERTIFICATE_REFUSED: "it does not accept the certificate of --cert: its CA is not trusted there, or it has expired",
    NO_ALPN: "it speaks TLS, but does not agree to HTTP/2 (ALPN h2); is there a proxy in between?",
    PLAIN_SPOKEN: "it does not speak TLS; use http://",
    TLS_FAILED: "the TLS handshake failed; does it speak TLS at all?",
}


class _Files(Protocol):
    """What a context of ``ssl`` and one of ``_ssl`` below it have in common."""

    def load_verify_locations(self, cafile: str, /) -> None:
        """Trust the certificates in a file."""

    def load_cert_chain(self, certfile: str, keyfile: str | None, /, password: Callable[[], bytes]) -> None:
        """Use a certificate and its key."""


class SecurityError(UsageError):
    """An option about TLS or the user that makes no sense, or a file that cannot be used: one line."""


@dataclasses.dataclass(frozen=True, slots=True)
class Security:
    """How to reach a cluster; the default speaks TLS only to ``https://`` and trusts whom the system trusts.

    Attributes:
        cacert, cert, key: paths of PEM files.
        insecure_skip_tls_verify: accept any certificate.
        user, password: for clusters with auth enabled.
        dial_timeout_s: seconds until an attempt to connect is given up.
    """

    cacert: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure_skip_tls_verify: bool = False
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    dial_timeout_s: float = DIAL_TIMEOUT_S

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise SecurityError("--cert and --key go together; give both")
        if self.user and not self.password:
            raise SecurityError("--user needs a password: NAME:PASSWORD, or $ETCDCTL_PASSWORD")
        if self.dial_timeout_s <= 0:
            raise SecurityError(f"the dial timeout must be above 0, not {self.dial_timeout_s:g} s")

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None) -> Security:
        """Take an environment (default: this process's), return what its ``ETCDCTL_*`` names say.

        As in etcdctl an empty value is none. Raises SecurityError.
        """
        return cls.from_arguments(argparse.Namespace(), env)

    @classmethod
    def from_arguments(cls, args: argparse.Namespace, env: Mapping[str, str] | None = None) -> Security:
        """Take the options of ``add_arguments``, return what they say, and where they are silent the environment.

        A user without a password is asked for it where there is a terminal. Raises SecurityError, also for a file
        that cannot be read or used.
        """
        env = os.environ if env is None else env

        def given(option: str) -> str | None:
            return getattr(args, option, None) or env.get(f"ETCDCTL_{option.upper()}") or None

        user, password = given("user") or "", env.get("ETCDCTL_PASSWORD", "")
        if not password:  # else the whole of it is the name, as in etcdctl: names may have colons
            user, _, password = user.partition(":")
        if user and not password and sys.stdin is not None and sys.stdin.isatty():
            password = getpass.getpass(f"Password of {user}: ")
        skip = getattr(args, "insecure_skip_tls_verify", False)
        files = {option: given(option) for option in ("cacert", "cert", "key")}
        security = cls(
            **files,
            insecure_skip_tls_verify=skip or _boolean("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", env),
            user=user or None,
            password=password or None if user else None,
            dial_timeout_s=_duration("ETCDCTL_DIAL_TIMEOUT", env) or DIAL_TIMEOUT_S,
        )
        for option, path in files.items():
            _check_readable(option, path)
        security.check_files()
        return security

    def to_environment(self) -> dict[str, str]:
        """Return the environment that says the same, with absolute paths: how workers on this machine are told."""
        values = {
            "CACERT": self.cacert and os.path.abspath(self.cacert),  # noqa: PTH100
            "CERT": self.cert and os.path.abspath(self.cert),  # noqa: PTH100
            "KEY": self.key and os.path.abspath(self.key),  # noqa: PTH100
            "INSECURE_SKIP_TLS_VERIFY": "true" if self.insecure_skip_tls_verify else None,
            "USER": self.user,
            "PASSWORD": self.password,
            "DIAL_TIMEOUT": duration_text(self.dial_timeout_s) if self.dial_timeout_s != DIAL_TIMEOUT_S else None,
        }
        return {f"ETCDCTL_{name}": value for name, value in values.items() if value}

    def url(self, endpoint: str) -> str:
        """Take an endpoint as people write it, return it with its scheme where that is certain.

        Like etcdctl it speaks TLS to one without a scheme where a CA or a client certificate is given.
        """
        has_scheme = "://" in endpoint or endpoint.startswith(("unix:", "unixs:"))
        return endpoint if has_scheme or not (self.cacert or self.cert) else f"https://{endpoint}"

    def filled(self, found: Security) -> Security:
        """Return the same with what another one says where it is silent: CA, certificate and key, user and password."""
        pair = self if self.cert else found
        user = self if self.user else found
        return dataclasses.replace(
            self, cacert=self.cacert or found.cacert, cert=pair.cert, key=pair.key, user=user.user,
            password=user.password,
        )  # fmt: skip

    def describe(self) -> str:
        """Return it in words, without the password; empty for the default."""
        words = []
        if self.cacert:
            words.append(f"CA {self.cacert}")
        if self.cert:
            words.append(f"client certificate {self.cert}")
        if self.insecure_skip_tls_verify:
            words.append("any certificate accepted")
        if self.user:
            words.append(f"user {self.user}")
        return ", ".join(words)

    def context(self, *alpn: str) -> ssl.SSLContext:
        """Return a context for client connections, for TLS 1.2 and later; the same one every time.

        Certificates are checked as Go does, and so etcdctl: against the alternative names only. Raises SecurityError
        for files of no use.
        """
        return _context(self, alpn)

    def _context(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # HTTP/2 forbids it (RFC 9113, section 9.2.1)
        context.hostname_checks_common_name = False
        if self.insecure_skip_tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if not self.cacert:
            context.load_default_certs()
        self._load_files(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def check_files(self) -> None:
        """Find out whether the files are of use, before anything is started. Raises SecurityError.

        OpenSSL reads them as it will for a connection, below ``ssl``.
        """
        if self.cacert or self.cert:
            import _ssl

            self._load_files(_ssl._SSLContext(_ssl.PROTOCOL_TLS_CLIENT))

    def _load_files(self, context: _Files) -> None:
        """Load the certificates and the key into a context. Raises SecurityError."""
        if self.cacert:
            try:
                context.load_verify_locations(self.cacert)
            except (OSError, ValueError) as exc:
                raise SecurityError(f"--cacert {self.cacert}: not certificates in PEM ({_reason(exc)})") from exc
        if self.cert:
            try:
                # An encrypted key would be asked for on the terminal, by every worker.
                context.load_cert_chain(self.cert, self.key, password=lambda: b"")
            except (OSError, ValueError) as exc:
                raise SecurityError(
                    f"--cert {self.cert} with --key {self.key}: not a certificate and its key in PEM ({_reason(exc)})"
                ) from exc


@functools.lru_cache(maxsize=8)
def _context(security: Security, alpn: tuple[str, ...]) -> ssl.SSLContext:
    return security._context(alpn)


def add_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options about TLS and the user to a parser."""
    parser.add_argument(
        "--cacert", metavar="FILE",
        help="PEM file of the CA certificates to trust (default: $ETCDCTL_CACERT, else those of the system)",
    )  # fmt: skip
    parser.add_argument(
        "--cert", metavar="FILE", help="PEM file of the client certificate, with --key (default: $ETCDCTL_CERT)"
    )
    parser.add_argument(
        "--key", metavar="FILE", help="PEM file of the client certificate's private key (default: $ETCDCTL_KEY)"
    )
    parser.add_argument(
        "--user", metavar="NAME[:PASSWORD]",
        help="user of a cluster with authentication (default: $ETCDCTL_USER); set the password as $ETCDCTL_PASSWORD, "
        "because other users of this machine can see command lines; all of NAME is then the name, also with a colon",
    )  # fmt: skip
    parser.add_argument(
        "--insecure-skip-tls-verify", action="store_true", help="do not verify the server's certificate"
    )


def given(args: argparse.Namespace) -> str | None:
    """Return the first of the options that was given on the command line, as ``--cacert``; None where none was."""
    options = ("cacert", "cert", "key", "user", "insecure_skip_tls_verify")
    return next((f"--{option.replace('_', '-')}" for option in options if getattr(args, option, None)), None)


def said_of_ours(args: argparse.Namespace) -> Security:
    """Return what the options say of a cluster that raftload made. Raises as ``Security.from_arguments``."""
    # The environment is about the endpoints that it names, if not about the user that was given.
    return Security.from_arguments(args, {name: os.environ.get(name, "") for name in ("ETCDCTL_PASSWORD",)})


def of_ours(args: argparse.Namespace, found: Security, said: Security | None = None) -> Security:
    """Return how to reach a cluster that raftload made: as it was made, but where options say otherwise.

    Takes the options, how the cluster was made, and what ``said_of_ours`` returned where it was called before: it may
    ask for a password. Raises UsageError for an option where the cluster has neither TLS nor users, and as
    ``Security.from_arguments``.
    """
    option = given(args)
    if option is None:
        return found
    if found == Security():
        raise UsageError(f"{option} is only for a cluster given with --endpoints")
    return (said or said_of_ours(args)).filled(found)


def export(endpoints: Sequence[str], security: Security, password: str = "…") -> str:
    """Return the command of a shell after which etcdctl and raftload reach a cluster.

    Takes the members' client URLs, how to reach them, and the shell's word for the password, which is not shown.
    """
    values = {"ETCDCTL_ENDPOINTS": ",".join(endpoints), **security.to_environment()}
    words = {name: shlex.quote(value) for name, value in values.items()}
    if security.password:
        words["ETCDCTL_PASSWORD"] = password
    return "export " + " ".join(f"{name}={word}" for name, word in words.items())


def masked(command: Sequence[str], args: argparse.Namespace) -> tuple[str, ...]:
    """Take a command line and what was parsed from it, return it without the password."""
    user, _, password = (getattr(args, "user", None) or "").partition(":")
    if not password:
        return tuple(command)
    return tuple(word.replace(f"{user}:{password}", f"{user}:***") for word in command)


def tls_cause(exc: ssl.SSLError, *, certificate: bool) -> str:
    """Take what ``ssl`` raised and whether we have a client certificate, return which of this module's causes it is.

    The numbers are OpenSSL's verify results (its manual, X509_STORE_CTX_get_error), the names TLS's alerts
    (RFC 8446, section 6): Go says bad_certificate where none came, too.
    """
    code = getattr(exc, "verify_code", None)
    if code is not None:
        return {9: NOT_YET, 10: EXPIRED, 62: WRONG_HOST, 64: WRONG_HOST}.get(code, WRONG_CA)
    # Python 3.11 has no name for the alert no_application_protocol; OpenSSL's words for it are in the text.
    reason = exc.reason or str(exc.strerror or "").upper().replace(" ", "_")
    if "ALERT_CERTIFICATE_REQUIRED" in reason:
        return CERTIFICATE_WANTED
    if "ALERT_UNKNOWN_CA" in reason or ("ALERT" in reason and "CERTIFICATE" in reason):
        return CERTIFICATE_REFUSED if certificate else CERTIFICATE_WANTED
    if "ALERT_NO_APPLICATION_PROTOCOL" in reason:
        return NO_ALPN
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return PLAIN_SPOKEN
    return TLS_FAILED


def _reason(exc: Exception) -> str:
    """Return the reason that OpenSSL or the system gives; OpenSSL has none for a file without PEM."""
    text = str(getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc)
    return "no PEM in one of them" if "PEM lib" in text else text


def _check_readable(option: str, path: str | None) -> None:
    if path is None:
        return
    try:
        with Path(path).open("rb"):
            pass
    except OSError as exc:
        raise SecurityError(f"--{option} {path}: {exc.strerror or exc}") from exc


def _boolean(name: str, env: Mapping[str, str]) -> bool:
    value = env.get(name, "")
    if value not in _TRUE | _FALSE:
        raise SecurityError(f"${name} is {value!r}: write true or false")
    return value in _TRUE


def _duration(name: str, env: Mapping[str, str]) -> float:
    try:
        return parse_duration(env.get(name) or "0", plain=False)
    except ValueError as exc:
        raise SecurityError(f"${name}: {exc}") from exc
