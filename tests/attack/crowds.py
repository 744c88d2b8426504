"""The cases of connections, streams and shares. Importing this module registers them."""

from __future__ import annotations

import asyncio
from attacker import ANSWER, ELICITS, LOST, SPREAD, Attack
from cases import case, quoted
from client import Client, Connection, Refused, head, post, session
from parts import KIB, MIB, Part, fill, size_of

NEIGHBOUR = "127.0.0.4"


# ---- messages that are never read


@case()
async def unread_progress(a: Attack) -> None:
    """Calls with 3.9 KB progress messages that are never read, from several addresses."""
    a.sources = SPREAD

    async def one(number: int) -> None:
        client = Client() if number % 4 else await a.client()
        meta: list[Part] = [b',"progressToken":%d' % number]
        await a.call(client, "flood", meta=meta, receive=2048, kind="progress", size=3900, count=a.many(260), seconds=6)

    await a.lanes(500, one, 16)
    await a.hold(5)


@case()
async def unread_answers(a: Attack) -> None:
    """Answers of tens of MiB that are never read, in many shapes."""
    shapes = ["text", "structured", "escapes", "id_last", "error", "items"]
    clients = [await a.client() for _ in range(4)]

    async def one(number: int) -> None:
        await a.call(clients[number % 4], "large", receive=2048, size=a.big(), shape=shapes[number % len(shapes)])

    await a.lanes(20, one, 4)
    await a.hold(3)


@case()
async def unread_small_answers(a: Attack) -> None:
    """Thousands of answers of 3.9 KB on pipelined connections that are never read."""
    client = Client()
    text = "t" * 3900

    async def one(number: int) -> None:
        connection = await a.open(receive=2048)
        parts = client.body(b"tools/call", [b'"name":"echo","arguments":{"text":"%b"},' % text.encode()], [b"1"], [])
        request = post(parts, *client.headers(b"tools/call", b"echo"))
        for _ in range(a.many(200)):
            await asyncio.wait_for(connection.send(request), ANSWER)

    await a.lanes(200, one, 24)
    await a.hold(2)


@case()
async def unread_streams(a: Attack) -> None:
    """GET streams and subscriptions that are never read, while the server floods them all."""

    async def one(number: int) -> None:
        if number % 2:
            return None if await a.stream(await a.session(), 2048) else None
        params = [b'"notifications":{"toolsListChanged":true,"resourceSubscriptions":["a:"]},']
        await a.send(Client(), b"subscriptions/listen", params, receive=2048)

    await a.lanes(300, one, 12)
    caller = await a.client()
    for kind in ("updated", "tools", "resources", "log"):
        await a.call(caller, "flood", kind=kind, size=min(4 * KIB, a.big()), count=a.many(3000), seconds=3)
    await a.hold(3)


@case()
async def replay_buffers(a: Attack) -> None:
    """Sessions whose answers were never fetched, each with a full replay buffer."""

    async def one(number: int) -> None:
        client = await a.session()
        meta: list[Part] = [b',"progressToken":1']
        connection = await a.call(client, "flood", meta=meta, kind="progress", size=min(16 * KIB, a.big()), count=a.many(250))
        await asyncio.sleep(0.01)
        a.leave(connection)
        again = await a.stream(client, 2048, b"Last-Event-ID: 0-0")
        a.leave(again)

    await a.lanes(400, one, 12)
    await a.hold(1)


# ---- one client's share


async def newcomer(a: Attack, capabilities: bytes = b"{}", size: int = 10) -> None:
    """Acts as a new client: opens a session, makes a call and ends the session."""
    client = await session(a.port, NEIGHBOUR, capabilities)
    await neighbours_call(a, client, size)
    connection = await Connection.open(a.port, NEIGHBOUR)
    try:
        await connection.send([head(0, *client.headers(), verb=b"DELETE")])
        await connection.response()
    finally:
        connection.close()


async def neighbours_call(a: Attack, client: Client, size: int) -> None:
    connection = await Connection.open(a.port, NEIGHBOUR)
    try:
        parts = client.body(b"tools/call", [b'"name":"echo","arguments":{"text":"hello"},"x":"', fill(size), b'",'], [b"5"], [])
        await connection.send(post(parts, *client.headers(b"tools/call", b"echo")))
        response = await connection.response()
        if response.status != 200 or b"hello" not in response.body:
            raise Refused(f"status {response.status} {response.body[:200]!r}")
    finally:
        connection.close()


@case(eras=("modern", "legacy"))
async def hog_bodies(a: Attack) -> None:
    """Repeated hanging calls of 31 MB whose client disconnects. Another client's call of 6 MB must be served."""
    clients = [await a.session() for _ in range(2)]

    async def hog(client: Client) -> None:
        for _ in range(100):
            try:
                connection = await a.call(client, "hang", more=[b'"x":"', fill(a.big(31 * MIB)), b'",'])
                await asyncio.sleep(0.05)
                a.leave(connection)
            except LOST as error:
                a.seen[type(error).__name__] += 1
            await asyncio.sleep(0.1)

    hogs = [asyncio.create_task(hog(client)) for client in clients]
    try:
        await a.hold(1)
        for _ in range(1 if a.small else 3):
            await a.neighbour("a call of 6 MB", lambda: newcomer(a, size=64 * KIB if a.small else 6 * MIB))
            await a.hold(0.5)
    finally:
        for task in hogs:
            task.cancel()
        await asyncio.gather(*hogs, return_exceptions=True)


@case(max_sessions=100)
async def hog_sessions(a: Attack) -> None:
    """One address opens all sessions. Another address must get a session, too."""

    async def one(number: int) -> None:
        await a.session()

    await a.lanes(300, one, 8)
    await a.neighbour("a session", lambda: newcomer(a))


# More than the attackers' addresses, the bystander, the well-behaved client and the shared process need.
@case(isolations=("session", "auto"), max_children=8)
async def hog_children(a: Attack) -> None:
    """A few addresses take all processes and keep them busy. Another client with sampling must be served."""

    async def one(number: int) -> None:
        client = await a.own("legacy" if number % 2 else None)
        await a.call(client, "hang")

    await a.lanes(12, one, 4)
    await a.neighbour("a session that can be asked", lambda: newcomer(a, ELICITS))
    await a.hold(1)


@case(max_connections=64)
async def hog_connections(a: Attack) -> None:
    """One address opens more connections than allowed, each with a hanging call."""
    client = await a.client()

    async def one(number: int) -> None:
        await a.call(client, "hang")

    await a.lanes(200, one, 16)
    await a.neighbour("a connection", lambda: newcomer(a))
    await a.hold(2)


@case()
async def hog_listens(a: Attack) -> None:
    """More subscriptions, parked calls and hanging calls than one client may have."""

    async def one(number: int) -> None:
        client = Client(None, ELICITS)
        kinds = [
            lambda: a.send(client, b"subscriptions/listen", [b'"notifications":{"toolsListChanged":true},']),
            lambda: a.call(client, "ask", size=100),
            lambda: a.call(client, "hang"),
        ]
        await kinds[number % 3]()

    await a.lanes(900, one, 16)
    await a.hold(2)


# ---- turns


@case()
async def notification_storm(a: Attack) -> None:
    """Hundreds of connections that send notifications to a server of 5 ms a message."""
    clients = [await a.client("legacy") for _ in range(4)]

    async def one(number: int) -> None:
        client = clients[number % 4]
        connection = await a.open()
        body = client.body(b"notifications/acme", [b'"slow":1,'], None, [])
        while True:
            await connection.send(post(body, *client.headers(b"notifications/acme")))
            await a.read(connection, 30)
            if a.small:
                return

    await a.lanes(1500, one, 1500)


@case()
async def cancellation_storm(a: Attack) -> None:
    """Calls that are cancelled at once, by notifications and by disconnects."""
    clients = [await a.client() for _ in range(4)]

    async def one(number: int) -> None:
        client = clients[number % 4]
        connection = await a.call(client, "hang", [b"%d" % number])
        if client.modern:
            return a.leave(connection)
        cancel = await a.send(client, b"notifications/cancelled", [b'"requestId":%d,' % number], notify=True)
        await a.read(cancel)
        a.leave(cancel)
        a.leave(connection)

    await a.lanes(3000, one, 24)


@case()
async def session_flood(a: Attack) -> None:
    """Sessions that are opened and abandoned as fast as possible, half of them for exclusive processes."""

    async def one(number: int) -> None:
        await a.session(ELICITS if number % 8 == 0 else b"{}", b"s" * 4000)

    await a.lanes(4000, one, 16)


# ---- connections, heads and bodies in parts


@case(max_connections=20)
async def slow_heads(a: Attack) -> None:
    """Streams that occupy all connections, and heads that arrive byte by byte."""

    async def stream(number: int) -> None:
        await a.stream(await a.session())

    await a.lanes(20, stream, 4)
    text = b"GET /livez HTTP/1.1\r\nX-Slow: " + b"y" * 10_000

    async def drip(number: int) -> None:
        connection = await a.open()
        for at in range(20 if a.small else len(text)):
            await connection.send([text[at : at + 1]])
            await asyncio.sleep(0.04)

    async def again(number: int) -> None:
        for _ in range(1 if a.small else 1000):
            try:
                await drip(number)
            except LOST:
                await asyncio.sleep(0.05)

    await a.lanes(16, again, 16)


@case()
async def large_heads(a: Attack) -> None:
    """Two thousand connections with 60 KB of an incomplete head each."""
    text = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"y" * (KIB if a.small else 60_000)

    async def one(number: int) -> None:
        connection = await a.open()
        await connection.send([text])

    await a.lanes(2000, one, 32)
    await a.hold(2)


@case()
async def unfinished_bodies(a: Attack) -> None:
    """Bodies of 60 MiB that stop in the middle or trickle, with a length and in chunks."""
    client = await a.client()

    async def one(number: int) -> None:
        connection = await a.open()
        size = a.big()
        if number % 2:
            await connection.send([head(size, *client.headers(b"tools/call", b"echo")), b"{", fill(size // 2)])
        else:
            chunk = b"%x\r\n" % (size // 2) if number % 4 else b"1;" + b"e" * 200 + b"\r\n"
            await connection.send([head(None, *client.headers(b"tools/call", b"echo")), chunk, fill(size // 2)])
        while number % 3 == 0 and not a.small:
            await connection.send([b"a"])
            await asyncio.sleep(0.05)

    await a.lanes(40, one, 40)
    await a.hold(3)


@case()
async def tiny_chunks(a: Attack) -> None:
    """Bodies in chunks of one byte, each with a long extension, and with long trailers."""
    chunk = b"1;" + b"e" * 100 + b"\r\na\r\n"

    async def one(number: int) -> None:
        connection = await a.open()
        await connection.send([head(None), b'5\r\n{"a":\r\n1\r\n"\r\n', fill(a.big(6 * MIB), chunk), b'1\r\n"\r\n1\r\n}\r\n0\r\n'])
        await connection.send([fill(64 * KIB, b"X-Trailer: 1\r\n"), b"\r\n"])
        await a.read(connection)

    await a.lanes(24, one, 8)


@case()
async def churn(a: Attack) -> None:
    """Connections that are opened and closed as fast as possible, with half a head, a whole head, or none."""
    pieces = [b"", b"GET /", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n" * 100, b"\x16\x03\x01\x02\x00" * 50, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]

    async def one(number: int) -> None:
        connection = await a.open()
        await connection.send([pieces[number % len(pieces)]])
        a.leave(connection, reset=number % 5 != 0)

    await a.lanes(8000, one, 24)


@case()
async def pipelining(a: Attack) -> None:
    """Connections that send thousands of requests and read nothing."""
    client = await a.client()
    kinds: list[list[Part]] = [
        [b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        post([b"{"], *client.headers(b"x")),
        post(client.body(b"tools/list", [], [b"1"], []), *client.headers(b"tools/list")),
    ]

    async def one(number: int) -> None:
        connection = await a.open(receive=2048)
        request = kinds[number % len(kinds)]
        await asyncio.wait_for(connection.send([fill(a.many(5000) * size_of(request), joined(request))]), ANSWER)

    await a.lanes(60, one, 30)
    await a.hold(1)


def joined(parts: list[Part]) -> bytes:
    return b"".join(part if isinstance(part, bytes) else part.unit * part.count for part in parts)


@case()
async def old_transport(a: Attack) -> None:
    """The HTTP+SSE transport: streams that are never read, and huge messages to them."""

    async def one(number: int) -> None:
        stream = await a.open(receive=4096)
        await stream.send([b"GET /sse HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"])
        path = await asyncio.wait_for(stream.find(rb"data: ?(\S+)"), ANSWER)
        bodies: list[list[Part]] = [
            [b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"a","version":"1"}}}'],
            [b'{"jsonrpc":"2.0","method":"notifications/initialized"}'],
            [b'{"jsonrpc":"2.0","id":', *quoted(fill(a.big())), b',"method":"tools/call","params":{"name":"hang"}}'],
            [b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"large","arguments":{"size":%d}}}' % a.big()],
            [b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"flood","_meta":{"progressToken":1},"arguments":{"count":2000,"size":4000}}}'],
        ]
        for body in bodies:
            connection = await a.open()
            await connection.send(post(body, path=path.split(b"localhost")[-1]))
            await a.read(connection)
            a.leave(connection)

    await a.lanes(12, one, 4)
    await a.hold(2)

