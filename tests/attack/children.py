"""The cases of hostile servers. Importing this module registers them."""

from __future__ import annotations

import asyncio

from attacker import ELICITS, Attack
from cases import case
from client import Client
from parts import KIB, MIB, Part

TOKEN: list[Part] = [b',"progressToken":1']


async def flood(a: Attack, kinds: list[str], size: int, count: int, own: bool = False, read: bool = True) -> None:
    """Makes a server send each kind of message many times, for calls whose responses are read or not."""

    async def one(number: int) -> None:
        client = await (a.own() if own else a.client())
        kind = kinds[number % len(kinds)]
        connection = await a.call(client, "flood", None, TOKEN, None, None if read else 2048, kind=kind, size=size, count=a.many(count), seconds=4)
        if read:
            await a.read(connection, 8)

    await a.lanes(3 * len(kinds), one, 3)
    await a.hold(1)


@case()
async def child_pings(a: Attack) -> None:
    """300 pings with ids of 2 MB, by a server that reads nothing."""
    await deaf_flood(a, ["pings"], 2 * MIB, 300)


@case()
async def child_questions(a: Attack) -> None:
    """200 questions, and other requests, with ids of 2 MB, by a server that reads nothing."""
    await deaf_flood(a, ["questions", "roots", "requests", "sampling"], 2 * MIB, 200)


@case()
async def child_small_pings(a: Attack) -> None:
    """A hundred thousand pings and questions with small ids, by a server that reads nothing."""
    await deaf_flood(a, ["pings", "questions", "roots", "requests"], 200, 100_000)


async def deaf_flood(a: Attack, kinds: list[str], size: int, count: int) -> None:
    async def one(number: int) -> None:
        client = await a.own()
        flooded = await a.call(client, "flood", None, TOKEN, kind=kinds[number], size=min(size, a.big()), count=a.many(count), seconds=8)
        await a.call(client, "deaf", seconds=5)
        await asyncio.sleep(0.2 if a.small else 4)
        a.leave(flooded)

    await a.lanes(len(kinds), one, len(kinds))


@case()
async def child_questions_read(a: Attack) -> None:
    """Questions with ids of 2 MB that reach a client, which never answers."""

    async def one(number: int) -> None:
        client = await a.own()
        await a.call(client, "flood", None, TOKEN, kind="questions", size=min(2 * MIB, a.big()), count=a.many(100), receive=None if number % 2 else 2048)

    await a.lanes(4, one, 4)
    await a.hold(4)


@case(max_children=12)
async def child_unfinished_lines(a: Attack) -> None:
    """A dozen servers that each write 60 MiB of a line without an end."""

    async def one(number: int) -> None:
        await a.call(await a.own(), "unfinished", size=a.big(), json=number % 2)

    await a.lanes(12, one, 6)
    await a.hold(3)


@case()
async def child_line_breaks(a: Attack) -> None:
    """Answers of 60 MiB with carriage returns between their tokens, read and unread."""

    async def one(number: int) -> None:
        connection = await a.call(await a.client(), "large", size=a.big(), shape=["returns", "spaces"][number % 2])
        if number % 3:
            await a.read(connection, 8)

    await a.lanes(16, one, 4)


@case()
async def child_large_answers(a: Attack) -> None:
    """Answers of 60 MiB in every shape to clients that read nothing, read slowly, or disconnect."""
    shapes = ["text", "deep", "members", "items", "escapes", "structured", "error", "code", "id_last", "kind"]

    async def one(number: int) -> None:
        connection = await a.call(await a.client(), "large", size=a.big(), shape=shapes[number % len(shapes)])
        if number % 2:
            await a.read(connection, 8)
        a.leave(connection)

    await a.lanes(2 * len(shapes), one, 4)


@case()
async def child_floods(a: Attack) -> None:
    """Floods of small messages of every kind."""
    kinds = ["progress", "log", "updated", "tools", "resources", "unknown", "cancelled", "late", "answers", "methods"]
    await flood(a, kinds, 200, 20_000)


@case()
async def child_floods_of_its_own(a: Attack) -> None:
    """Floods by exclusive servers, whose log messages and questions are forwarded to clients that read nothing."""
    await flood(a, ["log", "progress", "questions", "updated", "tools"], min(4 * KIB, a.big()), 5000, own=True, read=False)


@case()
async def child_large_messages(a: Attack) -> None:
    """Messages of 2 MB of every kind: tokens, ids, URIs, methods, reasons."""
    kinds = ["progress", "tokens", "log", "updated", "unknown", "methods", "cancelled", "subscriptions", "answers", "errors", "late", "requests", "sampling"]
    await flood(a, kinds, min(2 * MIB, a.big()), 60)


@case()
async def child_huge_messages(a: Attack) -> None:
    """Messages of 60 MiB of every kind."""
    kinds = ["progress", "tokens", "log", "updated", "methods", "cancelled", "answers", "errors", "pings", "requests", "sampling"]
    await flood(a, kinds, a.big(), 2)


@case()
async def child_garbage(a: Attack) -> None:
    """Lines that are not messages: text, brackets, NULs and empty lines, small and of 60 MiB."""
    await flood(a, ["garbage", "brackets", "nulls", "empty"], 100, 50_000)
    await flood(a, ["garbage", "brackets", "nulls", "empty"], a.big(), 1)


@case()
async def child_stderr(a: Attack) -> None:
    """Tens of MiB on stderr, in short lines and in one."""

    async def one(number: int) -> None:
        await a.read(await a.call(await a.client(), "complain", size=a.big(20 * MIB), lines=number % 2), 8)

    await a.lanes(4, one, 2)


@case()
async def child_large_lists(a: Attack) -> None:
    """Lists of 30 MiB of four kinds, which may be cached."""
    methods = [b"tools/list", b"prompts/list", b"resources/list", b"resources/templates/list"]

    async def one(number: int) -> None:
        client = await a.client()
        await a.read(await a.call(client, "relist", size=a.big(30 * MIB)))
        await a.read(await a.send(client, methods[number % 4], []), 8)

    try:
        await a.lanes(12, one, 3)
    finally:
        a.seen["relisted"] += 1
        await asyncio.shield(shorten(a))


async def shorten(a: Attack) -> None:
    """Makes the lists short again, because a cached list is not a leak."""
    await a.lanes(1, lambda _: relisted(a))


async def relisted(a: Attack) -> None:
    await a.read(await a.call(Client(), "relist", size=0))


@case(eras=("legacy", "dual"), isolations=("auto", "session"))
async def child_large_handshakes(a: Attack) -> None:
    """Exclusive servers whose instructions, name or lists have 20 MiB, or that never answer."""
    kinds = [b"instructions", b"name", b"lists", b"silence"]

    async def one(number: int) -> None:
        kind = kinds[number % 4]
        client = await a.session(ELICITS, b"hostile:%b=%d" % (kind, min(20 * MIB, a.big())))
        await a.read(await a.send(client, b"tools/list", []), 8)

    await a.lanes(12, one, 4)
    await a.hold(1)


@case()
async def child_large_questions(a: Attack) -> None:
    """Questions and states of 20 MiB that are never answered."""

    async def one(number: int) -> None:
        size = a.big(20 * MIB)
        client = await a.own() if number % 2 else Client(None, ELICITS)
        connection = await a.call(client, "ask", size=size if number % 3 else 10, state=size if number % 3 != 1 else 10)
        if number % 4:
            await a.read(connection, 8)

    await a.lanes(16, one, 4)
    await a.hold(2)


@case(eras=("modern", "dual"))
async def child_states_for_sessions(a: Attack) -> None:
    """States of 20 MiB that are kept for legacy clients until they answer."""

    async def one(number: int) -> None:
        client = await a.session(ELICITS)
        await a.call(client, "ask", size=10, state=a.big(20 * MIB))

    await a.lanes(16, one, 4)
    await a.hold(3)


@case()
async def child_last_words(a: Attack) -> None:
    """Exclusive servers that write much and exit, repeatedly."""

    async def one(number: int) -> None:
        await a.read(await a.call(await a.own(), "leave", size=a.big(MIB), code=3, lines=number % 2), 8)

    await a.lanes(20, one, 4)


@case()
async def child_updates_of_long_uris(a: Attack) -> None:
    """Updates of different, long URIs to clients that subscribe to everything."""
    for number in range(a.many(20)):
        await a.stream(await a.session(), 2048)
        await a.send(Client(), b"subscriptions/listen", [b'"notifications":{"resourceSubscriptions":["a:"]},'], receive=2048)
    await a.lanes(4, lambda n: a.call(Client(), "flood", kind="updated", uri="a:/", long_uri=True, size=min(64 * KIB, a.big()), count=a.many(2000), seconds=4), 4)
    await a.hold(4)
