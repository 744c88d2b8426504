"""Sidecars that share their limits in Redis, and gateways that share registrations: what their callers see while Redis fails
over, is down, and gets another password."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import bed

sys.path.insert(0, str(bed.TESTS))

import debian
from bed import Member
from load import CLIENT, META, MODERN, Connection, Cut, Refused
from proxyrunner import RESULTS

PATIENCE = 60  # seconds; no assertion, only the end of a hang
REPLICAS, GATEWAYS, CALLERS = 3, 2, 6
FOLDER = bed.TESTS / ".redis"
# Debian's server, and the libraries that a small system lacks.
PACKAGES = ("redis-tools", "libjemalloc2", "liblzf1", "libatomic1")
SERVICE, USER, NAME = "mymaster", "mcp", "com.example/recorder"
# As docs/gateway.md has it.
RIGHTS = (
    "~proxyrunner:* +evalsha +eval +time +get +set +incr +pexpire +hget +hset +hdel +hlen +zadd +zrem +zrange +zrangebyscore"
    " +ping +select +role +client|setname"
)
KEY = "prk_registering"
SHARING = "three replicas share 30 tokens"
DOWN = "the shared rate limits cannot be checked"


def server() -> tuple[str, dict[str, str]]:
    """The command of Debian's Redis, and its environment. It is downloaded if it is not installed."""
    if installed := shutil.which("redis-server"):
        return installed, {}
    program = FOLDER / "redis-tools" / "usr" / "bin" / "redis-server"
    for package in PACKAGES:
        if not (FOLDER / package).exists():
            debian.unpack(package, FOLDER / package)
    if not program.exists():
        program.symlink_to("redis-check-rdb")
    libraries = [str(FOLDER / package / "usr" / "lib" / "x86_64-linux-gnu") for package in PACKAGES]
    libraries += [str(FOLDER / package / "lib" / "x86_64-linux-gnu") for package in PACKAGES]
    return str(program), {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


class Redis:
    """A Redis or a Sentinel with a configuration of its own."""

    def __init__(self, folder: Path, name: str, port: int, *lines: str) -> None:
        self.name, self.port = name, port
        RESULTS.mkdir(exist_ok=True)
        self.log = RESULTS / f"fleet-{name}.log"
        self.file = folder / f"{name}.conf"
        home = folder / name
        home.mkdir()
        common = [f"port {port}", "bind 127.0.0.1", f"dir {home}", "daemonize no", "protected-mode no"]
        self.file.write_text("\n".join([*common, *lines, ""]))
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        program, env = server()
        words = [program, str(self.file)] + (["--sentinel"] if "sentinel" in self.name else [])
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, env=os.environ | env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(f"{self.name} answers", lambda: self.ask("PING") == "PONG")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def ask(self, *words: str) -> str | None:
        """Sends a command; returns its answer as text, or nothing if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as stream, stream.makefile("rb") as answer:
                stream.sendall((" ".join(words) + "\r\n").encode())
                return reply(answer)
        except (OSError, ValueError):
            return None


def reply(answer: BinaryIO) -> str:
    """Reads one reply."""
    kind, head = answer.read(1), answer.readline().decode().strip()
    if kind == b"$":
        return answer.read(int(head) + 2).decode().strip() if head != "-1" else ""
    return " ".join(reply(answer) for _ in range(int(head))) if kind == b"*" else head


def until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)


class Fleet:
    """A primary, a replica and a Sentinel; three sidecars of one server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / "record"
        self.record.touch()
        self.limits, self.password = folder / "limits.json", folder / "password"
        bed.write(self.password, "s3cret-1\n")
        ports = iter(bed.free_ports(4 + REPLICAS + GATEWAYS))
        dead, primary, replica, sentinel = (next(ports) for _ in range(4))
        own = ("save ''", f"user {USER} on >s3cret-1 {RIGHTS}", "repl-diskless-sync-delay 0")
        self.primary = Redis(folder, "redis-0", primary, *own)
        self.replica = Redis(folder, "redis-1", replica, *own, f"replicaof 127.0.0.1 {primary}")
        self.sentinel = Redis(
            folder, "sentinel", sentinel, f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 1",
            f"sentinel down-after-milliseconds {SERVICE} 1000", f"sentinel failover-timeout {SERVICE} 5000",
        )  # fmt: skip
        # The first Sentinel is down.
        url = f"redis+sentinel://{USER}@127.0.0.1:{dead},127.0.0.1:{sentinel}/{SERVICE}"
        self.sidecars = [
            Member(
                f"sharing-{number}", port := next(ports), "--listen", f"127.0.0.1:{port}", "--server-name", NAME,
                "--rate-limits", str(self.limits), "--redis", url, "--redis-password-file", str(self.password), *bed.RELOAD,
                "--", sys.executable, str(bed.RECORDER), f"sharing-{number}", str(self.record),
            )
            for number in range(REPLICAS)
        ]  # fmt: skip
        servers, keys = folder / "servers.json", folder / "keys.json"
        rule = {"subject": "api_key#tools", "names": ["com.example/*"], "networks": ["127.0.0.0/8"]}
        bed.write(servers, json.dumps({"mcpServers": {}, "register": [rule]}))
        bed.write(keys, json.dumps([{"name": "tools", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}]))
        self.gateways = [
            Member(
                f"sharing-gateway-{number}", port := next(ports), "gateway", "--servers", str(servers), "--api-keys", str(keys),
                "--listen", f"127.0.0.1:{port}", "--redis", url, "--redis-password-file", str(self.password), *bed.GATEWAY_DRAIN,
            )
            for number in range(GATEWAYS)
        ]  # fmt: skip

    def limit(self, kind: str, tokens: int) -> None:
        bed.write(self.limits, json.dumps({kind: {"maxTokens": tokens, "refillPeriod": "24h"}}))

    def __enter__(self) -> Fleet:
        try:
            self.primary.start()
            self.replica.start()
            until("the replica follows", lambda: "master_link_status:up" in (self.replica.ask("INFO", "replication") or ""))
            # It looks for replicas at its start, and then each 10 s.
            self.sentinel.start()
            until("the Sentinel knows it", lambda: "slaves=1" in (self.sentinel.ask("INFO", "sentinel") or ""))
            self.limit("shared", 30)
            for one in self.sidecars + self.gateways:
                one.start()
            for one in self.sidecars + self.gateways:
                one.await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.sidecars + self.gateways:
            if one.process:
                one.kill()
        for one in (self.primary, self.replica, self.sentinel):
            one.kill()


class Calls:
    """Calls at all sidecars in turns, and what became of each."""

    def __init__(self, fleet: Fleet) -> None:
        self.ports = itertools.cycle([one.port for one in fleet.sidecars])
        self.numbers = itertools.count(1)
        self.count: Counter[str] = Counter()
        self.ends: dict[str, str] = {}
        self.wrong: list[str] = []

    async def post(self, connection: Connection, method: str, params: dict) -> tuple[int, str]:
        meta = {META + name: value for name, value in (("protocolVersion", MODERN), ("clientInfo", CLIENT), ("clientCapabilities", {}))}
        headers = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": MODERN, "Mcp-Method": method,
        } | ({"Mcp-Name": params["name"]} if "name" in params else {})  # fmt: skip
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}).encode()
        answer = await connection.request("POST", "/mcp", headers, body)
        return answer.status, answer.body.decode(errors="replace")

    async def call(self) -> str:
        """Makes one call, and returns how it ended."""
        text = f"shared-{next(self.numbers)}"
        connection = Connection(next(self.ports))
        try:
            async with asyncio.timeout(PATIENCE):
                status, said = await self.post(connection, "tools/call", {"name": "echo", "arguments": {"text": text}})
        except (Refused, Cut, TimeoutError) as error:
            status, said = 0, repr(error)
        finally:
            connection.close()
        if status == 200 and text in said:
            end = "answered"
        elif status == 429:
            end = "limited"
        elif status == 503 and DOWN in said:
            end = "refused"
        else:
            end = "wrong"
            self.wrong.append(f"{status}: {said[:200]}")
        self.ends[text] = end
        self.count[end] += 1
        return end

    async def listed(self) -> None:
        """Asks for the tools, which no limit concerns."""
        connection = Connection(next(self.ports))
        try:
            async with asyncio.timeout(PATIENCE):
                status, said = await self.post(connection, "tools/list", {})
            if status != 200:
                self.wrong.append(f"tools/list: {status}: {said[:200]}")
        except (Refused, Cut, TimeoutError) as error:
            self.wrong.append(f"tools/list: {error!r}")
        finally:
            connection.close()

    async def until(self, end: str) -> None:
        """Waits until each sidecar has ended a call so."""
        async with asyncio.timeout(PATIENCE):
            run = 0
            while run < REPLICAS:
                run = run + 1 if await self.call() == end else 0
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Calls and lists without a pause within the block."""

        async def run(one: Callable) -> None:
            while True:
                await one()
                await asyncio.sleep(0.02)

        tasks = [asyncio.create_task(run(self.call)) for _ in range(CALLERS)] + [asyncio.create_task(run(self.listed))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        self.wrong += [repr(one) for one in results if isinstance(one, Exception)]

    def unaccounted(self, record: Path) -> list[str]:
        """Calls that were carried out twice, or although they were refused, or not although they were answered."""
        done = Counter(line.split()[1] for line in record.read_text().splitlines() if line)
        problems = [f"carried out {count} times: {text}" for text, count in done.items() if count > 1]
        problems += [f"{end} and carried out: {text}" for text, end in self.ends.items() if end in ("limited", "refused") and done[text]]
        return problems + [f"answered and not carried out: {text}" for text, end in self.ends.items() if end == "answered" and not done[text]]


def registered(fleet: Fleet, check: Callable[[str, list[str]], None]) -> None:
    """What one gateway hears, the other one knows, also after its own restart and while Redis is down."""
    first, second = fleet.gateways
    replicas = [f"http://127.0.0.1:{one.port}/mcp" for one in fleet.sidecars]
    sequence = itertools.count(1)

    def say(method: str, at: Member, replica: str) -> int:
        query = urllib.parse.urlencode({"url": replica, "sequence": next(sequence)})
        target = f"http://127.0.0.1:{at.port}/registrations/com.example/shared?{query}"
        asked = urllib.request.Request(target, method=method, headers={"Authorization": f"Bearer {KEY}"})
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def known(at: Member) -> int:
        target = f"http://127.0.0.1:{at.port}/registry/v0.1/servers"
        asked = urllib.request.Request(target, headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            listed = json.load(answer)["servers"]
        (about,) = [one["_meta"]["io.proxyrunner/gateway"]["replicas"] for one in listed] or [{}]
        return about.get("healthy", 0)

    def renewed(kept: list[str], at: Member) -> bool:
        """Renews these replicas at the first gateway. Returns whether a gateway knows them, and no others."""
        refused = [one for one in kept if say("PUT", first, one) != 200]
        return not refused and known(at) == len(kept)

    problems = []
    until("the other gateway has all replicas", lambda: renewed(replicas, second))
    problems += ["not withdrawn"] * (say("DELETE", second, replicas[0]) != 204)
    until("the first gateway has one less", lambda: renewed(replicas[1:], first))
    second.kill()
    second.start()
    second.await_ready()
    until("it has them again after its restart", lambda: renewed(replicas[1:], second))
    fleet.replica.kill()
    problems += [f"it has {known(second)} while Redis is down"] * (known(second) != len(replicas) - 1)
    problems += ["not registered while Redis is down"] * (say("PUT", first, replicas[1]) != 200)
    fleet.replica.start()
    check("gateways share registrations", problems)


async def drilled(fleet: Fleet, check: Callable[[str, list[str]], None]) -> None:
    calls = Calls(fleet)

    def verdict(name: str, before: Counter[str], problems: list[str]) -> None:
        happened = ", ".join(f"{end} {count}" for end, count in sorted((calls.count - before).items()))
        found, calls.wrong = problems + calls.wrong, []
        if name != SHARING and calls.count["limited"] > before["limited"]:
            found.append("calls were limited, although there are tokens")
        check(f"{name}: {happened}", found)

    ends = Counter(await asyncio.gather(*(calls.call() for _ in range(90))))
    # The machine may be so slow that a call gets no answer of Redis in time; it may have taken its token.
    answered = ends["answered"]
    exact = answered == 30 if not ends["refused"] else 30 - ends["refused"] <= answered <= 30
    verdict(SHARING, Counter(), [] if exact else [str(ends)])

    fleet.limit("perUser", 1_000_000)
    await calls.until("answered")
    before = Counter(calls.count)
    async with calls.load():
        await calls.until("answered")
        fleet.primary.kill()
        await asyncio.to_thread(until, "the replica is the primary", lambda: "role:master" in (fleet.replica.ask("INFO", "replication") or ""))
        await calls.until("answered")
    verdict("SIGKILL of the primary of Redis", before, [])

    before = Counter(calls.count)
    async with calls.load():
        for words in (("ACL", "SETUSER", USER, ">s3cret-2"), ("CLIENT", "KILL", "USER", USER)):
            fleet.replica.ask(*words)
        await calls.until("answered")
        bed.write(fleet.password, "s3cret-2\n")
        for words in (("ACL", "SETUSER", USER, "<s3cret-1"), ("CLIENT", "KILL", "USER", USER)):
            fleet.replica.ask(*words)
        await calls.until("answered")
    verdict("rotation of the password", before, [])

    before = Counter(calls.count)
    async with calls.load():
        fleet.replica.kill()
        await calls.until("refused")
        # Without a Sentinel's choice, it is the primary that it was.
        await asyncio.to_thread(fleet.replica.start)
        fleet.replica.ask("ACL", "SETUSER", USER, ">s3cret-2")
        await calls.until("answered")
    verdict("Redis is down, and back", before, [])

    check("each call under a shared limit is accounted for", calls.unaccounted(fleet.record))
    told = [one.name for one in fleet.sidecars if one.logged("s3cret")]
    check("no log has the password", told)


def drill(folder: Path, check: Callable[[str, list[str]], None]) -> None:
    """Does all of it."""
    with Fleet(folder) as fleet:
        asyncio.run(drilled(fleet, check))
        registered(fleet, check)
