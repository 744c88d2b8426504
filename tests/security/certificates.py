"""An authority of the test's own, and certificates that it issues, in files."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tokens import encoded


@dataclass(frozen=True)
class Certificate:
    file: Path
    key: Path
    der: bytes

    @property
    def confirmation(self) -> dict[str, str]:
        """What a token that is bound to it says (RFC 8705 §3.1)."""
        return {"x5t#S256": encoded(hashlib.sha256(self.der).digest())}


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self.name, self.key, [(constraint, True)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *, address: str | None = None, uri: str | None = None) -> Certificate:
        """A certificate for both sides of TLS."""
        names: list[x509.GeneralName] = []
        if address:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        if uri:
            names.append(x509.UniformResourceIdentifier(uri))
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, [(x509.SubjectAlternativeName(names), False), (usage, False)])
        file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return Certificate(file, key_file, certificate.public_bytes(Encoding.DER))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())
