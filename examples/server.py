#!/usr/bin/env python3
"""A small MCP server on stdin and stdout that uses only the Python standard library.

Serve it over HTTP:

    proxyrunner -- python3 examples/server.py

It has a few tools (`countdown` is slow, reports progress and can be cancelled), a resource, a prompt
and log messages. It needs Python 3.9 or newer.
"""

from __future__ import annotations

import datetime
import json
import sys
import threading
from typing import Any, Callable

VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]  # newest first
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL_ERROR, RESOURCE_NOT_FOUND = -32602, -32603, -32002


class Failure(Exception):
    """An error that is sent to the client as a JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# Features. A tool is a function: its first parameter is the call, the others are its arguments.

TOOLS: dict[str, dict[str, Any]] = {}
RUN: dict[str, Callable[..., str]] = {}


def tool(**properties: dict[str, Any]) -> Callable:
    """Registers a function as a tool; `properties` are the JSON Schemas of its arguments."""

    def offer(function: Callable[..., str]) -> Callable[..., str]:
        required = [name for name, schema in properties.items() if "default" not in schema]
        schema = {"type": "object", "properties": properties, "required": required}
        TOOLS[function.__name__] = {
            "name": function.__name__,
            "description": function.__doc__,
            "inputSchema": schema,
        }
        RUN[function.__name__] = function
        return function

    return offer


@tool(text={"type": "string", "description": "What to say back"})
def echo(call: Call, text: str) -> str:
    """Says back what it is given."""
    return text


@tool(a={"type": "number"}, b={"type": "number"})
def add(call: Call, a: float, b: float) -> str:
    """Adds two numbers."""
    return str(a + b)


@tool()
def now(call: Call) -> str:
    """Tells the time, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@tool(
    start={"type": "integer", "default": 5, "description": "Where to start"},
    pause={"type": "number", "default": 1, "description": "Seconds between two numbers"},
)
def countdown(call: Call, start: int = 5, pause: float = 1) -> str:
    """Counts down to zero, reports progress, and stops when it is cancelled."""
    for step in range(start):
        call.log("info", f"{start - step}…")
        if call.cancelled.wait(pause):
            return f"Stopped at {start - step}."
        call.progress(step + 1, start)
    return "Lift-off! 🚀"


GREETING = {
    "uri": "demo://greeting",
    "name": "greeting",
    "description": "A greeting in several scripts",
    "mimeType": "text/plain",
}
GREETING_TEXT = "Hello, こんにちは, مرحبا, Grüße, 👋\n"

SUMMARY = {
    "name": "summarize",
    "description": "Asks for a summary",
    "arguments": [{"name": "topic", "description": "What to summarize", "required": True}],
}


# The protocol.


class Server:
    """Reads one JSON-RPC message per line, and answers each request in a separate thread."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.writing = threading.Lock()  # keeps the lines of two threads apart
        self.calls: dict[Any, Call] = {}  # running calls by request id, for cancellation
        self.threshold = LEVELS.index("info")
        self.methods: dict[str, Callable[[dict, Call], dict]] = {
            "initialize": self.initialize,
            "ping": lambda params, call: {},
            "logging/setLevel": self.set_level,
            "tools/list": lambda params, call: {"tools": list(TOOLS.values())},
            "tools/call": self.call_tool,
            "resources/list": lambda params, call: {"resources": [GREETING]},
            "resources/templates/list": lambda params, call: {"resourceTemplates": []},
            "resources/read": self.read_resource,
            "prompts/list": lambda params, call: {"prompts": [SUMMARY]},
            "prompts/get": self.fill_prompt,
        }

    def run(self) -> None:
        """Serves until stdin ends, then cancels running calls."""
        for line in self.incoming:
            if line.strip():
                self.receive(line)
        for call in list(self.calls.values()):
            call.cancelled.set()

    def receive(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError as error:  # bad UTF-8 is one too
            self.send({"id": None, "error": {"code": PARSE_ERROR, "message": str(error)}})
            return
        method, params, id = (
            (message.get("method"), message.get("params", {}), message.get("id"))
            if isinstance(message, dict)
            else (None, None, None)
        )
        if not isinstance(params, dict) or not isinstance(id, (str, int, type(None))):
            self.send({"id": None, "error": {"code": INVALID_REQUEST, "message": "not a request"}})
        elif method and id is not None:
            call = self.calls[id] = Call(self, id, params)
            threading.Thread(target=self.answer, args=(method, call), daemon=True).start()
        elif method == "notifications/cancelled":
            for call in list(self.calls.values()):
                if call.id == params.get("requestId"):
                    call.cancelled.set()

    def answer(self, method: str, call: Call) -> None:
        try:
            if method not in self.methods:
                raise Failure(METHOD_NOT_FOUND, f"no such method: {method}")
            answer = {"id": call.id, "result": self.methods[method](call.params, call)}
        except Failure as failure:
            answer = {"id": call.id, "error": {"code": failure.code, "message": str(failure)}}
        except Exception as error:  # a bug fails one request, not the server
            answer = {"id": call.id, "error": {"code": INTERNAL_ERROR, "message": repr(error)}}
        finally:
            self.calls.pop(call.id, None)
        if not call.cancelled.is_set():  # a cancelled request is not answered
            self.send(answer)

    def send(self, message: dict) -> None:
        line = json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode() + b"\n"
        with self.writing:
            self.outgoing.write(line)
            self.outgoing.flush()

    def initialize(self, params: dict, call: Call) -> dict:
        wanted = params.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {}, "resources": {}, "prompts": {}, "logging": {}},
            "serverInfo": {"name": "example", "version": "1.0.0"},
            "instructions": "Try the countdown tool.",
        }

    def set_level(self, params: dict, call: Call) -> dict:
        if params.get("level") not in LEVELS:
            raise Failure(INVALID_PARAMS, f"level is one of {', '.join(LEVELS)}")
        self.threshold = LEVELS.index(params["level"])
        return {}

    def call_tool(self, params: dict, call: Call) -> dict:
        name = params.get("name")
        if name not in RUN:
            raise Failure(INVALID_PARAMS, f"no such tool: {name}")
        try:
            text, failed = RUN[name](call, **params.get("arguments") or {}), False
        except Exception as error:  # reported to the model, which can try again
            text, failed = f"{type(error).__name__}: {error}", True
        return {"content": [{"type": "text", "text": text}], "isError": failed}

    def read_resource(self, params: dict, call: Call) -> dict:
        if params.get("uri") != GREETING["uri"]:
            raise Failure(RESOURCE_NOT_FOUND, f"no such resource: {params.get('uri')}")
        contents = {"uri": GREETING["uri"], "mimeType": GREETING["mimeType"], "text": GREETING_TEXT}
        return {"contents": [contents]}

    def fill_prompt(self, params: dict, call: Call) -> dict:
        if params.get("name") != SUMMARY["name"]:
            raise Failure(INVALID_PARAMS, f"no such prompt: {params.get('name')}")
        topic = (params.get("arguments") or {}).get("topic", "this")
        text = f"Summarize {topic} in three sentences."
        return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}


class Call:
    """One request in progress, through which a tool reports progress, logs, and notices cancellation."""

    def __init__(self, server: Server, id: Any, params: dict) -> None:
        self.server = server
        self.id = id
        self.params = params
        self.token = (params.get("_meta") or {}).get("progressToken")
        self.cancelled = threading.Event()

    def progress(self, done: float, total: float) -> None:
        """Reports progress to the client, if the request has a progress token."""
        if self.token is not None:
            params = {"progressToken": self.token, "progress": done, "total": total}
            self.server.send({"method": "notifications/progress", "params": params})

    def log(self, level: str, text: str) -> None:
        """Sends a log message, unless its level is below the client's threshold."""
        if LEVELS.index(level) >= self.server.threshold:
            params = {"level": level, "logger": "example", "data": text}
            self.server.send({"method": "notifications/message", "params": params})


if __name__ == "__main__":
    try:
        # Bytes, not text: MCP is UTF-8 in every locale, and its newline is one byte on every system.
        Server(sys.stdin.buffer, sys.stdout.buffer).run()
    except KeyboardInterrupt:
        sys.exit(130)
