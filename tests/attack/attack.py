#!/usr/bin/env python3
"""Attacks the release binary and requires that memory, probes and other clients are not harmed.

    tests/attack/attack.py --seeds 10             ten random mixtures; together they contain every case
    tests/attack/attack.py --alone                each case by itself
    tests/attack/attack.py --case long_ids        that case by itself; may repeat
    tests/attack/attack.py --first 7 --seeds 1    seed 7 again

A round starts one proxyrunner with `--max-buffered 64MiB` in front of `hostile.py` and runs every applicable case once
at a small size. Because allocators keep pages, the memory after this warm-up is the baseline. Then the round attacks
for some seconds from at most two processes. Throughout:

- resident memory stays below 64 MiB + 48 MiB + 8 KiB for each connection, sampled every 20 ms and, between the samples,
  by the kernel's own peak;
- /livez, /readyz and /metrics are answered within 2 s, from the attackers' address and from another;
- a client that makes one small call a second gets its own answer within 5 s, and is not refused.

Within 30 s after the attack, memory must be at most 8 MiB above the baseline. One late response in a hundred rounds is
allowed, since others may need the processor: a round where only responses were late is repeated twice, and both of these
must be without a fault.

Prints a line for each round, then `N passed, N failed`, and exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import children  # noqa: F401: registers its cases
import crowds  # noqa: F401: the same
from attacker import SPREAD
from cases import CASES, ERAS, ISOLATIONS, Case
from proxy import HERE, Proxy
from watch import MIB, Bystander, Findings, Monitor, Prober

SECONDS = 6.0  # duration of an attack
WARM_UP = 4.0
WORKERS = 2
SETTLE, BACK = 30.0, 8 * MIB

# Era, isolation and limits of the seeds of one deal.
Mode = tuple[str, str, dict[str, int]]
MODES: list[Mode] = [
    ("legacy", "auto", {}),
    ("legacy", "auto", {"max_children": 4, "max_sessions": 100}),
    ("legacy", "session", {"max_children": 8}),
    ("legacy", "shared", {}),
    ("modern", "auto", {}),
    ("modern", "auto", {"max_connections": 64}),
    ("dual", "auto", {}),
    ("dual", "session", {"max_sessions": 100}),
    ("legacy", "auto", {"max_connections": 20}),
    ("dual", "shared", {"max_children": 4}),
]


@dataclass
class Plan:
    """The plan of a round."""

    title: str
    era: str
    isolation: str
    limits: dict[str, int]
    cases: list[str]
    seed: str
    mixed: bool
    sources: list[str] = field(default_factory=lambda: SPREAD[:1])
    modern_bystander: bool = False
    kept_connection: bool = False

    def message(self, port: int, cases: list[str], **more: Any) -> dict[str, Any]:
        shared = {"port": port, "era": self.era, "isolation": self.isolation, "limits": self.limits, "mixed": self.mixed}
        return {**shared, "sources": self.sources, "seed": self.seed, "cases": cases, **more}


def fits(case: Case, mode: Mode) -> bool:
    era, isolation, limits = mode
    small = all(limits.get(name, 1 << 30) <= limit for name, limit in case.limits.items())
    return era in case.eras and isolation in case.isolations and small


def mixtures(first: int, count: int) -> list[Plan]:
    """Returns the plans of some seeds. Each ten seeds together contain all cases."""
    deals = {seed // len(MODES): deal(seed // len(MODES)) for seed in range(first, first + count)}
    return [mixture(seed, deals[seed // len(MODES)][seed % len(MODES)]) for seed in range(first, first + count)]


def deal(number: int) -> list[list[str]]:
    """Assigns each case to the applicable mode that has the fewest cases so far."""
    shuffled = random.Random(f"deal {number}")
    cases = sorted(CASES.values(), key=lambda case: (sum(fits(case, mode) for mode in MODES), shuffled.random()))
    hands: list[list[str]] = [[] for _ in MODES]
    for case in cases:
        least = min((n for n, mode in enumerate(MODES) if fits(case, mode)), key=lambda n: (len(hands[n]), shuffled.random()))
        hands[least].append(case.name)
    return hands


def mixture(seed: int, cases: list[str]) -> Plan:
    chosen = random.Random(f"seed {seed}")
    era, isolation, limits = MODES[seed % len(MODES)]
    return Plan(
        title=f"seed {seed}",
        era=era,
        isolation=isolation,
        limits=limits,
        cases=chosen.sample(cases, len(cases)),
        seed=str(seed),
        mixed=True,
        sources=SPREAD[: chosen.choice([1, 1, 4])],
        modern_bystander=chosen.random() < 0.5,
        kept_connection=chosen.random() < 0.5,
    )


def alone(case: Case, era: str | None, isolation: str | None) -> Plan:
    """Returns a plan for one case, with the first applicable era and isolation unless they are given."""
    mode = (era or case.eras[0], isolation or case.isolations[0], case.limits)
    return Plan(case.name, *mode, [case.name], f"alone {case.name}", mixed=False)


async def ended_by_cancellation(tasks: list[asyncio.Task[None]]) -> list[BaseException | None]:
    """Cancels tasks until they have ended, since `wait_for` loses a cancellation at times before Python 3.12."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1)
    return await asyncio.gather(*tasks, return_exceptions=True)


class Round:
    """A proxyrunner under attack."""

    def __init__(self, plan: Plan, asked: argparse.Namespace) -> None:
        self.plan, self.seconds, self.patience = plan, asked.seconds, asked.settle
        self.proxy = Proxy(asked.binary, plan.era, plan.isolation, plan.limits)
        self.findings = Findings()
        self.current: dict[str, int] = {}
        self.phase = "nothing"
        self.seen: dict[str, dict[str, int]] = {}
        self.start = self.after = 0
        self.back = 0.0
        self.exit_code: int | None = None

    def running(self) -> str:
        return ", ".join(name for name, count in self.current.items() if count) or self.phase

    async def run(self) -> None:
        proxy, plan, found = self.proxy, self.plan, self.findings
        bystander = Bystander(proxy.port, found, self.running, plan.modern_bystander, plan.kept_connection)
        prober = Prober(proxy.port, found, self.running)
        await bystander.begin()
        monitor = Monitor(proxy.pid, found, self.running)
        watching = [asyncio.create_task(bystander.run()), asyncio.create_task(prober.run())]
        try:
            self.phase = "the warm-up"
            await self.warm_up()
            self.start = monitor.rss()
            monitor.start()
            self.phase = "nothing"
            await self.work(plan.cases, small=False, once=False, seconds=self.seconds, spread=1.0 if plan.mixed else 0.0)
            self.phase = "nothing, after the attack"
            await self.settle(monitor)
        finally:
            for ended in await ended_by_cancellation(watching):
                if isinstance(ended, Exception):
                    found.wrong.append(f"the watch broke: {ended!r}")
            bystander.drop()
            monitor.stop()

    async def warm_up(self) -> None:
        """Runs all applicable cases, or the only one, once at a small size."""
        plan = self.plan
        mode = (plan.era, plan.isolation, plan.limits)
        # Memory that is released by timeouts would otherwise count as growth.
        cases = [name for name, case in CASES.items() if fits(case, mode)] if plan.mixed else plan.cases
        await self.work(cases, small=True, once=True, seconds=WARM_UP, spread=0.0)
        await asyncio.sleep(1)
        self.seen.clear()

    async def work(self, cases: list[str], seconds: float, **more: Any) -> None:
        """Runs the workers until the time is over."""
        hands = [cases[n::WORKERS] for n in range(WORKERS)]
        plans = [self.plan.message(self.proxy.port, hand, seconds=seconds, **more) for hand in hands if hand]
        await asyncio.gather(*(self.worker(plan) for plan in plans))

    async def worker(self, plan: dict[str, Any]) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(HERE / "worker.py"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.close()
        killed = False
        try:
            await asyncio.wait_for(self.listen(process.stdout), plan["seconds"] + 6)
        except BaseException as error:
            with suppress(ProcessLookupError):
                process.kill()
            killed = True
            if not isinstance(error, asyncio.TimeoutError):  # otherwise the worker was too busy, and ends here
                raise
        finally:
            # The process ends only once all its output is read. The exit itself is not always noticed.
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(process.wait(), process.stdout.read()), 10)
            self.current = {name: count for name, count in self.current.items() if name not in plan["cases"]}
        if process.returncode and not killed:
            self.findings.wrong.append(f"a worker broke with code {process.returncode}")

    async def listen(self, stdout: asyncio.StreamReader) -> None:
        while line := await stdout.readline():
            event = json.loads(line)
            name = event["case"]
            if event["event"] == "begin":
                self.current[name] = 1
            elif event["event"] == "end":
                self.current.pop(name, None)
                self.seen[name] = event["seen"]
            else:
                self.findings.wrong.append(f"{name} at {self.findings.now():.1f} s: {event['text']}")

    async def settle(self, monitor: Monitor) -> None:
        """Waits until memory has returned to the baseline."""
        begun = time.monotonic()
        while True:
            await asyncio.sleep(0.1)
            self.back = time.monotonic() - begun
            self.after = monitor.rss()
            if self.back > 1 and self.after <= self.start + BACK:
                return
            if self.back > self.patience or self.proxy.process.poll() is not None:
                text = f"{self.after // MIB} MiB resident {self.back:.0f} s after the attack, {self.start // MIB} MiB before"
                self.findings.wrong.append(text)
                return

    def stop(self) -> None:
        if self.proxy.process.poll() is not None:
            self.findings.wrong.append(f"proxyrunner ended with code {self.proxy.process.returncode}")
        self.exit_code = self.proxy.stop()

    def failed(self) -> bool:
        return bool(self.findings.wrong or self.findings.late)

    def only_late(self) -> bool:
        return bool(self.findings.late and not self.findings.wrong)

    def line(self) -> str:
        """Returns the measurements of this round."""
        found, plan = self.findings, self.plan
        limits = "".join(f" {name.replace('_', '-')}={value}" for name, value in plan.limits.items())
        return (
            f"max {found.peak.rss / MIB:.0f} MiB ({found.peak.connections} connections, {found.peak.running}), "
            f"probe {found.worst_probe:.2f} s of {found.probes}, call {found.worst_call:.2f} s of {found.calls}, "
            f"after {self.after / MIB:.0f} MiB in {self.back:.0f} s, from {self.start / MIB:.0f}; "
            f"log {self.proxy.logged / 1e6:.1f} MB; {plan.era} {plan.isolation}{limits}"
        )


def one_round(plan: Plan, asked: argparse.Namespace) -> Round:
    it = Round(plan, asked)
    try:
        asyncio.run(it.run())
    except Exception as error:
        it.findings.wrong.append(f"the round broke: {error!r}")
    finally:
        it.stop()
    return it


def tell(it: Round, failed: bool, verbose: bool) -> None:
    print(f"{it.plan.title} {'FAILED' if failed else 'ok'}: {it.line()}", flush=True)
    wrong = it.findings.wrong + it.findings.late
    for text in wrong[:8]:
        print(f"    {text}")
    if len(wrong) > 8:
        print(f"    and {len(wrong) - 8} more")
    if failed or verbose:
        print(f"    cases: {', '.join(it.plan.cases)}")
        for name, seen in it.seen.items():
            print(f"    {name}: {', '.join(f'{what} {count}' for what, count in seen.items())}")
    if verbose and (words := it.proxy.last_words()):
        print("    " + words.replace("\n", "\n    "))
    sys.stdout.flush()


def options() -> argparse.Namespace:
    flags = argparse.ArgumentParser(description="Attacks the release binary.")
    flags.add_argument("--seeds", type=int, default=0, help="random mixtures to run")
    flags.add_argument("--first", type=int, default=0, help="the first seed")
    flags.add_argument("--alone", action="store_true", help="run each case by itself")
    flags.add_argument("--case", action="append", default=[], choices=sorted(CASES), metavar="NAME", help="run this case by itself")
    flags.add_argument("--era", choices=ERAS, help="era of the server, for cases by themselves")
    flags.add_argument("--isolation", choices=ISOLATIONS, help="isolation, for cases by themselves")
    flags.add_argument("--seconds", type=float, default=SECONDS, help="length of an attack")
    flags.add_argument("--settle", type=float, default=SETTLE, help="time after it for memory to be back")
    flags.add_argument("--binary", type=Path, help="default: the release build of this project")
    flags.add_argument("--list", action="store_true", help="list the cases")
    flags.add_argument("--verbose", action="store_true", help="tell what the attackers saw, and the end of the log")
    return flags.parse_args()


def main() -> int:
    asked = options()
    if asked.list:
        print("\n".join(f"{case.name:34}{(case.run.__doc__ or '').strip()}" for case in CASES.values()))
        return 0
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
    asked.binary = (asked.binary or target / "release" / "proxyrunner").resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the started processes, too
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    named = asked.case or (list(CASES) if asked.alone else [])
    plans = [alone(CASES[name], asked.era, asked.isolation) for name in named] + mixtures(asked.first, asked.seeds)
    passed = failed = 0
    for plan in plans:
        rounds = [one_round(plan, asked)]
        if rounds[0].only_late():
            tell(rounds[0], True, asked.verbose)
            print("    repeated twice, because only responses were late", flush=True)
            rounds += [one_round(plan, asked) for _ in range(2)]
        for it in rounds[1:] or rounds:
            tell(it, it.failed(), asked.verbose)
        bad = any(it.failed() for it in rounds[1:] or rounds)
        passed, failed = passed + (not bad), failed + bad
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
