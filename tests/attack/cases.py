"""The cases of hostile clients. Each is a function that runs until it is done or its time is over."""

from __future__ import annotations

import asyncio
import itertools
from typing import Awaitable, Callable, NamedTuple

from attacker import ANSWER, ELICITS, Attack
from client import META, Client, head, post, session
from parts import KIB, MIB, Fill, Part, fill

Body = Callable[[Attack], Awaitable[None]]


class Case(NamedTuple):
    """A named attack with its requirements."""

    name: str
    run: Body
    eras: tuple[str, ...]
    isolations: tuple[str, ...]
    limits: dict[str, int]


CASES: dict[str, Case] = {}
ERAS = ("legacy", "modern", "dual")
ISOLATIONS = ("auto", "shared", "session")


def case(eras: tuple[str, ...] = ERAS, isolations: tuple[str, ...] = ISOLATIONS, **limits: int) -> Callable[[Body], Body]:
    """Registers a case. `limits` are the settings that it needs, spelled with underscores."""

    def register(body: Body) -> Body:
        CASES[body.__name__] = Case(body.__name__, body, eras, isolations, limits)
        return body

    return register


def quoted(*parts: Part) -> list[Part]:
    return [b'"', *parts, b'"']


async def volley(
    attack: Attack,
    count: int,
    work: Callable[[Client, int], Awaitable],
    leave: bool = True,
    lanes: int = 4,
) -> None:
    """Sends requests and closes each connection at once, or after a short wait for the response."""
    clients = [await attack.client() for _ in range(lanes)]

    async def one(number: int) -> None:
        connection = await work(clients[number % lanes], number)
        try:
            if not leave:
                await attack.read(connection)
        finally:
            attack.leave(connection)

    await attack.lanes(count, one, lanes)


# ---- ids, tokens and names of any length


@case()
async def long_ids(a: Attack) -> None:
    """Calls with huge ids whose connections close at once."""
    await volley(a, 20, lambda c, n: a.call(c, "hang", quoted(fill(a.big()))))


@case()
async def long_ids_answered(a: Attack) -> None:
    """Calls with huge ids that are answered."""
    await volley(a, 20, lambda c, n: a.call(c, "echo", quoted(fill(a.big(30 * MIB))), text="x"), leave=False)


@case()
async def long_numbers(a: Attack) -> None:
    """Calls whose ids are numbers of millions of digits."""
    await volley(a, 20, lambda c, n: a.call(c, "hang", [b"1", fill(a.big(), b"0")]))


@case()
async def long_tokens(a: Attack) -> None:
    """Calls with huge progress tokens, and progress."""
    token = lambda: [b',"progressToken":"', fill(a.big()), b'"']  # noqa: E731
    await volley(a, 20, lambda c, n: a.call(c, "flood", meta=token(), kind="progress", count=20, size=10, seconds=2), leave=n_even(a))


def n_even(a: Attack) -> bool:
    return a.random.random() < 0.5


@case()
async def many_medium_ids(a: Attack) -> None:
    """Hanging calls with ids and tokens of a MiB each, all open at once."""
    client = await a.client()

    async def one(number: int) -> None:
        size = min(MIB, a.big())
        await a.call(client, "hang", quoted(fill(size), b"%d" % number), [b',"progressToken":"', fill(size), b'"'])

    await a.lanes(250, one, 8)
    await a.hold(2)


@case()
async def long_names(a: Attack) -> None:
    """Huge methods, tools, prompts, URIs, cursors, levels, versions and reasons, one after another."""
    stuff = lambda: fill(a.big())  # noqa: E731
    requests: list[Callable[[Client], Awaitable]] = [
        lambda c: a.send(c, stuff(), []),
        lambda c: a.send(c, b"tools/call", [b'"name":"', stuff(), b'",'], name=b"a"),
        lambda c: a.send(c, b"prompts/get", [b'"name":"', stuff(), b'",'], name=b"a"),
        lambda c: a.send(c, b"resources/read", [b'"uri":"', stuff(), b'",'], name=b"a"),
        lambda c: a.send(c, b"resources/subscribe", [b'"uri":"', stuff(), b'",']),
        lambda c: a.send(c, b"tools/list", [b'"cursor":"', stuff(), b'",']),
        lambda c: a.send(c, b"logging/setLevel", [b'"level":"', stuff(), b'",']),
        lambda c: a.send(c, b"completion/complete", [b'"ref":{"type":"ref/prompt","name":"', stuff(), b'"},"argument":{"name":"a","value":"b"},']),
        lambda c: a.send(c, b"notifications/cancelled", [b'"requestId":"', stuff(), b'","reason":"x",'], notify=True),
        lambda c: a.send(c, b"notifications/cancelled", [b'"requestId":1,"reason":"', stuff(), b'",'], notify=True),
        lambda c: a.send(c, b"tasks/get", [b'"taskId":"', stuff(), b'",'], name=b"a"),
    ]
    await volley(a, 3 * len(requests), lambda c, n: requests[n % len(requests)](c), leave=False)


@case()
async def many_names(a: Attack) -> None:
    """Thousands of different methods, tools and resources, none of which may keep memory."""
    client = await a.client()

    async def one(number: int) -> None:
        connection = await a.open()
        for step in range(50):
            name = b"n%d_%d_" % (number, step) + b"x" * 200
            parts = [client.body(b"m/" + name, [], [b"1"], []), client.body(b"tools/call", [b'"name":"' + name + b'",'], [b"1"], [])][step % 2]
            await connection.send(post(parts, *client.headers(b"m/" + name if not step % 2 else b"tools/call", name)))
            await a.read(connection)
        a.leave(connection)

    await a.lanes(100, one, 6)


@case()
async def long_headers(a: Attack) -> None:
    """Session ids, event ids, names and versions in headers of the maximum length, and many headers."""
    client = await a.client()
    long = b"x" * (2 * KIB if a.small else 60_000)
    kinds = [
        [b"Mcp-Session-Id: " + long],
        [b"Last-Event-ID: " + long, *client.headers(b"x")],
        [b"MCP-Protocol-Version: " + long],
        [b"MCP-Protocol-Version: 2026-07-28", b"Mcp-Method: " + long, b"Mcp-Name: " + long[: len(long) // 4]],
        [b"X-%d: y" % n for n in range(20 if a.small else 4000)],
        [b"Origin: http://" + long],
        [b"traceparent: " + long, b"baggage: a=" + long[:1000]],
        [b"Mcp-Param-A: =?base64?" + long + b"?="],
    ]

    async def one(number: int) -> None:
        connection = await a.open()
        headers = kinds[number % len(kinds)]
        get = number % 3 == 0
        body = b"" if get else b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'
        await connection.send([head(len(body), *headers, verb=b"GET" if get else b"POST"), body])
        await a.read(connection)

    await a.lanes(400, one, 16)


@case()
async def long_members(a: Attack) -> None:
    """`_meta`, arguments, trace keys and client capabilities of the size of a whole body."""
    stuff = lambda: fill(a.big())  # noqa: E731
    metas: list[Callable[[], list[Part]]] = [
        lambda: [b',"x":"', stuff(), b'"'],
        lambda: [b',"traceparent":"', stuff(), b'"'],
        lambda: [b',"tracestate":"', stuff(), b'"'],
        lambda: [b',"baggage":"a=', stuff(), b'"'],
        lambda: [b',"', stuff(), b'":1'],
        lambda: [b',"x":{', fill(a.big(), b'"k":1,'), b'"k":1}'],
        lambda: [b',"%bclientInfo":{"name":"' % META.encode(), stuff(), b'","version":"1"}'],
        lambda: [b',"%blogLevel":"' % META.encode(), stuff(), b'"'],
    ]

    async def one(client: Client, number: int):  # noqa: ANN202
        if number % (len(metas) + 1) == len(metas):
            return await a.call(client, "echo", more=[b'"x":"', stuff(), b'",'])
        return await a.call(client, "echo", meta=metas[number % (len(metas) + 1)](), text="x")

    await volley(a, 18, one, leave=False)


@case()
async def large_capabilities(a: Attack) -> None:
    """`initialize` with capabilities, names and versions of tens of MiB, some of them for exclusive processes."""
    stuff = lambda: fill(a.big())  # noqa: E731
    elicits = ELICITS[1:-1]
    kinds: list[Callable[[], list[Part]]] = [
        lambda: [b'"protocolVersion":"2025-11-25","capabilities":{"experimental":{"x":"', stuff(), b'"}},"clientInfo":{"name":"a","version":"1"}'],
        lambda: [b'"protocolVersion":"2025-11-25","capabilities":{', elicits, b',"experimental":{"x":"', stuff(), b'"}},"clientInfo":{"name":"a","version":"1"}'],
        lambda: [b'"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"', stuff(), b'","version":"1"}'],
        lambda: [b'"protocolVersion":"2025-11-25","capabilities":{', elicits, b'},"clientInfo":{"name":"', stuff(), b'","version":"1"}'],
        lambda: [b'"protocolVersion":"', stuff(), b'","capabilities":{},"clientInfo":{"name":"a","version":"1"}'],
    ]

    async def one(number: int) -> None:
        connection = await a.open()
        body: list[Part] = [b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{', *kinds[number % len(kinds)](), b"}}"]
        await connection.send(post(body))
        await a.read(connection)

    await a.lanes(15, one, 4)


# ---- shapes


@case()
async def line_breaks(a: Attack) -> None:
    """Bodies of 60 MiB with a line break in them, for a server that reads nothing."""
    client = await a.own()
    await a.call(client, "deaf", seconds=5)

    async def one(number: int) -> None:
        connection = await a.open()
        body = client.body(b"tools/call", [b'"name":"hang","arguments":{"x":"', fill(a.big()), b'"},\n'], [b"%d" % number], [])
        await connection.send(post([b"{\n", body[0][1:], *body[1:]], *client.headers(b"tools/call", b"hang")))
        a.seen["sent"] += 1

    await a.lanes(20, one, 4)


@case()
async def many_line_breaks(a: Attack) -> None:
    """Bodies that are mostly line breaks, or have one in each member."""
    units = [b"\n", b"\r\n", b'"k":1,\n', b" \t\n"]

    def parts(number: int) -> list[Part]:
        unit = units[number % len(units)]
        return [fill(a.big(), unit)] if unit.strip() else [fill(a.big(), unit)]

    await volley(a, 12, lambda c, n: a.call(c, "echo", more=parts(n), text="x"), leave=False)


@case()
async def deep_json(a: Attack) -> None:
    """Arrays and objects nested millions deep, complete and cut off."""
    kinds: list[Callable[[], list[Part]]] = [
        lambda: [b'"x":', fill(a.big() // 2, b"["), fill(a.big() // 2, b"]"), b","],
        lambda: [b'"x":', fill(a.big(), b'{"x":')],
        lambda: [b'"x":', fill(a.big(), b"["), b"1,"],
    ]
    await volley(a, 9, lambda c, n: a.call(c, "echo", more=kinds[n % 3](), text="x"), leave=False)


@case()
async def odd_strings(a: Attack) -> None:
    """Escapes, bytes that are not UTF-8, NULs and duplicate keys, tens of MiB of each."""
    units = [b"\\u0061", b"\\ud800", b"\xff", b"\0", b"\\\\", b"\xc3\xa9"]
    await volley(a, 12, lambda c, n: a.call(c, "hang", quoted(fill(a.big(30 * MIB), units[n % 6])), more=[b'"name":"hang",' * 100]), leave=False)


@case()
async def large_batches(a: Attack) -> None:
    """Batches with a million members: of numbers, of requests, of answers, of notifications, of huge ids."""
    params = b'"params":{"name":"echo","arguments":{"text":"x"}}'
    members = [
        b"1",
        b"{}",
        b"[]",
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",' + params + b"}",
        b'{"jsonrpc":"2.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}',
        b'{"jsonrpc":"2.0","id":"' + b"i" * 20_000 + b'","method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"' + b"m" * 20_000 + b'"}',
    ]
    client = await old_session(a)

    async def one(number: int) -> None:
        member = members[number % len(members)]
        connection = await a.open()
        # Half of the batches have the maximum number of members.
        members_of = fill(a.big(20 * MIB), member + b",") if number // len(members) % 2 else Fill(member + b",", a.many(1000))
        body: list[Part] = [b"[", members_of, member, b"]"]
        headers = client.headers() if number % 8 else []
        await connection.send(post(body, *headers))
        await a.read(connection)

    await a.lanes(32, one, 4)


@case()
async def batches_of_hanging_calls(a: Attack) -> None:
    """Batches of hanging calls with ids of 100 KB, whose client disconnects or stays."""
    client = await old_session(a)

    async def one(number: int) -> None:
        member = client.body(b"tools/call", [b'"name":"hang","arguments":{},'], quoted(b"%d" % number, fill(100_000)), [])
        body = [b"["] + list(itertools.chain.from_iterable([*member, b","] for _ in range(a.many(200)))) + [*member, b"]"]
        connection = await a.open()
        await connection.send(post(body, *client.headers()))
        if number % 2:
            a.leave(connection)

    await a.lanes(12, one, 4)
    await a.hold(2)


async def old_session(a: Attack) -> Client:
    """Opens a session of 2025-03-26, which may send batches."""
    client = await asyncio.wait_for(session(a.port, a.source(), version="2025-03-26"), ANSWER)
    client.version = b"2025-03-26"
    return client


# ---- answers and states of clients


@case(eras=("legacy", "modern", "dual"), isolations=("auto", "session"))
async def large_answers_to_questions(a: Attack) -> None:
    """A server's question, which the client answers twice with tens of MiB; and answers with huge, unknown ids."""

    async def one(number: int) -> None:
        client = await a.session(ELICITS)
        connection = await a.call(client, "ask", size=10)
        asked = await asyncio.wait_for(connection.find(rb'"id": ?("[^"]*"|\d+),"method": ?"elicitation'), ANSWER)
        for wire_id in ([asked], [asked], quoted(fill(a.big(30 * MIB)))):
            answer = await a.open()
            body: list[Part] = [b'{"jsonrpc":"2.0","id":', *wire_id, b',"result":{"action":"accept","content":{"a":"', fill(a.big()), b'"}}}']
            await answer.send(post(body, *client.headers()))
            await a.read(answer)

    await a.lanes(8, one, 3)


@case()
async def answers_nobody_asked_for(a: Attack) -> None:
    """Answers of 60 MiB without a question."""
    client = await a.session()

    async def one(number: int) -> None:
        connection = await a.open()
        ids = quoted(fill(a.big())) if number % 2 else [b"1"]
        body: list[Part] = [b'{"jsonrpc":"2.0","id":', *ids, b',"result":{"x":"', fill(a.big() if not number % 2 else 1), b'"}}']
        await connection.send(post(body, *client.headers()))
        await a.read(connection)

    await a.lanes(16, one, 4)


@case()
async def large_states(a: Attack) -> None:
    """Retries with states and answers of 60 MiB, with invalid states or states from a server."""
    client = Client(None, ELICITS)
    stuff = lambda: fill(a.big())  # noqa: E731
    kinds: list[Callable[[], list[Part]]] = [
        lambda: [b'"requestState":"', stuff(), b'",'],
        lambda: [b'"inputResponses":{"k":{"action":"accept","content":{"a":"', stuff(), b'"}}},'],
        lambda: [b'"inputResponses":{', fill(a.big(), b'"k":{"action":"decline"},'), b'"z":{"action":"decline"}},"requestState":"1",'],
        lambda: [b'"requestState":"', fill(a.big() // 2), b'","inputResponses":{"', fill(a.big() // 2), b'":{"action":"decline"}},'],
    ]

    async def one(number: int) -> None:
        connection = await a.call(client, "ask", more=kinds[number % 4](), size=10)
        if number % 3:
            await a.read(connection)
        a.leave(connection)

    await a.lanes(16, one, 4)


@case()
async def parked_with_large_arguments(a: Attack) -> None:
    """Calls of 20 MiB that are parked at a question and never retried."""
    client = Client(None, ELICITS)

    async def one(number: int) -> None:
        connection = await a.call(client, "ask", more=[b'"x":"', fill(a.big(20 * MIB)), b'",'], size=10)
        await a.read(connection)

    await a.lanes(12, one, 4)


# ---- subscriptions


@case()
async def subscribe_and_leave(a: Attack) -> None:
    """Sessions that subscribe to four URIs of 8 KB at a slow server, and end."""

    async def one(number: int) -> None:
        client = await a.session()
        waiting = [await a.open() for _ in range(4)]
        for step, connection in enumerate(waiting):
            body = client.body(b"resources/subscribe", [b'"uri":"slow:%d-%d' % (number, step), fill(7900), b'",'], [b"%d" % step], [])
            await connection.send(post(body, *client.headers()))
        for each in waiting:
            await a.read(each)
        connection = await a.open()
        await connection.send([head(0, *client.headers(), verb=b"DELETE")])
        await a.read(connection)
        for each in (*waiting, connection):
            a.leave(each)

    await a.lanes(2000, one, 60)


@case()
async def watch_much(a: Attack) -> None:
    """Sessions that subscribe up to the limit, and stay."""

    async def one(number: int) -> None:
        client = await a.session()
        connection = await a.open()
        for step in range(a.many(250)):
            body = client.body(b"resources/subscribe", [b'"uri":"w:%d-%d-' % (number, step), b"u" * 110 + b'",'], [b"%d" % step], [])
            await connection.send(post(body, *client.headers()))
            await a.read(connection)

    await a.lanes(400, one, 12)


@case()
async def listen_much(a: Attack) -> None:
    """Subscriptions of modern clients with huge ids and the maximum number of URIs."""

    async def one(number: int) -> None:
        client = Client()
        uris = b",".join(b'"l:%d-%d-%b"' % (number, step, b"u" * 110) for step in range(a.many(250)))
        wire_id = quoted(fill(a.big(MIB) if number % 4 == 0 else 900), b"%d" % number)
        params = [b'"notifications":{"toolsListChanged":true,"resourceSubscriptions":[' + uris + b"]},"]
        await a.send(client, b"subscriptions/listen", params, wire_id, receive=4096)

    await a.lanes(500, one, 12)
    await a.hold(2)
