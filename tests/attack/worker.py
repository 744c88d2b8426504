#!/usr/bin/env python3
"""Runs cases against one proxyrunner in one process. The plan is read from stdin; events are written to stdout."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import time
import traceback
from typing import Any

import children  # noqa: F401: registers its cases
import crowds  # noqa: F401: the same
from attacker import LOST, Attack
from cases import CASES

NICE = 5  # lower priority than the process that measures


def report(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, "at": time.monotonic(), **fields}), flush=True)


async def attack(plan: dict[str, Any], name: str, seed: str, delay: float) -> None:
    """Runs a case repeatedly until it is cancelled."""
    await asyncio.sleep(delay)
    one = Attack(plan, seed, lambda event, **fields: report(event, case=name, **fields))
    report("begin", case=name)
    try:
        while True:
            try:
                await CASES[name].run(one)
            except LOST as error:
                one.seen[type(error).__name__] += 1
            except Exception:
                report("broken", case=name, text=traceback.format_exc())
                return
            one.close()
            one.seen["rounds"] += 1
            if plan["once"]:
                return
            await asyncio.sleep(0.1)
    finally:
        one.close()
        report("end", case=name, seen=one.seen)


async def run(plan: dict[str, Any]) -> None:
    begin = random.Random(plan["seed"])
    cases = [attack(plan, name, f"{plan['seed']}:{name}", begin.random() * plan["spread"]) for name in plan["cases"]]
    tasks = [asyncio.create_task(case) for case in cases]
    await asyncio.wait(tasks, timeout=plan["seconds"])
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=2)


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(NICE)
    asyncio.run(run(plan))
    os._exit(0)


main()
