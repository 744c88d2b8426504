#!/usr/bin/env python3
"""Replicas of one sidecar behind an address without session affinity, and without a gateway (`--forward-sessions`): callers and stock
clients, each request of which goes to another replica.

    tests/gateway/siblings.py               as `tests/run gateway` does it
    tests/gateway/siblings.py --rounds 5    each drill so many times

`PROXYRUNNER_BIN` names another binary than target/debug/proxyrunner. Ends with one line, `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import secrets
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))

import bed
import matrix
import servers
from bed import Member, free_ports, write
from drills import Drills, Tally, restart, roll, unaccounted
from load import Load

REPLICAS, CALLERS = 3, 6
# A change that one process makes is not seen by a subscription at another, and a modern client's calls go to all of them.
OF_ONE_PROCESS = {"modern": {"subscription"}}


class Siblings:
    """Three replicas of one sidecar, with one key."""

    SERVERS, REPLICAS = ("recorder",), REPLICAS

    def __init__(self, folder: Path, name: str, *command: str) -> None:
        bed.RESULTS.mkdir(exist_ok=True)
        for old in bed.RESULTS.glob(f"fleet-{name}-*.log"):
            old.unlink()
        self.record, self.state_key = folder / f"record-{name}", folder / f"state-key-{name}"
        self.record.touch()
        write(self.state_key, secrets.token_hex(32) + "\n")
        self.replicas = [
            Member(
                f"{name}-{number}", port, "--listen", f"127.0.0.1:{port}", "--forward-sessions", "127.0.0.1", "--state-key-file",
                str(self.state_key), *bed.RELOAD, "--drain-delay", "500ms", "--drain-timeout", "10s", "--",
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
        beyond = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            beyond_reader, beyond = await asyncio.open_connection("127.0.0.1", next(self.turns))
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
            for one in filter(None, (writer, beyond)):
                one.close()


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="how often each drill is done")
    arguments = parser.parse_args()
    tally = Tally()
    try:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(stock_clients(Path(folder), tally))
            with Siblings(Path(folder), "recorder") as fleet:
                asyncio.run(drilled(fleet, tally, arguments.rounds))
    except (AssertionError, OSError) as error:
        tally.check("the replicas run", [str(error)])
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
