"""Callers by client certificate, tokens that are bound to one, and issuers behind TLS."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import pytest

from caller import Caller, bearer
from certificates import Authority, Certificate
from issuers import Issuer
from running import SCRIPTED, Running, free_port, trusting

ALICE = "spiffe://example.org/alice"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Certificate:
    return authority.issue("server", address="127.0.0.1")


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Certificate:
    return authority.issue("alice", uri=ALICE)


@pytest.fixture(scope="module")
def mallory(authority: Authority) -> Certificate:
    return authority.issue("mallory", uri="spiffe://example.org/mallory")


@pytest.fixture
def serve(run, authority: Authority, server: Certificate):
    """Starts a proxyrunner that ends TLS and asks for client certificates."""

    def serve(*flags: str, **more) -> Running:
        tls = ["--tls-cert", str(server.file), "--tls-key", str(server.key), "--tls-client-ca", str(authority.file)]
        # Its probes are in clear text.
        return run(*tls, *flags, **more, probes=free_port())

    return serve


@pytest.fixture
def call(authority: Authority):
    def call(running: Running, certificate: Certificate, *headers: tuple[str, str]) -> Caller:
        context = ssl.create_default_context(cafile=str(authority.file))
        context.load_cert_chain(certificate.file, certificate.key)
        return Caller(running.port, *headers, tls=context)

    return call


def test_a_certificate_is_a_caller_of_its_own(serve, call, alice, mallory):
    running = serve(command=SCRIPTED)
    session = call(running, alice).open()
    assert call(running, alice).tell(session, id=2, method="ping").status == 200
    assert call(running, mallory).tell(session, id=2, method="ping").status == 404


def test_a_bound_token_needs_its_certificate(serve, call, issuer, alice, mallory):
    running = serve(*trusting(issuer))
    bound = bearer(issuer.token(cnf=alice.confirmation))
    assert call(running, alice, bound).ask().status == 200
    assert call(running, mallory, bound).ask().refusal == (401, "invalid_token")
    assert call(running, alice, bound).ask().status == 200, "the refusal is of the connection and not of the token"
    assert call(running, mallory, bearer(issuer.token())).ask().status == 200, "an unbound token is anybody's"
    both = bearer(issuer.token(cnf={**alice.confirmation, "jkt": "x"}))
    assert call(running, alice, both).ask().refusal == (401, "invalid_token")


def test_a_certificate_has_no_scopes(serve, call, issuer, alice):
    """Where scopes are needed, its owner needs a token, and is told where to get one."""
    running = serve(*trusting(issuer))
    refused = call(running, alice).ask()
    assert refused.refusal == (401, None) and refused.challenge.parameters["scope"] == "mcp:read mcp:write"
    without = serve(*trusting(issuer, scopes=[]))
    assert call(without, alice).ask().status == 200


def test_a_proxys_certificate_is_not_that_of_a_caller_it_does_not_name(serve, call, issuer, alice):
    proxy = ["--principal-header", "X-Principal", "--trusted-proxy", "127.0.0.1"]
    for flags in ([], trusting(issuer, scopes=[])):
        running = serve(*proxy, *flags)
        assert call(running, alice, ("X-Principal", "bob")).ask().status == 200
        assert call(running, alice).ask().status == 400, "the proxy let somebody pass without a name"
        foreign = serve("--principal-header", "X-Principal", "--trusted-proxy", "192.0.2.1", *flags)
        assert call(foreign, alice).ask().status == 200, "a caller, and no proxy"
        session = call(foreign, alice, ("X-Principal", "bob"))
        assert session.ask().status == 200, "whose name does not count"


def test_a_bad_token_does_not_become_a_certificate(serve, call, issuer, alice):
    """Whoever presents a token is judged by it."""
    running = serve(*trusting(issuer))
    assert call(running, alice, bearer(issuer.token(exp=1))).ask().refusal == (401, "invalid_token")
    assert call(running, alice, bearer("a b")).ask().refusal == (400, "invalid_request")


def test_the_metadata_tell_of_bound_tokens(serve, call, issuer, alice):
    running = serve(*trusting(issuer))
    found = call(running, alice).send("GET", "/.well-known/oauth-protected-resource").json
    assert found["tls_client_certificate_bound_access_tokens"] is True
    assert found["resource"] == f"https://127.0.0.1:{running.port}/mcp"


def test_a_token_and_a_certificate_are_different_callers(serve, call, issuer, alice):
    """Even if both have the same name."""
    running = serve(*trusting(issuer, scopes=[]), command=SCRIPTED)
    session = call(running, alice, bearer(issuer.token(sub=ALICE))).open()
    assert call(running, alice).tell(session, id=2, method="ping").status == 404


def test_an_issuer_behind_tls_is_believed_by_its_authority_only(run, keys, authority, server, tmp_path):
    other = Authority(tmp_path, "other")
    elsewhere = authority.issue("elsewhere", address="192.0.2.1")
    with Issuer(keys["ES256"], certificate=server) as good, Issuer(keys["ES256"], certificate=elsewhere) as wrong:
        ca = f" ca={authority.file}"
        running = run(*trusting(good.url + ca, wrong.url + ca))
        token = bearer(good.token())
        end = time.monotonic() + 60
        while (status := running.caller(token).ask().status) == 503 and time.monotonic() < end:
            time.sleep(0.05)
        assert status == 200
        assert running.caller(bearer(wrong.token())).ask().status == 503, "a certificate of another address"
        for flags in ([], ["--auth-ca", str(other.file)]):
            stranger = run(*trusting(good.url), *flags)
            assert stranger.caller(token).ask().status == 503
