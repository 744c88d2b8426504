"""Callers of a fleet of gateways, or of replicas without one, which check every answer and account for every request.

Each call has a text of its own. It ends as exactly one of these:

    answered   the right answer came
    broken     it was sent and no answer came: a process has died; it may have been carried out once
    wrong      anything else: another's answer, an answer that the documentation does not promise, none at all

On the way to its end, a call may be refused (nothing was carried out, so it is sent again), and its session may be gone
(so a new one is opened). Both are counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LEGACY, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"
PATIENCE = 60  # seconds for one call; no assertion, only the end of a hang
PAUSE = 0.03  # seconds between the calls of one caller, so that the machine is not the limit
CLIENT = {"name": "load", "version": "1"}
UNSENT = ("no replica serves", "no replica can be reached", "shutting down", "limit", "the session is not at this replica")

numbers = itertools.count(1)


class Refused(Exception):
    """Nothing listens."""


class Cut(Exception):
    """The connection broke before the answer was complete."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> Any:
        """The only message with an id."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            events = [line[5:] for line in self.body.decode().splitlines() if line.startswith("data:") and line[5:].strip()]
            found = [one for one in map(json.loads, events) if "id" in one and "method" not in one]
            assert len(found) == 1, f"{len(found)} answers in one stream: {self.body!r}"
            return found[0]
        return json.loads(self.body)


class Connection:
    """One connection to one gateway, for one request at a time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
        if self.streams is None or self.streams[0].at_eof():
            self.close()
            try:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
            except OSError as error:
                raise Refused(str(error)) from None
        reader, writer = self.streams
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
            answer = await self._answer(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Cut(repr(error)) from None
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection", "").lower() == "close":
            self.close()
        return answer

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await reader.readuntil(b"\r\n"), 16):
                parts.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readexactly(2)
            body = b"".join(parts)
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
            self.streams = None


class Balancer:
    """What stands in front of several gateways: it sends requests to those that are ready, in turns."""

    def __init__(self, ports: list[int]) -> None:
        self.ready = dict.fromkeys(ports, True)
        self.turns = itertools.cycle(ports)

    async def watch(self) -> None:
        """Probes all of them, for ever."""
        await asyncio.gather(*map(self._watch, self.ready))

    async def _watch(self, port: int) -> None:
        connection = Connection(port)
        while True:
            try:
                async with asyncio.timeout(5):
                    self.ready[port] = (await connection.request("GET", "/health/ready", {})).status == 200
            except (Refused, Cut, TimeoutError):
                self.ready[port] = False
            await asyncio.sleep(0.05)

    def pick(self) -> int:
        for _ in self.ready:
            if self.ready[port := next(self.turns)]:
                return port
        return next(self.turns)


@dataclass
class Ledger:
    """What became of each call."""

    count: Counter[tuple[str, str]] = field(default_factory=Counter)
    sent: set[str] = field(default_factory=set)
    answered: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, server: str, what: str) -> None:
        self.count[server, what] += 1


class Caller:
    """One client of one server, in one era, which goes to another gateway, or to another replica, with each request."""

    def __init__(
        self, balancer: Balancer, ledger: Ledger, server: str, era: str, key: str | None, is_gateway: bool = True
    ) -> None:
        self.balancer, self.ledger, self.server, self.era = balancer, ledger, server, era
        self.name = f"{server}-{era}-{next(numbers)}"
        self.connections = {port: Connection(port) for port in balancer.ready}
        self.authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self.session: str | None = None
        self.owner: str | None = None
        self.seen: Counter[str] = Counter()
        self.done = 0
        self.tool, self.arguments = "echo", {}
        self.path = f"/servers/{server}/mcp" if is_gateway else "/mcp"
        # What may come in place of an answer, at a server that lies.
        self.tolerated: tuple[str, ...] = ()
        # Whether another replica may take the session over.
        self.moves = False

    async def run(self) -> None:
        while True:
            text = f"{self.name}-{next(numbers)} 世界"
            try:
                # Not wait_for, which may lose a cancellation in Python 3.11.
                async with asyncio.timeout(PATIENCE):
                    await self.call(text)
            except TimeoutError:
                self.wrong(text, f"no end within {PATIENCE} s")
            except (AssertionError, ValueError, KeyError, TypeError) as error:
                self.wrong(text, repr(error))
            self.done += 1
            await asyncio.sleep(PAUSE)

    def wrong(self, text: str, why: str) -> None:
        self.ledger.note(self.server, "wrong")
        self.ledger.wrong.append(f"{time.strftime('%X')} {self.name}: {why}: {text}")

    async def call(self, text: str) -> None:
        self.ledger.sent.add(text)
        argument = "message" if self.server == "npm" else "text"
        arguments = {argument: text} | self.arguments
        while True:
            if self.era == LEGACY and self.session is None and not await self.open():
                continue
            number = f"{self.name}/{next(numbers)}"
            answer = await self.post("tools/call", {"name": self.tool, "arguments": arguments}, number)
            if isinstance(answer, str):
                self.ledger.note(self.server, f"broken {self.era}")
                self.ledger.broken[text] = answer
                return
            if answer is None:
                continue
            if answer.status == 404 and self.session:
                assert answer.message["error"]["code"] == -32001, answer
                self.ledger.note(self.server, f"gone {self.owner}")
                self.session = self.owner = None
                continue
            assert answer.status == 200, answer
            self.check(answer.message, number, text)
            self.ledger.note(self.server, "answered")
            return

    def check(self, message: dict[str, Any], number: str, text: str) -> None:
        assert message.get("id") == number, f"the answer of another request: {message}"
        assert "result" in message, message
        (content,) = message["result"]["content"]
        got = content["text"].removeprefix("Echo: ")
        if self.server == "recorder":
            owner, _, got = got.partition(" ")
            if self.moves and self.owner not in (None, owner):
                self.ledger.note(self.server, f"moved from {self.owner}")
                self.owner = owner
            assert self.owner in (None, owner), f"the session of {self.owner} was served by {owner}"
            self.seen[owner] += 1
            if self.era == LEGACY:
                self.owner = owner
        assert got == text, f"the answer of another call: {got}"
        self.ledger.answered[text] = content["text"]

    async def open(self) -> bool:
        """Opens a session, if it can."""
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": CLIENT}
        answer = await self.post("initialize", params, f"{self.name}/open")
        if not isinstance(answer, Answer):
            return False
        assert answer.status == 200 and "result" in answer.message, answer
        self.session = answer.headers["mcp-session-id"]
        self.ledger.note(self.server, "opened")
        return True

    async def post(self, method: str, params: dict[str, Any], number: str) -> Answer | str | None:
        """Sends a request to the next gateway. Returns nothing if it was not carried out, and a text if it may have been."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **self.authorization}
        if self.era == MODERN:
            meta = {"protocolVersion": MODERN, "clientInfo": CLIENT, "clientCapabilities": {}}
            params = params | {"_meta": {META + name: value for name, value in meta.items()}}
            headers |= {"Mcp-Method": method} | ({"Mcp-Name": params["name"]} if "name" in params else {})
        if self.era == MODERN or self.session:
            headers["MCP-Protocol-Version"] = self.era
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()
        port = self.balancer.pick()
        try:
            answer = await self.connections[port].request("POST", self.path, headers, body)
        except Refused:
            self.balancer.ready[port] = False
            self.ledger.note(self.server, "refused by a gateway")
            await asyncio.sleep(PAUSE)
            return None
        except Cut as error:
            return f"cut by the gateway: {error}"
        said = answer.body.decode(errors="replace")
        if answer.status == 503 and "retry-after" in answer.headers and any(one in said for one in UNSENT):
            self.ledger.note(self.server, f"refused {self.era}: {json.loads(said)['error']['message']}")
            await asyncio.sleep(PAUSE)
            return None
        if answer.status == 502 and "broke the connection" in said:
            return "broken by the server"
        return answer


class Load:
    """Callers that run until the end of a block."""

    def __init__(self, ports: list[int], keys: list[str | None], is_gateway: bool = True) -> None:
        self.is_gateway = is_gateway
        self.balancer, self.ledger, self.keys = Balancer(ports), Ledger(), itertools.cycle(keys)
        self.callers: list[Caller] = []
        self.tasks: list[asyncio.Task] = []

    def add(self, server: str, legacy: int, modern: int) -> list[Caller]:
        """Adds callers of a server, and starts them."""
        added = [
            Caller(self.balancer, self.ledger, server, era, next(self.keys), self.is_gateway)
            for era in [LEGACY] * legacy + [MODERN] * modern
        ]
        self.callers += added
        self.tasks += [asyncio.create_task(one.run()) for one in added]
        return added

    async def __aenter__(self) -> Load:
        self.tasks.append(asyncio.create_task(self.balancer.watch()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def rounds(self, count: int = 3, callers: list[Caller] | None = None) -> None:
        """Waits until each caller has ended so many more calls."""
        chosen = self.callers if callers is None else callers
        before = [(one, one.done) for one in chosen]
        while any(one.done - done < count for one, done in before):
            for task in self.tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
