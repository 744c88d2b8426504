"""Speaks to a proxyrunner that a test started, however it was started."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any

START = 90  # seconds until it answers, ample for a package manager on a loaded machine

HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "packages", "version": "1"}}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(what: str, happens: Callable[[], Any], seconds: float = START, alive: Callable[[], bool] = lambda: True) -> Any:
    """Waits until a function returns something true, and returns it."""
    deadline = time.monotonic() + seconds
    while not (result := happens()):
        assert alive(), f"the program ended before {what}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return result


def answers(port: int, host: str = "127.0.0.1", alive: Callable[[], bool] = lambda: True) -> dict[str, Any]:
    """Opens a session as soon as the endpoint listens, lists the server's tools, and returns the result."""

    def opened() -> tuple[http.client.HTTPConnection, str] | None:
        connection = http.client.HTTPConnection(host, port, timeout=START)
        try:
            response, _ = post(connection, id=1, method="initialize", params=HELLO)
        except (OSError, http.client.HTTPException):
            return None
        return connection, response.getheader("mcp-session-id")

    connection, session = until(f"an answer on port {port}", opened, alive=alive)
    post(connection, session, method="notifications/initialized")
    _, body = post(connection, session, id=2, method="tools/list")
    result = body["result"]
    assert result["tools"], body
    return result


def post(connection: http.client.HTTPConnection, session: str = "", **message: Any) -> tuple[http.client.HTTPResponse, Any]:
    headers = {**HEADERS, **({"Mcp-Session-Id": session} if session else {})}
    connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", **message}), headers)
    response = connection.getresponse()
    body = response.read().decode()
    assert response.status in (200, 202), f"{response.status}: {body}"
    # An event stream ends with the response.
    data = [line.removeprefix("data:") for line in body.splitlines() if line.startswith("data:")]
    text = data[-1] if data else body
    return response, json.loads(text) if text.strip() else None
