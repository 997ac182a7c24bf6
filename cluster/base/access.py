"""How a cluster that raftload made is reached: a private folder with its certificates and its users' passwords."""

from __future__ import annotations

import dataclasses
import datetime
import os
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from cluster.base.certificates import Authority, write_private
from cluster.base.errors import ClusterError
from cluster.base.security import Security, export
from cluster.base.topology import ServerTls

ROOT, CLIENT = "root", "client"
"""The users of a cluster with authentication: one with the role root, one that reads and writes all keys."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The cluster runs until it is removed.
_VALID = datetime.timedelta(days=3650)


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How a cluster is reached; the default is a cluster without TLS and users.

    Attributes:
        folder: holds the certificates, their keys and the passwords; empty where there are none.
        tls: whether clients and peers speak TLS, and both show a certificate.
        auth: whether there are users.
    """

    folder: str = ""
    tls: bool = False
    auth: bool = False

    @classmethod
    def make(cls, folder: Path, hosts: Sequence[str], *, tls: bool, auth: bool) -> Access:
        """Make the folder, for its owner alone, with certificates and passwords, as far as they are asked for.

        Takes the names and addresses of the members beside those of loopback. Raises ClusterError. Where it fails or is
        interrupted, the folder is gone again.
        """
        if not (tls or auth):
            return cls()
        made = cls(str(folder), tls, auth)
        try:
            folder.mkdir(mode=0o700, parents=True)
            try:
                made._fill(hosts)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        except OSError as exc:
            raise ClusterError(f"cannot write certificates and passwords to {folder}: {exc.strerror or exc}") from exc
        return made

    def _fill(self, hosts: Sequence[str]) -> None:
        folder = Path(self.folder)
        if self.tls:
            authority = Authority(folder, "raftload cluster CA", _VALID)
            # Without common names: etcd would look for a user of that name, and its gateway would refuse them all.
            names = dict.fromkeys((*LOOPBACK, *hosts))
            for name in ("server", "peer"):
                authority.sign(name, *names, left=_VALID, common_name=False)
            authority.sign("client", left=_VALID, common_name=False)
        for user in (ROOT, CLIENT) if self.auth else ():
            write_private(Path(self.password_path(user)), secrets.token_hex(16).encode())

    def password(self, user: str) -> str:
        """Return the password of ``ROOT`` or ``CLIENT``. Raises ClusterError where it cannot be read."""
        path = Path(self.password_path(user))
        try:
            return path.read_text(encoding="ascii")
        except (OSError, ValueError) as exc:
            raise self._lost(path, exc) from exc

    def password_path(self, user: str) -> str:
        """Return the file that holds the password of a user."""
        return str(Path(self.folder) / _password_file(user))

    @property
    def files(self) -> dict[str, str]:
        """The client's side of TLS, as ``Security`` names the files: ``cacert``, ``cert``, ``key``; none without."""
        names = {"cacert": "ca.pem", "cert": "client.pem", "key": "client-key.pem"} if self.tls else {}
        return {what: str(Path(self.folder) / name) for what, name in names.items()}

    def security(self, *, login: bool = True) -> Security:
        """Return how to reach the members as the user root; ``login`` is false while there are no users yet.

        Raises ClusterError where the files cannot be read.
        """
        files = self.files
        for path in files.values():
            if not os.access(path, os.R_OK):
                raise self._lost(Path(path), "it is missing, or belongs to another user")
        cacert, cert, key = (files.get(name) for name in ("cacert", "cert", "key"))
        if not (self.auth and login):
            return Security(cacert, cert, key)
        return Security(cacert, cert, key, user=ROOT, password=self.password(ROOT))

    def server_tls(self, at: str = "") -> ServerTls | None:
        """Return the members' side of TLS, None without; ``at`` is the folder as the members see it."""
        if not self.tls:
            return None

        def path(name: str) -> str:
            return f"{at or self.folder}/{name}"

        return ServerTls(
            cert=path("server.pem"), key=path("server-key.pem"), client_ca=path("ca.pem"),
            peer_cert=path("peer.pem"), peer_key=path("peer-key.pem"), peer_ca=path("ca.pem"),
        )  # fmt: skip

    def unlike(self, tls: bool | None, auth: bool | None) -> str:
        """Return in which respect it is not what is asked for, in words; empty where it is. None asks for nothing."""
        if tls is not None and tls != self.tls:
            return f"{'with' if self.tls else 'without'} TLS"
        if auth is not None and auth != self.auth:
            return f"{'with' if self.auth else 'without'} authentication"
        return ""

    def describe(self, endpoints: Sequence[str]) -> list[str]:
        """Return what a person needs to use the cluster with etcdctl or from elsewhere, a line each.

        Takes the client URLs. The lines have the files of the passwords, not the passwords: what is printed stays in
        the logs of CI. Raises ClusterError.
        """
        lines = [
            "the other commands find it without options; for etcdctl: "
            + export(endpoints, self.security(), self._password_word(ROOT))
        ]
        if self.auth:
            lines.append(
                f"a user that reads and writes every key, and nothing else: export ETCDCTL_USER={CLIENT} "
                f"ETCDCTL_PASSWORD={self._password_word(CLIENT)}"
            )
        lines.append(f"certificates, keys and passwords are in {self.folder}; `raftload cluster down` removes them")
        return lines

    def _password_word(self, user: str) -> str:
        """Return what a shell replaces by a user's password."""
        return f'"$(cat {shlex.quote(self.password_path(user))})"'

    def _lost(self, path: Path, reason: object) -> ClusterError:
        why = (reason.strerror if isinstance(reason, OSError) else None) or reason
        return ClusterError(f"cannot read {path}, by which the cluster is reached: {why}")


def _password_file(user: str) -> str:
    return f"{user}.password"
