"""HTTP over raw sockets: clients of both eras that can violate the protocol."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import AsyncIterator

from parts import KIB, Part, size_of, views

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"
KEPT = 64 * KIB  # bytes kept of each end of a long body
RESET = struct.pack("ii", 1, 0)
HOST = "127.0.0.1"


class Refused(Exception):
    """An unexpected response of the server."""


@dataclass
class Response:
    """A response whose body is reduced to its two ends."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    size: int = 0

    def found(self, pattern: bytes) -> bytes | None:
        match = re.search(pattern, self.body)
        return match[1] if match else None

    def message(self, wire_id: object) -> dict | None:
        """Returns the JSON-RPC response to a request, from a JSON body or an event stream."""
        events = re.findall(rb"^data: ?(.+?)\r?$", self.body, re.M) if b"data:" in self.body else [self.body]
        for event in events:
            try:
                found = json.loads(event)
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("id") == wire_id and "method" not in found:
                return found
        return None


class Connection:
    """A TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.used = False

    @classmethod
    async def open(cls, port: int, source: str = HOST, receive: int | None = None) -> Connection:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect
            sock.bind((source, 0))
            connection = cls(sock)
            await connection.loop.sock_connect(sock, (HOST, port))
            return connection
        except BaseException:
            sock.close()
            raise

    async def send(self, parts: list[Part]) -> None:
        for view in views(parts):
            await self.loop.sock_sendall(self.sock, view)

    def close(self, reset: bool = True) -> None:
        if self.sock.fileno() >= 0 and reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    # ---- reading

    async def more(self) -> None:
        data = await self.loop.sock_recv(self.sock, 256 * KIB)
        if not data:
            raise ConnectionResetError("closed")
        self.buffer += data

    async def until(self, mark: bytes, limit: int = 64 * KIB) -> bytes:
        """Reads up to and including the mark."""
        while (at := self.buffer.find(mark)) < 0:
            if len(self.buffer) > limit:
                raise ConnectionError("too long")
            await self.more()
        found = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return found

    async def head(self) -> Response:
        lines = (await self.until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return Response(int(lines[0].split(" ")[1]), headers)

    async def take(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if not self.buffer:
                await self.more()
            piece = bytes(self.buffer[:size])
            del self.buffer[: len(piece)]
            size -= len(piece)
            yield piece

    async def body(self, head: Response) -> AsyncIterator[bytes]:
        if head.headers.get("transfer-encoding") == "chunked":
            while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
                async for piece in self.take(size):
                    yield piece
                await self.until(b"\r\n")
            await self.until(b"\r\n")
        else:
            async for piece in self.take(int(head.headers.get("content-length", 0))):
                yield piece

    async def response(self) -> Response:
        """Reads a whole response and keeps its two ends."""
        response = await self.head()
        first, last = bytearray(), bytearray()
        async for piece in self.body(response):
            response.size += len(piece)
            if len(first) < KEPT:
                first += piece
            else:
                last = (last + piece)[-KEPT:]
        response.body = bytes(first + last)
        self.used = True
        return response

    async def find(self, pattern: bytes) -> bytes:
        """Reads an event stream or a body up to the first match of a pattern."""
        window = bytearray()
        head = await self.head()
        async for piece in self.body(head):
            window += piece
            if match := re.search(pattern, window):
                return match[1]
            del window[: -2 * KIB]
        raise Refused(f"{head.status} without {pattern!r}")


def head(length: int | None, *headers: bytes, verb: bytes = b"POST", path: bytes = b"/mcp") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (verb, path), b"Host: localhost", b"Accept: application/json, text/event-stream"]
    if verb == b"POST":
        lines.append(b"Content-Type: application/json")
        lines.append(b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length)
    return b"\r\n".join([*lines, *headers, b"", b""])


class Client:
    """An MCP client: legacy with a session, modern without one."""

    def __init__(self, session: bytes | None = None, capabilities: bytes = b"{}", logs: bool = False) -> None:
        self.session = session
        self.capabilities = capabilities
        self.logs = logs
        self.version = LEGACY.encode()

    @property
    def modern(self) -> bool:
        return self.session is None

    def headers(self, method: bytes = b"", name: bytes = b"") -> list[bytes]:
        if self.session is not None:
            return [b"Mcp-Session-Id: " + self.session, b"MCP-Protocol-Version: " + self.version]
        named = [b"Mcp-Name: " + name] if name else []
        return [b"MCP-Protocol-Version: " + MODERN.encode(), b"Mcp-Method: " + method, *named]

    def meta(self, *more: Part) -> list[Part]:
        """Returns the `_meta` member with the caller's members, each of which begins with a comma."""
        if not self.modern:
            return [b'"_meta":{"a":1', *more, b"}"]
        keys = b'"%(m)bprotocolVersion":"%(v)b","%(m)bclientCapabilities":%(c)b' % {
            b"m": META.encode(),
            b"v": MODERN.encode(),
            b"c": self.capabilities,
        }
        logs = b',"%blogLevel":"debug"' % META.encode() if self.logs else b""
        return [b'"_meta":{', keys, logs, *more, b"}"]

    def body(self, method: Part, params: list[Part], wire_id: list[Part] | None, meta: list[Part]) -> list[Part]:
        """Returns a request, or a notification if there is no id. The params end with a comma."""
        ids: list[Part] = [b'"id":', *wire_id, b","] if wire_id else []
        return [b'{"jsonrpc":"2.0",', *ids, b'"method":"', method, b'","params":{', *params, *self.meta(*meta), b"}}"]


def post(parts: list[Part], *headers: bytes, path: bytes = b"/mcp") -> list[Part]:
    """Returns a whole HTTP request."""
    return [head(size_of(parts), *headers, path=path), *parts]


async def session(port: int, source: str, capabilities: bytes = b"{}", name: bytes = b"client", version: str = LEGACY) -> Client:
    """Opens a legacy session."""
    params = b'{"protocolVersion":"%b","capabilities":%b,"clientInfo":{"name":"%b","version":"1"}}'
    body = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":%b}' % (params % (version.encode(), capabilities, name))
    connection = await Connection.open(port, source)
    try:
        await connection.send(post([body]))
        response = await connection.response()
        found = response.headers.get("mcp-session-id")
        if response.status != 200 or found is None:
            raise Refused(f"status {response.status} {response.body[:200]!r}")
        client = Client(found.encode(), capabilities)
        await connection.send(post([b'{"jsonrpc":"2.0","method":"notifications/initialized"}'], *client.headers()))
        await connection.response()
        return client
    finally:
        connection.close(reset=False)
