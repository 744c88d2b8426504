"""What callers get who present nothing, too little, or nothing that can be read; and the metadata for clients.

The rows are those of RFC 6750 §3.1 as MCP wants them. The metadata are what the client scenarios (`auth/*`) of the official
suite look for, turned around.
"""

from __future__ import annotations

import pytest

from caller import Caller, bearer
from issuers import Issuer
from running import Running, trusting
from tokens import AUDIENCE, SCOPES

PATH = "/.well-known/oauth-protected-resource"


def url(running: Running, path: str = "", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{running.port}{path}"


def metadata_of(running: Running) -> str:
    return url(running, f"{PATH}/mcp")


def test_without_credentials_the_challenge_names_metadata_and_scope_but_no_error(running):
    for headers in [(), [("Authorization", "Basic YTpi")], [("Authorization", "")], [("Cookie", "session=x")]]:
        refused = running.caller().ask("tools/list", None, *headers)
        assert refused.status == 401
        assert refused.challenge.scheme == "Bearer"
        assert refused.challenge.parameters == {"resource_metadata": metadata_of(running), "scope": " ".join(SCOPES)}
        assert refused.headers.get_content_type() == "application/json"
        assert refused.json["error"]["code"] and refused.json["jsonrpc"] == "2.0"


def test_every_message_of_a_session_needs_a_token(issuer, running):
    caller = running.caller()
    alice = bearer(issuer.token())
    session = running.caller(alice).open()
    own = [("Mcp-Session-Id", session), ("Accept", "text/event-stream")]
    assert caller.tell(session, id=2, method="ping").status == 401
    assert caller.send("GET", headers=own).status == 401
    assert caller.send("DELETE", headers=own).status == 401
    assert caller.send("GET", "/sse", own).status == 401
    assert caller.send("POST", "/messages?sessionId=x", own, b"{}").status == 401
    assert running.caller(alice).tell(session, id=2, method="ping").status == 200


def test_invalid_tokens_get_the_same_challenge_whatever_is_wrong(issuer, running):
    expired = running.caller(bearer(issuer.token(exp=1))).ask()
    foreign = running.caller(bearer(issuer.token(aud="https://other.example"))).ask()
    assert expired.status == foreign.status == 401
    assert expired.challenge == foreign.challenge and expired.body == foreign.body
    parameters = dict(expired.challenge.parameters)
    assert parameters.pop("error_description")
    assert parameters == {
        "error": "invalid_token",
        "resource_metadata": metadata_of(running),
        "scope": " ".join(SCOPES),
    }


@pytest.mark.parametrize("scope", [None, "", "mcp:read", "mcp:write", "mcp:reads mcp:write", "MCP:READ MCP:WRITE"])
def test_a_token_without_all_scopes_is_told_all_of_them_at_once(issuer, running, scope):
    refused = running.caller(bearer(issuer.token(scope=scope))).ask()
    assert refused.status == 403
    assert refused.challenge.parameters == {
        "error": "insufficient_scope",
        "resource_metadata": metadata_of(running),
        "scope": " ".join(SCOPES),
    }


def test_more_scopes_than_needed_are_fine_in_any_order(issuer, running):
    for claims in [{"scope": "other mcp:write mcp:read"}, {"scope": None, "scp": ["mcp:read", "mcp:write"]}]:
        assert running.caller(bearer(issuer.token(**claims))).ask().status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer a"), ("Authorization", "Bearer a")],
        [("Authorization", "Bearer a"), ("X-API-Key", "a")],
        [("X-API-Key", "a"), ("X-API-Key", "a")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer a b")],
        [("Authorization", "Bearer a, Bearer b")],
        [("Authorization", 'Bearer "a"')],
        [("Authorization", "Bearer token=a")],
        [("Authorization", "Bearer é")],
    ],
    ids=lambda headers: "+".join(f"{name} {value}" for name, value in headers),
)
def test_credentials_that_cannot_be_read_are_malformed(running, headers):
    refused = running.caller().ask("tools/list", None, *headers)
    assert refused.refusal == (400, "invalid_request")
    assert "scope" not in refused.challenge.parameters


def test_a_good_token_twice_is_refused(issuer, running):
    good = bearer(issuer.token())
    assert running.caller(good).ask().status == 200
    assert running.caller(good, good).ask().refusal == (400, "invalid_request")
    assert running.caller(good, bearer(issuer.token())).ask().refusal == (400, "invalid_request")


def test_a_token_in_the_url_is_refused_and_so_is_a_good_one_beside_it(issuer, running):
    good = issuer.token()
    for headers in [(), (bearer(good),)]:
        refused = running.caller(*headers).ask(path=f"/mcp?access_token={good}")
        assert refused.refusal == (400, "invalid_request")
        assert good not in str(refused.headers) and good.encode() not in refused.body
    assert running.caller(bearer(good)).ask(path="/mcp?other=1").status == 200


def test_a_token_in_a_form_is_no_token(issuer, running):
    form = [("Content-Type", "application/x-www-form-urlencoded")]
    refused = running.caller().send("POST", "/mcp", form, f"access_token={issuer.token()}".encode())
    assert refused.refusal == (401, None)


def test_probes_and_preflights_need_no_token_and_metrics_are_not_here(issuer, running):
    caller = running.caller()
    for path in ("/health", "/livez", "/health/ready", "/readyz", "/health/startup"):
        assert caller.send("GET", path).status == 200, path
    page = [("Origin", "http://localhost:1"), ("Access-Control-Request-Method", "POST")]
    wanted = ("Access-Control-Request-Headers", "authorization, content-type, mcp-protocol-version")
    allowed = caller.send("OPTIONS", "/mcp", [*page, wanted])
    assert allowed.status == 204 and "authorization" in allowed.headers["Access-Control-Allow-Headers"].lower()
    for headers in [(), (bearer(issuer.token()),)]:
        assert running.caller(*headers).send("GET", "/metrics").status == 404


def test_a_page_can_read_the_challenge(running):
    refused = running.caller().ask("tools/list", None, ("Origin", "http://localhost:1"))
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
    assert "www-authenticate" in refused.headers["Access-Control-Expose-Headers"].lower()


# What the official suite's client scenarios are served: metadata by the header, at the path, at the root.


@pytest.mark.parametrize("path", [f"{PATH}/mcp", PATH, f"{PATH}/"])
def test_the_metadata_are_at_both_addresses(issuer, running, path):
    found = running.caller().send("GET", path, [("MCP-Protocol-Version", "2026-07-28"), ("Origin", "https://any.example")])
    assert found.status == 200
    assert found.headers.get_content_type() == "application/json"
    assert found.headers["Access-Control-Allow-Origin"] == "*"
    assert "max-age" in found.headers["Cache-Control"]
    assert found.json == {
        "resource": url(running, "/mcp"),
        "authorization_servers": [issuer.url],
        "bearer_methods_supported": ["header"],
        "scopes_supported": SCOPES,
    }
    head = running.caller().send("HEAD", path)
    assert head.status == 200 and head.body == b"" and int(head.headers["Content-Length"]) == len(found.body)
    assert running.caller().send("POST", path, body=b"{}").status == 405


def test_the_address_in_the_challenge_is_the_metadatas(running):
    named = running.caller().ask().challenge.parameters["resource_metadata"]
    assert named == metadata_of(running)
    found = running.caller().send("GET", named.removeprefix(url(running)))
    assert found.json["resource"] == url(running, "/mcp")


def test_pages_may_ask_for_the_metadata_with_the_inspectors_header(running):
    asks = [("Origin", "https://any.example"), ("Access-Control-Request-Method", "GET")]
    wanted = ("Access-Control-Request-Headers", "mcp-protocol-version")
    for path in (PATH, f"{PATH}/mcp"):
        allowed = running.caller().send("OPTIONS", path, [*asks, wanted])
        assert allowed.status == 204 and allowed.headers["Access-Control-Allow-Origin"] == "*"
        assert "mcp-protocol-version" in allowed.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/openid-configuration",
        "/.well-known/openid-configuration/mcp",
        f"{PATH}/other",
        f"{PATH}s",
        f"{PATH}/mcp/more",
        "/mcp/.well-known/openid-configuration",
        "/mcp/.well-known/oauth-protected-resource",
    ],
)
def test_other_addresses_of_metadata_do_not_exist(running, path):
    absent = running.caller().send("GET", path)
    assert absent.status == 404, absent.body
    assert absent.headers.get_content_type() == "application/json" and absent.json["error"]


def test_the_resource_is_the_url_that_the_client_uses_and_no_forged_one(running):
    """Clients refuse metadata whose resource is not what they have asked (auth/resource-mismatch)."""
    here = url(running)
    for host, expected in [
        (f"localhost:{running.port}", f"http://localhost:{running.port}"),
        (f"LOCALHOST:{running.port}", f"http://localhost:{running.port}"),
        (f"[::1]:{running.port}", f"http://[::1]:{running.port}"),
        ("evil.example", here),
        ("127.0.0.1.evil.example", here),
        ('localhost"', here),
        ("a@localhost", here),
    ]:
        found = running.caller().send("GET", f"{PATH}/mcp", host=host)
        assert found.json["resource"] == f"{expected}/mcp", host
    forwarded = [("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("Forwarded", "host=evil.example")]
    assert running.caller().send("GET", f"{PATH}/mcp", forwarded).json["resource"] == f"{here}/mcp"
    refused = running.caller().ask("tools/list", None, *forwarded)
    assert refused.challenge.parameters["resource_metadata"] == metadata_of(running)


def test_behind_an_ingress_the_configured_resource_counts(run, issuer):
    """The ingress cuts a prefix off; the metadata's address and resource have it."""
    flags = trusting(issuer, scopes=[])
    running = run(*flags, "--auth-resource", "https://Tools.example/team/mcp", "--allow-host", "inside.example")
    metadata = f"https://tools.example{PATH}/team/mcp"
    for host in (None, "inside.example", "evil.example"):
        found = [running.caller().send("GET", path, host=host) for path in (PATH, f"{PATH}/mcp", f"{PATH}/team/mcp")]
        for each in found:
            assert each.json["resource"] == "https://tools.example/team/mcp", host
            assert "scopes_supported" not in each.json
    refused = running.caller().ask()
    assert refused.challenge.parameters == {"resource_metadata": metadata}
    assert running.caller().send("GET", f"{PATH}/other/mcp").status == 404
    assert running.caller(bearer(issuer.token(scope=None))).ask().status == 200


def test_every_issuer_is_an_authorization_server(run, issuer, keys):
    with Issuer(keys["ES256"]) as second:
        running = run(*trusting(issuer, second, scopes=["offline_access", "mcp:read"]))
        found = running.caller().send("GET", PATH).json
        assert found["authorization_servers"] == [issuer.url, second.url]
        assert found["scopes_supported"] == ["mcp:read"], "clients ask for offline_access themselves"
        assert AUDIENCE not in str(found)
        for each in (issuer, second):
            good = bearer(each.token(scope="mcp:read offline_access"))
            assert running.caller(good).ask().status == 200


def test_a_good_token_is_accepted_by_every_way(issuer, running):
    token = issuer.token()
    for value in (f"Bearer {token}", f"bearer {token}", f"BEARER  {token} "):
        assert Caller(running.port, ("Authorization", value)).ask().status == 200, value[:8]
