#!/usr/bin/env python3
"""A fleet of gateways and sidecars on this machine: stock clients, and drills under load.

    tests/gateway/drills.py                 a bounded share of it
    tests/gateway/drills.py --rounds 5      each drill so many times
    tests/gateway/drills.py --only clients  only the stock clients; or only the drills; or only what Redis shares
    tests/gateway/drills.py --documented    the drills of docs/operations.md as they are written, too

The official suite passes through a gateway by `tests/conformance.py --gateway`.

`PROXYRUNNER_BIN` names another binary than target/debug/proxyrunner. Ends with one line, `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "interop"))

import bed
import documented
import liars
import matrix
import shared
from bed import Bed, Member
from load import LEGACY, Caller, Ledger, Load

CLIENTS = 4  # for each server that is not drilled


class Tally:
    """What passed and failed so far."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, problems: list[str]) -> None:
        """Prints the verdict on one thing, and counts it."""
        print(f"{'FAIL' if problems else 'ok':4}  {name}", flush=True)
        for problem in problems[:10]:
            print(f"      {problem}", flush=True)
        self.passed += not problems
        self.failed += bool(problems)


class Drills:
    """The drills, on a fleet that runs, under load."""

    def __init__(self, fleet: Bed, load: Load, tally: Tally) -> None:
        self.fleet, self.load, self.tally = fleet, load, tally

    @property
    def ledger(self) -> Ledger:
        return self.load.ledger

    @contextlib.asynccontextmanager
    async def drill(self, name: str, allowed: dict[str, int]) -> AsyncIterator[None]:
        """Counts what happens within the block and in the next three rounds. Of `allowed` there may be so many; of all other
        things that are not answers, none."""
        await self.load.rounds(1)
        before, wrong, begun = Counter(self.ledger.count), len(self.ledger.wrong), time.monotonic()
        broken = set(self.ledger.broken)
        yield
        await self.load.rounds()
        happened = Counter()
        for (server, what), count in (self.ledger.count - before).items():
            happened[f"{server}: {what}"] += count
        answers = sum(count for what, count in happened.items() if what.endswith(": answered"))
        others = {what: count for what, count in sorted(happened.items()) if not what.endswith((": answered", ": opened"))}
        problems = self.ledger.wrong[wrong:]
        problems += [
            f"{what}: {count}, at most {most(what, allowed)}" for what, count in others.items() if count > most(what, allowed)
        ]
        if any("broken" in problem for problem in problems):
            problems += [f"{text}: {why}" for text, why in self.ledger.broken.items() if text not in broken]
        said = ", ".join(f"{what} {count}" for what, count in others.items()) or "nothing else"
        self.tally.check(f"{name}: {answers} answers; {said} ({time.monotonic() - begun:.1f} s)", problems)

    def sessions_of(self, owner: str | None) -> int:
        return sum(one.owner == owner for one in self.load.callers if one.server == "recorder" and one.session)

    def removed(self, *replicas: Member) -> dict[str, int]:
        """What may happen when these are taken out of the file: until each gateway has read it, sessions are opened there."""
        legacy = sum(one.server == "recorder" and one.era == LEGACY for one in self.load.callers)
        allowed = legacy * len(self.fleet.gateways)
        # One that was opened there may not have told its owner yet.
        return {f"recorder: gone {one.name}": allowed for one in replicas} | {"recorder: gone None": allowed}

    async def kill_a_gateway(self) -> None:
        gateway = self.fleet.gateways[0]
        # Requests in flight there break. Sessions go on at the others.
        allowed = {"refused by a gateway": 1000, "broken": len(self.load.callers)}
        async with self.drill("SIGKILL of a gateway", allowed):
            gateway.kill()
            await self.load.rounds()
            await restart(gateway)

    async def kill_a_sidecar(self) -> None:
        sidecar = self.fleet.sidecars["recorder"][0]
        gone = self.sessions_of(sidecar.name)
        allowed = {f"recorder: gone {sidecar.name}": gone, "recorder: broken": len(self.load.callers)}
        # Sessions that have not told their owner yet.
        allowed["recorder: gone None"] = self.sessions_of(None)
        async with self.drill(f"SIGKILL of a sidecar with {gone} sessions", allowed):
            sidecar.kill()
            await self.load.rounds()
            await restart(sidecar)

    async def restart_everything(self) -> None:
        """One replica after the other, as roll-outs do it."""
        # The session at a replica that leaves, and one by each gateway that does not know yet that it leaves.
        each = self.fleet.REPLICAS * (1 + len(self.fleet.gateways))
        legacy = Counter(one.server for one in self.load.callers if one.era == LEGACY)
        allowed = {f"{server}: gone": count * each for server, count in legacy.items()}
        async with self.drill("a rolling restart of everything", allowed):
            for gateway in self.fleet.gateways:
                await roll(gateway)
            for replicas in zip(*self.fleet.sidecars.values()):
                await asyncio.gather(*map(roll, replicas))
                # Gateways probe a replica that is gone each second.
                await self.until_healthy()

    async def until_healthy(self) -> None:
        """Waits until the gateways send requests to all replicas again."""
        for gateway in self.fleet.gateways:
            await asyncio.to_thread(gateway.await_replicas, self.fleet.REPLICAS * len(self.fleet.SERVERS))

    async def add_a_gateway_key(self) -> None:
        """The first step of docs/gateway.md. The other ones follow when all sidecars may fetch the key: when they have had their
        keys for 10 s."""
        self.new_key = bed.signing_key()
        self.fetched = max(one.started for group in self.fleet.sidecars.values() for one in group)
        async with self.drill("a second key of the gateways", {}):
            await self.signed_by(self.fleet.gateway_key.read_text() + self.new_key)

    async def use_the_gateway_key(self) -> None:
        old = self.fleet.gateway_key.read_text().removesuffix(self.new_key)
        await asyncio.sleep(max(0, self.fetched + bed.START_AND_PAUSE - time.monotonic()))
        async with self.drill("the second key of the gateways becomes the only one", {}):
            for keys in (self.new_key + old, self.new_key):
                await self.signed_by(keys)

    async def rotate_the_state_key(self) -> None:
        """The steps of docs/operating.md."""
        old, new = self.fleet.state_key.read_text(), secrets.token_hex(32) + "\n"
        async with self.drill("rotation of the state key", {}):
            for keys in (old + new, new + old):
                await self.sealed_by(keys)
        # What the old key has sealed ends with it: each session is opened anew, once.
        legacy = sum(one.era == LEGACY for one in self.load.callers)
        async with self.drill("the old state key is removed", {"gone": legacy}):
            await self.sealed_by(new)

    async def changed(self, change: Callable[[], None], words: str, members: list[Member]) -> None:
        """Makes a change of a file, and waits until these have logged that they use it."""
        before = {member: member.logged(words) for member in members}
        change()
        deadline = time.monotonic() + bed.START
        while late := [member.name for member, count in before.items() if member.logged(words) == count]:
            assert time.monotonic() < deadline, f"{late} have not logged {words!r}"
            await asyncio.sleep(0.05)
        await self.load.rounds(1)

    async def signed_by(self, keys: str) -> None:
        """Gives the gateways other keys."""
        change = partial(bed.write, self.fleet.gateway_key, keys)
        await self.changed(change, "the gateway's keys have changed", self.fleet.gateways)

    async def sealed_by(self, keys: str) -> None:
        """Gives all processes another state key."""
        members = [one for one in self.fleet.members if one.process and one.process.poll() is None]
        await self.changed(partial(bed.write, self.fleet.state_key, keys), "the state key has changed", members)

    async def served(self, recorders: list[Member] | None = None) -> None:
        """Gives the gateways another file of servers."""
        change = partial(self.fleet.write_servers, recorders)
        await self.changed(change, "the servers have changed", self.fleet.gateways)

    async def scale(self) -> None:
        """From one replica to six and back, by editing the file of servers."""
        first, other = self.fleet.sidecars["recorder"]
        modern = [one for one in self.load.callers if one.server == "recorder" and one.era != LEGACY]
        async with self.drill("scaling to one replica", self.removed(other)):
            await self.served([first])
            await self.until_seen(modern, {first.name})
        async with self.drill("scaling to six replicas", {}):
            for spare in self.fleet.spare:
                spare.start()
            for spare in self.fleet.spare:
                await asyncio.to_thread(spare.await_ready)
            six = [first, other, *self.fleet.spare]
            await self.served(six)
            await self.until_seen(modern, {one.name for one in six})
        async with self.drill("scaling back to two", self.removed(*self.fleet.spare)):
            await self.served()
            await self.until_seen(modern, {first.name, other.name})
            await asyncio.gather(*(asyncio.to_thread(spare.stop) for spare in self.fleet.spare))

    async def until_seen(self, callers: list[Caller], wanted: set[str]) -> None:
        """Waits until these replicas answer, and no others."""
        for _ in range(400):
            for one in callers:
                one.seen.clear()
            await self.load.rounds(4, callers)
            seen = {name for one in callers for name in one.seen}
            if seen == wanted:
                return
        raise AssertionError(f"{sorted(seen)} answer, not {sorted(wanted)}")

    async def slow_and_lying(self) -> None:
        """Servers that are slow, wrong, or break off: their own callers notice, and nobody else."""
        async with liars.Liar() as liar:
            self.fleet.extra = {"liar": {"url": liar.url}}
            async with self.drill("a server that lies and a slow one are added", {}):
                await self.served()
                # One of each era.
                slow = {one.era: one for one in self.load.callers if one.server == "recorder"}.values()
                for one in slow:
                    one.tool, one.arguments = "slowly", {"seconds": 0.5}
                problems = await liar.asked(self.fleet.gateways[0].port, self.fleet.secrets["ann"])
            self.tally.check(f"{len(liars.LIES)} lies get the answers that are documented", problems)
            async with self.drill("it is removed again", {}):
                self.fleet.extra = {}
                await self.served()
                for one in slow:
                    one.tool, one.arguments = "echo", {}


def most(what: str, allowed: dict[str, int]) -> int:
    """How often something may happen: by the beginning of its name, with or without its server."""
    kind = what.partition(": ")[2]
    return max((count for name, count in allowed.items() if what.startswith(name) or kind.startswith(name)), default=0)


async def restart(member: Member) -> None:
    member.start()
    await asyncio.to_thread(member.await_ready)


async def roll(member: Member) -> None:
    await asyncio.to_thread(member.stop)
    await restart(member)


def unaccounted(ledger: Ledger, record: Path) -> list[str]:
    """Calls that were carried out twice, or that were answered and not carried out, or carried out and never sent."""
    lines = [line for line in record.read_text().splitlines() if line]
    recorded = set(lines)
    done = Counter(line.partition(" ")[2] for line in lines)
    answered = {text: said for text, said in ledger.answered.items() if text.startswith("recorder-")}
    problems = [f"carried out {count} times: {text}" for text, count in done.items() if count > 1]
    problems += [f"answered and not carried out: {text}" for text, said in answered.items() if said not in recorded]
    problems += [f"carried out and never sent: {text}" for text in done if text not in ledger.sent]
    return problems


async def drilled(fleet: Bed, tally: Tally, rounds: int) -> None:
    async with Load([one.port for one in fleet.gateways], list(fleet.secrets.values())) as load:
        load.add("recorder", CLIENTS, CLIENTS)
        for server in ("npm", "pypi"):
            load.add(server, CLIENTS // 2, CLIENTS // 2)
        await load.rounds(5)
        drills = Drills(fleet, load, tally)
        steps: list[Callable[[], Awaitable[None]]] = [
            drills.add_a_gateway_key, drills.kill_a_gateway, drills.kill_a_sidecar, drills.rotate_the_state_key,
            drills.scale, drills.slow_and_lying, drills.use_the_gateway_key, drills.restart_everything,
        ]  # fmt: skip
        for _ in range(rounds):
            for step in steps:
                await step()
    tally.check(f"each of {len(load.ledger.sent)} calls is accounted for", unaccounted(load.ledger, fleet.record))


def stock_clients(fleet: Bed, tally: Tally) -> None:
    """Stock clients of both majors, each at another gateway, show everything that they show at a sidecar."""
    against = {one.name: one for one in matrix.all_servers()}
    chosen = {"npm": against["npm 1"], "pypi": against["PyPI 1"]}
    # One replica each: a change that one process makes is not seen by a subscription at another. Not the same one for both modern
    # clients, since a tool of npm's server turns its updates on and off for all of them.
    fleet.extra = {
        f"{one.name}": {"url": f"http://127.0.0.1:{one.port}/mcp", "audience": name}
        for name in chosen
        for one in fleet.sidecars[name]
    }
    fleet.write_servers()
    for gateway in fleet.gateways:
        gateway.await_served("pypi-1")
    pairs = [(name, client) for name in chosen for client in matrix.clients()]

    def show(number: int) -> None:
        name, client = pairs[number]
        gateway = fleet.gateways[number % 3]
        url = f"http://127.0.0.1:{gateway.port}/servers/{name}-{number % 2}/mcp"
        outcome = matrix.show(chosen[name], client, url)
        problems = [f"{feature}: {error}" for feature, error in outcome.items() if error is not None]
        tally.check(f"{client.name} through {gateway.name}, server {chosen[name].name}: {len(outcome)} features", problems)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(show, range(len(pairs))))
    fleet.extra = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="how often each drill is done")
    parser.add_argument("--documented", action="store_true", help="the drills of docs/operations.md as they are written, too")
    parser.add_argument("--only", choices=["clients", "drills", "shared"], help="this part only")
    arguments = parser.parse_args()
    tally = Tally()
    try:
        if arguments.only != "shared":
            with tempfile.TemporaryDirectory() as folder, Bed(Path(folder)) as fleet:
                if arguments.only != "drills":
                    stock_clients(fleet, tally)
                if arguments.only != "clients":
                    fleet.demand_keys()
                    asyncio.run(drilled(fleet, tally, arguments.rounds))
        for _ in range(arguments.rounds if arguments.only in (None, "shared") else 0):
            with tempfile.TemporaryDirectory() as folder:
                shared.drill(Path(folder), tally.check)
    except (AssertionError, OSError, shared.debian.Unavailable) as error:
        tally.check("the fleet runs", [str(error)])
    if arguments.documented:
        count, problems = documented.problems()
        tally.check(f"docs/operations.md: {count} calls get the statuses that it says", problems)
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
