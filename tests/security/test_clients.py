"""Stock clients log in by themselves: they find the issuer by the challenge, register, prove who they are with PKCE, name
the resource, add scopes when they lack some, and refresh their token when it has expired."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

import pytest

from caller import bearer
from clients import PACKAGES, PATIENCE, inspect, logging_in
from proxyrunner import MODERN_PYTHON, PYTHON, TESTS, node
from running import EXAMPLE, SECURITY, Provider, Running, free_port, trusting
from tokens import SCOPES

REMOTE = "MCP CLI Proxy"  # as which `mcp-remote` registers
TOOLS = ["echo", "add", "now", "countdown"]

# What is different about a client's first authorizations. The first lacks a scope, so that the client must add it. The
# token of the second is valid for eight seconds, as proxyrunner judges it with 60 seconds of leeway. Clients of PyPI go by
# `expires_in` instead. Those of npm 1.x refresh a token, if they can, instead of asking for more scopes.
LACKING = {"withhold": ["mcp:write"]}
AUTHORIZATIONS = {
    "npm 1": [{**LACKING, "refresh": False}, {"lifetime": -52}],
    "npm 2": [LACKING, {"lifetime": -52}],
    "PyPI 1": [LACKING, {"ttl": 2}],
    "PyPI 2": [LACKING, {"ttl": 2}],
    REMOTE: [{"lifetime": -52}],
}
COMMANDS = {
    "npm 1": [node(), SECURITY / "node_login.mjs"],
    "npm 2": [node(), SECURITY / "node_login.mjs"],
    "PyPI 1": [PYTHON, SECURITY / "python_login.py"],
    "PyPI 2": [MODERN_PYTHON, SECURITY / "python_login.py"],
}
REVISIONS = {"npm 1": None, "npm 2": "2026-07-28", "PyPI 1": "2025-11-25", "PyPI 2": "2026-07-28"}


@pytest.fixture(scope="module")
def running(provider: Provider) -> Iterator[Running]:
    """A proxyrunner for tokens whose audience is its own URL."""
    provider.control(authorizations=AUTHORIZATIONS)
    port = free_port()
    flags = trusting(provider.url, audience=f"http://127.0.0.1:{port}/mcp")
    with Running("--listen", f"127.0.0.1:{port}", *flags, command=EXAMPLE) as running:
        yield running


@pytest.fixture(scope="module")
def shown(running: Running, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each client tells of all that it did; they do it at the same time, since they wait for tokens to expire."""
    with ThreadPoolExecutor(1 + len(COMMANDS)) as pool:
        remote = pool.submit(use_remote, running.url, tmp_path_factory.mktemp("remote"), provider)
        shown = dict(zip(COMMANDS, pool.map(lambda name: show(name, running.url), COMMANDS)))
        return shown | {REMOTE: remote.result()}


def show(name: str, url: str) -> dict[str, Any]:
    client = subprocess.run(
        [str(word) for word in COMMANDS[name]],
        input=json.dumps({"name": name, "url": url, "major": int(name[-1])}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SECURITY), str(TESTS / "interop")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return json.loads(client.stdout or '{"error": "nothing"}') | {"stderr": client.stderr}


def events_of(provider: Provider, client: str) -> list[dict[str, Any]]:
    return [event for event in provider.control()["events"] if event["client"] == client]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_client_of_an_sdk_logs_in_adds_scopes_and_refreshes(running, provider, shown, name):
    outcome = shown[name]
    assert "error" not in outcome, outcome
    assert outcome["tools"] == TOOLS and outcome["text"] == name
    assert outcome.get("revision") == REVISIONS[name]
    scopes = [set((tokens["scope"] or "").split()) - {"offline_access"} for tokens in outcome["tokens"]]
    assert scopes[:3] == [{"mcp:read"}, set(SCOPES), set(SCOPES)]
    events = events_of(provider, name)
    kinds = [event.get("grant_type") or event["event"] for event in events]
    login = ["authorization", "authorization_code"]
    assert kinds[:6] == ["registration", *login, *login, "refresh_token"], kinds
    for event in events[1:]:
        assert event["resource"] == running.url, "the resource parameter"
    for event in (event for event in events if event["event"] == "authorization"):
        assert event["code_challenge_method"] == "S256"
        assert set(event["scope"].split()) >= set(SCOPES), "the scopes of the challenge"


def use_remote(url: str, folder: Path, provider: Provider) -> dict[str, Any]:
    """Calls a tool by `mcp-remote`, a server on stdin and stdout, until that has refreshed its token."""
    command = [node(), PACKAGES / "mcp-remote" / "dist" / "proxy.js", url]
    # It would open a browser: this one does nothing.
    env = {**os.environ, "HOME": str(folder), "MCP_REMOTE_CONFIG_DIR": str(folder), "BROWSER": "true"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=env, text=True, **pipes)
    hang = threading.Timer(PATIENCE, process.kill)
    hang.start()
    said, thread = logging_in(process, provider)
    ids = itertools.count(1)

    def tell(**message: Any) -> None:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()

    def ask(method: str, **params: Any) -> dict[str, Any]:
        tell(id=next(ids), method=method, params=params)
        line = process.stdout.readline()
        assert line, "".join(said)
        return json.loads(line)["result"]

    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    try:
        ask("initialize", **client)
        tell(method="notifications/initialized")
        tools = [tool["name"] for tool in ask("tools/list")["tools"]]
        pause = threading.Event()
        while not any(event.get("grant_type") == "refresh_token" for event in events_of(provider, REMOTE)):
            text = ask("tools/call", name="echo", arguments={"text": REMOTE})["content"][0]["text"]
            assert text == REMOTE
            pause.wait(0.25)
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        thread.join()
        hang.cancel()
    return {"tools": tools}


def test_mcp_remote_logs_in_and_refreshes(running, provider, shown):
    assert shown[REMOTE] == {"tools": TOOLS}
    events = events_of(provider, REMOTE)
    assert [event["event"] for event in events[:3]] == ["registration", "authorization", "grant"]
    assert all(event["resource"] == running.url for event in events[1:])
    assert events[1]["code_challenge_method"] == "S256"
    assert set(events[1]["scope"].split()) >= set(SCOPES)


CALL = ["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=inspected"]


def test_the_inspector_logs_in_and_keeps_its_login(running, provider, tmp_path):
    code, result, said = inspect(provider, tmp_path, running.url, *CALL)
    assert code == 0, said
    assert "inspected" in json.dumps(result) and "visited" in said
    logins = provider.control()["requests"]["/auth"]
    code, result, said = inspect(provider, tmp_path, running.url, *CALL, "--stored-auth-only")
    assert code == 0 and "inspected" in json.dumps(result), said
    assert provider.control()["requests"]["/auth"] == logins


def test_the_inspector_takes_a_token(running, provider, tmp_path):
    token = "Authorization: {} {}".format(*bearer(provider.token(running.url))[1].split())
    for era in ("legacy", "modern"):
        code, result, said = inspect(provider, tmp_path, running.url, *CALL, "--header", token, "--protocol-era", era)
        assert code == 0 and "inspected" in json.dumps(result), (era, said)
    code, _, said = inspect(provider, tmp_path, running.url, *CALL, "--stored-auth-only")
    assert code == 3 and "auth_required" in said


def test_an_agent_gets_a_token_with_its_own_credentials(running, provider):
    """Client credentials: no user, so the subject is the client."""
    assert running.caller(bearer(provider.token(running.url))).ask().status == 200
    assert running.caller(bearer(provider.token(running.url, scope="mcp:read"))).ask().status == 403
    assert running.caller(bearer(provider.token("http://127.0.0.1:1/mcp"))).ask().refusal == (401, "invalid_token")
