"""The checks during an attack: resident memory, probes, and a well-behaved client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Callable

from client import Client, Connection, Refused, Response, post, session
from parts import Part

MIB = 1024  # KiB, the kernel's unit
BUFFERED = 64 * MIB
CONSTANT = 48 * MIB
PER_CONNECTION = 8
SAMPLE = 0.02
PROBE_EVERY, PROBE_LIMIT = 0.25, 2.0
CALL_EVERY, CALL_LIMIT = 1.0, 5.0
GIVEN_UP = 10.0  # seconds after which a probe or call is given up
PROBES = [(path, source) for path in ("/livez", "/readyz", "/metrics") for source in ("127.0.0.2", "127.0.0.1")]
BYSTANDER = "127.0.0.3"


@dataclass
class Peak:
    """The highest resident memory, and the cases that ran at that moment."""

    rss: int = 0
    connections: int = 0
    at: float = 0.0
    running: str = ""


@dataclass
class Findings:
    """The findings of a round. Times are seconds from its start."""

    begun: float = field(default_factory=time.monotonic)
    peak: Peak = field(default_factory=Peak)
    most_connections: int = 0
    probes: int = 0
    calls: int = 0
    worst_probe: float = 0.0
    worst_call: float = 0.0
    late: list[str] = field(default_factory=list)  # exceeded time limits
    wrong: list[str] = field(default_factory=list)  # all other errors

    def now(self) -> float:
        return time.monotonic() - self.begun


class Monitor:
    """Samples the resident memory of a process in a separate thread."""

    def __init__(self, pid: int, findings: Findings, running: Callable[[], str]) -> None:
        self.pid, self.findings, self.running = pid, findings, running
        self.idle_sockets = 0
        self.idle_files, self.idle_sockets = self.files(), self.connections()
        self.over: Peak | None = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def status(self, name: str) -> int:
        with open(f"/proc/{self.pid}/status") as file:
            match = re.search(rf"^{name}:\s+(\d+) kB$", file.read(), re.M)
        return int(match[1]) if match else 0

    def rss(self) -> int:
        return self.status("VmRSS")

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def connections(self) -> int:
        """Returns the number of sockets among the open files, beyond the first ones."""
        folder, sockets = f"/proc/{self.pid}/fd", 0
        for name in os.listdir(folder):
            with suppress(OSError):
                sockets += os.readlink(f"{folder}/{name}").startswith("socket:")
        return max(0, sockets - self.idle_sockets)

    def start(self) -> None:
        """Starts sampling, and resets the kernel's peak to the current resident memory."""
        with open(f"/proc/{self.pid}/clear_refs", "w") as file:
            file.write("5")
        self.thread.start()

    def watch(self) -> None:
        while not self.ended.wait(SAMPLE):
            try:
                self.sample()
            except (OSError, ValueError):
                return  # the process exited; the driver reports why

    def sample(self) -> None:
        found, rss = self.findings, self.rss()
        # The files include pipes of children, but inspecting each file takes time.
        connections = max(0, self.files() - self.idle_files)
        if self.over is None and rss > allowed(0):
            connections = self.connections()
        found.most_connections = max(found.most_connections, connections)
        now = Peak(rss, connections, found.now(), self.running())
        if rss > found.peak.rss:
            found.peak = now
        if self.over is None and rss > allowed(connections):
            self.over = now

    def stop(self) -> None:
        """Stops sampling. The kernel's peak covers the time between samples; its number of connections is unknown."""
        self.ended.set()
        if self.thread.ident is None:
            return  # sampling never began
        self.thread.join()
        found = self.findings
        try:
            found.peak.rss = max(found.peak.rss, self.status("VmHWM"))
        except OSError:
            pass
        if self.over is None and found.peak.rss > allowed(found.most_connections):
            self.over = found.peak
        if self.over:
            over = self.over
            text = f"{over.rss // MIB} MiB resident at {over.at:.1f} s with {over.connections} connections"
            found.wrong.append(f"{text}, highest {found.peak.rss // MIB} MiB; running: {over.running}")


def allowed(connections: int) -> int:
    return BUFFERED + CONSTANT + PER_CONNECTION * connections


class Prober:
    """Requests the probes and /metrics in turn on new connections, alternating between two addresses."""

    def __init__(self, port: int, findings: Findings, running: Callable[[], str]) -> None:
        self.port, self.findings, self.running = port, findings, running

    async def run(self) -> None:
        asked: set[asyncio.Task[None]] = set()
        try:
            for number in range(10_000):
                path, source = PROBES[number % len(PROBES)]
                asked.add(task := asyncio.create_task(self.ask(path, source)))
                task.add_done_callback(asked.discard)
                await asyncio.sleep(PROBE_EVERY)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def ask(self, path: str, source: str) -> None:
        found, begun = self.findings, time.monotonic()
        outcome = "no answer"
        try:
            outcome = await asyncio.wait_for(self.answer(path, source), GIVEN_UP)
        except asyncio.CancelledError:
            if time.monotonic() - begun < PROBE_LIMIT:
                return
        except (OSError, asyncio.TimeoutError, ValueError, IndexError) as error:
            outcome = repr(error)
        taken = time.monotonic() - begun
        found.probes += 1
        found.worst_probe = max(found.worst_probe, taken)
        where = f"{path} from {source} at {found.now() - taken:.1f} s: {outcome} after {taken:.1f} s; running: {self.running()}"
        if taken > PROBE_LIMIT:
            found.late.append(where)
        elif outcome != "ok":
            found.wrong.append(where)

    async def answer(self, path: str, source: str) -> str:
        connection = await Connection.open(self.port, source)
        try:
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            await connection.send([request.encode()])
            response = await connection.response()
        finally:
            connection.close(reset=False)
        # A 503 from /readyz during a restart of the child is a valid answer.
        fine = response.status == 200 or (path == "/readyz" and response.status == 503)
        return "ok" if fine else f"status {response.status}"


class Bystander:
    """A well-behaved client, which makes one small call per second and expects its own response."""

    def __init__(self, port: int, findings: Findings, running: Callable[[], str], modern: bool, keep: bool) -> None:
        self.port, self.findings, self.running = port, findings, running
        self.modern, self.keep = modern, keep
        self.client = Client()
        self.connection: Connection | None = None
        self.number = 0

    async def begin(self) -> None:
        if not self.modern:
            self.client = await session(self.port, BYSTANDER)
        for _ in range(3):
            await self.call()

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            await self.ask()
            await asyncio.sleep(max(0.0, begun + CALL_EVERY - time.monotonic()))

    async def ask(self) -> None:
        found, begun = self.findings, time.monotonic()
        outcome, stopped = "no answer", False
        try:
            outcome = await asyncio.wait_for(self.call(), GIVEN_UP)
        except asyncio.CancelledError:
            stopped = True
            if time.monotonic() - begun < CALL_LIMIT:
                raise
        except (OSError, asyncio.TimeoutError, ValueError, IndexError) as error:
            outcome = repr(error)
        taken = time.monotonic() - begun
        found.calls += 1
        found.worst_call = max(found.worst_call, taken)
        where = f"call {self.number} at {found.now() - taken:.1f} s: {outcome} after {taken:.1f} s; running: {self.running()}"
        if taken > CALL_LIMIT:
            found.late.append(where)
        elif outcome != "ok":
            found.wrong.append(where)
        if outcome != "ok":
            self.drop()
            if not self.modern and "status 404" in outcome:
                await self.recover()
        if stopped:
            raise asyncio.CancelledError

    async def recover(self) -> None:
        """Opens another session, as clients do after their session has ended."""
        try:
            self.client = await asyncio.wait_for(session(self.port, BYSTANDER), GIVEN_UP)
        except (OSError, asyncio.TimeoutError, ValueError, Refused) as error:
            self.findings.wrong.append(f"no new session at {self.findings.now():.1f} s: {error!r}")

    async def call(self) -> str:
        self.number += 1
        text = f"call {self.number}"
        params = b'"name":"echo","arguments":{"text":%b},' % json.dumps(text).encode()
        parts = self.client.body(b"tools/call", [params], [b"%d" % self.number], [])
        response = await self.exchange(post(parts, *self.client.headers(b"tools/call", b"echo")))
        if response.status != 200:
            return f"status {response.status} {response.body[:200]!r}"
        message = response.message(self.number)
        if message is None:
            return f"an answer to something else: {response.body[:200]!r}"
        content = message.get("result", {}).get("content")
        return "ok" if content == [{"type": "text", "text": text}] else f"wrong content: {response.body[:200]!r}"

    async def exchange(self, request: list[Part]) -> Response:
        """Sends a request, and repeats it once if a kept connection was closed meanwhile, as clients do."""
        kept, self.connection = self.connection, None
        if kept is not None:
            try:
                await kept.send(request)
                return self.done(kept, await kept.response())
            except ConnectionError:
                kept.close()
        fresh = await Connection.open(self.port, BYSTANDER)
        self.connection = fresh
        await fresh.send(request)
        return self.done(fresh, await fresh.response())

    def done(self, connection: Connection, response: Response) -> Response:
        self.connection = connection if self.keep and response.headers.get("connection") != "close" else None
        if self.connection is None:
            connection.close(reset=False)
        return response

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
