"""Keys of an issuer, and tokens: good ones, and whatever a test wants to have signed."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any, Callable

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "https://mcp.example/mcp"
SCOPES = ["mcp:read", "mcp:write"]

HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
numbers = itertools.count(1)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(content: dict[str, Any] | str | bytes) -> str:
    """A part of a token; a string is taken as it is."""
    if isinstance(content, dict):
        content = json.dumps(content)
    return encoded(content.encode() if isinstance(content, str) else content)


def token(header: dict[str, Any] | str, claims: dict[str, Any] | str, sign: Callable[[bytes], bytes]) -> str:
    signed = f"{part(header)}.{part(claims)}"
    return f"{signed}.{encoded(sign(signed.encode()))}"


class Key:
    """A key pair with its entry in a key set."""

    def __init__(self, algorithm: str = "RS256", kid: str | None = None, bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.kid = kid or f"key-{next(numbers)}"
        if algorithm[:2] in ("RS", "PS"):
            self.private: Any = rsa.generate_private_key(65537, bits)
        elif algorithm[:2] == "ES":
            self.private = ec.generate_private_key({"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1()}[algorithm])
        else:
            self.private = ed25519.Ed25519PrivateKey.generate()
        self.public = self.private.public_key()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its entry; members that are None are left out."""
        kind = {"R": "RS256", "P": "RS256", "E": self.algorithm}[self.algorithm[0]]
        members = jwt.get_algorithm_by_name(kind).to_jwk(self.public, as_dict=True)
        members.pop("key_ops", None)
        members |= {"kid": self.kid, "alg": self.algorithm, "use": "sig", **more}
        return {name: value for name, value in members.items() if value is not None}

    @property
    def pem(self) -> bytes:
        return self.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data: bytes, algorithm: str | None = None) -> bytes:
        algorithm = algorithm or self.algorithm
        digest = HASHES.get(algorithm[2:])
        if algorithm.startswith("RS"):
            return self.private.sign(data, padding.PKCS1v15(), digest)
        if algorithm.startswith("PS"):
            return self.private.sign(data, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        if algorithm.startswith("ES"):
            size = (self.private.curve.key_size + 7) // 8
            both = utils.decode_dss_signature(self.sign_der(data, digest))
            return b"".join(number.to_bytes(size) for number in both)
        return self.private.sign(data)

    def sign_der(self, data: bytes, digest: Any = HASHES["256"]) -> bytes:
        return self.private.sign(data, ec.ECDSA(digest))

    def header(self, **more: Any) -> dict[str, Any]:
        members = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid, **more}
        return {name: value for name, value in members.items() if value is not None}


def claims(issuer: str, subject: str = "alice", **more: Any) -> dict[str, Any]:
    """Good claims, with changes; those that are None are left out."""
    now = int(time.time())
    members = {
        "iss": issuer,
        "sub": subject,
        "aud": AUDIENCE,
        "client_id": "test-client",
        "iat": now,
        "exp": now + 300,
        "jti": str(next(numbers)),  # so that no two tokens are equal
        "scope": " ".join(SCOPES),
        **more,
    }
    return {name: value for name, value in members.items() if value is not None}
