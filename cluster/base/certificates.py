"""Certificates made on the spot: an authority, and what it signs."""

from __future__ import annotations

import dataclasses
import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

DAY = datetime.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Paths of a certificate and its key, PEM."""

    cert: str
    key: str


class Authority:
    """A certificate authority in a folder. Its own key is never written, so nobody can sign anything later.

    Attributes: ``cert``, the path of its own certificate.
    """

    def __init__(self, folder: Path, name: str = "raftload CA", left: datetime.timedelta = DAY) -> None:
        """Write ``ca.pem`` into a folder, made if it is missing, valid for so long. Raises OSError."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = self._builder(self._name, self._key, now - DAY, now + left).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.cert = str(folder / "ca.pem")
        self._write(self.cert, builder.add_extension(_usage(authority=True), critical=True))

    def sign(
        self,
        name: str,
        *hosts: str,
        age: datetime.timedelta = DAY,
        left: datetime.timedelta = DAY,
        common_name: bool = True,
    ) -> Pair:
        """Return a certificate for server and client use.

        Takes the name of its files and of its subject, the host names and addresses that it is for, since when it is
        valid and how long still, and whether the name is the subject's common name, by which etcd takes a client for
        the user of that name. Only the owner can read the key. Raises OSError.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        what = NameOID.COMMON_NAME if common_name else NameOID.ORGANIZATION_NAME
        builder = (
            self._builder(x509.Name([x509.NameAttribute(what, name)]), key, now - age, now + left)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        if hosts:
            names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        pair = Pair(str(self._folder / f"{name}.pem"), str(self._folder / f"{name}-key.pem"))
        self._write(pair.cert, builder)
        write_private(
            Path(pair.key),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        return pair

    def _write(self, path: str, builder: x509.CertificateBuilder) -> None:
        from cryptography.hazmat.primitives import hashes, serialization

        made = builder.sign(self._key, hashes.SHA256())
        Path(path).write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, begin: datetime.datetime, end: datetime.datetime
    ) -> x509.CertificateBuilder:
        from cryptography import x509

        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from the first byte on. Raises OSError."""
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(opened, "wb") as file:  # noqa: PTH123
        os.fchmod(opened, 0o600)  # it may have been there
        file.write(content)


def _usage(*, authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=authority, crl_sign=authority, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
        decipher_only=False,
    )  # fmt: skip


def _general_name(host: str) -> x509.GeneralName:
    import ipaddress

    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
