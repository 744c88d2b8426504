"""API keys, scopes that imply others, and names from a trusted proxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from caller import bearer
from proxyrunner import binary
from running import SCRIPTED, trusting


def make(file: Path, name: str, *flags: str) -> str:
    """Adds a key to a file as the page says; the key."""
    made = subprocess.run([binary(), "key", "new", name, *flags], capture_output=True, text=True, check=True)
    with file.open("a") as entries:
        entries.write(made.stdout)
    key = made.stderr.strip()
    assert key not in made.stdout
    return key


NAME = ("X-Principal", "alice")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "api-keys.yaml"


def test_a_key_is_accepted_in_both_headers_and_no_other_text_is(run, file):
    key, other = make(file, "nightly-build"), make(file, "other")
    assert key != other
    running = run("--api-keys", str(file))
    for header in (bearer(key), ("X-API-Key", key), ("x-api-key", other)):
        assert running.caller(header).ask().status == 200
    digest = next(line for line in file.read_text().splitlines() if "sha256" in line).split()[1]
    for wrong in (key[:-1], key + "x", key.upper(), "nightly-build", digest, "prk_", "a.b.c"):
        assert running.caller(bearer(wrong)).ask().refusal == (401, "invalid_token"), wrong
    assert running.caller(("Authorization", f"Basic {key}")).ask().status == 401


def test_without_an_issuer_there_are_no_metadata(run, file):
    make(file, "caller")
    running = run("--api-keys", str(file))
    refused = running.caller().ask()
    assert refused.status == 401 and refused.headers["WWW-Authenticate"] == 'Bearer realm="mcp"'
    for path in ("", "/mcp"):
        absent = running.caller().send("GET", f"/.well-known/oauth-protected-resource{path}")
        assert absent.status == 404 and absent.json["error"]


def test_keys_expire_and_have_scopes(run, file, issuer):
    expired = make(file, "expired", "--expires", "2098-12-31", "--scope", "mcp:read")
    file.write_text(file.read_text().replace("2098-12-31", "2026-01-01"))
    good = make(file, "good", "--expires", "2099-01-01T00:00:00Z", "--scope", "mcp:read", "--scope", "more")
    lacking = make(file, "lacking", "--scope", "more")
    running = run("--api-keys", str(file), *trusting(issuer, scopes=["mcp:read"]))
    asks = lambda key: running.caller(bearer(key)).ask()
    assert asks(expired).refusal == (401, "invalid_token")
    assert asks(good).status == 200
    assert asks(lacking).refusal == (403, "insufficient_scope")
    assert asks(issuer.token()).status == 200, "tokens are accepted, too"


def test_a_broader_scope_covers_narrower_ones(run, issuer):
    implies = ["--auth-scope-implies", "admin=mcp:write other", "--auth-scope-implies", "mcp:write=mcp:read"]
    running = run(*implies, *trusting(issuer))
    asks = lambda scope: running.caller(bearer(issuer.token(scope=scope))).ask().status
    assert [asks(scope) for scope in ("admin", "mcp:write", "mcp:read", "other")] == [200, 200, 403, 403]


def test_another_claim_may_have_the_scopes(run, issuer):
    running = run("--auth-scope-claim", "realm_access.roles", *trusting(issuer))
    asks = lambda **claims: running.caller(bearer(issuer.token(**claims))).ask().status
    assert asks(realm_access={"roles": ["mcp:write", "mcp:read"]}) == 200
    assert asks(**{"realm_access.roles": "mcp:read mcp:write"}) == 200
    assert asks(**{"realm_access.roles": "", "realm_access": {"roles": ["mcp:write", "mcp:read"]}}) == 403
    assert asks() == 403, "scope counts no longer"


def test_an_issuer_may_sign_plain_jwts(run, issuer):
    running = run(*trusting(f"{issuer.url} typ=jwt algorithms=ES256"))
    key = next(key for key in issuer.keys if key.algorithm == "ES256")
    asks = lambda typ, key: running.caller(bearer(issuer.token({"typ": typ}, key))).ask().refusal
    for typ in ("JWT", None, "at+jwt"):
        assert asks(typ, key) == (200, None), typ
        assert asks(typ, issuer.key) == (401, "invalid_token"), "RS256 is not among its algorithms"
    for typ in ("logout+jwt", "oauth-id-jag+jwt", "dpop+jwt", "id+jwt", ""):
        assert asks(typ, key) == (401, "invalid_token"), typ


def test_an_issuer_may_name_the_audience_in_another_claim(run, issuer):
    running = run(*trusting(f"{issuer.url} audience-claim=client_id", audience="our-client"))
    asks = lambda **claims: running.caller(bearer(issuer.token(**claims))).ask().status
    assert asks(client_id="our-client", aud=None) == 200
    assert asks(client_id="other", aud="our-client") == 401


def test_a_name_counts_from_a_trusted_proxy_only(run, issuer):
    trusted = run("--principal-header", "X-Principal", "--trusted-proxy", "127.0.0.1")
    assert trusted.caller(NAME).ask().status == 200
    assert trusted.caller().ask().status == 400
    foreign = run("--principal-header", "X-Principal", "--trusted-proxy", "192.0.2.0/24")
    assert foreign.caller(NAME).ask().status == 403
    both = run("--principal-header", "X-Principal", "--trusted-proxy", "192.0.2.0/24", *trusting(issuer))
    assert both.caller(NAME).ask().status == 401
    assert both.caller(NAME, bearer(issuer.token())).ask().status == 200


def test_a_name_from_elsewhere_is_not_the_principal(run, issuer):
    """It does not open the session of the one whose name it is."""
    running = run("--principal-header", "X-Principal", "--trusted-proxy", "192.0.2.0/24", *trusting(issuer), command=SCRIPTED)
    session = running.caller(bearer(issuer.token(sub="alice"))).open()
    mallory = running.caller(bearer(issuer.token(sub="mallory")), NAME)
    assert mallory.tell(session, id=2, method="ping").status == 404

