"""Tokens that must be refused, each with its reason to exist, and those like them that must not be."""

from __future__ import annotations

import hmac
import json
import time
from typing import Callable

import pytest

from caller import bearer
from issuers import Issuer, Reply
from running import Running, trusting
from tokens import AUDIENCE, HASHES, Key, claims, encoded, part, token

NOW = int(time.time())


class Forge:
    """What an attacker has: the issuer's public keys, keys of its own, and a good token of its own."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.own = Key("RS256", kid=issuer.key.kid)
        self.by = {key.algorithm: key for key in issuer.keys}

    def hmac(self, secret: bytes, **header: object) -> str:
        members = self.issuer.key.header(alg="HS256", **header)
        return token(members, self.claims(), lambda data: hmac.digest(secret, data, "sha256"))

    def claims(self, **changed: object) -> dict:
        return claims(self.issuer.url, **changed)

    def signed(self, header: dict | str | None = None, content: dict | str | None = None, key: Key | None = None) -> str:
        """Truly signed by the issuer, with header and claims as they are given."""
        key = key or self.issuer.key
        return token(
            key.header() if header is None else header, self.claims() if content is None else content, key.sign
        )

    def text(self, more: str, without: str) -> str:
        """Good claims as text, with members added as they are written instead of one."""
        members = self.claims()
        del members[without]
        return json.dumps(members).removesuffix("}") + f", {more}}}"


@pytest.fixture(scope="module")
def forge(issuer: Issuer) -> Forge:
    return Forge(issuer)


@pytest.fixture
def asks(running: Running) -> Callable[[str], tuple[int, str | None]]:
    return lambda token: running.caller(bearer(token)).ask().refusal


INVALID = (401, "invalid_token")

FORGED: dict[str, Callable[[Forge], str]] = {
    # The signature
    "alg none": lambda f: token(f.issuer.key.header(alg="none"), f.claims(), lambda _: b""),
    "alg None": lambda f: token(f.issuer.key.header(alg="None"), f.claims(), lambda _: b""),
    "alg none with a signature": lambda f: token(f.issuer.key.header(alg="none"), f.claims(), f.issuer.key.sign),
    "alg missing": lambda f: f.signed(f.issuer.key.header(alg=None)),
    "alg is a list": lambda f: f.signed(f.issuer.key.header(alg=["RS256"])),
    "alg in lower case": lambda f: f.signed(f.issuer.key.header(alg="rs256")),
    "no signature": lambda f: f.issuer.token().rpartition(".")[0] + ".",
    "two parts": lambda f: f.issuer.token().rpartition(".")[0],
    "HS256 with the public key as PEM": lambda f: f.hmac(f.issuer.key.pem),
    "HS256 with the public key as PEM, trimmed": lambda f: f.hmac(f.issuer.key.pem.strip()),
    "HS256 with the entry of the key set": lambda f: f.hmac(json.dumps(f.issuer.key.jwk()).encode()),
    "HS256 with an empty secret and a kid of a path": lambda f: f.hmac(b"", kid="../../../../../../dev/null"),
    "signed by another key of the same kid": lambda f: f.issuer.token(key=f.own),
    "claims of another token": lambda f: ".".join(
        [(pieces := f.issuer.token().split("."))[0], part(f.claims(sub="root")), pieces[2]]
    ),
    "RS256 key, PS256 signature": lambda f: token(
        f.issuer.key.header(alg="PS256"), f.claims(), lambda data: f.issuer.key.sign(data, "PS256")
    ),
    "RS256 key, RS512 signature": lambda f: token(
        f.issuer.key.header(alg="RS512"), f.claims(), lambda data: f.issuer.key.sign(data, "RS512")
    ),
    "ES256 signature in DER": lambda f: token(f.by["ES256"].header(), f.claims(), f.by["ES256"].sign_der),
    "ES256 signature of zeros": lambda f: token(f.by["ES256"].header(), f.claims(), lambda _: bytes(64)),
    "ES256 signature cut": lambda f: token(f.by["ES256"].header(), f.claims(), lambda d: f.by["ES256"].sign(d)[:63]),
    "ES256 key, ES384 in the header": lambda f: f.signed(f.by["ES256"].header(alg="ES384"), key=f.by["ES256"]),
    "EdDSA key, ES256 in the header": lambda f: f.signed(f.by["EdDSA"].header(alg="ES256"), key=f.by["EdDSA"]),
    # The header
    "kid unknown": lambda f: f.signed(f.issuer.key.header(kid="another")),
    "kid with a path": lambda f: f.signed(f.issuer.key.header(kid="../../../../../../etc/passwd")),
    "kid with a query": lambda f: f.signed(f.issuer.key.header(kid="x' UNION SELECT 'secret")),
    "kid with an address": lambda f: f.signed(f.issuer.key.header(kid=f.issuer.url + "/keys")),
    "kid is a number": lambda f: f.signed(f.issuer.key.header(kid=7)),
    "kid of 4 KiB": lambda f: f.signed(f.issuer.key.header(kid="k" * 4096)),
    "own jwk": lambda f: f.signed(f.own.header(kid=None, jwk=f.own.jwk()), key=f.own),
    "own jwk, kid of the issuer": lambda f: f.signed(f.own.header(jwk=f.own.jwk()), key=f.own),
    "crit unknown": lambda f: f.signed(f.issuer.key.header(crit=["http://example.com/unknown"])),
    "crit known": lambda f: f.signed(f.issuer.key.header(crit=["exp"])),
    "crit empty": lambda f: f.signed(f.issuer.key.header(crit=[])),
    "b64": lambda f: f.signed(f.issuer.key.header(b64=False, crit=["b64"])),
    "zip": lambda f: f.signed(f.issuer.key.header(zip="DEF")),
    "ID-JAG": lambda f: f.signed(f.issuer.key.header(typ="oauth-id-jag+jwt")),
    "logout token": lambda f: f.signed(f.issuer.key.header(typ="logout+jwt")),
    "DPoP proof": lambda f: f.signed(f.issuer.key.header(typ="dpop+jwt")),
    "introspection answer": lambda f: f.signed(f.issuer.key.header(typ="token-introspection+jwt")),
    "typ is a list": lambda f: f.signed(f.issuer.key.header(typ=["at+jwt"])),
    "nested token": lambda f: token(f.issuer.key.header(cty="JWT"), f.issuer.token(), f.issuer.key.sign),
    "encrypted token": lambda f: f"{part({'alg': 'dir', 'enc': 'A256GCM'})}..{encoded(bytes(12))}.{encoded(b'x')}.{encoded(bytes(16))}",
    "header with alg twice": lambda f: f.signed(json.dumps(f.issuer.key.header()).removesuffix("}") + ', "alg": "RS256"}'),
    "header with kid twice": lambda f: f.signed('{"kid": "x", ' + json.dumps(f.issuer.key.header())[1:]),
    "header is a list": lambda f: f.signed("[]"),
    "header is no JSON": lambda f: f.signed("{'alg': 'RS256'}"),
    # The claims
    "sub twice": lambda f: f.signed(content=f.text('"sub": "root", "sub": "alice"', "sub")),
    "aud twice": lambda f: f.signed(content=f.text(f'"aud": "x", "aud": "{AUDIENCE}"', "aud")),
    "sub twice, once escaped": lambda f: f.signed(content=f.text(r'"sub": "root", "s\u0075b": "alice"', "sub")),
    "claims are a list": lambda f: f.signed(content="[]"),
    "claims are no JSON": lambda f: f.signed(content="{"),
    "claims with text behind": lambda f: f.signed(content=json.dumps(f.claims()) + "x"),
    "aud is a number": lambda f: f.issuer.token(aud=7),
    "aud is true": lambda f: f.issuer.token(aud=True),
    "aud is an object": lambda f: f.issuer.token(aud={AUDIENCE: AUDIENCE}),
    "aud missing": lambda f: f.issuer.token(aud=None),
    "aud empty": lambda f: f.issuer.token(aud=[]),
    "aud of another": lambda f: f.issuer.token(aud="https://other.example/mcp"),
    "aud with a slash": lambda f: f.issuer.token(aud=AUDIENCE + "/"),
    "aud with a part of ours": lambda f: f.issuer.token(aud=AUDIENCE[:-1]),
    "aud in another case": lambda f: f.issuer.token(aud=AUDIENCE.upper()),
    "aud with blanks": lambda f: f.issuer.token(aud=f"other {AUDIENCE}"),
    "aud with a number beside ours": lambda f: f.issuer.token(aud=[AUDIENCE, 7]),
    "iss missing": lambda f: f.issuer.token(iss=None),
    "iss with a slash": lambda f: f.issuer.token(iss=f.issuer.url + "/"),
    "iss of another": lambda f: f.issuer.token(iss="https://other.example"),
    "iss is a list": lambda f: f.issuer.token(iss=[f.issuer.url]),
    "sub missing": lambda f: f.issuer.token(sub=None),
    "sub empty": lambda f: f.issuer.token(sub=""),
    "sub blank": lambda f: f.issuer.token(sub=" "),
    "sub is a number": lambda f: f.issuer.token(sub=7),
    "sub with a line end": lambda f: f.issuer.token(sub="alice\nroot"),
    "sub with a separator": lambda f: f.issuer.token(sub="alice\x1froot"),
    "sub with an invisible character": lambda f: f.issuer.token(sub="al\u200bice"),
    "sub with a soft hyphen": lambda f: f.issuer.token(sub="ali\u00adce"),
    "sub that is turned around": lambda f: f.issuer.token(sub="\u202eecila"),
    "sub with a blank that is none": lambda f: f.issuer.token(sub="alice\u00a0smith"),
    "sub with a blank at its end": lambda f: f.issuer.token(sub="alice "),
    "sub of 1,025 bytes": lambda f: f.issuer.token(sub="x" * 1025),
    "sub of a client that acts for itself": lambda f: f.issuer.token(sub="urn:proxyrunner:client:test-client"),
    "client with an invisible character": lambda f: f.issuer.token(client_id="test\u2060client"),
    "client of 1,025 bytes": lambda f: f.issuer.token(client_id="x" * 1025),
    "azp of 1,025 bytes": lambda f: f.issuer.token(client_id=None, azp="x" * 1025),
    "exp missing": lambda f: f.issuer.token(exp=None),
    "exp is a string": lambda f: f.issuer.token(exp=str(NOW + 300)),
    "exp is null": lambda f: f.signed(content=f.text('"exp": null', "exp")),
    "exp is negative": lambda f: f.issuer.token(exp=-1),
    "expired beyond the leeway": lambda f: f.issuer.token(exp=int(time.time()) - 61),
    "expired in milliseconds that look late": lambda f: f.issuer.token(exp=NOW // 1000),
    "nbf beyond the leeway": lambda f: f.issuer.token(nbf=int(time.time()) + 120),
    "nbf is a string": lambda f: f.issuer.token(nbf="0"),
    "iat beyond the leeway": lambda f: f.issuer.token(iat=int(time.time()) + 120),
    "bound to a DPoP key": lambda f: f.issuer.token(cnf={"jkt": encoded(bytes(32))}),
    "bound to a certificate": lambda f: f.issuer.token(cnf={"x5t#S256": encoded(bytes(32))}),
    "bound to nothing": lambda f: f.issuer.token(cnf={}),
    "claims 5000 deep": lambda f: f.signed(content=f.text('"x": ' + "[" * 5000 + "]" * 5000, "jti")),
    "header 2000 deep": lambda f: f.signed(json.dumps(f.issuer.key.header()).removesuffix("}") + ', "x": ' + "[" * 2000 + "]" * 2000 + "}"),
    "exp beyond all numbers": lambda f: f.signed(content=f.text('"exp": 1e999', "exp")),
    "claims in UTF-16": lambda f: token(f.issuer.key.header(), json.dumps(f.claims()).encode("utf-16"), f.issuer.key.sign),
    "claims with a byte order mark": lambda f: f.signed(content="\ufeff" + json.dumps(f.claims())),
    # The form
    "17 KiB": lambda f: f.issuer.token(padding="x" * (17 << 10)),
    "padding": lambda f: f.issuer.token() + "==",
    "four parts": lambda f: f.issuer.token() + ".x",
    "opaque": lambda f: "opaque-token",
    "dots": lambda f: "..",
    "no base64": lambda f: "a.b.c",
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_bad_token_is_invalid(forge, asks, forged):
    assert asks(FORGED[forged](forge)) == INVALID


def test_a_padded_part_is_malformed(forge, asks):
    assert asks(forge.issuer.token().replace(".", "=.", 1)) == (400, "invalid_request")


GOOD: dict[str, Callable[[Forge], str]] = {
    **{algorithm: lambda f, a=algorithm: f.issuer.token(key=f.by[a]) for algorithm in ("RS256", "ES256", "EdDSA")},
    "PS256": lambda f: f.issuer.token(key=f.by["PS256"]),
    "ES384": lambda f: f.issuer.token(key=f.by["ES384"]),
    "typ in full": lambda f: f.issuer.token({"typ": "application/at+jwt"}),
    "typ in another case": lambda f: f.issuer.token({"typ": "AT+JWT"}),
    "without kid": lambda f: f.issuer.token({"kid": None}),
    "one aud of several": lambda f: f.issuer.token(aud=["https://other.example", AUDIENCE]),
    "expired within the leeway": lambda f: f.issuer.token(exp=int(time.time()) - 30),
    "nbf within the leeway": lambda f: f.issuer.token(nbf=int(time.time()) + 30),
    "exp with a fraction": lambda f: f.issuer.token(exp=time.time() + 300.5),
    "no iat, no jti, no client": lambda f: f.issuer.token(iat=None, jti=None, client_id=None),
    "a client that is an address": lambda f: f.issuer.token(client_id="https://client.example/" + "c" * 1000),
    "15 KiB": lambda f: f.issuer.token(padding="x" * (10 << 10)),
    "a subject and a client of 1 KiB": lambda f: f.issuer.token(sub="x" * 1024, client_id="x" * 1024),
    "a subject of any language": lambda f: f.issuer.token(sub="Ωmega 世界 <a@b>"),
}


@pytest.mark.parametrize("good", GOOD)
def test_a_good_token_is_accepted_twice(forge, asks, good):
    token = GOOD[good](forge)
    assert [asks(token), asks(token)] == [(200, None), (200, None)]


def test_addresses_in_a_header_are_not_visited(forge, asks):
    """The token is judged as if they were not there."""
    with Issuer(forge.own) as attacker:
        for name in ("jku", "x5u"):
            pointing = {name: attacker.url + "/keys"}
            assert asks(forge.signed(forge.own.header(**pointing), key=forge.own)) == INVALID, name
            assert asks(forge.signed(forge.own.header(kid="other", **pointing), key=forge.own)) == INVALID, name
            assert asks(forge.issuer.token(pointing)) == (200, None), name
        assert asks(forge.issuer.token(iss=attacker.url)) == INVALID
        assert not attacker.asked


def test_keys_that_must_not_verify_do_not_spoil_the_set(run, keys):
    """A set with a secret, an encryption key, a short key, an unknown kind, and a good key: only that is used."""
    secret, weak = b"a shared secret of thirty-two byte", Key("RS256", "weak", bits=1024)
    for_encryption, for_wrapping = Key("ES256", "encryption"), Key("ES256", "wrapping")
    mistaken = Key("ES256", "mistaken")
    with Issuer(keys["RS256"]) as issuer:
        issuer.entries = [
            {"kty": "oct", "k": encoded(secret), "kid": "secret", "alg": "HS256", "use": "sig"},
            {"kty": "oct", "k": encoded(secret), "kid": "secret 2"},
            weak.jwk(),
            for_encryption.jwk(use="enc"),
            for_wrapping.jwk(use=None, key_ops=["wrapKey"]),
            mistaken.jwk(alg="RS256"),
            {"kty": "unheard of", "kid": "new"},
            {"kty": "RSA", "kid": "no numbers"},
            "no entry",
        ]
        running = run(*trusting(issuer))
        asks = lambda token: running.caller(bearer(token)).ask().refusal
        assert asks(issuer.token()) == (200, None)
        for key in (weak, for_encryption, for_wrapping, mistaken):
            assert asks(issuer.token(key=key)) == INVALID, key.kid
        for kid in ("secret", "secret 2"):
            header = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
            signed = token(header, claims(issuer.url), lambda data: hmac.digest(secret, data, "sha256"))
            assert asks(signed) == INVALID, kid


def test_tokens_without_kid_are_tried_with_every_fitting_key(run):
    several = [Key("ES256") for _ in range(3)]
    with Issuer(*several) as issuer:
        running = run(*trusting(issuer))
        for key in several:
            assert running.caller(bearer(issuer.token({"kid": None}, key))).ask().status == 200
        foreign = issuer.token({"kid": None}, Key("ES256"))
        assert running.caller(bearer(foreign)).ask().refusal == INVALID


def test_a_token_without_type_needs_a_setting(forge, asks):
    for typ in ("JWT", None):
        assert asks(forge.issuer.token({"typ": typ})) in (INVALID, (200, None))


def test_a_refusal_tells_the_reason_to_the_log_only(run, issuer):
    running = run(*trusting(issuer))
    for _ in range(10):
        refused = running.caller(bearer(issuer.token(aud="https://other.example"))).ask()
        running.caller(bearer("opaque")).ask()
    running.stop()
    lines = [line for line in running.log.read_text().splitlines() if "a caller was refused" in line]
    # Anybody can cause such lines: each reason has one a minute.
    assert [json.loads(line)["fields"]["reason"] for line in lines] == ["audience", "not_a_token"]
    assert "aud" not in refused.body.decode().lower() and "aud" not in str(refused.headers).lower()
