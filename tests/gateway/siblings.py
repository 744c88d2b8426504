#!/usr/bin/env python3
"""Replicas of one sidecar behind an address without session affinity, and without a gateway (`--forward-sessions`): callers and stock
clients, each request of which goes to another replica.

    tests/gateway/siblings.py               as `tests/run gateway` does it
    tests/gateway/siblings.py --rounds 5    each drill so many times
    tests/gateway/siblings.py --only moved  only replicas that take sessions over

`PROXYRUNNER_BIN` names another binary than target/debug/proxyrunner. Ends with one line, `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import re
import secrets
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))

import bed
import matrix
import servers
import shared
from bed import Member, free_ports, write
from drills import Drills, Tally, restart, roll, unaccounted
from load import Load

REPLICAS, CALLERS = 3, 6
# A change that one process makes is not seen by a subscription at another, and a modern client's calls go to all of them.
OF_ONE_PROCESS = {"modern": {"subscription"}}


class Siblings:
    """Three replicas of one sidecar, with one key."""

    SERVERS, REPLICAS = ("recorder",), REPLICAS

    def __init__(self, folder: Path, name: str, *command: str, more: tuple[str, ...] = ()) -> None:
        bed.RESULTS.mkdir(exist_ok=True)
        for old in bed.RESULTS.glob(f"fleet-{name}-*.log"):
            old.unlink()
        self.record, self.state_key = folder / f"record-{name}", folder / f"state-key-{name}"
        self.record.touch()
        write(self.state_key, secrets.token_hex(32) + "\n")
        self.replicas = [
            Member(
                f"{name}-{number}", port, "--listen", f"127.0.0.1:{port}", "--forward-sessions", "127.0.0.1", "--state-key-file",
                str(self.state_key), *more, *bed.RELOAD, "--drain-delay", "500ms", "--drain-timeout", "10s", "--",
                *(command or (sys.executable, str(bed.RECORDER), f"{name}-{number}", str(self.record))),
            )
            for number, port in enumerate(free_ports(REPLICAS))
        ]  # fmt: skip
        # What the drills of a fleet change.
        self.gateways, self.sidecars, self.members = [], {"recorder": self.replicas}, self.replicas

    @property
    def ports(self) -> list[int]:
        return [one.port for one in self.replicas]

    def __enter__(self) -> Siblings:
        try:
            for one in self.replicas:
                one.start()
            for one in self.replicas:
                one.await_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.replicas:
            one.stop()


class Drilled(Drills):
    """The drills that need no gateway."""

    async def restart_all(self) -> None:
        """One replica after the other. Each session is opened anew when its replica goes, perhaps at one that goes next."""
        legacy = sum(one.session is not None or one.owner is not None for one in self.load.callers)
        allowed = {"gone": legacy * REPLICAS, "refused": 1000}
        async with self.drill("a rolling restart of all replicas", allowed):
            for replica in self.fleet.replicas:
                await roll(replica)

    async def kill_one(self) -> None:
        replica = self.fleet.replicas[0]
        gone = self.sessions_of(replica.name)
        allowed = {f"recorder: gone {replica.name}": gone, "recorder: gone None": len(self.load.callers)}
        # Those in flight there, and those that it has passed on.
        allowed |= {"recorder: broken": len(self.load.callers), "recorder: refused": 1000}
        async with self.drill(f"SIGKILL of a replica with {gone} sessions", allowed):
            replica.kill()
            await self.load.rounds()
            await restart(replica)


class Resumed:
    """A Redis, by which replicas take sessions over, and a gateway in front of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = folder / "password"
        write(self.password, "s3cret-1\n")
        port, self.port = free_ports(2)
        own = ("save ''", f"user {shared.USER} on >s3cret-1 {shared.RIGHTS}")
        self.redis = shared.Redis(folder, "redis-sessions", port, *own)
        self.flags = (
            "--resume-sessions", "--redis", f"redis://{shared.USER}@127.0.0.1:{port}", "--redis-password-file", str(self.password),
            "--server-name", shared.NAME,
        )  # fmt: skip

    def __enter__(self) -> Resumed:
        self.redis.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.redis.kill()

    def gateway(self, fleet: Siblings) -> Member:
        servers_file = self.folder / "resumed-servers.json"
        urls = [f"http://127.0.0.1:{port}/mcp" for port in fleet.ports]
        write(servers_file, json.dumps({"mcpServers": {"recorder": {"urls": urls}}}))
        return Member(
            "resumed-gateway", self.port, "gateway", "--servers", str(servers_file), "--listen", f"127.0.0.1:{self.port}",
            *bed.GATEWAY_DRAIN,
        )  # fmt: skip


def unrecorded(replica: Member) -> int:
    """How many sessions a replica has opened that Redis did not record at once."""
    with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}/metrics", timeout=30) as answer:
        (count,) = re.findall(r'^proxyrunner_session_takeovers_total\{result="unrecorded"\} (\d+)$', answer.read().decode(), re.M)
    return int(count)


class Moved(Drilled):
    """The same with replicas that take sessions over: none is lost."""

    async def kill_one(self, name: str = "SIGKILL of a replica") -> None:
        replica = self.fleet.replicas[0]
        sessions = self.sessions_of(replica.name)
        allowed = {f"recorder: moved from {replica.name}": sessions, "recorder: broken": len(self.load.callers)}
        # The machine may be so slow that Redis has not recorded a session in time.
        allowed["recorder: gone"] = await asyncio.to_thread(unrecorded, replica)
        async with self.drill(f"{name} with {sessions} sessions, which others take over", allowed | {"refused": 1000}):
            replica.kill()
            await self.load.rounds()
            await restart(replica)

    async def restart_all(self) -> None:
        legacy = sum(one.session is not None for one in self.load.callers)
        allowed = {"recorder: moved": legacy * REPLICAS, "refused": 1000}
        async with self.drill("a rolling restart of replicas that take sessions over", allowed):
            for replica in self.fleet.replicas:
                await roll(replica)


async def resumed(folder: Path, tally: Tally, rounds: int) -> None:
    """Sessions survive their replica, behind a plain balancer and behind a gateway."""
    with Resumed(folder) as beside, Siblings(folder, "resumed", more=beside.flags) as fleet:
        async with Load(fleet.ports, [None], is_gateway=False) as load:
            drills = await moving(fleet, load, tally)
            for _ in range(rounds):
                await drills.kill_one()
                await drills.restart_all()
        tally.check(f"each of {len(load.ledger.sent)} calls is accounted for", unaccounted(load.ledger, fleet.record))
        gateway = beside.gateway(fleet)
        try:
            await restart(gateway)
            fleet.record.write_text("")
            async with Load([gateway.port], [None]) as load:
                drills = await moving(fleet, load, tally)
                for _ in range(rounds):
                    await drills.kill_one("SIGKILL of a replica behind a gateway")
            tally.check(f"each of {len(load.ledger.sent)} calls is accounted for", unaccounted(load.ledger, fleet.record))
        finally:
            gateway.stop()


async def moving(fleet: Siblings, load: Load, tally: Tally) -> Moved:
    """Starts callers whose sessions may move; each has a session, and knows where."""
    for one in load.add("recorder", CALLERS, CALLERS // 2):
        one.moves = True
    await load.rounds(2)
    return Moved(fleet, load, tally)


async def drilled(fleet: Siblings, tally: Tally, rounds: int) -> None:
    async with Load(fleet.ports, [None], is_gateway=False) as load:
        load.add("recorder", CALLERS, CALLERS // 2)
        drills = Drilled(fleet, load, tally)
        async with drills.drill("sessions of all replicas by all replicas", {}):
            await load.rounds(9)
        for _ in range(rounds):
            for step in (drills.kill_one, drills.rotate_the_state_key, drills.restart_all):
                await step()
    tally.check(f"each of {len(load.ledger.sent)} calls is accounted for", unaccounted(load.ledger, fleet.record))


class Spread:
    """What stands in front of replicas: a proxy that sends each request of a connection to the next replica."""

    def __init__(self, ports: list[int]) -> None:
        self.turns = itertools.cycle(ports)

    async def __aenter__(self) -> Spread:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, after which the client has to connect again."""
        beyond = port = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            port = await self.target(head)
            beyond_reader, beyond = await asyncio.open_connection("127.0.0.1", port)
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            beyond.write(b"\r\n".join([lines[0], b"Connection: close", *lines[1:]]))
            up = asyncio.create_task(pass_on(reader, beyond))
            down = asyncio.create_task(pass_on(beyond_reader, writer))
            # Whoever leaves first ends the request.
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.ended(port)
            for one in filter(None, (writer, beyond)):
                one.close()

    async def target(self, _head: bytes) -> int:
        """The port of the replica that gets a request."""
        return next(self.turns)

    def ended(self, port: int | None) -> None:
        """Notes that a request to this port has ended."""


class Fatal(Spread):
    """Kills the replica that has opened the first sessions before a client says that it is initialized."""

    def __init__(self, opener: Member, others: list[Member]) -> None:
        super().__init__([one.port for one in others])
        self.opener: Member | None = opener
        self.opening = 0

    async def target(self, head: bytes) -> int:
        is_opening = b"mcp-session-id:" not in head.lower()
        if is_opening and self.opener:
            self.opening += 1
            return self.opener.port
        while self.opening:
            await asyncio.sleep(0.01)
        if self.opener:
            self.opener.kill()
            self.opener = None
        return await super().target(head)

    def ended(self, port: int) -> None:
        self.opening -= bool(self.opener and port == self.opener.port)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass


async def stock_clients(folder: Path, tally: Tally) -> None:
    """Stock clients of both majors show everything that they show at a single sidecar."""
    (server,) = [one for one in matrix.all_servers() if one.name == "PyPI 1"]
    with Siblings(folder, "stock", *servers.command("everything-pypi")) as fleet:
        async with Spread(fleet.ports) as spread:
            url = f"http://127.0.0.1:{spread.port}/mcp"

            def show(client: matrix.Client) -> None:
                shown = matrix.show(server, client, url, OF_ONE_PROCESS.get(client.era, ()))
                problems = [f"{feature}: {error}" for feature, error in shown.items() if error is not None]
                tally.check(f"{client.name} by all replicas, server {server.name}: {len(shown)} features", problems)

            with ThreadPoolExecutor(2) as pool:
                loop = asyncio.get_running_loop()
                await asyncio.gather(*(loop.run_in_executor(pool, partial(show, client)) for client in matrix.clients()))


async def stock_sessions(folder: Path, tally: Tally) -> None:
    """Stock clients of the legacy era show everything, although the replica that has opened their session dies at once."""
    (server,) = [one for one in matrix.all_servers() if one.name == "PyPI 1"]
    command = servers.command("everything-pypi")
    with Resumed(folder) as beside, Siblings(folder, "survived", *command, more=beside.flags) as fleet:
        for client in (one for one in matrix.clients() if one.era == "legacy"):
            opener, *others = fleet.replicas
            async with Fatal(opener, others) as spread:
                url = f"http://127.0.0.1:{spread.port}/mcp"
                shown = await asyncio.to_thread(matrix.show, server, client, url)
            problems = [f"{feature}: {error}" for feature, error in shown.items() if error is not None]
            problems += ["no replica was killed"] * bool(spread.opener)
            tally.check(f"{client.name} goes on after its replica, server {server.name}: {len(shown)} features", problems)
            await restart(opener)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="how often each drill is done")
    parser.add_argument("--only", choices=["moved"], help="this part only")
    arguments = parser.parse_args()
    tally = Tally()
    try:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.only is None:
                asyncio.run(stock_clients(Path(folder), tally))
                with Siblings(Path(folder), "recorder") as fleet:
                    asyncio.run(drilled(fleet, tally, arguments.rounds))
            for number, part in enumerate((stock_sessions, partial(resumed, rounds=arguments.rounds))):
                beside = Path(folder) / str(number)
                beside.mkdir()
                asyncio.run(part(beside, tally))
    except (AssertionError, OSError, shared.debian.Unavailable) as error:
        tally.check("the replicas run", [str(error)])
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
