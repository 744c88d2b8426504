"""Stock clients of a gateway with policies see and use what is allowed to them, at one server and at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest

from proxyrunner import MODERN_PYTHON, PYTHON, TESTS, Gateway
from running import EXAMPLE, SECURITY, Running

PATIENCE = 120  # seconds; no assertion, only the end of a hang
POLICIES = """
permit(principal == Client::"ann", action, resource in MCP::"first");
permit(principal, action == Action::"call_tool", resource == Tool::"echo");
"""
ALL = ["echo", "add", "now", "countdown"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "policy.cedar").write_text(POLICIES)
    keys = [{"name": name, "sha256": hashlib.sha256(f"{name}-key".encode()).hexdigest()} for name in ("ann", "bob")]
    (folder / "keys.yaml").write_text(json.dumps(keys))
    flags = ["--api-keys", str(folder / "keys.yaml"), "--policy", str(folder / "policy.cedar")]
    with Running(command=EXAMPLE) as first, Running(command=EXAMPLE) as second:
        servers = {name: {"url": f"http://{one.address}/mcp"} for name, one in (("first", first), ("second", second))}
        with Gateway("security-gateway", servers, *flags) as running:
            yield running


def show(python: Path, url: str, who: str, call: str) -> dict[str, Any]:
    client = subprocess.run(
        [str(python), str(SECURITY / "python_guest.py")],
        input=json.dumps({"url": url, "key": f"{who}-key", "call": call}),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SECURITY), str(TESTS / "interop")])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return json.loads(client.stdout or '{"error": "nothing"}') | {"stderr": client.stderr}


@pytest.mark.parametrize("python", [PYTHON, MODERN_PYTHON], ids=["PyPI 1", "PyPI 2"])
def test_a_client_sees_and_calls_only_what_it_may(gateway: Gateway, python: Path) -> None:
    everything = f"http://127.0.0.1:{gateway.port}/mcp"
    ann = show(python, everything, "ann", "first__echo")
    assert ann.get("tools") == [f"first__{name}" for name in ALL] + ["second__echo"], ann
    assert ann.get("text") == "hello", ann
    bob = show(python, everything, "bob", "second__echo")
    assert bob.get("tools") == ["first__echo", "second__echo"] and bob.get("text") == "hello", bob
    assert bob["prompts"] == [] and bob["resources"] == [], bob
    denied = show(python, everything, "bob", "first__add")
    assert "text" not in denied and denied["error"], denied
    for server, tools in (("first", ALL), ("second", ["echo"])):
        ann = show(python, gateway.url_of(server), "ann", "echo")
        assert ann.get("tools") == tools and ann.get("text") == "hello", ann
        bob = show(python, gateway.url_of(server), "bob", "echo")
        assert bob.get("tools") == ["echo"] and bob.get("text") == "hello", bob
        denied = show(python, gateway.url_of(server), "bob", "add")
        assert "text" not in denied and denied["error"], denied
