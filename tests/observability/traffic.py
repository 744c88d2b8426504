"""Clients of both protocol eras, and what they do so that each metric has something to say."""

from __future__ import annotations

import http.client
import itertools
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

ANSWER = 60  # seconds
LEGACY, OLDER, MODERN = "2025-11-25", "2025-06-18", "2026-07-28"
ACCEPTS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
INFO = {"name": "observer", "version": "1"}

ECHOES = 200  # in each round, beside what fails
FAILURES = 6
UNKNOWN = 20
SLOW = 3
PASSED = 20


class Client:
    """What both eras have in common: `send` gives the HTTP status and the JSON-RPC response."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.ids = itertools.count(1)

    def headers(self, message: dict[str, Any]) -> dict[str, str]:
        raise NotImplementedError

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        return params

    def request(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": self.params(params)}
        return self.post(message)

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request("tools/call", name=name, arguments=arguments)

    def post(self, message: dict[str, Any]) -> dict[str, Any]:
        body = json.dumps(message).encode()
        request = urllib.request.Request(self.url, body, {**ACCEPTS, **self.headers(message)})
        try:
            with urllib.request.urlopen(request, timeout=ANSWER) as response:
                self.received(response)
                return answer(response.headers.get_content_type(), response.read())
        except urllib.error.HTTPError as error:
            return answer(error.headers.get_content_type(), error.read())

    def received(self, response: Any) -> None:
        pass

    def leave(self, name: str, **arguments: Any) -> None:
        """Calls a tool, and goes away when it has told of progress, before it has answered."""
        params = self.params({"name": name, "arguments": arguments})
        params["_meta"] = {**params.get("_meta", {}), "progressToken": "leaving"}
        message = {"jsonrpc": "2.0", "id": next(self.ids), "method": "tools/call", "params": params}
        host = self.url.removeprefix("http://").partition("/")[0]
        connection = http.client.HTTPConnection(host, timeout=ANSWER)
        connection.request("POST", "/mcp", json.dumps(message), {**ACCEPTS, **self.headers(message)})
        response = connection.getresponse()
        assert response.headers.get_content_type() == "text/event-stream", f"{name} told of no progress: {response.read()}"
        response.close()
        connection.close()


class Legacy(Client):
    """A client with a session."""

    def __init__(self, url: str, revision: str = LEGACY) -> None:
        super().__init__(url)
        self.revision = revision
        self.session: str | None = None
        self.request("initialize", protocolVersion=revision, capabilities={}, clientInfo=INFO)
        assert self.session, "initialize opened no session"
        self.notify("notifications/initialized")

    def headers(self, message: dict[str, Any]) -> dict[str, str]:
        if not self.session:
            return {}
        return {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": self.revision}

    def received(self, response: Any) -> None:
        self.session = self.session or response.headers.get("Mcp-Session-Id")

    def notify(self, method: str, **params: Any) -> None:
        self.post({"jsonrpc": "2.0", "method": method, "params": params})

    def end(self) -> None:
        request = urllib.request.Request(self.url, headers=self.headers({}), method="DELETE")
        urllib.request.urlopen(request, timeout=ANSWER).close()


class Modern(Client):
    """A client that says of itself what there is to say in each request."""

    def headers(self, message: dict[str, Any]) -> dict[str, str]:
        params = message["params"]
        name = params.get("uri" if message["method"] == "resources/read" else "name")
        named = {"Mcp-Name": name} if name else {}
        return {"MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"], **named}

    def params(self, params: dict[str, Any]) -> dict[str, Any]:
        of = "io.modelcontextprotocol/"
        meta = {of + "protocolVersion": MODERN, of + "clientCapabilities": {}, of + "clientInfo": INFO}
        return {**params, "_meta": meta}


def answer(content_type: str, body: bytes) -> dict[str, Any]:
    """The response in a body, or in the stream of events that it is; `{}` if there is none."""
    if content_type == "application/json" and body:
        return json.loads(body)
    lines = (line[5:] for line in body.decode().splitlines() if line.startswith("data:"))
    messages = (json.loads(line) for line in lines if line.strip())
    return next((message for message in messages if "method" not in message and "id" in message), {})


def await_ready(base: str) -> None:
    """Waits until the child serves, which it does not just after it has ended."""
    deadline = time.monotonic() + ANSWER
    while True:
        try:
            urllib.request.urlopen(f"{base}/readyz", timeout=ANSWER).close()
            return
        except urllib.error.HTTPError:
            assert time.monotonic() < deadline, f"{base} does not become ready again"
            time.sleep(0.05)


def expect(response: dict[str, Any], code: int | None) -> None:
    """That a request came out as it should: a metric about something else would prove nothing."""
    found = response.get("error", {}).get("code")
    assert found == code, f"expected {code}, got {json.dumps(response)[:300]}"


def good(url: str) -> None:
    """A round in front of examples/server.py: what works, and what clients do wrong."""
    older = Legacy(url, OLDER)
    legacy, modern = Legacy(url), Modern(url)
    expect(modern.request("server/discover"), None)
    for client in (legacy, modern):
        for method in ("tools/list", "prompts/list", "resources/list", "resources/templates/list"):
            expect(client.request(method), None)
        expect(client.request("prompts/get", name="summarize", arguments={"topic": "metrics"}), None)
        expect(client.request("resources/read", uri="demo://greeting"), None)
        expect(client.call("add", a=1, b=2), None)
        expect(client.call("now"), None)
        for _ in range(FAILURES):
            assert client.call("add", a=1)["result"]["isError"], "add wants two numbers"
        for n in range(UNKNOWN):
            expect(client.call(f"made-up-{time.monotonic_ns()}-{n}"), -32602)
        expect(client.request("no/such/method"), -32601)
        client.leave("countdown", start=2, pause=1)
    expect(legacy.request("server/discover"), -32601)
    expect(legacy.request("ping"), None)
    for client in [legacy, modern] * (ECHOES // 2):
        expect(client.call("echo", text="hello"), None)
    expect(legacy.call("countdown", start=2, pause=0.05), None)
    legacy.end()
    older.end()
    Legacy(url)  # stays open


def bad(url: str) -> None:
    """A round in front of the failing server: errors, waits, and a child that ends."""
    base = url.removesuffix("/mcp")
    await_ready(base)
    legacy, modern = Legacy(url), Modern(url)
    for client in (legacy, modern):
        expect(client.request("tools/list"), None)
        expect(client.call("garbage"), None)
        for _ in range(FAILURES):
            expect(client.request("resources/list"), -32603)
            assert client.call("refuse")["result"]["isError"]
            expect(client.call("broken"), -32603)
            expect(client.call("odd"), 4711)
    # One at a time is all that it may have: the others wait.
    with ThreadPoolExecutor(SLOW) as pool:
        calls = [pool.submit(client.call, "slow", seconds=0.1) for client in [legacy, modern] * SLOW]
        for call in calls:
            expect(call.result(), None)
    expect(modern.call("die"), -32603)
    await_ready(base)
    legacy.end()


def passed(working: str, dead: str) -> None:
    """Calls through a gateway: of a server that works, and of one without a replica."""
    client, lost = Modern(working), Modern(dead)
    for number in range(PASSED):
        expect(client.call("echo", text=str(number)), None)
        expect(lost.call("echo", text=str(number)), -32603)
