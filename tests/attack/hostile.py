#!/usr/bin/env python3
"""A stdio MCP server that attacks its client; calls of its tools select the attacks.

    hostile.py [--era legacy|modern|dual]

One thread serves all requests. A message longer than 256 KiB is not parsed; its id, method and tool are searched at its
two ends. Every attack is limited in count and time.
"""

from __future__ import annotations

import argparse
import collections
import heapq
import itertools
import json
import os
import re
import select
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent))

from parts import KIB, Part, fill, size_of, views  # noqa: E402: the path is set above

META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
PARSED = 256 * KIB
BATCH = 32 * KIB  # bytes of small lines that are written together
LONGEST = 30.0  # maximum seconds of an attack
Lines = Iterator["list[Part] | float"]


def js(value: Any) -> bytes:
    return json.dumps(value).encode()


def message(method: str, params: list[Part], wire_id: list[Part] | None = None) -> list[Part]:
    """Returns a line: a notification, or a request if there is an id."""
    ids: list[Part] = [b'"id":', *wire_id, b","] if wire_id else []
    return [b'{"jsonrpc":"2.0",', *ids, b'"method":"', method.encode(), b'","params":{', *params, b"}}\n"]


class Call:
    """A request of the client, as far as it was parsed."""

    def __init__(self, raw: bytes) -> None:
        parsed: dict[str, Any] = {}
        if len(raw) <= PARSED:
            try:
                parsed = json.loads(raw)
            except (ValueError, RecursionError):
                pass
        self.ends = raw if len(raw) <= PARSED else raw[: 64 * KIB] + b"\n" + raw[-64 * KIB :]
        self.parsed = parsed if isinstance(parsed, dict) else {}
        params = self.parsed.get("params")
        self.params: dict[str, Any] = params if isinstance(params, dict) else {}
        self.id: int | str | None = self.parsed.get("id", self.found(rb'"id": ?(\d+)', int))
        self.method: str = self.parsed.get("method", self.found(rb'"method": ?"([\w/]+)"', bytes.decode) or "")
        self.name: str = self.params.get("name", self.found(rb'"name": ?"(\w+)"', bytes.decode) or "")
        arguments = self.params.get("arguments")
        self.arguments: dict[str, Any] = arguments if isinstance(arguments, dict) else {}
        self.token = (self.params.get("_meta") or {}).get("progressToken")
        self.enveloped = (META + "protocolVersion").encode() in self.ends
        self.retried = b'"requestState"' in self.ends or b'"inputResponses"' in self.ends

    def found(self, pattern: bytes, kind: Callable[[bytes], Any]) -> Any:
        match = re.search(pattern, self.ends)
        return kind(match[1]) if match else None

    def number(self, name: str, default: int) -> int:
        return int(self.arguments.get(name, default))


class Server:
    """The protocol and a queue of lines to write. Small responses precede attacks."""

    def __init__(self, era: str) -> None:
        self.eras = era
        self.era: str | None = None if era == "dual" else era
        self.answers: collections.deque[list[Part]] = collections.deque()
        self.attacks: collections.deque[Lines] = collections.deque()
        self.asleep: list[tuple[float, int, Lines]] = []
        self.order = itertools.count()
        self.deaf_until = 0.0
        self.listens: dict[Any, dict[str, Any]] = {}
        self.cancelled: set[Any] = set()
        self.answered: set[Any] = set()
        self.list_size = 0
        self.serving = False  # whether it has served a well-behaved client
        self.own = False  # whether this process serves only one client

    # ---- output

    def next_line(self) -> list[Part] | None:
        if self.answers:
            return self.answers.popleft()
        now = time.monotonic()
        while self.asleep and self.asleep[0][0] <= now:
            self.attacks.append(heapq.heappop(self.asleep)[2])
        for _ in range(len(self.attacks)):
            attack = self.attacks.popleft()
            step = next(attack, None)
            if isinstance(step, float):
                heapq.heappush(self.asleep, (now + step, next(self.order), attack))
            elif step is not None:
                self.attacks.append(attack)
                return step
        return None

    def pause(self) -> float:
        """Returns the time until the next write."""
        if self.answers or self.attacks:
            return 0.0
        return max(0.0, self.asleep[0][0] - time.monotonic()) if self.asleep else 1.0

    # ---- answers

    def result(self, call: Call, body: list[Part], kind: str = "complete") -> list[Part]:
        modern = [b'"resultType":"', kind.encode(), b'",'] if self.era == "modern" else []
        return [b'{"jsonrpc":"2.0","id":', js(call.id), b',"result":{', *modern, *body, b"}}\n"]

    def answer(self, call: Call, *body: Part) -> None:
        self.answers.append(self.result(call, list(body)))

    def text(self, call: Call, text: str) -> None:
        self.answer(call, b'"content":[{"type":"text","text":', js(text), b"}]")

    def error(self, call: Call, code: int, text: str, data: Any = None) -> None:
        body = {"code": code, "message": text, **({"data": data} if data else {})}
        self.answers.append([js({"jsonrpc": "2.0", "id": call.id, "error": body}), b"\n"])

    # ---- requests

    def receive(self, raw: bytes) -> None:
        call = Call(raw)
        if not call.method:
            self.answered.add(call.id)
        elif call.method == "notifications/cancelled":
            self.cancelled.add(call.params.get("requestId"))
            self.listens.pop(call.params.get("requestId"), None)
        elif call.method.startswith("notifications/"):
            if b'"slow"' in call.ends:
                time.sleep(0.005)
        elif call.method == "server/discover" and self.eras == "legacy":
            self.error(call, -32601, "no such method")
        elif call.method == "initialize" and (self.eras == "modern" or self.era == "modern"):
            self.error(call, -32022, "unsupported", {"supported": [MODERN], "requested": "?"})
        else:
            if self.era is None:
                self.era = "modern" if call.enveloped else "legacy"
            METHODS.get(call.method, unknown)(self, call)

    def capabilities(self) -> bytes:
        changes = {"listChanged": True}
        offered = {"tools": changes, "prompts": changes, "resources": {"subscribe": True, **changes}}
        return js({**offered, "logging": {}, "completions": {}})

    def initialize(self, call: Call) -> None:
        version = call.params.get("protocolVersion")
        version = version if isinstance(version, str) and len(version) == 10 else "2025-11-25"
        told = re.search(rb'"hostile:(\w+)=(\d+)"', call.ends)
        self.own = b'"elicitation"' in call.ends
        size = int(told[2]) if told else 0
        self.list_size = size if told and told[1] == b"lists" else 0
        instructions = size if told and told[1] == b"instructions" else 1
        info = size if told and told[1] == b"name" else 1
        if told and told[1] == b"silence":
            self.deaf_until = time.monotonic() + LONGEST
            self.attacks.append(iter([[fill(size, b" ")]]))  # a line that never ends
            return
        head = b'"protocolVersion":"%b","capabilities":%b,' % (version.encode(), self.capabilities())
        body = [head, b'"serverInfo":{"name":"', fill(info), b'","version":"1"},"instructions":"', fill(instructions), b'"']
        self.answer(call, *body)

    def discover(self, call: Call) -> None:
        told = b'"supportedVersions":["%b"],"capabilities":%b,"ttlMs":0,"cacheScope":"private"'
        self.answer(call, told % (MODERN.encode(), self.capabilities()))

    def list(self, call: Call) -> None:
        field, item = LISTS[call.method]
        hints = b',"ttlMs":60000,"cacheScope":"public"' if self.era == "modern" else b""
        names = json.dumps([{"name": name, **item} for name in TOOLS] if field == "tools" else [])[1:-1].encode()
        filler = b'{"name":"%b","uri":"a:b","uriTemplate":"a:{b}","inputSchema":{"type":"object"}},' % (b"n" * 64)
        more: list[Part] = [fill(self.list_size, filler), b'{"name":"z","uri":"a:z","uriTemplate":"a:{z}","inputSchema":{"type":"object"}}']
        more = [b"," if names else b"", *more] if self.list_size else []
        self.answer(call, b'"%b":[' % field.encode(), names, *more, b"]", hints)

    def subscribe(self, call: Call) -> None:
        """Answers at once, or for URIs that begin with `slow:` after a while."""
        if b'"slow:' in call.ends:
            self.attacks.append(iter([0.2, self.result(call, [])]))
        else:
            self.answer(call)

    def listen(self, call: Call) -> None:
        honoured = call.params.get("notifications", {})
        self.listens[call.id] = honoured
        meta = {META + "subscriptionId": call.id}
        told = {"notifications": honoured, "_meta": meta}
        self.answers.append(message("notifications/subscriptions/acknowledged", [js(told)[1:-1]]))

    def read(self, call: Call) -> None:
        hints = b',"ttlMs":1000,"cacheScope":"private"' if self.era == "modern" else b""
        self.answer(call, b'"contents":[{"uri":"a:b","text":"t"}]', hints)

    def empty(self, call: Call) -> None:
        self.answer(call)

    def alone(self, call: Call) -> bool:
        """Returns whether this process serves no well-behaved client."""
        if self.era == "modern":
            return (META + "logLevel").encode() in call.ends and not self.serving
        return self.own

    def tool(self, call: Call) -> None:
        tool = TOOLS.get(call.name)
        if tool is None:
            return self.error(call, -32602, "unknown tool")
        if tool in DESTRUCTIVE and not self.alone(call):
            return self.text(call, "spared")
        lines = tool(self, call)
        if lines is not None:
            self.attacks.append(lines)


def unknown(server: Server, call: Call) -> None:
    server.error(call, -32601, "no such method")


# ---- tools: each answers at once, or yields the lines and pauses of an attack


def echo(server: Server, call: Call) -> None:
    server.serving = True
    server.text(call, str(call.arguments.get("text") or call.found(rb'"text": ?"(\w+)"', bytes.decode) or ""))


def hang(server: Server, call: Call) -> None:
    pass


def deaf(server: Server, call: Call) -> None:
    """Stops reading for a while."""
    server.deaf_until = time.monotonic() + min(LONGEST, call.number("seconds", 5))
    server.text(call, "deaf")


def large(server: Server, call: Call) -> Lines:
    """Answers with `size` bytes of some shape."""
    size = call.number("size", 1)
    head: list[Part] = [b'{"jsonrpc":"2.0","id":', js(call.id), b',"result":{"resultType":"complete","content":[],']
    tail: list[Part] = [b"}}\n"]
    shapes: dict[str, list[Part]] = {
        "text": [*head, b'"_meta":{"x":"', fill(size), b'"}', *tail],
        "returns": [b'{\r"jsonrpc":"2.0","id":', js(call.id), b',\r"result":{"content":[],"x":"', fill(size), b'"}}\n'],
        "spaces": [*head, b'"x":', fill(size, b"\r"), b"1", *tail],
        "deep": [*head, b'"x":', fill(size // 2, b"["), fill(size // 2, b"]"), *tail],
        "members": [*head, b'"x":{', fill(size, b'"k":1,'), b'"k":1}', *tail],
        "items": [*head, b'"x":[', fill(size, b"{},"), b"{}]", *tail],
        "escapes": [*head, b'"x":"', fill(size, b"\\u0061"), b'"', *tail],
        "structured": [*head, b'"structuredContent":{"x":"', fill(size), b'"}', *tail],
        "error": [b'{"jsonrpc":"2.0","id":', js(call.id), b',"error":{"code":-32000,"message":"', fill(size), b'"}}\n'],
        "code": [b'{"jsonrpc":"2.0","id":', js(call.id), b',"error":{"code":-3', fill(size, b"2"), b',"message":"m"}}\n'],
        "id_last": [b'{"jsonrpc":"2.0","result":{"content":[],"x":"', fill(size), b'"},"id":', js(call.id), b"}\n"],
        "kind": [b'{"jsonrpc":"2.0","id":', js(call.id), b',"result":{"content":[],"resultType":"', fill(size), b'"}}\n'],
    }
    yield shapes[call.arguments.get("shape", "text")]


def flood(server: Server, call: Call) -> Lines:
    """Sends `count` messages of one kind and of about `size` bytes, then answers."""
    kind, size, left = call.arguments.get("kind", "progress"), call.number("size", 1), call.number("count", 1)
    end = time.monotonic() + min(LONGEST, call.number("seconds", 10))
    while left > 0 and time.monotonic() < end:
        if call.id in server.cancelled and not call.arguments.get("stubborn"):
            return
        line = flooded(server, call, kind, size, left)
        lines = min(left, max(1, BATCH // size_of(line)))
        yield line * lines
        left -= lines
    server.text(call, "flooded")


def flooded(server: Server, call: Call, kind: str, size: int, number: int) -> list[Part]:
    """Returns a message of a flood."""
    stuff = fill(size)
    uri: list[Part] = [b'"uri":"', call.arguments.get("uri", "a:").encode(), stuff if call.arguments.get("long_uri") else b"", b'"']
    listen = next(iter(server.listens), None)
    stamp: list[Part] = [b',"_meta":{"', (META + "subscriptionId").encode(), b'":', js(listen), b',"x":"', stuff, b'"}']
    if listen is None:
        stamp = [b',"_meta":{"x":"', stuff, b'"}']
    large_id: list[Part] = [b'"%d' % number, stuff, b'"']
    kinds: dict[str, list[Part]] = {
        "progress": message("notifications/progress", [b'"progressToken":', js(call.token), b',"progress":1,"message":"', stuff, b'"']),
        "tokens": message("notifications/progress", [b'"progressToken":"', stuff, b'","progress":1']),
        "log": message("notifications/message", [b'"level":"emergency","data":"', stuff, b'"']),
        "updated": message("notifications/resources/updated", [*uri, *stamp]),
        "tools": message("notifications/tools/list_changed", [b'"n":1', *stamp]),
        "resources": message("notifications/resources/list_changed", [b'"n":1', *stamp]),
        "unknown": message("notifications/" + "x" * 40, [b'"x":"', stuff, b'"']),
        "methods": [b'{"jsonrpc":"2.0","method":"notifications/', stuff, b'"}\n'],
        "cancelled": message("notifications/cancelled", [b'"requestId":"', stuff, b'"']),
        "subscriptions": message("notifications/tools/list_changed", [b'"_meta":{"', (META + "subscriptionId").encode(), b'":', *large_id, b"}"]),
        "pings": message("ping", [], large_id),
        "questions": message("elicitation/create", [b'"message":"m","requestedSchema":{"type":"object","properties":{}}'], large_id),
        "sampling": message("sampling/createMessage", [b'"messages":[],"maxTokens":1,"systemPrompt":"', stuff, b'"'], [b"7"]),
        "roots": message("roots/list", [], large_id),
        "requests": message("x/" + "y" * 20, [b'"x":"', stuff, b'"'], large_id),
        "answers": [b'{"jsonrpc":"2.0","id":', *large_id, b',"result":{}}\n'],
        "errors": [b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":"', stuff, b'"}}\n'],
        "late": [b'{"jsonrpc":"2.0","id":1,"result":{"x":"', stuff, b'"}}\n'],
        "garbage": [b"no message ", stuff, b"\n"],
        "brackets": [b"[", fill(size, b"["), b"\n"],
        "nulls": [b"\0", fill(size, b"\0"), b"\n"],
        "empty": [fill(size, b"\n")],
    }
    return kinds[kind]


def unfinished(server: Server, call: Call) -> Lines:
    """Begins a line and never ends it. This process writes nothing else afterwards."""
    head = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[],"x":"' % js(call.id) if call.arguments.get("json") else b"x"
    yield [head, fill(call.number("size", 1))]
    server.answers = Nothing()  # type: ignore[assignment]
    server.attacks.clear()


class Nothing(collections.deque):  # type: ignore[type-arg]
    """A queue that discards everything appended to it."""

    def append(self, item: Any) -> None:
        pass


def complain(server: Server, call: Call) -> None:
    """Floods stderr, with line breaks or without."""
    size, unit = call.number("size", 1), b"e" * 200 + (b"\n" if call.arguments.get("lines") else b"")
    for view in views([fill(size, unit)]):
        while view:
            view = view[os.write(2, view) :]
    server.text(call, "complained")


def ask(server: Server, call: Call) -> Lines | None:
    """Asks a question of `size` bytes, and answers the call after the client's answer."""
    size, question = call.number("size", 1), f"q{call.id}"
    form: list[Part] = [b'"message":"', fill(size), b'","requestedSchema":{"type":"object","properties":{"a":{"type":"string"}}}']
    if server.era != "modern":
        return asked(server, call, message("elicitation/create", form, [js(question)]), question)
    if call.retried:
        server.text(call, "asked")
        return None
    requests: list[Part] = [b'"inputRequests":{"k":{"method":"elicitation/create","params":{"mode":"form",', *form, b"}}},"]
    state: list[Part] = [b'"requestState":"', fill(call.number("state", 1)), b'"']
    return iter([server.result(call, [*requests, *state], "input_required")])


def asked(server: Server, call: Call, question: list[Part], question_id: str) -> Lines:
    yield question
    end = time.monotonic() + LONGEST
    while question_id not in server.answered and call.id not in server.cancelled and time.monotonic() < end:
        yield 0.02
    server.text(call, "asked")


def relist(server: Server, call: Call) -> None:
    """Makes every list `size` bytes longer from now on."""
    server.list_size = call.number("size", 0)
    server.answers.append(message("notifications/tools/list_changed", []))
    server.text(call, "relisted")


def leave(server: Server, call: Call) -> None:
    """Exits after writing `size` bytes to stderr."""
    complain(server, call)
    os._exit(call.number("code", 7))


TOOLS: dict[str, Callable[[Server, Call], Any]] = {
    tool.__name__: tool for tool in (echo, hang, deaf, large, flood, unfinished, complain, ask, relist, leave)
}
DESTRUCTIVE = (deaf, unfinished, leave)
LISTS = {
    "tools/list": ("tools", {"inputSchema": {"type": "object"}}),
    "prompts/list": ("prompts", {}),
    "resources/list": ("resources", {}),
    "resources/templates/list": ("resourceTemplates", {}),
}
METHODS: dict[str, Callable[[Server, Call], None]] = {
    "initialize": Server.initialize,
    "server/discover": Server.discover,
    "tools/call": Server.tool,
    "resources/read": Server.read,
    "resources/subscribe": Server.subscribe,
    "resources/unsubscribe": Server.subscribe,
    "subscriptions/listen": Server.listen,
    "prompts/get": lambda server, call: server.answer(call, b'"messages":[]'),
    "completion/complete": lambda server, call: server.answer(call, b'"completion":{"values":[]}'),
    "logging/setLevel": Server.empty,
    "ping": Server.empty,
    **{method: Server.list for method in LISTS},
}


# ---- the pipe


class Pipe:
    """Reads stdin and writes stdout without blocking either of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.inbox = bytearray()
        self.outbox: Iterator[memoryview] = iter(())
        self.piece = memoryview(b"")
        for number in (0, 1):
            os.set_blocking(number, False)

    def run(self) -> None:
        while True:
            writes = self.load()
            deaf = self.server.deaf_until - time.monotonic()
            poll = select.poll()
            if deaf <= 0:
                poll.register(0, select.POLLIN)
            if writes:
                poll.register(1, select.POLLOUT)
            pause = 1.0 if writes else self.server.pause()
            ready = dict(poll.poll(1000 * (min(pause, deaf) if deaf > 0 else pause)))
            if 1 in ready:
                self.write()
            if 0 in ready and not self.read():
                return

    def load(self) -> bool:
        """Returns whether there is anything to write."""
        while not self.piece:
            piece = next(self.outbox, None)
            if piece is None:
                line = self.server.next_line()
                if line is None:
                    return False
                self.outbox = views(line)
            else:
                self.piece = piece
        return True

    def write(self) -> None:
        try:
            self.piece = self.piece[os.write(1, self.piece) :]
        except BlockingIOError:
            pass

    def read(self) -> bool:
        """Reads the available input; returns false at the end of stdin."""
        data = os.read(0, 1 << 20)
        at = len(self.inbox)
        self.inbox += data
        if b"\n" not in data:
            return bool(data)
        last = self.inbox.rindex(b"\n", at)
        lines, self.inbox = bytes(self.inbox[:last]), self.inbox[last + 1 :]
        for line in lines.split(b"\n"):
            self.server.receive(line)
        return True


def main() -> None:
    flags = argparse.ArgumentParser()
    flags.add_argument("--era", choices=["legacy", "modern", "dual"], default="legacy")
    try:
        Pipe(Server(flags.parse_args().era)).run()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    os._exit(0)


main()
