"""A server over HTTP that answers what it should not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from load import META, MODERN, Connection, Cut

# The answer to a request for each name, and what a caller of the gateway gets for it: a status, and a part of the text. None: the
# connection ends without a whole answer. {id} is the request's.
JSON = "Content-Type: application/json\r\n"
LIES: dict[str, tuple[str, int | None, str]] = {
    "redirect": ("HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n", 502, "302 Found; redirects"),
    "challenge": ('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n', 502, "refuses the credentials"),
    "unmodified": ("HTTP/1.1 304 Not Modified\r\n\r\n", 502, "304 Not Modified"),
    "silence": ("", 502, "broke the connection before it answered"),
    "garbage": ("SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, "broke the connection before it answered"),
    "half": (f"HTTP/1.1 200 OK\r\n{JSON}Content-Length: 100\r\n\r\n{{", None, ""),
    "cut": (f"HTTP/1.1 200 OK\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n", None, ""),
}


class Liar:
    """Listens for one request per connection; the tool's name chooses the lie."""

    async def __aenter__(self) -> Liar:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/mcp"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if not head.startswith("POST"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            size = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
            name = json.loads(await reader.readexactly(size))["params"]["name"]
            writer.write(LIES[name][0].encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def asked(self, port: int, key: str) -> list[str]:
        """Asks for each lie through a gateway; returns what came that should not."""
        problems = []
        for name, (_, status, words) in LIES.items():
            connection = Connection(port)
            try:
                answer = await asyncio.wait_for(connection.request("POST", "/servers/liar/mcp", *request(name, key)), 30)
                got: tuple[int | None, str] = (answer.status, answer.body.decode(errors="replace"))
            except Cut:
                got = (None, "")
            finally:
                connection.close()
            if got[0] != status or words not in got[1]:
                problems.append(f"{name}: {got}, not {status} with {words!r}")
        return problems


def request(tool: str, key: str) -> tuple[dict[str, str], bytes]:
    meta: dict[str, Any] = {"protocolVersion": MODERN, "clientInfo": {"name": "x", "version": "1"}, "clientCapabilities": {}}
    params = {"name": tool, "arguments": {}, "_meta": {META + one: value for one, value in meta.items()}}
    headers = {
        "Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Mcp-Name": tool,
        "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Authorization": f"Bearer {key}",
    }  # fmt: skip
    return headers, json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
