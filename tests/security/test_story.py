"""The whole story: a stock client logs in, sees and calls only what a policy lets it, and the audit log proves it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from caller import bearer
from clients import inspect
from proxyrunner import binary
from running import EXAMPLE, Provider, Running, free_port, trusting

# The IdP's user `alice` may echo; what others do is up to their scopes.
POLICY = """
@id("alice-echoes")
permit (principal == Client::"alice", action == Action::"call_tool", resource == Tool::"echo");

@id("writers-add")
permit (principal, action == Action::"call_tool", resource == Tool::"add")
when { context has claim_scope && context.claim_scope like "*mcp:write*" };
"""


@pytest.fixture
def guarded(run, provider: Provider, tmp_path: Path) -> tuple[Running, Path, Path]:
    """A proxyrunner with a policy and an audit log."""
    policy, audit, key = tmp_path / "policy.cedar", tmp_path / "audit.log", tmp_path / "audit.key"
    policy.write_text(POLICY)
    key.write_text("5" * 64)
    port = free_port()
    flags = trusting(provider.url, audience=f"http://127.0.0.1:{port}/mcp", scopes=["mcp:read"])
    log = ["--audit", str(audit), "--audit-key-file", str(key)]
    return run("--listen", f"127.0.0.1:{port}", *flags, "--policy", str(policy), *log, command=EXAMPLE), audit, key


def verify(audit: Path, key: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binary(), "audit", "verify", "--key-file", key, audit], capture_output=True, text=True)


def test_a_client_sees_and_calls_what_the_policy_lets_it_and_the_log_proves_it(guarded, provider, tmp_path):
    running, audit, key = guarded
    provider.control(user="alice")

    def inspector(*flags: str) -> tuple[int, dict[str, Any] | None, str]:
        return inspect(provider, tmp_path, running.url, *flags)

    code, result, said = inspector("--method", "tools/list")
    assert code == 0 and "visited" in said, said
    assert names(result) == ["echo"]
    code, result, said = inspector("--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=allowed")
    assert code == 0 and "allowed" in json.dumps(result), said
    # A client that does not look first.
    alice = running.caller(bearer(provider.login("alice", running.url, "mcp:read")))
    denied = alice.ask("tools/call", {"name": "now", "arguments": {}})
    assert denied.refusal == (403, None), "no challenge: another token would not help"
    unknown = alice.ask("tools/call", {"name": "unheard-of", "arguments": {}})
    assert (denied.status, denied.body) == (unknown.status, unknown.body), "it does not even learn what exists"
    # Others, by what their tokens say.
    writer = running.caller(bearer(provider.login("bob", running.url, "mcp:read mcp:write")))
    assert names(writer.ask("tools/list").json["result"]) == ["add"]
    reader = running.caller(bearer(provider.token(running.url, scope="mcp:read")))
    assert names(reader.ask("tools/list").json["result"]) == []
    running.stop()
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    calls = [line for line in lines if line["type"] == "mcp_tool_call"]
    assert [(line["target"]["name"], line["outcome"]) for line in calls] == [
        ("echo", "success"),
        ("now", "denied"),
        ("unheard-of", "denied"),
    ]
    assert all(line["subjects"]["user_id"] == "alice" and line["subjects"]["issuer"] == provider.url for line in calls)
    assert calls[0]["policy_id"] == "alice-echoes"
    assert any(line["outcome"] == "denied" and line["metadata"]["extra"].get("reason") == "missing" for line in lines)
    assert verify(audit, key).returncode == 0, verify(audit, key)
    altered = audit.read_text().replace('"denied"', '"success"', 1)
    assert altered != audit.read_text()
    audit.write_text(altered)
    assert verify(audit, key).returncode != 0


def names(result: Any) -> list[str]:
    """The names of listed tools; the inspector may print the result within a message."""
    return [tool["name"] for tool in result.get("result", result)["tools"]]
