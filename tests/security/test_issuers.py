"""Issuers that are slow, wrong, huge, redirecting, or down: their tokens wait with 503, those of others do not."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Callable, Iterator

import pytest

from caller import Caller, bearer
from issuers import KEYS, METADATA, RFC8414, Issuer, Reply
from running import SCRIPTED, Running, trusting
from tokens import Key

PATIENCE = 60  # seconds; no assertion, only the end of a hang
HUGE = b'{"keys": [' + b" " * (1 << 20) + b"]}"


def metadata(of: Issuer, **changed: object) -> Reply:
    return Reply({"issuer": of.url, "jwks_uri": of.url + KEYS, **changed})


def everywhere(reply: Callable[[Issuer], Reply]) -> Callable[[Issuer, Issuer], dict[str, Reply]]:
    return lambda issuer, good: {path: reply(issuer) for path in (METADATA, RFC8414)}


BAD: dict[str, Callable[[Issuer, Issuer], dict[str, Reply]]] = {
    "slow metadata": everywhere(lambda issuer: Reply(waits=True)),
    "slow keys": lambda issuer, good: {KEYS: Reply(waits=True)},
    "another issuer": everywhere(lambda issuer: metadata(issuer, issuer="https://other.example")),
    "issuer with a slash": everywhere(lambda issuer: metadata(issuer, issuer=issuer.url + "/")),
    "issuer twice": everywhere(
        lambda issuer: Reply(b'{"issuer": "x", ' + json.dumps(metadata(issuer).body).encode()[1:])
    ),
    "no jwks_uri": everywhere(lambda issuer: Reply({"issuer": issuer.url})),
    "jwks_uri of a file": everywhere(lambda issuer: metadata(issuer, jwks_uri="file:///etc/passwd")),
    "jwks_uri in plain http elsewhere": everywhere(lambda issuer: metadata(issuer, jwks_uri="http://192.0.2.1/keys")),
    "metadata that redirect": lambda issuer, good: {
        path: Reply(status=302, headers=(("Location", good.url + path),)) for path in (METADATA, RFC8414)
    },
    "keys that redirect": lambda issuer, good: {KEYS: Reply(status=307, headers=(("Location", good.url + "/stolen"),))},
    "metadata that are no JSON": everywhere(lambda issuer: Reply(b"<html>")),
    "huge metadata": everywhere(lambda issuer: Reply(b'{"x": "' + b"x" * (2 << 20) + b'"}')),
    "huge keys": lambda issuer, good: {KEYS: Reply(HUGE)},
    "keys that are no JSON": lambda issuer, good: {KEYS: Reply(b"{")},
    "no key": lambda issuer, good: {KEYS: Reply({"keys": []})},
    "101 keys": lambda issuer, good: {KEYS: Reply({"keys": [good.key.jwk(kid=str(n)) for n in range(101)]})},
    "errors": lambda issuer, good: {METADATA: Reply(status=500), RFC8414: Reply(status=500)},
    "keys that are forbidden": lambda issuer, good: {KEYS: Reply(status=403)},
}


@pytest.fixture(scope="module")
def bad(issuer: Issuer, keys: dict[str, Key]) -> Iterator[dict[str, Issuer]]:
    """Bad issuers by what is wrong with them."""
    with ExitStack() as stack:
        issuers = {name: stack.enter_context(Issuer(keys["ES256"])) for name in BAD}
        for name, each in issuers.items():
            each.replies = BAD[name](each, issuer)
        yield issuers


@pytest.fixture(scope="module")
def among_bad_ones(issuer: Issuer, bad: dict[str, Issuer]) -> Iterator[Running]:
    """A proxyrunner that trusts a good issuer and all the bad ones."""
    with Running(*trusting(issuer, *bad.values())) as running:
        yield running


@pytest.mark.parametrize("wrong", BAD)
def test_tokens_of_an_issuer_without_keys_are_to_be_sent_again(among_bad_ones, bad, wrong):
    refused = among_bad_ones.caller(bearer(bad[wrong].token())).ask()
    assert refused.status == 503, refused.body
    assert int(refused.headers["Retry-After"]) > 0
    assert "WWW-Authenticate" not in refused.headers


def test_nothing_else_suffers_from_bad_issuers(issuer, among_bad_ones):
    caller = among_bad_ones.caller()
    assert caller.send("GET", "/health/ready").status == 200
    assert among_bad_ones.caller(bearer(issuer.token())).ask().status == 200
    assert caller.ask().status == 401
    assert "/stolen" not in issuer.asked, "redirects are not followed"


def test_good_tokens_are_accepted_once_the_issuer_answers(bad, among_bad_ones):
    slow = bad["slow keys"]
    slow.replies = {}
    slow.release()
    until_accepted(among_bad_ones.caller(bearer(slow.token())))


def until_accepted(caller: Caller, *refusals: int) -> None:
    """Asks again while it is refused with 503, or one of these."""
    end = time.monotonic() + PATIENCE
    while (status := caller.ask().status) != 200:
        assert status in (503, *refusals) and time.monotonic() < end, status
        time.sleep(0.1)


def test_an_issuer_may_be_down_at_start_and_come_up(run, keys):
    with Issuer(keys["ES256"]) as down:
        port = int(down.url.rpartition(":")[2])
    running = run(*trusting(down))
    assert running.caller(bearer(down.token())).ask().status == 503
    assert running.caller().send("GET", "/health/ready").status == 200
    with Issuer(keys["ES256"], port=port) as up:
        until_accepted(running.caller(bearer(up.token())))


def test_an_issuer_may_go_down_later(run, keys):
    with Issuer(keys["ES256"]) as issuer:
        running = run(*trusting(issuer))
        until_accepted(running.caller(bearer(issuer.token())))
    for _ in range(3):
        assert running.caller(bearer(issuer.token())).ask().status == 200, "its keys are known"
    unknown = issuer.token(key=Key("ES256"))
    assert running.caller(bearer(unknown)).ask().refusal == (401, "invalid_token")


def test_the_keys_of_a_file_are_read_again(run, keys, tmp_path):
    """No issuer is asked."""
    with Issuer(keys["ES256"]) as issuer:
        issuer.replies = everywhere(lambda _: Reply(status=500))(issuer, issuer)
        file = tmp_path / "keys.json"
        file.write_text(json.dumps({"keys": [keys["ES256"].jwk()]}))
        running = run(*trusting(issuer), "--auth-jwks", str(file))
        assert running.caller(bearer(issuer.token())).ask().status == 200
        assert running.caller(bearer(issuer.token(key=keys["RS256"]))).ask().status == 401
        assert not issuer.asked


def test_a_stock_providers_tokens_are_accepted_and_its_keys_change_without_a_restart(run, provider):
    running = run(*trusting(provider.url))
    old = running.caller(bearer(provider.token()))
    until_accepted(old)
    # The new key is beside the old one: tokens of both are good.
    provider.control(rotate="add")
    # A key that is not known is fetched, but not more often than every ten seconds.
    until_accepted(running.caller(bearer(provider.token())), 401)
    assert old.ask().status == 200
    provider.control(rotate="replace")
    until_accepted(running.caller(bearer(provider.token())), 401)
    assert old.ask().refusal == (401, "invalid_token"), "its key has left the set"


def test_unknown_keys_do_not_make_it_ask_the_issuer_often(run, keys):
    with Issuer(keys["ES256"]) as issuer:
        running = run(*trusting(issuer))
        until_accepted(running.caller(bearer(issuer.token())))
        before = issuer.asked[KEYS]
        stranger = Key("ES256")
        for n in range(20):
            assert running.caller(bearer(issuer.token({"kid": f"unknown-{n}"}, stranger))).ask().status == 401
        assert issuer.asked[KEYS] - before <= 2


def test_opaque_tokens_are_asked_about(run, provider, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("proxyrunner-secret\n")
    endpoint = f"{provider.url}/token/introspection client=proxyrunner secret={secret}"
    running = run("--auth-introspection", endpoint, *trusting(provider.url))
    provider.control(format="opaque")
    try:
        good, revoked = provider.login("alice"), provider.login("alice")
    finally:
        provider.control(format="jwt")
    provider.post("/token/revocation", token=revoked)
    assert "." not in good
    assert running.caller(bearer(good)).ask().status == 200
    assert running.caller(bearer(revoked)).ask().refusal == (401, "invalid_token")
    assert running.caller(bearer("never-issued")).ask().refusal == (401, "invalid_token")
    asked = provider.control()["requests"]["/token/introspection"]
    for _ in range(5):
        assert running.caller(bearer(good)).ask().status == 200
        assert running.caller(bearer(revoked)).ask().status == 401
    assert provider.control()["requests"]["/token/introspection"] == asked, "answers are believed for a while"


def test_a_client_that_acts_for_itself_is_not_the_user_of_its_name(run, provider, tmp_path):
    """The answer about its opaque token has no subject."""
    secret, policy = tmp_path / "secret", tmp_path / "policy.cedar"
    secret.write_text("proxyrunner-secret\n")
    policy.write_text('permit (principal == Client::"urn:proxyrunner:client:agent", action, resource);')
    endpoint = f"{provider.url}/token/introspection client=proxyrunner secret={secret}"
    flags = ["--auth-introspection", endpoint, *trusting(provider.url)]
    running, decided = run(*flags, command=SCRIPTED), run(*flags, "--policy", str(policy), command=SCRIPTED)
    provider.control(format="opaque")
    try:
        client, same, other = (bearer(provider.token(client=each)) for each in ("agent", "agent", "other-agent"))
        user = bearer(provider.login("agent"))
    finally:
        provider.control(format="jwt")
    session = running.caller(client).open()
    tell = lambda who: running.caller(who).tell(session, id=2, method="ping").status
    assert [tell(who) for who in (client, same, user, other)] == [200, 200, 404, 404]
    call = {"name": "echo", "arguments": {}}
    statuses = [decided.caller(who).ask("tools/call", call).status for who in (client, user, other)]
    assert statuses == [200, 403, 403]
