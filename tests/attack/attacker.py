"""Tools for the cases: clients of a random era, connections that are closed together, and counters of outcomes."""

from __future__ import annotations

import asyncio
import collections
import json
import random
import time
from typing import Any, Awaitable, Callable

from client import Client, Connection, Refused, Response, head, post, session
from parts import KIB, MIB, Part

ELICITS = b'{"elicitation":{"form":{}}}'
ANSWER = 3.0  # seconds that an attacker waits for a response
SIZES = [60 * MIB, 60 * MIB, 31 * MIB, 6 * MIB, 300 * KIB]  # sizes of big items in mixtures
SPREAD = ["127.0.0.1", "127.0.1.1", "127.0.1.2", "127.0.1.3"]  # addresses of attackers
LOST = (OSError, asyncio.TimeoutError, Refused, ValueError, IndexError)


class Attack:
    """A running case."""

    def __init__(self, plan: dict[str, Any], seed: str, report: Callable[..., None]) -> None:
        self.port: int = plan["port"]
        self.era: str = plan["era"]
        self.isolation: str = plan["isolation"]
        self.limits: dict[str, int] = plan["limits"]
        self.sources: list[str] = plan["sources"]
        self.small: bool = plan["small"]
        self.mixed: bool = plan["mixed"]
        self.random = random.Random(seed)
        self.report = report
        self.seen: collections.Counter[str] = collections.Counter()
        self.connections: list[Connection] = []

    # ---- sizes

    def big(self, size: int = 60 * MIB) -> int:
        """Returns the size of a big item: small during the warm-up, random in a mixture."""
        if self.small:
            return 8 * KIB
        return min(size, self.random.choice(SIZES)) if self.mixed else size

    def many(self, count: int) -> int:
        return min(count, 3) if self.small else count

    # ---- clients

    async def client(self, era: str | None = None) -> Client:
        """Opens a client without special needs."""
        if (era or self.random.choice(["legacy", "modern"])) == "modern":
            return Client()
        return await self.session()

    async def own(self, era: str | None = None, name: bytes = b"own") -> Client:
        """Opens a client whose calls get an exclusive process."""
        legacy = self.isolation != "shared" and self.era != "modern" and era != "modern"
        if legacy and (era == "legacy" or name != b"own" or self.random.random() < 0.5):
            return await self.session(ELICITS, name)
        return Client(None, ELICITS, logs=self.era != "legacy")

    async def session(self, capabilities: bytes = b"{}", name: bytes = b"client") -> Client:
        opened = await asyncio.wait_for(session(self.port, self.source(), capabilities, name), ANSWER + 5)
        self.seen["sessions"] += 1
        return opened

    def source(self) -> str:
        return self.random.choice(self.sources)

    # ---- connections

    async def open(self, source: str | None = None, receive: int | None = None) -> Connection:
        connection = await asyncio.wait_for(Connection.open(self.port, source or self.source(), receive), ANSWER)
        self.connections.append(connection)
        self.seen["connections"] += 1
        return connection

    def leave(self, connection: Connection, reset: bool = False) -> None:
        connection.close(reset)
        if connection in self.connections:
            self.connections.remove(connection)

    def close(self) -> None:
        while self.connections:
            self.connections.pop().close()

    # ---- messages

    async def send(
        self,
        client: Client,
        method: Part,
        params: list[Part],
        wire_id: list[Part] | None = None,
        meta: list[Part] | None = None,
        name: bytes = b"",
        receive: int | None = None,
        notify: bool = False,
    ) -> Connection:
        """Sends a request on a new connection."""
        ids = None if notify else wire_id or [b"%d" % self.random.randrange(1 << 40)]
        parts = client.body(method, params, ids, meta or [])
        shown = method if isinstance(method, bytes) else b"x"
        connection = await self.open(receive=receive)
        await connection.send(post(parts, *client.headers(shown, name)))
        self.seen["sent"] += 1
        return connection

    async def call(
        self,
        client: Client,
        tool: str,
        wire_id: list[Part] | None = None,
        meta: list[Part] | None = None,
        more: list[Part] | None = None,
        receive: int | None = None,
        **arguments: Any,
    ) -> Connection:
        """Calls a tool of the hostile server."""
        params: list[Part] = [b'"name":"%b","arguments":%b,' % (tool.encode(), json.dumps(arguments).encode()), *(more or [])]
        return await self.send(client, b"tools/call", params, wire_id, meta, tool.encode(), receive)

    async def read(self, connection: Connection, seconds: float = ANSWER) -> Response:
        """Reads a response and counts its status."""
        response = await asyncio.wait_for(connection.response(), seconds)
        self.seen[str(response.status)] += 1
        return response

    async def stream(self, client: Client, receive: int | None = None, *headers: bytes) -> Connection:
        """Opens an event stream by GET without reading it."""
        connection = await self.open(receive=receive)
        await connection.send([head(None, *client.headers(), *headers, verb=b"GET")])
        return connection

    # ---- concurrency

    async def lanes(self, count: int, work: Callable[[int], Awaitable[Any]], lanes: int = 4) -> None:
        """Runs an action `count` times, a few at a time. Refused requests and cut connections are counted."""
        numbers = iter(range(self.many(count)))

        async def lane() -> None:
            for number in numbers:
                try:
                    await work(number)
                except LOST as error:
                    self.seen[type(error).__name__] += 1

        await asyncio.gather(*(lane() for _ in range(min(lanes, self.many(count)))))

    async def hold(self, seconds: float) -> None:
        """Keeps all connections open for a while."""
        await asyncio.sleep(0.2 if self.small else seconds)

    def miss(self, text: str) -> None:
        """Reports that a well-behaved client was not served."""
        if not self.small:
            self.report("miss", text=text)

    async def neighbour(self, what: str, work: Callable[[], Awaitable[Any]], limit: float = 4.0) -> None:
        """Runs an action of a well-behaved client, which must succeed within the limit."""
        begun = time.monotonic()
        try:
            await asyncio.wait_for(work(), limit)
        except LOST as error:
            self.miss(f"{what}: {error!r} after {time.monotonic() - begun:.1f} s")

