"""A caller that sends exactly the headers that a test names, and reads challenges strictly."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any, Iterable

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
PATIENCE = 30  # seconds for one answer; no assertion, only the end of a hang
META = "io.modelcontextprotocol/"

# RFC 9110 §11.2: a scheme, then parameters with commas between them. No two have the same name.
PARAMETER = re.compile(r'(?P<name>[!#$%&\'*+.^_`|~0-9A-Za-z-]+)="(?P<value>(?:[^"\\\x00-\x1f\x7f]|\\.)*)"')


@dataclass(frozen=True)
class Challenge:
    scheme: str
    parameters: dict[str, str]

    @staticmethod
    def parse(text: str) -> Challenge:
        scheme, _, rest = text.partition(" ")
        assert re.fullmatch(r"[A-Za-z0-9]+", scheme), text
        parameters: dict[str, str] = {}
        while rest:
            found = PARAMETER.match(rest)
            assert found and found["name"] not in parameters, text
            parameters[found["name"]] = found["value"]
            rest = rest[found.end() :]
            assert not rest or rest.startswith(", "), text
            rest = rest.removeprefix(", ")
        return Challenge(scheme, parameters)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def challenge(self) -> Challenge:
        """The only challenge."""
        (value,) = self.headers.get_all("WWW-Authenticate", [])
        return Challenge.parse(value)

    @property
    def refusal(self) -> tuple[int, str | None]:
        """The status, and the `error` of the challenge if there are both."""
        values = self.headers.get_all("WWW-Authenticate")
        return self.status, self.challenge.parameters.get("error") if values else None


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


class Caller:
    """A caller of one proxyrunner, with these headers in every request."""

    def __init__(self, port: int, *headers: tuple[str, str], tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.headers = headers
        self.tls = tls

    def send(
        self,
        verb: str,
        path: str = "/mcp",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        host: str | None = None,
    ) -> Answer:
        """Sends one request over a connection of its own. An event stream is not read."""
        kind, more = (http.client.HTTPSConnection, {"context": self.tls}) if self.tls else (http.client.HTTPConnection, {})
        connection = kind("127.0.0.1", self.port, timeout=PATIENCE, **more)
        connection.connect()
        # An event stream may go on for ever, and be never silent.
        end = threading.Timer(PATIENCE, connection.sock.shutdown, (socket.SHUT_RDWR,))
        end.start()
        try:
            connection.putrequest(verb, path, skip_host=host is not None, skip_accept_encoding=True)
            if host is not None:
                connection.putheader("Host", host)
            for name, value in (*self.headers, *headers):
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            is_stream = verb == "GET" and response.headers.get_content_type() == "text/event-stream"
            return Answer(response.status, response.headers, b"" if is_stream else response.read())
        finally:
            end.cancel()
            connection.close()

    def ask(
        self,
        method: str = "tools/list",
        params: dict[str, Any] | None = None,
        *headers: tuple[str, str],
        path: str = "/mcp",
    ) -> Answer:
        """Sends a request of 2026-07-28."""
        params = dict(params or {})
        params["_meta"] = {
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": {"elicitation": {"form": {}}},
            META + "clientInfo": {"name": "test", "version": "1"},
            **params.get("_meta", {}),
        }
        about = params.get("name") or params.get("uri") or params.get("taskId")
        named = [("Mcp-Name", about)] if about else []
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        own = [("MCP-Protocol-Version", MODERN), ("Mcp-Method", method), *named]
        return self.send("POST", path, [*JSON, *own, *headers], json.dumps(body).encode())

    def tell(self, session: str | None, *headers: tuple[str, str], **message: Any) -> Answer:
        """Sends a message of a legacy session."""
        own = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", LEGACY)] if session else []
        return self.send("POST", "/mcp", [*JSON, *own, *headers], json.dumps({"jsonrpc": "2.0", **message}).encode())

    def open(self) -> str:
        """Opens a legacy session; its id."""
        client = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        opened = self.tell(None, id=1, method="initialize", params=client)
        assert opened.status == 200, (opened.status, opened.body)
        session = opened.headers["Mcp-Session-Id"]
        assert self.tell(session, method="notifications/initialized").status == 202
        return session


JSON = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]


def events(answer: Answer) -> list[dict[str, Any]]:
    """The messages of an answer, which may be an event stream."""
    if answer.headers.get_content_type() != "text/event-stream":
        return [answer.json]
    lines = answer.body.decode().splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("data:") and line[5:].strip()]
