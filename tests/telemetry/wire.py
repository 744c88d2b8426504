"""A client that sends exactly what a test says, at 2026-07-28, over one kept connection."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

VERSION = "2026-07-28"
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
PATIENCE = 60  # seconds; no assertion, only the end of a hang


class Wire:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        *,
        meta: dict[str, Any] | None = None,
        more: str = "",
        headers: dict[str, str] | None = None,
        id: Any = 1,
    ) -> dict[str, Any]:
        """Sends a request; the JSON-RPC message that answers it. `more` are members of `_meta` as they are written."""
        params = {**(params or {}), "_meta": {**ENVELOPE, **(meta or {})}}
        body = json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
        body = body.removesuffix("}}}") + more + "}}}"
        named = {"Mcp-Name": params["name"]} if "name" in params else {}
        own = {"MCP-Protocol-Version": VERSION, "Mcp-Method": method, **named}
        base = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        self.connection.request("POST", "/mcp", body, {**base, **own, **(headers or {})})
        return json.loads(self.connection.getresponse().read())

    def call(self, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return self.ask("tools/call", {"name": tool, "arguments": arguments or {}}, **more)

    def heard(self, **more: Any) -> dict[str, Any]:
        """Makes a call; the `_meta` that it came with at the child, but for the envelope."""
        meta = self.call("heard", **more)["result"]["structuredContent"]["params"]["_meta"]
        return {key: value for key, value in meta.items() if not key.startswith("io.modelcontextprotocol/")}

    def metrics(self) -> str:
        self.connection.request("GET", "/metrics")
        return self.connection.getresponse().read().decode()

    def metric(self, name: str) -> float:
        """The sum of all its series."""
        values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self.metrics(), re.M)
        assert values, f"no metric {name}"
        return sum(map(float, values))
